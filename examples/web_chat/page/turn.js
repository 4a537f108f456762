// One message of the traveller and what the agent makes of it, in the chat. What is there already is kept and changed in
// place, so that a selection or a focus survives each new piece of text.

const STATES = { queued: "Waits for a worker", running: "At work", waiting: "Waits for you", completed: "", failed: "", cancelled: "" };

export function showTurn(chat, turn, acts) {
  if (!turn.element) {
    chat.querySelector(".welcome")?.remove();
    turn.element = make("section", "turn");
    turn.element.dataset.id = turn.id;
    turn.element.append(bubble("user", turn.input));
    turn.body = make("div", "body");
    turn.status = make("p", "status");
    turn.element.append(turn.body, turn.status);
    turn.shown = new Map();
    chat.append(turn.element);
  }
  const { transcript } = turn;
  turn.element.dataset.state = transcript.state;
  turn.element.dataset.discarded = transcript.discarded;
  const wanted = transcript.items;
  const ids = new Set(wanted.map((item) => item.id));
  for (const [id, shown] of turn.shown) {
    if (ids.has(id)) continue;
    shown.element.remove();
    turn.shown.delete(id);
  }
  wanted.forEach((item, place) => {
    let shown = turn.shown.get(item.id);
    if (!shown) {
      shown = VIEWS[item.type](item, acts);
      turn.shown.set(item.id, shown);
    }
    if (turn.body.children[place] !== shown.element) turn.body.insertBefore(shown.element, turn.body.children[place] ?? null);
    shown.update(item);
  });
  turn.status.textContent = transcript.cancelling && !transcript.isOver ? "Is being cancelled" : STATES[transcript.state];
  turn.status.hidden = !turn.status.textContent;
  turn.status.classList.toggle("busy", ["queued", "running"].includes(transcript.state));
}

const VIEWS = {
  text(item) {
    const element = bubble("agent text", "");
    return {
      element,
      update() {
        if (element.textContent !== item.text) element.textContent = item.text;
        element.dataset.recorded = item.isRecorded;
      },
    };
  },

  said(item) {
    const element = bubble("user said", item.text);
    return { element, update() {} };
  },

  note(item) {
    const element = make("p", `note ${item.tone}`, item.text);
    return { element, update() {} };
  },

  asked(item, acts) {
    return item.ask.wait === "approval" ? approval(item, acts) : question(item, acts);
  },
};

function approval(item, acts) {
  const element = make("div", "card");
  const text = make("p", "");
  const look = make("button", "", "Review");
  look.type = "button";
  look.addEventListener("click", () => acts.review(item));
  element.append(text, look);
  return {
    element,
    update() {
      const decided = item.answer?.value;
      element.dataset.open = acts.isAwaited(item) && !item.answer;
      look.hidden = element.dataset.open !== "true";
      text.textContent = !item.answer
        ? `${item.ask.tool} waits for your approval.`
        : `${item.ask.tool}: ${decided?.approved === false ? "rejected" : "approved"} by ${item.answer.sender ?? "somebody"}`
          + (decided?.arguments ? ", with changes" : "") + (item.answer.reason ? ` (${item.answer.reason})` : "");
    },
  };
}

function question(item, acts) {
  const element = make("div", "card");
  const prompt = item.ask.prompt;
  const text = make("p", "", typeof prompt === "string" ? prompt : prompt?.question ?? JSON.stringify(prompt));
  const choices = make("div", "choices");
  for (const choice of item.ask.schema?.enum ?? []) {
    const pick = make("button", "quiet", String(choice));
    pick.type = "button";
    pick.addEventListener("click", () => acts.answer(item, choice));
    choices.append(pick);
  }
  const answered = make("p", "answered");
  element.append(text, choices, answered);
  return {
    element,
    update() {
      element.dataset.open = acts.isAwaited(item) && !item.answer;
      choices.hidden = element.dataset.open !== "true";
      answered.hidden = !item.answer;
      if (item.answer) answered.textContent = String(item.answer.value);
    },
  };
}

function bubble(kind, text) {
  return make("div", `bubble ${kind}`, text);
}

function make(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}
