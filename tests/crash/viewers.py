"""Viewers of executions, who lose their connections all the time, and a checker that compares them with the store."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent_statestore.store import Store
from agent_statestore.streams.records import StreamEvent, StreamKind
from celery_agents import Execution
from celery_agents.client.text import TextPieces


@dataclass(slots=True)
class Viewer:
    """One viewer, with all that it has seen."""

    execution: Execution
    seen: list[StreamEvent] = field(default_factory=list)
    reconnects: int = 0

    async def view(self, dice: random.Random, stop: asyncio.Event) -> None:
        """Follow the execution to its end, with a connection that lasts for a few events at a time."""
        cursor = 0
        while not stop.is_set():
            left = dice.randrange(1, 8)
            async with self.execution.aio.follow(cursor) as follower:
                while left > 0 and not follower.is_over and not stop.is_set():
                    for event in await follower.read(0.5):
                        self.seen.append(event)
                        cursor = event.number or cursor
                        left -= 1
                        if left <= 0:
                            break  # what came with it is lost with the connection
                else:
                    if follower.is_over and left > 0:
                        return
            self.reconnects += 1

    def texts(self) -> dict[str, str]:
        """Return the texts that are left in the end, by step."""
        texts: dict[str, str] = {}
        pieces = TextPieces()
        for event in self.seen:
            piece = pieces.piece_of(event)
            if piece is not None:
                texts[piece.step] = ("" if piece.begins_anew else texts.get(piece.step, "")) + piece.delta
        return texts


class Audience:
    """Many viewers, in a thread with one event loop."""

    def __init__(self, executions: Sequence[Execution], viewers: int) -> None:
        self.viewers = [Viewer(executions[number % len(executions)]) for number in range(viewers)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._view()), daemon=True)

    @property
    def reconnects(self) -> int:
        """How often connections were lost."""
        return sum(viewer.reconnects for viewer in self.viewers)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait until all have seen the end. Raise `AssertionError` if some do not."""
        self._thread.join(seconds)
        self._stop.set()
        assert not self._thread.is_alive(), "some viewers wait for ever"

    async def _view(self) -> None:
        stop = asyncio.Event()

        async def watch() -> None:
            while not self._stop.is_set():
                await asyncio.sleep(0.1)
            stop.set()

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(viewer.view(random.Random(number), stop) for number, viewer in enumerate(self.viewers)))
        watching.cancel()


def check(audience: Audience, store: Store) -> Counter[str]:
    """Compare what each viewer has seen with what the store holds; return how many events of each kind there are."""
    kinds: Counter[str] = Counter()
    stored: dict[str, list[StreamEvent]] = {}
    faults: list[str] = []
    for viewer in audience.viewers:
        execution_id = viewer.execution.id
        if execution_id not in stored:
            stored[execution_id] = stream_of(store, execution_id)
            kinds.update(event.kind for event in stored[execution_id])
        wanted = [event.number for event in stored[execution_id]]
        seen = [event.number for event in viewer.seen]
        if seen != wanted:
            lost, doubled = len(set(wanted) - set(seen)), len(seen) - len(set(seen))
            faults.append(f"{execution_id}: {lost} lost, {doubled} doubled, {seen == sorted(seen)=}")
            continue
        recorded = {step.name: step.result.output for step in viewer.execution.steps() if step.result is not None}
        if viewer.texts() != recorded:
            faults.append(f"{execution_id}: {viewer.texts()} is not what is recorded: {recorded}")
    assert not faults, f"{len(faults)} viewers of {len(audience.viewers)}\n" + "\n".join(faults[:10])
    assert kinds[StreamKind.ENDED] == len(stored)
    return kinds


def stream_of(store: Store, execution_id: str) -> list[StreamEvent]:
    """Return the whole stream as it is stored."""
    events: list[StreamEvent] = []
    while True:
        page = store.read_events(execution_id, (events[-1].number or 0) if events else 0, 1000)
        assert page is not None
        events += page.events
        if not page.events:
            return events


def wait_for_ends(executions: Sequence[Execution], seconds: float) -> None:
    """Return when all are over."""
    give_up_at = time.monotonic() + seconds
    left = list(executions)
    while left := [execution for execution in left if not execution.state.is_over]:
        assert time.monotonic() < give_up_at, f"{len(left)} are not over"
        time.sleep(0.2)
