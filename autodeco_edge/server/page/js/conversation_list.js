/** The conversations that the browser keeps, at the side; on narrow screens a drawer. */

import { announce } from "./announcer.js";
import { byId, button, el } from "./dom.js";

export class ConversationList {
  /** onOpen(id or "" for a new one), onRemove(id) */
  constructor(onOpen, onRemove) {
    this.onOpen = onOpen;
    this.onRemove = onRemove;
    this.shown = null;
    this.panel = byId("conversations");
    this.menu = byId("menu");
    this.menu.addEventListener("click", () => this.#toggle(!this.isOpen));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.isOpen && this.#toggle(false));
    document.addEventListener("pointerdown", ({ target }) => this.panel.contains(target) || this.menu.contains(target) || this.hide());
    byId("new-conversation").addEventListener("click", () => this.#choose(""));
  }

  get isOpen() {
    return this.panel.classList.contains("open");
  }

  /** titles: [{id, title}]; current: an id. Drawn anew only where it is another list, for the focus may be in it. */
  show(titles, current) {
    const shown = JSON.stringify([titles.map(({ id, title }) => [id, title]), current]);
    if (shown === this.shown) return;
    this.shown = shown;
    const held = this.panel.contains(document.activeElement) ? document.activeElement.getAttribute("data-of") : null;
    byId("conversation-list").replaceChildren(...titles.map((each) => this.#item(each, each.id === current)));
    if (held) (this.panel.querySelector(`[data-of="${CSS.escape(held)}"]`) ?? byId("new-conversation")).focus();
  }

  #item({ id, title }, isCurrent) {
    const open = button(title, () => this.#choose(id), { class: "title", title, "data-of": id, "aria-current": isCurrent ? "true" : null });
    const remove = button("×", () => this.#remove(id, title), { class: "remove", "data-of": `-${id}`, "aria-label": `Delete ${title}` });
    return el("li", {}, open, remove);
  }

  async #choose(id) {
    this.hide();
    await this.onOpen(id);
    byId("message").focus();
  }

  #remove(id, title) {
    if (!window.confirm(`Delete “${title}”?`)) return;
    this.onRemove(id);
    announce("Deleted.");
  }

  hide() {
    this.panel.classList.remove("open");
    this.menu.setAttribute("aria-expanded", "false");
  }

  /** The focus goes with it. */
  #toggle(open) {
    this.hide();
    this.panel.classList.toggle("open", open);
    this.menu.setAttribute("aria-expanded", String(open));
    (open ? byId("new-conversation") : this.menu).focus();
  }
}
