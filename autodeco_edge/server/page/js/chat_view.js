/** The conversation on the page. One reply is looked at as tokens, the others stand as text: so the page stays light. */

import { copyButton } from "./clipboard.js";
import { Composer } from "./composer.js";
import { byId, button, el, isEnter } from "./dom.js";
import { downloadPicture, downloadText } from "./download.js";
import { ReplyView } from "./reply_view.js";
import { toLines } from "./trace_file.js";
import { versionSteps } from "./versions.js";

const HINT =
  "Ask something below. Every token of a reply stands on the tint of its temperature: point at one to see what else could have stood there, " +
  "click it to go on from another candidate. Compare draws one question under several settings, side by side. Try:";
const EXAMPLES = ["Find two numbers that make 83.", "Tell me a story about a fox."];
const NEAR = 80; // pixels from the end that still count as the end

export class ChatView {
  constructor(chat, settings, inspector) {
    this.chat = chat;
    this.settings = settings;
    this.inspector = inspector;
    this.turns = byId("turns");
    this.views = []; // of each turn's shown reply
    this.known = new WeakMap(); // {view, place} of each reply that was shown: a long conversation is not rendered anew for each word
    this.looked = -1; // the turn whose reply is looked at
    this.composer = new Composer(chat);
  }

  /** Another conversation. */
  open() {
    this.looked = -1;
    this.draw();
    this.#follow();
  }

  /** Everything anew, for the conversation has another shape. Who reads stays where they are, but by what is being drawn. */
  draw() {
    const { turns } = this.chat.conversation;
    const { scrollTop } = this.turns;
    const name = held();
    this.views = turns.map((turn, i) => (turn.replies.length ? this.#replyView(turn, i) : null));
    const parts = turns.flatMap((turn, i) => [this.#question(turn, i), this.views[i]?.element]).filter(Boolean);
    this.turns.replaceChildren(...(parts.length ? parts : this.#welcome()));
    this.#lookAt(this.chat.drawing?.turn ?? (turns[this.looked] ? this.looked : turns.length - 1));
    this.composer.show();
    this.turns.scrollTop = scrollTop;
    if (this.chat.drawing) this.views[this.looked].element.scrollIntoView({ block: "end" });
    if (name && !held()) this.#focus(name);
  }

  #focus(name) {
    const again = [...this.turns.querySelectorAll("button:enabled")].find((node) => named(node) === name);
    if (again) again.focus();
    else this.composer.focus();
  }

  /** Before it is hidden: a place to read at is lost then. */
  leave() {
    this.place = this.turns.scrollTop;
  }

  /** Shown again, or the server is another one. */
  look() {
    this.#lookAt(this.looked);
    this.turns.scrollTop = this.place ?? this.turns.scrollTop;
    this.place = null;
  }

  /** The reply that is being drawn has grown. */
  grow() {
    const view = this.views[this.chat.drawing.turn];
    this.#update(view);
    this.inspector.drawSoon();
  }

  end() {
    const view = this.views.findLast((each) => each && !each.reply.isOpen);
    this.#update(view);
    view?.announceEnd();
    this.inspector.draw();
    this.composer.show();
  }

  /** Who reads at the end stays there. */
  #update(view) {
    view?.update((draw) => {
      const isNear = this.#isNear();
      draw();
      if (isNear) this.#follow();
    });
  }

  // ---- parts

  #welcome() {
    const examples = EXAMPLES.map((text) => button(text, () => this.chat.send(text)));
    return [el("p", { class: "hint" }, HINT), el("div", { class: "actions" }, ...examples)];
  }

  #question(turn, i) {
    if (this.chat.conversation.isTrace) return el("h2", {}, turn.text);
    const edit = button("Edit", () => this.#edit(turn, i, article), { "aria-label": `Edit message ${i + 1}` });
    const article = el("article", { class: "question", "aria-label": `Message ${i + 1}` }, el("p", {}, turn.text), edit);
    const { at, of } = this.chat.conversation.version(i);
    if (of > 1) article.prepend(versionSteps("message", at, of, (index) => this.chat.showVersion(i, index)));
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
    const reply = turn.replies[turn.shown];
    const place = `${i}: ${turn.shown} of ${turn.replies.length}`;
    if (this.known.get(reply)?.place !== place) this.known.set(reply, { place, view: this.#newView(turn, i, reply) });
    return this.known.get(reply).view;
  }

  #newView(turn, i, reply) {
    const view = new ReplyView(reply, { name: `reply ${i + 1}`, signal: this.inspector.signal, actions: this.#actions(turn, i) });
    const onStep = (index) => this.chat.showReply(i, index);
    if (turn.replies.length > 1) view.element.prepend(versionSteps("reply", turn.shown, turn.replies.length, onStep));
    return view;
  }

  #actions(turn, i) {
    const reply = turn.replies[turn.shown];
    const name = `reply-${i + 1}`;
    const { isTrace, title } = this.chat.conversation;
    const picture = () => downloadPicture([{ name: title, reply }], this.inspector.signal, `${name}.png`);
    const some = () => reply.records.length > 0;
    const own = [
      [button("Regenerate", () => this.chat.regenerate(i)), () => true],
      [button("Continue", () => this.chat.goOn(i), { class: "go-on" }), () => reply.isCut && this.chat.canGoOn(reply)],
    ];
    return [
      [button("As tokens", () => this.#toggle(i)), some],
      ...(isTrace ? [] : own),
      [copyButton("Copy", () => reply.content), () => reply.content !== ""],
      [button("JSONL", () => downloadText(toLines([reply]), `${name}.jsonl`), { "aria-label": "Save as JSONL" }), some],
      [button("PNG", picture, { "aria-label": "Save as PNG" }), some],
    ];
  }

  // ---- which reply is looked at

  #toggle(i) {
    const asTokens = !(this.looked === i && this.settings.view === "tokens");
    this.settings.set({ view: asTokens ? "tokens" : "text" });
    this.#lookAt(i);
  }

  #lookAt(i) {
    this.looked = i;
    this.views.forEach((view, k) => view?.showTokens(k === i && this.settings.view === "tokens"));
    this.views.forEach((view) => view?.press(view.asTokens));
    const view = this.views[i];
    if (!view) return this.inspector.show([]);
    const onTry = this.chat.canGoOn(view.reply) ? (index, candidate) => this.chat.continueFrom(i, index, candidate) : null;
    this.inspector.show([{ name: "this reply", reply: view.reply, view: view.tokens, onTry }]);
  }

  #isNear() {
    const box = this.turns;
    return box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
  }

  #follow() {
    this.turns.scrollTop = this.turns.scrollHeight;
  }
}

/** What has the focus, by name: after it is drawn anew it is another element. */
function held() {
  return document.activeElement === document.body ? null : named(document.activeElement);
}

function named(node) {
  return `${node.closest("article")?.getAttribute("aria-label")}: ${node.getAttribute("aria-label") ?? node.textContent}`;
}
