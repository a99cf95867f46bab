/** The address of a conversation: after the #, so that a reload, a bookmark and the browser's steps back find it again. */

export const idInAddress = () => location.hash.slice(1);

/** A step that the browser can go back from; none where it is there already. id: "" for a new conversation. */
export function goTo(id) {
  if (id !== idInAddress()) history.pushState(null, "", addressOf(id));
}

/** The same place under another name. */
export function rename(id) {
  if (id !== idInAddress()) history.replaceState(null, "", addressOf(id));
}

export function onStep(go) {
  addEventListener("popstate", () => go(idInAddress()));
}

const addressOf = (id) => (id ? `#${id}` : location.pathname);
