/** One reply on the page: as text or as tokens, with what can be done with it. Draws at most once a frame. */

import { announce } from "./announcer.js";
import { copyButton } from "./clipboard.js";
import { el } from "./dom.js";
import { rendered } from "./markdown.js";
import { TokenView } from "./token_view.js";

const SHARE = 8; // of the time that text is rendered in while it grows: an eighth

export class ReplyView {
  /** name: for the ear; actions: [[button, isAllowed()]] beneath it; signal: to begin with */
  constructor(reply, { name, signal, actions = [] }) {
    this.reply = reply;
    this.tokens = new TokenView({ name: `Tokens of ${name}`, signal, onPoint: () => {}, onPick: () => {} });
    this.thought = el("details", { class: "thought", hidden: true }, el("summary", {}, "Thought"), el("p"));
    this.text = el("div", { class: "text" });
    this.note = el("p", { class: "note", hidden: !reply.note }, reply.note);
    this.state = el("p", { class: "state" });
    this.actions = actions;
    const beneath = el("div", { class: "actions" }, ...actions.map(([node]) => node));
    this.element = el("article", { class: "reply", "aria-label": name }, this.note, this.tokens.element, this.thought, this.text, this.state, beneath);
    this.around = (draw) => draw();
    this.nextRender = 0;
    this.shown = ""; // nothing yet
  }

  /** Tokens that nobody looks at are no elements. A reply that stands there already as it is is not rendered again. */
  showTokens(yes) {
    const shown = `${yes} ${this.reply.state} ${this.reply.records.length}`;
    if (this.shown === shown && !this.reply.isOpen) return this.#drawState();
    this.shown = shown;
    this.asTokens = yes;
    this.tokens.show(yes ? this.reply.records : []);
    this.tokens.element.hidden = !yes;
    this.text.hidden = yes;
    this.nextRender = 0;
    this.#draw();
  }

  /** What the first button does next. */
  press(yes) {
    const [node] = this.actions[0] ?? [];
    if (node) node.textContent = yes ? "As text" : "As tokens";
  }

  /** Something is new; around(draw): draws it when it is time. */
  update(around = this.around) {
    this.around = around;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.around(() => this.#draw() || this.update());
    });
  }

  /** Said once, when it is over. */
  announceEnd() {
    const words = { done: "The reply is complete.", stopped: "The reply was stopped." };
    announce(words[this.reply.state] ?? `The reply failed. ${this.reply.error}`);
  }

  /** Whether all of it could be drawn in one frame. */
  #draw() {
    const isAll = this.asTokens ? this.tokens.grow() : this.#drawText();
    this.thought.hidden = this.asTokens || !this.reply.reasoning;
    this.#drawState();
    return isAll;
  }

  #drawState() {
    if (this.state.textContent !== this.reply.words) this.state.textContent = this.reply.words;
    this.state.classList.toggle("fault", this.reply.state === "failed");
    this.element.setAttribute("aria-busy", String(this.reply.isOpen));
    for (const [node, isAllowed] of this.actions) node.disabled = this.reply.isOpen || !isAllowed();
  }

  /** The longer it takes, the less often. */
  #drawText() {
    const start = performance.now();
    if (this.reply.isOpen && start < this.nextRender) {
      setTimeout(() => this.update(), this.nextRender - start);
      return true;
    }
    this.thought.lastElementChild.textContent = this.reply.reasoning;
    this.text.replaceChildren(rendered(this.reply.content));
    this.nextRender = performance.now() + SHARE * (performance.now() - start);
    if (!this.reply.isOpen) this.text.querySelectorAll("pre").forEach(addCopy);
    return true;
  }
}

function addCopy(code) {
  const box = el("div", { class: "code" });
  code.replaceWith(box);
  box.append(code, copyButton("Copy", () => code.textContent, { class: "copy-code", "aria-label": "Copy the code" }));
}
