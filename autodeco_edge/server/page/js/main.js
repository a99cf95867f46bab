/** Puts the page together. */

import { Archive } from "./archive.js";
import { Chat } from "./chat.js";
import { ChatView } from "./chat_view.js";
import { CompareView } from "./compare_view.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { ConversationList } from "./conversation_list.js";
import { byId } from "./dom.js";
import { Inspector } from "./inspector.js";
import { KeyDialog } from "./key_dialog.js";
import { Server } from "./server.js";
import { Settings } from "./settings.js";
import { SettingsDialog } from "./settings_dialog.js";
import { followTheme } from "./theme.js";
import { readTrace } from "./trace_file.js";

const settings = new Settings();
const server = new Server();
const keys = new KeyDialog();
server.askKey = (wasWrong) => keys.ask(wasWrong);

const archive = await Archive.open();
const removed = new Set(); // what is still being drawn there ends later, and must not bring it back
let kept = (await archive.all()).map((data) => Conversation.of(data));

const inspector = new Inspector(byId("inspector"), settings);
const chat = new Chat(server, settings, onChat, save);
const view = new ChatView(chat, settings, inspector);
const list = new ConversationList(openConversation, removeConversation);
const compare = new CompareView(byId("compare"), server, settings, inspector, pickTrace);

function onChat(what) {
  if (what === "reply") return view.grow();
  if (what === "end") return view.end();
  view.draw();
  list.show(kept, chat.conversation);
}

// ---- conversations

async function save(conversation) {
  if (removed.has(conversation)) return;
  if (!kept.includes(conversation)) kept.unshift(conversation);
  list.show(kept, chat.conversation);
  if (!(await archive.put(conversation))) say("This browser has no room to keep the conversation; export what matters.");
}

function openConversation(conversation) {
  chat.open(conversation ?? new Conversation());
}

async function removeConversation(conversation) {
  removed.add(conversation);
  kept = kept.filter((each) => each !== conversation);
  await archive.remove(conversation.id);
  if (chat.conversation === conversation) openConversation(kept[0] ?? null);
  else list.show(kept, chat.conversation);
}

// ---- traces

/** {name, replies} of the file that the user chooses; null where it is none, which is said. */
function pickTrace() {
  const input = byId("trace-file");
  input.value = "";
  return new Promise((resolve) => {
    input.onchange = async () => resolve(await read(input.files[0]));
    input.oncancel = () => resolve(null);
    input.click();
  });
}

async function read(file) {
  try {
    say("");
    return { name: file.name, replies: await readTrace(file) };
  } catch (error) {
    say(error.message);
    return null;
  }
}

async function openTrace() {
  const found = await pickTrace();
  if (!found) return;
  show("chat");
  const turns = found.replies.map((reply, i) => ({ text: found.replies.length > 1 ? `${found.name}, reply ${i + 1}` : found.name, replies: [reply], shown: 0 }));
  const conversation = new Conversation({ title: found.name, isTrace: true, turns });
  chat.open(conversation);
  save(conversation);
}

// ---- the page

function say(words) {
  byId("notice").textContent = words;
  byId("notice").hidden = !words;
}

function show(place) {
  for (const name of ["chat", "compare"]) {
    byId(name).hidden = name !== place;
    byId(`to-${name}`).toggleAttribute("aria-current", name === place);
    if (name === place) byId(`to-${name}`).setAttribute("aria-current", "page");
  }
  if (place === "compare") compare.look();
  else view.draw();
}

async function greet() {
  try {
    const { model, heads, heads_by_name } = await server.get("props");
    compare.offer(Object.fromEntries(Object.keys(heads_by_name).map((name) => [`${model}:${name}`, name])));
    byId("model").textContent = heads ? `${model} · heads` : `${model} · no heads`;
  } catch (error) {
    say(error.message);
  }
}

byId("to-chat").addEventListener("click", () => show("chat"));
byId("to-compare").addEventListener("click", () => show("compare"));
byId("open-trace").addEventListener("click", openTrace);
new SettingsDialog(settings);
followTheme(settings, () => inspector.restyle());
openConversation(kept[0] ?? null);
new Connection(server, greet).ask();
