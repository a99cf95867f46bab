/** What a screen reader says without the focus moving there. */

import { byId } from "./dom.js";

export function announce(text) {
  byId("announcer").textContent = text;
}
