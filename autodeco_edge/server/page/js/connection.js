/** Whether the server is there: the notice at the top, and the asking until it is back. */

import { announce } from "./announcer.js";
import { notice } from "./notice.js";
import { Refusal, Unreachable } from "./server.js";

const PAUSE = 1500; // milliseconds between two questions

export class Connection {
  constructor(server, onReady) {
    this.server = server;
    this.onReady = onReady;
    this.isAsking = false;
    server.onContact = (there) => there || this.ask();
  }

  /** Until the server is ready to reply. */
  async ask() {
    if (this.isAsking) return;
    this.isAsking = true;
    let waited = false;
    for (let words = await this.#trouble(); words; words = await this.#trouble()) {
      notice("server", words);
      waited = true;
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
    this.isAsking = false;
    notice("server", "");
    if (waited) announce("The server is ready.");
    this.onReady();
  }

  async #trouble() {
    try {
      await this.server.get("health");
      return "";
    } catch (error) {
      if (error instanceof Unreachable) return "The server does not answer. It is asked again until it does; nothing is lost.";
      if (error instanceof Refusal && error.status === 503) return `Not ready: ${error.message}.`;
      return error.message;
    }
  }
}
