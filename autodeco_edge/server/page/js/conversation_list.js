/** The conversations that the browser keeps, at the side. */

import { announce } from "./announcer.js";
import { byId, button, el } from "./dom.js";

export class ConversationList {
  /** onOpen(conversation or null for a new one), onRemove(conversation) */
  constructor(onOpen, onRemove) {
    this.onOpen = onOpen;
    this.onRemove = onRemove;
    this.panel = byId("conversations");
    this.menu = byId("menu");
    this.menu.addEventListener("click", () => this.#toggle(!this.panel.classList.contains("open")));
    this.panel.addEventListener("keydown", (event) => event.key === "Escape" && this.#toggle(false));
    byId("new-conversation").addEventListener("click", () => this.#choose(null));
  }

  show(conversations, current) {
    byId("conversation-list").replaceChildren(...conversations.map((each) => this.#item(each, each.id === current.id)));
  }

  #item(conversation, isCurrent) {
    const open = button(conversation.title, () => this.#choose(conversation), { class: "title", "aria-current": isCurrent ? "true" : null });
    const remove = button("×", () => this.#remove(conversation), { class: "remove", "aria-label": `Delete ${conversation.title}` });
    return el("li", {}, open, remove);
  }

  #choose(conversation) {
    this.#toggle(false);
    this.onOpen(conversation);
    byId("message").focus();
  }

  #remove(conversation) {
    if (!window.confirm(`Delete “${conversation.title}”?`)) return;
    this.onRemove(conversation);
    announce("Deleted.");
  }

  /** On narrow screens the list is a drawer. */
  #toggle(open) {
    this.panel.classList.toggle("open", open);
    this.menu.setAttribute("aria-expanded", String(open));
  }
}
