"""The events of an execution, as a stream of server-sent events or by long poll; both go on from a cursor."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from agent_statestore.errors import ExecutionNotFound
from agent_statestore.streams import StreamEvent, StreamKind
from celery_agents.client.text import ended_as
from celery_agents.http.calls import EndpointCall
from celery_agents.http.endpoints.contents import LARGEST_NUMBER, MOST_PAGE_BYTES
from celery_agents.http.formats import EventFormat, sse
from celery_agents.http.formats.outputs import with_outputs
from celery_agents.http.messages import LaterReply, Reply
from celery_agents.http.queries import Parameter, bad_query
from celery_agents.http.shapes import EventsPage, EventView
from celery_agents.http.views import view_of_event

MOST_WAIT_SECONDS: Final = 60
# How soon a viewer comes back after the end of a response, and after one that was cut.
_RETRY_MILLISECONDS: Final = 1000
_HEADERS: Final = (("X-Accel-Buffering", "no"),)

EVENTS_QUERY: Final = (
    Parameter(
        name="after",
        description="Only events behind this number; the header `Last-Event-ID` goes before it.",
        schema={"type": "integer", "minimum": 0, "maximum": LARGEST_NUMBER, "default": 0},
    ),
    Parameter(
        name="format",
        description="How the events are told.",
        schema={"type": "string", "minLength": 1, "maxLength": 255, "default": "events"},
    ),
    Parameter(
        name="wait",
        description="Long poll: reply with a page of JSON, as soon as there is an event, or after so many seconds.",
        schema={"type": "number", "minimum": 0, "maximum": MOST_WAIT_SECONDS},
    ),
)


def events(call: EndpointCall) -> Reply | LaterReply:
    """Follow what happens: server-sent events from a cursor on, live, until the execution is over.

    Each event has its number as `id`. The response ends after some minutes: a reader goes on with the last number that
    it has got, as `EventSource` does by itself. Where there is nothing more to come, the status is 204, upon which an
    `EventSource` stays away. With `wait`, the reply is one page of JSON instead.
    """
    after = _cursor_of(call)
    name, wait = call.asked.get("format", "events"), call.asked.get("wait")
    kind = call.manner.formats.get(name)
    if kind is None:
        raise bad_query(f"format: {name!a:.80} is none of {', '.join(call.manner.formats)}")
    if wait is not None:
        if name != "events":
            raise bad_query("wait: a page of JSON has no other format")
        return LongPoll(call, after, 0.0 if call.request.method == "HEAD" else wait)
    if after and call.summary.state.is_over and _is_at_end(call, after):
        return Reply(status=204)
    stream = ServerSentEvents(call, kind(call.summary), after)
    headers = (*_HEADERS, *kind.headers)
    return Reply(status=200, headers=headers, content_type=sse.CONTENT_TYPE, stream=stream)


def _cursor_of(call: EndpointCall) -> int:
    text = call.request.headers.get("last-event-id", "").strip()
    if not text:
        after: int = call.asked.get("after", 0)
        return after
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= LARGEST_NUMBER):
        raise bad_query(f"Last-Event-ID: {text!a:.80} is not the number of an event")
    return int(text)


def _is_at_end(call: EndpointCall, after: int) -> bool:
    page = call.services.store.read_events(call.summary.execution_id, after, 1)
    return page is not None and page.is_over and not page.events and after >= page.last


class ServerSentEvents:
    """The body of one response: what a format makes of the events, with heartbeats, for a limited time."""

    def __init__(self, call: EndpointCall, told_in: EventFormat, after: int) -> None:
        self._execution = call.execution
        self._manner = call.manner
        self._format = told_in
        self._after = after
        self._start = 0 if self._format.needs_past else after
        self._last_kind = ""
        self._store = call.services.store
        self._needs_more = self._format.needs_outputs

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces; a server that closes this early has its viewer forgotten."""
        yield self._beginning()
        ends_at = time.monotonic() + self._manner.longest_seconds
        try:
            with self._execution.follow(self._start) as follower:
                while not follower.is_over:
                    left = ends_at - time.monotonic()
                    if left <= 0:
                        return
                    yield self._told(self._whole(follower.read(min(left, self._manner.heartbeat_seconds))))
            yield self._ending(None if self._last_kind == StreamKind.ENDED else ended_as(self._execution.summary()))
        except ExecutionNotFound:
            return  # deleted meanwhile; whoever comes back is told

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces; see `__iter__`."""
        yield self._beginning()
        ends_at = time.monotonic() + self._manner.longest_seconds
        execution = self._execution.aio
        try:
            async with execution.follow(self._start) as follower:
                while not follower.is_over:
                    left = ends_at - time.monotonic()
                    if left <= 0:
                        return
                    events = await follower.read(min(left, self._manner.heartbeat_seconds))
                    yield self._told(await asyncio.to_thread(self._whole, events) if self._needs_more else events)
            yield self._ending(None if self._last_kind == StreamKind.ENDED else ended_as(await execution.summary()))
        except ExecutionNotFound:
            return

    def _beginning(self) -> bytes:
        return sse.retry(_RETRY_MILLISECONDS) + self._format.begin(self._after)

    def _whole(self, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        return with_outputs(self._store, self._execution.id, events) if self._needs_more else events

    def _told(self, events: Sequence[StreamEvent]) -> bytes:
        """Return what to send for these events; a heartbeat if that is nothing."""
        told = b""
        for event in events:
            messages = self._format.tell(event)
            self._last_kind = event.kind
            if (event.number or 0) > self._after:
                told += messages
        return told or sse.HEARTBEAT

    def _ending(self, unsaid: StreamEvent | None) -> bytes:
        return (b"" if unsaid is None else self._format.tell(unsaid)) + self._format.end()


class LongPoll:
    """A page of events, as soon as there is one."""

    def __init__(self, call: EndpointCall, after: int, wait_seconds: float) -> None:
        self._execution = call.execution
        self._after = after
        self._wait_seconds = wait_seconds

    def wait(self) -> Reply:
        """Return the page; see `LaterReply`."""
        with self._execution.follow(self._after) as follower:
            return self._page(follower.read(self._wait_seconds), is_over=follower.is_over)

    async def wait_async(self) -> Reply:
        """Return the page; see `LaterReply`."""
        async with self._execution.aio.follow(self._after) as follower:
            return self._page(await follower.read(self._wait_seconds), is_over=follower.is_over)

    def _page(self, events: Sequence[StreamEvent], *, is_over: bool) -> Reply:
        items: list[EventView] = []
        cursor, size = self._after, 0
        for event in events:
            shown = view_of_event(event)
            size += len(json.dumps(shown))
            if items and size > MOST_PAGE_BYTES:
                is_over = False
                break
            items.append(shown)
            cursor = event.number or cursor
        value: EventsPage = {"items": items, "cursor": cursor, "is_over": is_over}
        return Reply(status=200, value=value)
