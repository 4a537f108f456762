// What one execution has said and done, made of the events of its stream and of nothing else.
//
// It is fed with events in order, and ignores those that it has seen, so a reader may begin again anywhere. Words of a
// try that failed, or of a worker that died before the step was recorded, are void and are taken out again.

const CLAIMS = new Set(["started", "resumed", "recovered"]);
const TITLES = { model: "The model answers", "#said": "The agent hears you", ask: "You are asked", session: "The conversation is read" };

export class Transcript {
  constructor() {
    this.last = 0; // the cursor: the number of the newest event
    this.items = []; // what the chat shows, in order
    this.steps = new Map(); // what the list of steps shows, by the step's name
    this.waits = []; // what it waits for
    this.state = "queued";
    this.output = null;
    this.discarded = 0; // how many texts were void
    this.attempt = 0;
    this.cancelling = false;
  }

  get isOver() {
    return ["completed", "failed", "cancelled"].includes(this.state);
  }

  get text() {
    return this.items.filter((item) => item.type === "text").map((item) => item.text).join("\n");
  }

  feed(event) {
    if (event.number !== null) {
      if (event.number <= this.last) return;
      this.last = event.number;
    }
    if (event.attempt > this.attempt) this.attempt = event.attempt;
    const handler = this[`on_${event.kind}`];
    if (CLAIMS.has(event.kind)) this.claimed(event);
    else if (handler) handler.call(this, event, event.data);
  }

  // -- the way of the execution -----------------------------------------------------------------------------------

  claimed(event) {
    this.state = "running";
    this.waits = [];
    for (const step of this.steps.values()) {
      if (event.kind === "recovered" && step.number === null) step.isAgain = true;
      this.discard(step, event.attempt, 0);
    }
    if (event.kind === "recovered") {
      this.note(event, `A worker was lost. Another one goes on from the last recorded step (attempt ${event.attempt}).`, "warn");
    } else if (event.kind === "resumed" && this.drained) {
      this.note(event, "Another worker goes on.", "plain");
    }
    this.drained = false;
  }

  on_drained(event) {
    this.drained = true;
    this.note(event, "The worker shuts down; another one goes on.", "plain");
  }

  on_paused(event, data) {
    this.state = "waiting";
    this.waits = data.waits;
  }

  on_ended(event, data) {
    this.state = data.state;
    this.output = data.output ?? null;
    this.waits = [];
    for (const step of this.steps.values()) if (step.state === "running") step.state = "left";
    if (data.state === "cancelled") this.note(event, "Cancelled.", "warn");
    if (data.state === "failed") this.note(event, `Failed: ${data.error ? data.error.message || data.error.type : ""}`, "bad");
  }

  on_cancel_requested() {
    this.cancelling = true;
  }

  on_gap(event) {
    this.note(event, "Some of what was said here is missing: the store was away.", "warn");
  }

  on_trimmed(event) {
    this.note(event, "Older events were removed.", "plain");
  }

  // -- steps ------------------------------------------------------------------------------------------------------

  step(event) {
    let step = this.steps.get(event.step);
    if (!step) {
      const name = event.step.replace(/#\d+$/, "");
      step = { key: event.step, title: TITLES[name] || name, state: "running", attempt: 0, tried: 0, tries: 1, at: event.at,
        ended: null, number: null, error: null, emitted: [], item: null };
      this.steps.set(event.step, step);
    }
    return step;
  }

  on_step_started(event, data) {
    const step = this.step(event);
    if (step.number !== null) return;
    step.state = "running";
    step.at = event.at;
    step.tool = data.tool;
    step.tries = event.tried || 1;
    step.attempt = Math.max(step.attempt, event.attempt);
  }

  on_try_failed(event, data) {
    const step = this.step(event);
    this.discard(step, event.attempt, event.tried + 1);
    step.error = data.message || data.type;
    step.state = data.next_in === undefined ? "failed" : "retrying";
  }

  on_step_recorded(event, data) {
    const step = this.step(event);
    step.number = data.number;
    step.tool = data.tool;
    step.action = data.action;
    step.state = data.success ? "done" : "failed";
    step.error = data.error ? data.error.message || data.error.type : null;
    step.ended = event.at;
    step.attempt = event.attempt;
    if (step.item) step.item.isRecorded = true;
  }

  on_text(event, data) {
    const step = this.step(event);
    if (step.number !== null || event.attempt < step.attempt) return; // late words of one that is over
    if (event.attempt === step.attempt && event.tried < step.tried) return;
    this.discard(step, event.attempt, event.tried);
    if (!step.item) {
      step.item = { type: "text", id: `text ${event.number}`, text: "", isRecorded: false };
      this.items.push(step.item);
    }
    step.item.text += data.delta;
  }

  on_emitted(event, data) {
    if (event.step) this.step(event).emitted.push(data.value);
  }

  // Voids what a step had said before this claim and try.
  discard(step, attempt, tried) {
    if (step.number !== null || attempt < step.attempt || (attempt === step.attempt && tried <= step.tried)) return;
    step.attempt = attempt;
    step.tried = tried;
    step.emitted = [];
    if (step.item) {
      this.items.splice(this.items.indexOf(step.item), 1);
      step.item = null;
      this.discarded += 1;
    }
  }

  // -- people -----------------------------------------------------------------------------------------------------

  on_said(event, data) {
    this.items.push({ type: "said", id: `said ${event.number}`, text: data.text, mode: data.mode });
  }

  on_asked(event, data) {
    if (data.wait !== "input" && data.wait !== "approval") return;
    this.items.push({ type: "asked", id: `asked ${event.number}`, ask: data, answer: null });
  }

  on_answered(event, data) {
    const asked = this.items.findLast((item) => item.type === "asked" && item.ask.key === data.key && !item.answer);
    if (asked) asked.answer = data;
  }

  note(event, text, tone) {
    this.items.push({ type: "note", id: `note ${event.number ?? "last"}`, text, tone });
  }
}
