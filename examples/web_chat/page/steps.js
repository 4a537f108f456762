// What runs, and what ran: the steps of each execution of the conversation, with their inputs and outputs on request.

import { api } from "./api.js";

const MARKS = { running: "", done: "✓", failed: "✗", retrying: "↻", left: "–" };

export function showSteps(list, turns, onProblem) {
  for (const turn of turns) {
    if (!turn.heading) {
      turn.heading = Object.assign(document.createElement("li"), { className: "heading", textContent: turn.input });
      turn.rows = new Map();
      list.append(turn.heading);
    }
    for (const step of turn.transcript.steps.values()) {
      let row = turn.rows.get(step.key);
      if (!row) {
        row = makeRow(turn.id, step, onProblem);
        turn.rows.set(step.key, row);
        list.append(row.element);
      }
      row.update(turn.transcript);
    }
  }
}

function makeRow(id, step, onProblem) {
  const element = document.createElement("li");
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  const [mark, title, about] = ["mark", "title", "about"].map((name) =>
    Object.assign(document.createElement("span"), { className: name }));
  const inside = document.createElement("pre");
  summary.append(mark, title, about);
  details.append(summary, inside);
  element.append(details);
  details.addEventListener("toggle", async () => {
    if (!details.open) return;
    if (step.number === null) {
      inside.textContent = "It is not recorded yet.";
      return;
    }
    try {
      inside.textContent = shown(await api.step(id, step.number));
    } catch (error) {
      onProblem(error.message);
    }
  });
  return {
    element,
    update(transcript) {
      const state = step.state === "running" && transcript.state === "waiting" ? "left" : step.state;
      element.dataset.state = state;
      element.dataset.step = step.key;
      mark.textContent = MARKS[state];
      title.textContent = step.title;
      about.textContent = [duration(step), attempt(step), progress(step), step.error].filter(Boolean).join(" · ");
    },
  };
}

function duration(step) {
  return step.ended && step.at !== step.ended ? `${((new Date(step.ended) - new Date(step.at)) / 1000).toFixed(1)} s` : "";
}

function attempt(step) {
  return step.isAgain ? `again, in attempt ${step.attempt}` : "";
}

function progress(step) {
  const last = step.emitted.at(-1);
  if (!last || step.number !== null) return "";
  return typeof last === "object" ? Object.values(last).join(", ") : String(last);
}

function shown(step) {
  const parts = [];
  if (step.input !== null) parts.push(`input\n${JSON.stringify(step.input, null, 2)}`);
  if (step.result) parts.push(`output\n${JSON.stringify(step.result.output ?? step.result.error, null, 2)}`);
  return parts.join("\n\n");
}
