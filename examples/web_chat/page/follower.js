// Follows the events of one execution, and keeps what it has seen: after a reload it goes on behind the last one.

import { api, request } from "./api.js";
import { Transcript } from "./transcript.js";

const KINDS = ["started", "resumed", "recovered", "step_started", "try_failed", "step_recorded", "text", "thinking", "tool_call",
  "emitted", "asked", "answered", "said", "cancel_requested", "paused", "drained", "ended", "gap", "trimmed"];
const KEEP_AFTER_MS = 500;
const AGAIN_AFTER_MS = 1000;

export class Follower {
  constructor(user, id, isOver, onEvent) {
    this.id = id;
    this.isOver = isOver;
    this.onEvent = onEvent;
    this.transcript = new Transcript();
    this.place = `events ${user} ${id}`;
    this.events = [];
    for (const event of this.kept()) this.take(event);
    this.keepNow = () => this.keep();
    addEventListener("pagehide", this.keepNow);
  }

  start() {
    if (this.isOver) this.readAll().then(() => this.onEvent({ kind: "" }));
    else this.listen();
  }

  close() {
    this.isClosed = true;
    this.source?.close();
    clearTimeout(this.again);
    this.keep();
    removeEventListener("pagehide", this.keepNow);
  }

  // What is over is read by page: a browser has few connections for streams.
  async readAll() {
    let page;
    do {
      page = await request("GET", `${api.eventsUrl(this.id, this.transcript.last)}&wait=0`);
      for (const event of page.items) this.take(event);
    } while (!page.is_over && page.items.length > 0);
    this.keep();
  }

  listen() {
    this.source = new EventSource(api.eventsUrl(this.id, this.transcript.last));
    const onMessage = (message) => {
      const event = JSON.parse(message.data);
      this.take(event);
      if (this.transcript.isOver) this.source.close();
      this.onEvent(event);
    };
    for (const kind of KINDS) this.source.addEventListener(kind, onMessage);
    this.source.onerror = () => {
      // It comes back by itself after a cut, with the last id; not after a reply such as 502, of a server that restarts.
      if (this.source.readyState !== EventSource.CLOSED || this.transcript.isOver || this.isClosed) return;
      this.again = setTimeout(() => this.listen(), AGAIN_AFTER_MS);
    };
  }

  take(event) {
    this.transcript.feed(event);
    this.events.push(event);
    this.keepSoon();
  }

  keepSoon() {
    this.keeping ??= setTimeout(() => this.keep(), KEEP_AFTER_MS);
  }

  keep() {
    clearTimeout(this.keeping);
    this.keeping = undefined;
    try {
      sessionStorage.setItem(this.place, JSON.stringify(this.events));
    } catch {
      sessionStorage.removeItem(this.place); // no room: after a reload all of it is read again
    }
  }

  kept() {
    return JSON.parse(sessionStorage.getItem(this.place) ?? "[]");
  }
}
