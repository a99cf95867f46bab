/** The conversation on the page. One reply is looked at as tokens, the others stand as text: so the page stays light. */

import { byId, button, el } from "./dom.js";
import { download, downloadText } from "./download.js";
import { pictureOf } from "./picture.js";
import { ReplyView } from "./reply_view.js";
import { toLines } from "./trace_file.js";

const NEAR = 80; // pixels from the end that still count as the end

export class ChatView {
  constructor(chat, settings, inspector) {
    this.chat = chat;
    this.settings = settings;
    this.inspector = inspector;
    this.turns = byId("turns");
    this.views = []; // of each turn's shown reply
    this.looked = -1; // the turn whose reply is looked at
    this.#listen();
  }

  /** Everything anew: another conversation, or another shape of this one. */
  draw() {
    const { turns } = this.chat.conversation;
    this.views = turns.map((turn, i) => (turn.replies.length ? this.#replyView(turn, i) : null));
    this.turns.replaceChildren(...turns.flatMap((turn, i) => [this.#question(turn, i), this.views[i]?.element]).filter(Boolean));
    this.#look(this.chat.drawing?.turn ?? turns.length - 1);
    this.#buttons();
    this.#follow(true);
  }

  /** The reply that is being drawn has grown. */
  grow() {
    const view = this.views[this.chat.drawing.turn];
    const isNear = this.#isNear();
    view?.update(() => isNear && this.#follow());
    this.inspector.drawSoon();
  }

  end() {
    const view = this.views.findLast((each) => each && !each.reply.isOpen);
    view?.update(() => this.#follow());
    view?.announceEnd();
    this.inspector.draw();
    this.#buttons();
  }

  // ---- parts

  #question(turn, i) {
    if (this.chat.conversation.isTrace) return el("h2", {}, turn.text);
    const edit = button("Edit", () => this.#edit(turn, i, article), { "aria-label": `Edit message ${i + 1}` });
    const article = el("article", { class: "question", "aria-label": `Message ${i + 1}` }, el("p", {}, turn.text), edit);
    return article;
  }

  #edit(turn, i, article) {
    const input = el("textarea", { rows: 3, "aria-label": "Edited message" });
    input.value = turn.text;
    const send = () => input.value.trim() && this.chat.edit(i, input.value);
    const form = el("form", { onsubmit: (event) => (event.preventDefault(), send()) }, input,
      el("button", { type: "submit" }, "Send edited"), button("Cancel", () => this.draw()));
    input.addEventListener("keydown", (event) => isEnter(event) && (event.preventDefault(), send()));
    article.replaceChildren(form);
    input.focus();
  }

  #replyView(turn, i) {
    const view = new ReplyView(turn.replies[turn.shown], {
      name: `reply ${i + 1}`, signal: this.inspector.signal, actions: this.#actions(turn, i),
    });
    if (turn.replies.length > 1) view.element.prepend(this.#variants(turn, i));
    return view;
  }

  #actions(turn, i) {
    const reply = turn.replies[turn.shown];
    const name = `reply-${i + 1}`;
    return [
      ["Tokens", () => this.#toggle(i), { class: "toggle", "aria-pressed": "false" }],
      this.chat.conversation.isTrace ? null : ["Regenerate", () => this.chat.regenerate(i)],
      navigator.clipboard ? ["Copy", () => navigator.clipboard.writeText(reply.content)] : null, // not on plain HTTP from afar
      ["JSONL", () => downloadText(toLines([reply]), `${name}.jsonl`), { "aria-label": "Save as JSONL" }],
      ["PNG", () => this.#savePicture(i, name), { "aria-label": "Save as PNG" }],
    ].filter(Boolean);
  }

  async #savePicture(i, name) {
    this.#look(i);
    const shown = [{ name: this.chat.conversation.title, reply: this.views[i].reply }];
    download(await pictureOf(shown, this.inspector.signal), `${name}.png`);
  }

  #variants(turn, i) {
    const step = (by, label) => button(label, () => this.chat.showReply(i, turn.shown + by), {
      "aria-label": by < 0 ? "Earlier reply" : "Later reply", disabled: !turn.replies[turn.shown + by],
    });
    return el("div", { class: "variants" }, step(-1, "‹"), `${turn.shown + 1} of ${turn.replies.length}`, step(1, "›"));
  }

  // ---- which reply is looked at

  #toggle(i) {
    const asTokens = !(this.looked === i && this.settings.view === "tokens");
    this.settings.set({ view: asTokens ? "tokens" : "text" });
    this.#look(i);
  }

  #look(i) {
    this.looked = i;
    this.views.forEach((view, k) => view?.showTokens(k === i && this.settings.view === "tokens"));
    this.views.forEach((view) => view?.actions.firstElementChild?.setAttribute("aria-pressed", String(view.asTokens)));
    const view = this.views[i];
    if (!view) return this.inspector.show([]);
    const { isTrace } = this.chat.conversation;
    const onTry = isTrace ? null : (index, candidate) => this.chat.continueFrom(i, index, candidate);
    this.inspector.show([{ name: "this reply", reply: view.reply, view: view.tokens, onTry }]);
  }

  // ---- composer

  #listen() {
    const message = byId("message");
    byId("composer").addEventListener("submit", (event) => (event.preventDefault(), this.#send(message)));
    byId("stop").addEventListener("click", () => this.chat.stop());
    message.addEventListener("keydown", (event) => isEnter(event) && (event.preventDefault(), this.#send(message)));
    document.addEventListener("keydown", (event) => event.key === "Escape" && !document.querySelector("dialog[open]") && this.chat.stop());
  }

  #send(message) {
    if (!message.value.trim() || this.chat.drawing) return;
    this.chat.send(message.value);
    message.value = "";
  }

  #buttons() {
    const isDrawing = this.chat.drawing !== null;
    const hadFocus = document.activeElement === byId(isDrawing ? "send" : "stop");
    byId("send").hidden = isDrawing;
    byId("stop").hidden = !isDrawing;
    if (hadFocus) byId("message").focus();
  }

  #isNear() {
    const box = this.turns;
    return box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
  }

  #follow() {
    this.turns.scrollTop = this.turns.scrollHeight;
  }
}

const isEnter = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing;
