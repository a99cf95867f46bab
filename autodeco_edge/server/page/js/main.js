/** Puts the page together. */

import { goTo, idInAddress, onStep, rename } from "./address.js";
import { Chat } from "./chat.js";
import { ChatView } from "./chat_view.js";
import { CompareView } from "./compare_view.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { ConversationList } from "./conversation_list.js";
import { byId } from "./dom.js";
import { Facts, shortName } from "./facts.js";
import { onDrop } from "./file_drop.js";
import { Inspector } from "./inspector.js";
import { KeyDialog } from "./key_dialog.js";
import { notice } from "./notice.js";
import { Server, Unreachable } from "./server.js";
import { Settings } from "./settings.js";
import { SettingsDialog } from "./settings_dialog.js";
import { Shelf } from "./shelf.js";
import { Theme } from "./theme.js";
import { pickTrace, traceOf } from "./trace_opener.js";

const NOT_KEPT = "This browser has no room to keep the conversation; export what matters.";

const settings = new Settings();
const server = new Server();
const keys = new KeyDialog();
server.askKey = (wasWrong) => keys.ask(wasWrong);

const facts = new Facts(server, onFacts);
const shelf = new Shelf(showTitles, onElsewhere);
const inspector = new Inspector(byId("inspector"), settings);
const chat = new Chat(server, facts, settings, onChat, keep);
const view = new ChatView(chat, settings, inspector);
const list = new ConversationList(openKept, removeKept);
const compare = new CompareView(byId("compare"), server, facts, settings, inspector);

function onChat(what) {
  if (what === "reply") return view.grow();
  if (what === "end") return view.end();
  notice("trace", "");
  if (what === "open") view.open();
  else view.draw();
  if (chat.drawing) greet(); // the server may be another one since
  showTitles();
}

// ---- conversations

function showTitles() {
  list.show(shelf.titles, chat.conversation.id);
  document.title = chat.conversation.turns.length ? `${chat.conversation.title} · autodeco-edge` : "autodeco-edge";
}

let wanted = null; // the id that was asked for last: one that comes later than that is not opened

function open(conversation) {
  wanted = conversation.id;
  show("chat");
  chat.open(conversation);
}

async function keep(conversation) {
  const isKept = await shelf.keep(conversation);
  notice("keeping", isKept ? "" : NOT_KEPT);
  if (conversation === chat.conversation) rename(conversation.id);
}

/** id: "" for a new one; mark: notes it in the address. Whether it was there. */
async function openKept(id, mark = goTo) {
  if (id === chat.conversation.id) return show("chat");
  wanted = id;
  const conversation = id === "" ? new Conversation() : await shelf.get(id);
  if (!conversation) return false;
  if (wanted !== id) return true;
  mark(id);
  open(conversation);
  return true;
}

function removeKept(id) {
  const { titles } = shelf;
  const next = titles[titles.findIndex((title) => title.id === id) + 1] ?? titles.find((title) => title.id !== id);
  if (chat.conversation.id === id) openKept(next?.id ?? "");
  return shelf.remove(id);
}

/** Another tab has gone on with this conversation, or removed it. */
async function onElsewhere(id) {
  if (chat.conversation.id !== id || chat.drawing) return;
  const conversation = (await shelf.get(id)) ?? new Conversation();
  if (chat.conversation.id !== id || chat.drawing) return;
  rename(conversation.id === id ? id : "");
  open(conversation);
}

/** What was open when the page was left, else the latest; nothing where one writes already. */
async function begin() {
  if (!(await shelf.load())) notice("kept", "The earlier conversations of this browser cannot be read.");
  if (chat.conversation.turns.length) return;
  const isThere = idInAddress() !== "" && (await openKept(idInAddress(), rename));
  if (!isThere && shelf.titles.length) await openKept(shelf.titles[0].id, rename);
}

// ---- traces

async function openTrace(found) {
  if (!found) return;
  list.hide();
  show("chat");
  const name = (i) => (found.replies.length > 1 ? `${found.name}, reply ${i + 1}` : found.name);
  const turns = found.replies.map((reply, i) => ({ text: name(i), replies: [reply], shown: 0, versions: null }));
  const conversation = new Conversation({ title: found.name, isTrace: true, turns });
  goTo(conversation.id);
  open(conversation);
  await keep(conversation);
}

async function take(file) {
  const found = await traceOf(file);
  if (found && !byId("compare").hidden) compare.add(found);
  else openTrace(found);
}

// ---- the page

function show(place) {
  if (place !== "chat" && !byId("chat").hidden) view.leave();
  for (const name of ["chat", "compare"]) {
    byId(name).hidden = name !== place;
    byId(`to-${name}`).toggleAttribute("aria-current", name === place);
    if (name === place) byId(`to-${name}`).setAttribute("aria-current", "page");
  }
  if (place === "compare") compare.look();
  else view.look();
  return true;
}

async function greet() {
  try {
    await facts.ask();
    notice("greeting", "");
  } catch (error) {
    if (!(error instanceof Unreachable)) notice("greeting", error.message);
  }
}

function onFacts() {
  byId("model").textContent = `${shortName(facts.model)} · ${facts.hasHeads ? "heads" : "no heads"}`;
  byId("model").title = facts.model;
  compare.offer();
  if (byId("compare").hidden && !chat.drawing) view.look();
}

byId("to-chat").addEventListener("click", () => show("chat"));
byId("to-compare").addEventListener("click", () => show("compare"));
byId("open-trace").addEventListener("click", async () => openTrace(await pickTrace()));
addEventListener("pagehide", () => chat.drawing && shelf.keepNow(chat.conversation));
onDrop(take);
onStep(async (id) => (await openKept(id, rename)) || openKept("", rename));
new SettingsDialog(settings, facts, new Theme(settings, () => inspector.restyle()), () => byId("chat").hidden || view.look());
view.open();
new Connection(server, greet).ask();
begin();
