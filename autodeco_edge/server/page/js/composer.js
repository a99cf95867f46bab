/** Where one writes: the message, and Send or Stop beside it. */

import { byId, isEnter } from "./dom.js";

export class Composer {
  constructor(chat) {
    this.chat = chat;
    this.message = byId("message");
    this.send = byId("send");
    this.stop = byId("stop");
    byId("composer").addEventListener("submit", (event) => (event.preventDefault(), this.#submit()));
    this.stop.addEventListener("click", () => chat.stop());
    this.message.addEventListener("keydown", (event) => isEnter(event) && (event.preventDefault(), this.#submit()));
    document.addEventListener("keydown", (event) => this.#escape(event));
  }

  /** Another state of the chat. */
  show() {
    const isDrawing = this.chat.drawing !== null;
    const hadFocus = document.activeElement === (isDrawing ? this.send : this.stop);
    this.send.hidden = isDrawing;
    this.stop.hidden = !isDrawing;
    if (hadFocus) this.message.focus();
  }

  /** To where the hand is needed next. */
  focus() {
    (this.chat.drawing ? this.stop : this.message).focus();
  }

  #submit() {
    if (!this.message.value.trim() || this.chat.drawing) return;
    this.chat.send(this.message.value);
    this.message.value = "";
  }

  #escape(event) {
    if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) this.chat.stop();
  }
}
