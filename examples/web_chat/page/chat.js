// The page: conversations, one execution for each message, followed by its stream of events.

import { api, Problem } from "./api.js";
import { openApproval } from "./approval.js";
import { Follower } from "./follower.js";
import { showSteps } from "./steps.js";
import { showTurn } from "./turn.js";

const AGENT = "travel-desk";
const LOOK_AROUND_MS = 10_000;
const SUGGESTIONS = ["A quiet stay by the sea near Lisbon, please.", "I need a holiday."];

const $ = (id) => document.getElementById(id);
const titles = new Map(); // of conversations, by their ids
const reviewed = new Set(); // calls whose dialog was open once
let user = null;
let session = null;
let turns = []; // of the open conversation: { id, input, transcript, element, follower }
let opening = Promise.resolve(); // until it is known what the conversation has
let refreshing = null;
let drawing = false;

// -- conversations ----------------------------------------------------------------------------------------------------

function open(id) {
  opening = load(id);
  return opening;
}

async function load(id) {
  for (const turn of turns) turn.follower.close();
  turns = [];
  session = id;
  document.body.dataset.tab = "chat";
  if (location.hash.slice(1) !== (id ?? "")) history.pushState(null, "", id ? `#${id}` : location.pathname);
  $("chat").replaceChildren();
  $("steps").replaceChildren();
  draw();
  refreshSoon();
  if (!id) return;
  const { items } = await api.inSession(id);
  const inputs = await Promise.all(items.map((item) => api.contents(item.execution_id)));
  if (session !== id) return; // another one was opened meanwhile
  if (items.length === 0) {
    await load(null); // there is none, or it is somebody else's
    return;
  }
  items.forEach((item, place) => addTurn(item.execution_id, inputs[place].input, item.is_over));
}

function addTurn(id, input, isOver) {
  const follower = new Follower(user, id, isOver, (event) => {
    if (["asked", "answered", "ended", "cancel_requested"].includes(event.kind)) refreshSoon();
    draw();
  });
  turns.push({ id, input, follower, transcript: follower.transcript, element: null });
  follower.start();
  draw();
}

function active() {
  const turn = turns.at(-1);
  return turn && !turn.transcript.isOver ? turn : null;
}

function openQuestion(turn) {
  return turn?.transcript.items.find((item) =>
    item.type === "asked" && item.ask.wait === "input" && !item.answer && isAwaited(turn, item));
}

function isAwaited(turn, item) {
  return turn.transcript.waits.some((wait) => wait.key === item.ask.key && wait.wait === item.ask.wait);
}

// -- what the traveller does ------------------------------------------------------------------------------------------

async function send(text, mode) {
  await opening;
  const turn = active();
  if (turn) {
    const question = openQuestion(turn);
    if (question && !question.ask.schema?.enum) await answer(turn, question, text);
    else await api.say(turn.id, { text, mode, message_id: newId() });
    return;
  }
  const id = session ?? newId();
  const started = await api.start(AGENT, text, id, newId());
  if (session !== id) {
    session = id;
    titles.set(id, text);
    history.pushState(null, "", `#${id}`);
  }
  addTurn(started.execution_id, text, false);
  refreshSoon();
}

async function answer(turn, item, value) {
  await api.answer(turn.id, { answer: value, key: item.ask.key, round: item.ask.round });
}

function review(id, asked) {
  reviewed.add(`${id} ${asked.digest}`);
  openApproval(id, asked, draw);
}

// Opens the dialog for a call that has just come to wait; whoever chose "Later" opens it again from the chat or the inbox.
function reviewWhatWaits() {
  if ($("approval").open || document.body.dataset.tab === "inbox") return;
  for (const turn of turns) {
    const item = turn.transcript.items.find((each) =>
      each.type === "asked" && each.ask.wait === "approval" && !each.answer && isAwaited(turn, each) && !reviewed.has(`${turn.id} ${each.ask.digest}`));
    if (item) {
      review(turn.id, item.ask);
      return;
    }
  }
}

// -- drawing ----------------------------------------------------------------------------------------------------------

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const chat = $("chat");
    const isAtEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 80;
    for (const turn of turns) {
      showTurn(chat, turn, {
        isAwaited: (item) => isAwaited(turn, item),
        answer: guarded((item, value) => answer(turn, item, value)),
        review: (item) => review(turn.id, item.ask),
      });
    }
    if (!session) welcome(chat);
    showSteps($("steps"), turns, toast);
    const turn = active();
    const isOn = Boolean(turn);
    $("interrupt").hidden = $("cancel").hidden = !isOn;
    $("cancel").disabled = Boolean(turn?.transcript.cancelling);
    $("send").textContent = isOn ? "Say" : "Send";
    $("message").placeholder = isOn ? "Say something while it works" : "Where would you like to go?";
    if (isAtEnd) chat.scrollTop = chat.scrollHeight;
    reviewWhatWaits();
  });
}

function welcome(chat) {
  if (chat.querySelector(".welcome")) return;
  const box = document.createElement("div");
  box.className = "welcome";
  const text = document.createElement("p");
  text.textContent = "Tell the travel desk what you are looking for. Reload the page or kill the worker whenever you like.";
  box.append(text, ...SUGGESTIONS.map((suggestion) => button(suggestion, () => send(suggestion), "quiet")));
  chat.append(box);
}

async function refresh() {
  const [newest, waiting] = await Promise.all([api.newest(), api.inbox()]);
  const oldest = new Map();
  for (const item of newest.items) if (item.session_id) oldest.set(item.session_id, item);
  await Promise.all([...oldest].filter(([id]) => !titles.has(id)).map(async ([id, item]) => {
    titles.set(id, String((await api.contents(item.execution_id)).input));
  }));
  const working = new Set(newest.items.filter((item) => !item.is_over).map((item) => item.session_id));
  list($("sessions"), [...oldest.keys()].map((id) => ({
    text: titles.get(id), isOn: id === session, hint: working.has(id) ? "at work" : "", act: () => open(id),
  })), "None yet.");
  const waits = waiting.items.flatMap((item) => [
    ...item.questions.map((each) => ({ item, text: each.prompt?.question ?? each.prompt, hint: "question" })),
    ...item.approvals.map((each) => ({ item, text: firstSentence(each.description) || each.tool, hint: "approval", approval: each })),
  ]);
  list($("inbox"), waits.map((wait) => ({ ...wait, act: () => openWaiting(wait) })), "Nothing.");
  for (const id of ["inbox-count", "inbox-count-small"]) {
    $(id).textContent = waits.length;
    $(id).hidden = waits.length === 0;
  }
}

function firstSentence(text) {
  return (text ?? "").split(/(?<=[.!?])\s/)[0];
}

async function openWaiting({ item, approval }) {
  if (item.session_id !== session) await open(item.session_id);
  document.body.dataset.tab = "chat";
  if (approval) review(item.execution_id, approval);
}

function refreshSoon() {
  clearTimeout(refreshing);
  refreshing = setTimeout(guarded(refresh), 150);
}

function list(element, entries, nothing) {
  element.replaceChildren(...entries.map(({ text, hint, isOn, act }) => {
    const row = document.createElement("li");
    const entry = button("", act, "entry");
    entry.append(Object.assign(document.createElement("span"), { textContent: text }));
    if (isOn) entry.setAttribute("aria-current", "true");
    if (hint) {
      const small = document.createElement("small");
      small.textContent = hint;
      entry.append(small);
    }
    row.append(entry);
    return row;
  }));
  if (entries.length === 0) element.append(Object.assign(document.createElement("li"), { className: "nothing", textContent: nothing }));
}

function button(text, act, className) {
  const made = Object.assign(document.createElement("button"), { type: "button", className, textContent: text });
  made.addEventListener("click", guarded(act));
  return made;
}

// -- the rest ---------------------------------------------------------------------------------------------------------

let toastTimer;
function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").hidden = true; }, 5000);
}

// What goes wrong is said, and never lost in a promise.
function guarded(act) {
  return async (...given) => {
    try {
      return await act(...given);
    } catch (error) {
      toast(error instanceof Problem ? error.message : `That did not work: ${error.message}`);
      if (!(error instanceof Problem || error instanceof TypeError)) throw error;
    }
  };
}

// Not `crypto.randomUUID`, which is there on https and on this host only.
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function submit(mode) {
  const box = $("message");
  const text = box.value.trim();
  if (!text) return;
  box.value = "";
  grow();
  try {
    await send(text, mode);
  } catch (error) {
    if (!box.value) box.value = text;
    throw error;
  }
}

function grow() {
  const box = $("message");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight, 160)}px`;
}

async function begin() {
  const me = await api.me();
  user = me.user;
  if (!user) {
    user = me.users[0];
    await api.signIn(user);
  }
  $("user").replaceChildren(...me.users.map((name) => new Option(name[0].toUpperCase() + name.slice(1), name, false, name === user)));
  $("kill").hidden = !me.can_kill;
  await open(location.hash.slice(1) || null);
  await refresh();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(submit)("next_boundary");
});
$("interrupt").addEventListener("click", () => guarded(submit)("interrupt"));
$("message").addEventListener("input", grow);
$("message").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
$("cancel").addEventListener("click", guarded(async () => {
  const turn = active();
  if (turn) await api.cancel(turn.id);
}));
$("new").addEventListener("click", guarded(() => open(null)));
$("kill").addEventListener("click", guarded(async () => {
  const { pid } = await api.killWorker();
  toast(`Worker ${pid} was killed. A new one starts.`);
}));
$("user").addEventListener("change", guarded(async () => {
  await api.signIn($("user").value);
  user = $("user").value;
  titles.clear();
  await open(null);
  await refresh();
}));
for (const tab of document.querySelectorAll("footer button")) {
  tab.addEventListener("click", () => { document.body.dataset.tab = tab.dataset.tab; });
}
addEventListener("popstate", guarded(() => open(location.hash.slice(1) || null)));
document.addEventListener("visibilitychange", () => { if (!document.hidden) refreshSoon(); });
setInterval(() => { if (!document.hidden) refreshSoon(); }, LOOK_AROUND_MS);
guarded(begin)();
