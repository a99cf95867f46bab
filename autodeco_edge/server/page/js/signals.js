/** What can be seen of a token, one at a time, on scales that never move: so colours compare between replies. */

export const N_BINS = 16;

/** low, high: the ends of the tint, where values lie (text/colours.py); axis: of the plot. T and P as they were applied, as in the terminal. */
export const SIGNALS = {
  temperature: { name: "Temperature T", short: "T", low: 0, high: 1.2, axis: [0, 2], value: (r) => r.temperature_eff ?? r.temperature },
  top_p: { name: "Top-p P", short: "P", low: 0.5, high: 1, axis: [0, 1], value: (r) => r.top_p_eff ?? r.top_p },
  entropy: { name: "Entropy", short: "entropy", low: 0, high: 5, axis: [0, 5], value: (r) => r.entropy },
  logprob: { name: "Log-probability", short: "log p", low: -10, high: 0, axis: [-10, 0], value: (r) => r.logprob },
};

/** 0 to N_BINS - 1; null where the record has no such value. */
export function binOf(signal, record) {
  const value = signal.value(record);
  if (!Number.isFinite(value)) return null;
  const share = (value - signal.low) / (signal.high - signal.low);
  return Math.min(Math.max(Math.floor(share * N_BINS), 0), N_BINS - 1);
}

export function inDigits(value, digits = 2) {
  return Number.isFinite(value) ? value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1") : "–"; // no minus nought
}

/** {mean, min, max}, or null where no record has a value. */
export function spread(signal, records) {
  const values = records.map(signal.value).filter(Number.isFinite);
  if (!values.length) return null;
  const sum = values.reduce((a, b) => a + b, 0);
  return { mean: sum / values.length, min: least(values), max: -least(values.map((v) => -v)) };
}

function least(values) {
  return values.reduce((a, b) => Math.min(a, b), Infinity);
}
