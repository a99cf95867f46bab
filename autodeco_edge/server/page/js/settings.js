/** What the user set for every request, kept in the browser; and the request that it makes. */

const NAME = "autodeco-settings";
const N_TOP = 10; // likeliest tokens to ask for: five are shown, a rank is known up to here

const DEFAULTS = {
  system: "", heads: "both", temperature: "", top_p: "", temperature_low: "", temperature_high: "", top_p_low: "",
  top_p_high: "", max_tokens: "", seed: "", model: "", view: "tokens", theme: "auto", signal: "temperature", plot: "",
  top_k: "", min_p: "", repeat_penalty: "", frequency_penalty: "", presence_penalty: "", stop: "",
};
const FILTERS = ["max_tokens", "top_k", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty"]; // named as in the API

export class Settings {
  constructor() {
    Object.assign(this, DEFAULTS, stored());
  }

  set(changes) {
    Object.assign(this, changes);
    try {
      localStorage.setItem(NAME, JSON.stringify(this));
    } catch {
      // full or forbidden: they last as long as the page
    }
  }
}

function stored() {
  try {
    const found = JSON.parse(localStorage.getItem(NAME) ?? "{}");
    return Object.fromEntries(Object.entries(found).filter(([name, value]) => typeof value === typeof DEFAULTS[name]));
  } catch {
    return {};
  }
}

export function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

/** The seed that was set, `more` further on, or any. */
export function seedOf(settings, more = 0) {
  return settings.seed === "" ? randomSeed() : Number(settings.seed) + more;
}

/** The body of a request with everything that the page shows. */
export function requestOf(settings, messages, seed) {
  const body = { messages, seed, stream: true, stream_options: { include_usage: true }, logprobs: true, top_logprobs: N_TOP };
  for (const name of FILTERS) if (settings[name] !== "") body[name] = Number(settings[name]);
  const stop = settings.stop.split("\n").filter(Boolean);
  if (stop.length) body.stop = stop;
  return { ...body, autodeco: headsOf(settings) };
}

function headsOf(settings) {
  const found = { heads: settings.heads, trace: true };
  if (settings.temperature !== "") found.temperature_factor = Number(settings.temperature);
  if (settings.top_p !== "") found.top_p_factor = Number(settings.top_p);
  for (const name of ["temperature", "top_p"]) {
    const [low, high] = [settings[`${name}_low`], settings[`${name}_high`]];
    if (low || high) found[`${name}_range`] = [Number(low ?? 0), Number(high ?? 0)];
  }
  return found;
}

/** The conversation so far, as the API has it. */
export function withSystem(settings, messages) {
  return settings.system.trim() ? [{ role: "system", content: settings.system }, ...messages] : messages;
}
