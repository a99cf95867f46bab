/** The server's key, kept for this tab alone; where the browser keeps nothing, as long as the page is open. */

const NAME = "autodeco-key";

export class TabKey {
  constructor() {
    this.value = stored();
  }

  set(value) {
    this.value = value;
    try {
      sessionStorage.setItem(NAME, value);
    } catch {
      // forbidden or full
    }
  }
}

function stored() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null;
  }
}
