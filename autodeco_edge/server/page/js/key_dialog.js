/** Asks for the server's key. Whoever asks while it is open waits for the same answer. */

import { byId, button, el, field } from "./dom.js";

export class KeyDialog {
  constructor() {
    this.dialog = byId("key");
    this.asked = null;
  }

  /** wasWrong: the one before was refused. The key, or null. */
  ask(wasWrong) {
    this.asked ??= this.#open(wasWrong).finally(() => (this.asked = null));
    return this.asked;
  }

  #open(wasWrong) {
    const input = el("input", { type: "password", autocomplete: "off", required: true, pattern: "\\s*[!-~]+\\s*", title: "Letters, digits and signs of ASCII, without blanks" });
    const words = wasWrong ? "That key is not one of this server's." : "This server asks for a key. Who runs it has one.";
    const form = el("form", { method: "dialog" }, el("h2", { id: "key-title" }, "Key"), el("p", {}, words, " It is kept for this tab alone."),
      field("Key", input), el("div", { class: "actions" }, el("button", { type: "submit", value: "ok" }, "Use it"), button("Cancel", () => this.dialog.close(""))));
    this.dialog.replaceChildren(form);
    this.dialog.returnValue = "";
    this.dialog.showModal();
    return new Promise((resolve) => {
      this.dialog.addEventListener("close", () => resolve(this.dialog.returnValue === "ok" ? input.value.trim() : null), { once: true });
    });
  }
}
