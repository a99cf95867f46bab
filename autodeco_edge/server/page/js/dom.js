/** Elements of the page: found by id, or made. Strings become text, never HTML. */

export const byId = (id) => document.getElementById(id);

/** el("button", {class: "x", onclick: f, hidden: true}, "text", otherElement) */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) set(node, name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function set(node, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else node.setAttribute(name, value === true ? "" : value);
}

export function button(label, onclick, properties = {}) {
  return el("button", { type: "button", onclick, ...properties }, label);
}

/** randomUUID is not there on plain HTTP from another machine. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (n) => n.toString(36)).join("");
}

/** Sends; not where it ends the choice of a sign (229: Safari says so after it). */
export const isEnter = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;

/** A field with its name above it. */
export function field(label, input) {
  return el("label", { class: "field" }, el("span", {}, label), input);
}

export function select(options, value, onchange) {
  const node = el("select", { onchange: () => onchange?.(node.value) });
  for (const [name, text] of Object.entries(options)) node.append(el("option", { value: name }, text));
  node.value = value;
  return node;
}
