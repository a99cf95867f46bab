/** The server that this page came from. Owns addresses, the key and what errors mean; knows nothing of replies. */

import { readEvents } from "./events.js";

const KEY = "autodeco-key"; // kept for this tab alone

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
    this.askKey = async () => null;
    this.onContact = () => {};
  }

  get(path) {
    return this.#json("GET", path);
  }

  post(path, body, signal) {
    return this.#json("POST", path, body, signal);
  }

  /** The chunks of a streamed answer. Raises Refusal, Unreachable, and AbortError when signal says so. */
  async *stream(path, body, signal) {
    const answer = await this.#ask("POST", path, body, signal);
    try {
      for await (const chunk of readEvents(answer.body)) {
        if (chunk.error) throw new Refusal(500, chunk.error.message);
        yield chunk;
      }
    } catch (error) {
      throw this.#named(error);
    }
  }

  async #json(...request) {
    const answer = await this.#ask(...request);
    return answer.json();
  }

  /** With a key asked for as often as the server wants another. */
  async #ask(method, path, body, signal) {
    for (;;) {
      const answer = await this.#fetch(method, path, body, signal);
      if (answer.ok) return answer;
      const refusal = new Refusal(answer.status, await words(answer));
      if (answer.status !== 401) throw refusal;
      const key = await this.askKey(sessionStorage.getItem(KEY) !== null);
      if (key === null) throw refusal;
      sessionStorage.setItem(KEY, key);
    }
  }

  async #fetch(method, path, body, signal) {
    const headers = body === undefined ? {} : { "Content-Type": "application/json" };
    const key = sessionStorage.getItem(KEY);
    if (key !== null) headers.Authorization = `Bearer ${key}`;
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
    return (await answer.json()).error.message;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}
