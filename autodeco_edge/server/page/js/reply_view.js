/** One reply on the page: as text or as tokens, with what can be done with it. Draws at most once a frame. */

import { announce } from "./announcer.js";
import { button, el } from "./dom.js";
import { rendered } from "./markdown.js";
import { TokenView } from "./token_view.js";

const SHARE = 8; // of the time that text is rendered in while it grows: an eighth

const STATES = {
  waiting: "Waiting for its turn …",
  drawing: "",
  done: "",
  stopped: "Stopped.",
  failed: "",
};

export class ReplyView {
  /** name: for the ear; actions: [[label, onclick, {properties}]] beneath it; signal: to begin with */
  constructor(reply, { name, signal, actions = [] }) {
    this.reply = reply;
    this.tokens = new TokenView({ name: `Tokens of ${name}`, signal, onPoint: () => {}, onPick: () => {} });
    this.thought = el("details", { class: "thought", hidden: true }, el("summary", {}, "Thought"), el("p"));
    this.text = el("div", { class: "text" });
    this.note = el("p", { class: "note", hidden: !reply.note }, reply.note);
    this.state = el("p", { class: "state" });
    this.actions = el("div", { class: "actions" }, ...actions.map(([label, onclick, more]) => button(label, onclick, more)));
    this.element = el("article", { class: "reply", "aria-label": name }, this.note, this.tokens.element, this.thought, this.text, this.state, this.actions);
    this.nextRender = 0;
    this.showTokens(false);
  }

  /** Tokens that nobody looks at are no elements. */
  showTokens(yes) {
    this.asTokens = yes;
    this.tokens.show(yes ? this.reply.records : []);
    this.tokens.element.hidden = !yes;
    this.text.hidden = yes;
    this.nextRender = 0;
    this.#draw();
  }

  /** Something is new; onDrawn() when it can be seen. */
  update(onDrawn) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (!this.#draw()) this.update(onDrawn);
      onDrawn?.();
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
    this.state.textContent = this.reply.error || STATES[this.reply.state];
    this.state.classList.toggle("fault", this.reply.state === "failed");
    this.element.setAttribute("aria-busy", String(this.reply.isOpen));
    for (const each of this.actions.children) each.disabled = this.reply.isOpen;
    return isAll;
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
    return true;
  }
}
