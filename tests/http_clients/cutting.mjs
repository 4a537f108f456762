import { createInterface } from "node:readline";

// A `fetch` whose answers may be canned texts, and whose connection may break: `cutAfter` some server-sent events, if that
// is a number, or after the first one with that text in it.

export function makeFetch(scenario, requests) {
  const canned = [...(scenario.canned ?? [])];
  const fetching = async (url, init) => {
    requests.push(`${init?.method ?? "GET"} ${new URL(url, "http://canned").pathname}`);
    const response = scenario.canned === undefined ? await fetch(url, init) : answer(canned.shift());
    const cutAfter = fetching.cutAfter;
    fetching.cutAfter = undefined;
    if (cutAfter === undefined || response.body === null) return response;
    return new Response(broken(response.body, cutAfter), { status: response.status, headers: response.headers });
  };
  return fetching;
}

function answer(text) {
  if (text === null) return new Response(null, { status: 204 });
  return new Response(text, { status: 200, headers: { "content-type": "text/event-stream" } });
}

function broken(body, until) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  const pieces = [];
  let left = until;
  let isCut = false;
  return new ReadableStream({
    async pull(controller) {
      if (isCut) {
        await reader.cancel();
        // What came before is to be worked up first; then the error is that of a browser whose network is away.
        await new Promise((resolve) => setTimeout(resolve, 50));
        return controller.error(new TypeError("network error"));
      }
      while (pieces.length === 0) {
        const { done, value } = await reader.read();
        if (done) return controller.close();
        pieces.push(...decoder.decode(value, { stream: true }).split(/(?<=\n\n)/));
      }
      const piece = pieces.shift();
      const isWhole = piece.endsWith("\n\n") && piece.includes("data:");
      isCut = isWhole && (typeof left === "string" ? piece.includes(left) : --left === 0);
      controller.enqueue(encoder.encode(piece));
    },
    cancel: () => reader.cancel(),
  }, { highWaterMark: 0 });
}

// Reads a list of scenarios from each line of standard input, and prints a line with what came of them.
export async function serve(play) {
  const print = process.stdout.write.bind(process.stdout);
  // What the libraries would print is for people.
  for (const name of ["log", "warn", "error", "info", "debug"]) console[name] = () => {};
  for await (const line of createInterface({ input: process.stdin })) {
    const results = [];
    for (const scenario of JSON.parse(line)) results.push(await play(scenario));
    print(JSON.stringify(results) + "\n");
  }
  process.exit(0);
}
