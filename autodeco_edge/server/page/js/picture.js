/** Replies as a PNG: the tinted text of each, and the plot beneath. */

import { visible, endsLine } from "./glyphs.js";
import { binOf } from "./signals.js";
import { inkOf, plotCanvas } from "./plot.js";
import { el } from "./dom.js";

const WIDTH = 1000;
const MARGIN = 24;
const LINE = 26;
const PLOT = 220;
const MOST_LINES = 540; // of all replies: a canvas has an end, and browsers differ in where
const TEXT = "15px ui-monospace, monospace";
const TITLE = "bold 15px system-ui, sans-serif";

/** shown: [{name, reply}]; a Blob of type image/png, null where the browser cannot */
export async function pictureOf(shown, signal) {
  const canvas = el("canvas");
  const pen = canvas.getContext("2d");
  const blocks = blocksOf(pen, shown);
  canvas.width = 2 * WIDTH;
  canvas.height = 2 * (2 * MARGIN + sum(blocks.map(({ height }) => height)) + PLOT);
  pen.scale(2, 2);
  fill(pen, canvas);
  let top = MARGIN;
  blocks.forEach((block, i) => {
    if (blocks.length > 1) drawMark(pen, i, top);
    drawBlock(pen, block, signal, top);
    top += block.height;
  });
  await drawPlot(pen, shown, signal, top);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function blocksOf(pen, shown) {
  const most = Math.floor(MOST_LINES / shown.length);
  return shown.map(({ name, reply }) => {
    const lines = wrapped(pen, reply.records, most);
    return { name, lines, height: LINE * (lines.length + 2) };
  });
}

async function drawPlot(pen, shown, signal, top) {
  const series = shown.map(({ name, reply }) => ({ name, records: reply.records }));
  const [width, height] = [WIDTH - 2 * MARGIN, PLOT];
  const plot = await plotCanvas(series, signal, { width: 2 * width, height: 2 * height, scale: 2 });
  pen.drawImage(plot, MARGIN, top, width, height);
}

function fill(pen, canvas) {
  pen.fillStyle = inkOf(document.body, "--paper");
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.textBaseline = "middle";
}

/** Lines of {text, x, width, record}; the last says how many tokens are left out where there are more than `most`. */
function wrapped(pen, records, most) {
  pen.font = TEXT;
  const lines = [[]];
  let x = MARGIN;
  const next = () => {
    lines.push([]);
    x = MARGIN;
  };
  for (const record of records) {
    const text = shortened(pen, visible(record).replaceAll("\u200b", ""));
    const width = pen.measureText(text).width;
    if (x + width > WIDTH - MARGIN && x > MARGIN) next();
    lines.at(-1).push({ text, x, width, record });
    x += width;
    if (endsLine(record)) next();
    if (lines.length > most) break;
  }
  if (lines.length <= most) return lines;
  const some = lines.slice(0, most - 1);
  return [...some, [rest(some, records.length)]];
}

/** To a line at the most. */
function shortened(pen, text) {
  const most = Math.floor((WIDTH - 2 * MARGIN) / pen.measureText("m").width);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function rest(lines, n) {
  return { text: `… ${n - sum(lines.map((line) => line.length))} more of ${n} tokens`, x: MARGIN, width: 0, record: null };
}

/** The colour of its line in the plot. */
function drawMark(pen, i, top) {
  pen.fillStyle = inkOf(document.body, `--series-${i}`);
  pen.fillRect(MARGIN - 14, top + LINE / 2 - 5, 10, 10);
}

function drawBlock(pen, { name, lines }, signal, top) {
  pen.font = TITLE;
  pen.fillStyle = inkOf(document.body, "--ink");
  pen.fillText(`${name}: ${signal.name}, tint from ${signal.low} to ${signal.high}`, MARGIN, top + LINE / 2);
  pen.font = TEXT;
  const tints = coloursOf();
  lines.forEach((line, i) => line.forEach((piece) => drawPiece(pen, piece, signal, tints, top + LINE * (i + 1.25))));
}

function drawPiece(pen, { text, x, width, record }, signal, tints, top) {
  const bin = record && binOf(signal, record);
  const [background, ink] = bin === null ? [null, inkOf(document.body, "--ink")] : tints(bin);
  if (background) {
    pen.fillStyle = background;
    pen.fillRect(x, top + 1, width, LINE - 2);
  }
  pen.fillStyle = ink;
  pen.fillText(text, x, top + LINE / 2);
}

/** bin to [background, ink], as the style sheet has them. */
function coloursOf() {
  const known = new Map();
  return (bin) => {
    if (!known.has(bin)) known.set(bin, read(bin));
    return known.get(bin);
  };
}

function read(bin) {
  const probe = el("span", { class: `bin-${bin}` });
  document.body.append(probe);
  const { backgroundColor, color } = getComputedStyle(probe);
  probe.remove();
  return [backgroundColor, color];
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}
