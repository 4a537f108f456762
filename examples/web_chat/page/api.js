// The HTTP interface of celery-agents, as this page uses it.

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || body.error?.message || `the server replied ${status}`);
    this.status = status;
    this.type = body.type || body.error?.type || "";
  }
}

export async function request(method, path, body, headers = {}) {
  const response = await fetch(path, {
    method,
    headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    value = { detail: text };
  }
  if (!response.ok) throw new Problem(response.status, value ?? {});
  return value;
}

const of = (id) => `api/executions/${encodeURIComponent(id)}`;

export const api = {
  me: () => request("GET", "me"),
  signIn: (user) => request("POST", "sign-in", { user }),
  killWorker: () => request("POST", "kill-worker"),

  // The key lets this be sent twice, and start once.
  start: (agent, input, session, key) =>
    request("POST", "api/executions", { agent, input, session_id: session }, { "Idempotency-Key": key }),
  inSession: (session) => request("GET", `api/executions?session=${encodeURIComponent(session)}&order=oldest&limit=100`),
  newest: () => request("GET", "api/executions?limit=100"),
  inbox: () => request("GET", "api/executions?waiting=me&limit=50"),
  contents: (id) => request("GET", `${of(id)}/contents`),
  step: async (id, number) => (await request("GET", `${of(id)}/steps?after=${number - 1}&limit=1`)).items[0],
  answer: (id, body) => request("POST", `${of(id)}/answer`, body),
  approve: (id, body) => request("POST", `${of(id)}/approve`, body),
  reject: (id, body) => request("POST", `${of(id)}/reject`, body),
  say: (id, body) => request("POST", `${of(id)}/say`, body),
  cancel: (id) => request("POST", `${of(id)}/cancel`, {}),
  eventsUrl: (id, after) => `${of(id)}/events?after=${after}`,
};
