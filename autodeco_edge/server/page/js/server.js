/** The server that this page came from. Owns addresses, the key and what errors mean; knows nothing of replies. */

import { readEvents } from "./events.js";
import { TabKey } from "./tab_key.js";

/** The server said no. message: its own words. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Nobody answers, or the line broke. */
export class Unreachable extends Error {}

export class Server {
  constructor(base = document.baseURI) {
    this.base = base;
    this.key = new TabKey();
    this.askKey = async () => null;
    this.onContact = () => {};
  }

  async get(path) {
    const answer = await this.#ask("GET", path);
    return answer.json();
  }

  /** The chunks of a streamed answer. Raises Refusal, Unreachable, and AbortError when signal says so. */
  async *stream(path, body, signal) {
    const answer = await this.#ask("POST", path, body, signal);
    try {
      for await (const chunk of readEvents(answer.body)) {
        if (chunk.error) throw new Refusal(500, chunk.error.message ?? "The reply broke off.");
        yield chunk;
      }
    } catch (error) {
      throw this.#named(error);
    }
  }

  /** With a key asked for as often as the server wants another. */
  async #ask(method, path, body, signal) {
    for (;;) {
      const answer = await this.#fetch(method, path, body, signal);
      if (answer.ok) return answer;
      const refusal = new Refusal(answer.status, await words(answer));
      if (answer.status !== 401) throw refusal;
      const key = await this.askKey(this.key.value !== null);
      if (key === null) throw refusal;
      this.key.set(key);
    }
  }

  async #fetch(method, path, body, signal) {
    const headers = body === undefined ? {} : { "Content-Type": "application/json" };
    if (this.key.value !== null) headers.Authorization = `Bearer ${this.key.value}`;
    try {
      const options = { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" };
      const answer = await fetch(new URL(path, this.base), options);
      this.onContact(true);
      return answer;
    } catch (error) {
      throw this.#named(error);
    }
  }

  #named(error) {
    if (!(error instanceof TypeError)) return error;
    this.onContact(false);
    return new Unreachable("The server does not answer.");
  }
}

async function words(answer) {
  try {
    return String((await answer.json()).error.message);
  } catch {
    return `The server answered ${answer.status}.`;
  }
}
