// Runs the scenarios in each line of standard input with the published client of AG-UI, and prints what it has in the end.
import { HttpAgent } from "@ag-ui/client";
import { makeFetch, serve } from "./cutting.mjs";

async function play(scenario) {
  const requests = [];
  const fetching = makeFetch(scenario, requests);
  const agent = new HttpAgent({
    url: scenario.url ?? "http://canned/",
    headers: scenario.headers ?? {},
    threadId: scenario.threadId ?? "thread",
    initialMessages: scenario.messages ?? [],
    fetch: fetching,
  });
  const seen = [];
  agent.subscribe({ onEvent: ({ event }) => void seen.push(event) });
  const runs = [];
  for (const act of scenario.acts) {
    for (const message of act.messages ?? []) agent.addMessage(message);
    fetching.cutAfter = act.cutAfter;
    const run = { error: null, result: null };
    const resume = act.resume && agent.pendingInterrupts.map((interrupt) => ({ interruptId: interrupt.id, ...act.resume }));
    try {
      const { result } = await agent.runAgent({ runId: act.runId, tools: act.tools, forwardedProps: act.props, resume });
      run.result = result ?? null;
    } catch (error) {
      run.error = String(error.message);
    }
    run.interrupts = structuredClone(agent.pendingInterrupts);
    run.messages = structuredClone(agent.messages);
    runs.push(run);
  }
  return { runs, messages: agent.messages, state: agent.state, seen, requests };
}

// The client cancels a stream that is broken already, and lets the browser log what comes of that.
process.on("unhandledRejection", (error) => {
  if (error.message !== "network error") throw error;
});

serve(play);
