"""The body of a response to a front end: an execution from some place on, until its format says that this is all."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import ExecutionSummary
from agent_statestore.streams import StreamEvent, StreamKind
from celery_agents.client.text import ended_as
from celery_agents.http.calls import EndpointCall
from celery_agents.http.formats import sse
from celery_agents.http.formats.front_end import FrontEndFormat
from celery_agents.http.formats.outputs import with_outputs
from celery_agents.http.messages import Reply

# Greater than the number of any event.
_BEHIND_ALL: Final = (1 << 53) - 1


def streamed(call: EndpointCall, summary: ExecutionSummary, told_in: FrontEndFormat, after: int) -> Reply:
    """Return the response that tells what comes behind the event of this number."""
    newest = call.services.store.read_events(summary.execution_id, _BEHIND_ALL, 1)
    told_in.known_to = 0 if newest is None else newest.last
    headers = (("X-Accel-Buffering", "no"), *told_in.headers)
    stream = FrontEndStream(call, summary, told_in, after)
    return Reply(status=200, headers=headers, content_type=sse.CONTENT_TYPE, stream=stream)


class FrontEndStream:
    """What a format makes of an execution, with heartbeats.

    It has no longest time, as other streams have: a front end takes the end of the response for the end of the answer.
    Where a proxy breaks the connection, the front end sees that, and comes back.
    """

    def __init__(self, call: EndpointCall, summary: ExecutionSummary, told_in: FrontEndFormat, after: int) -> None:
        self._execution = call.handle_of(summary.execution_id)
        self._store = call.services.store
        self._heartbeat_seconds = call.manner.heartbeat_seconds
        self._format = told_in
        self._after = after
        self._has_ended = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, in the thread that asks for them."""
        yield self._format.begin(self._after)
        try:
            with self._execution.follow(0) as follower:
                while not (follower.is_over or self._format.is_done):
                    yield self._told(self._whole(follower.read(self._heartbeat_seconds)))
            if not self._format.is_done:
                yield self._ending(ended_as(self._execution.summary()))
        except ExecutionNotFound:
            return  # deleted meanwhile

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces. No thread waits for them."""
        yield self._format.begin(self._after)
        execution = self._execution.aio
        try:
            async with execution.follow(0) as follower:
                while not (follower.is_over or self._format.is_done):
                    events = await follower.read(self._heartbeat_seconds)
                    yield self._told(await asyncio.to_thread(self._whole, events) if events else events)
            if not self._format.is_done:
                yield self._ending(ended_as(await execution.summary()))
        except ExecutionNotFound:
            return

    def _whole(self, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        return with_outputs(self._store, self._execution.id, events)

    def _told(self, events: Sequence[StreamEvent]) -> bytes:
        told = b""
        for event in events:
            told += self._format.tell(event)
            self._has_ended = event.kind == StreamKind.ENDED
            if self._format.is_done:
                break
        return told or sse.HEARTBEAT

    def _ending(self, unsaid: StreamEvent) -> bytes:
        return (b"" if self._has_ended else self._format.tell(unsaid)) + self._format.end()
