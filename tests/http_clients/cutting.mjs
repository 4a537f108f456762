// A `fetch` whose answers may be canned texts, and whose connection may break after some server-sent events.

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

function broken(body, events) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  let left = events;
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) return controller.close();
      const pieces = decoder.decode(value, { stream: true }).split(/(?<=\n\n)/);
      for (const piece of pieces) {
        controller.enqueue(encoder.encode(piece));
        if (piece.endsWith("\n\n") && piece.includes("data:") && --left === 0) {
          await reader.cancel();
          // As a browser says that the network is away.
          controller.error(new TypeError("network error"));
          return;
        }
      }
    },
    cancel: () => reader.cancel(),
  }, { highWaterMark: 0 });
}

export async function readInput() {
  let text = "";
  for await (const piece of process.stdin.setEncoding("utf8")) text += piece;
  return JSON.parse(text);
}

// What the libraries would print is for people.
export function mute() {
  for (const name of ["log", "warn", "error", "info", "debug"]) console[name] = () => {};
}
