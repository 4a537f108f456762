"""In which order an async agent gets the results of steps: that in which they were recorded, on every attempt.

Tasks that run beside each other come to their next steps in the order in which their awaits end. On a replay nothing
takes any time, and they would come to them in another order: of two steps of one name, each would get the other's
result. So results are given out one after the other, in the order of their records, new ones like recorded ones; each
task has time to come to its next step before another one gets its result.

A look at what people have said takes its time, too, whether it finds something or not. So looks come one after the
other, in the order of the code, and nobody gets a result until whoever has looked had time to go on.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice, takewhile
from typing import Any, Final, TypeVar

from agent_statestore.plain_text import line_logger
from agent_statestore.records import AgentStep
from celery_agents.define.names import name_within

log = line_logger(__name__)

T = TypeVar("T")

# How many rounds of the event loop a task may need to come from the end of an await to its next step.
ROUNDS: Final = 8
# How long is waited for a step to which the code does not come: it was removed, or waits for something else than steps.
_PATIENCE_SECONDS: Final = 1.0
# Taken by the engine itself, inside of what the code has asked for, or outside of the code's order.
_NOT_AWAITED: Final = ("limit", "said")
_ESCALATION: Final = "escalate "


class ReplayOrder:
    """Gives the results of one attempt out in their order. Used on the event loop, but for `add`."""

    def __init__(self, steps: Iterable[AgentStep]) -> None:
        recorded = [step for step in steps if step.result is not None and _is_awaited(step)]
        recorded.sort(key=lambda step: (step.timestamp + step.duration, step.step_number))
        self._left = {step.name: None for step in recorded}
        self._replayed = frozenset(self._left)
        self._forgotten: set[str] = set()
        self._waiting: dict[str, asyncio.Event] = {}
        self._last: asyncio.Task[Any] | None = None
        self._giving: asyncio.Task[None] | None = None
        self._added: deque[AgentStep] = deque()
        self._looks = 0
        self._last_look: asyncio.Event | None = None
        self._letting_go: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """The current task is about to call the agent's function: no other one comes to a step before it."""
        self._last = asyncio.current_task()

    @property
    def is_replaying(self) -> bool:
        """Whether somebody is about to be given what was recorded before this attempt."""
        return not self._replayed.isdisjoint(self._waiting)

    def add(self, step: AgentStep) -> None:
        """A step was recorded just now. Called by the thread that did so; the loop looks at its next turn."""
        self._added.append(step)

    def _take_in(self) -> None:
        while self._added:
            step = self._added.popleft()
            if _is_awaited(step) and step.name not in self._forgotten:
                self._left[step.name] = None

    def forget(self, key: str) -> None:
        """Nobody waits for this step any more, though it may still be recorded."""
        self._take_in()
        self._forgotten.add(key)
        self._left.pop(key, None)

    async def turn(self, *keys: str) -> None:
        """Returns when it is the turn of the last of these steps; at once for those that are not recorded."""
        self._take_in()
        wanted = [key for key in keys if key in self._left]
        if not wanted:
            return
        if asyncio.current_task() is self._last and not self._looks and self._next_are(wanted):
            # The task that got the last result has come to the next: nobody else could have come before it.
            self._take_out(wanted)
            return
        events = [self._waiting.setdefault(key, asyncio.Event()) for key in wanted]
        self._give_out()
        for event in events:
            while not event.is_set():
                try:
                    await asyncio.wait_for(event.wait(), _PATIENCE_SECONDS)
                except TimeoutError:
                    if not self._looks:
                        self._skip()
        self._last = asyncio.current_task()

    async def look(self, look: Callable[[], Awaitable[T]]) -> T:
        """Return what the look finds, when it is its turn."""
        before, own = self._last_look, asyncio.Event()
        self._last_look = own
        self._looks += 1
        try:
            if before is not None:
                await before.wait()
            return await look()
        finally:
            self._letting_go.add(task := asyncio.get_running_loop().create_task(self._let_go(own)))
            task.add_done_callback(self._letting_go.discard)

    async def _let_go(self, own: asyncio.Event) -> None:
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        self._looks -= 1
        own.set()
        if not self._looks:
            self._give_out()

    def _next_are(self, keys: Sequence[str]) -> bool:
        return not self._waiting and set(islice(self._left, len(keys))) == set(keys)

    def _take_out(self, keys: Iterable[str]) -> None:
        for key in keys:
            del self._left[key]

    def _give_out(self) -> None:
        if self._giving is None or self._giving.done():
            self._giving = asyncio.get_running_loop().create_task(self._give_in_order())

    async def _give_in_order(self) -> None:
        while True:
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            self._take_in()
            if self._looks:
                return  # the last one begins anew
            key = next(iter(self._left), None)
            event = None if key is None else self._waiting.pop(key, None)
            if key is None or event is None:
                return
            self._take_out([key])
            self._last = None  # until the task that gets it runs, nobody may go on as the one that got the last
            event.set()

    def _skip(self) -> None:
        """The code does not come to the next one: goes on with the first that is waited for."""
        key = next((key for key in self._left if key in self._waiting), None)
        if key is not None:
            before = list(takewhile(lambda one: one != key, self._left))
            self._take_out(before)
            if before:
                log.debug("the code does not come to %s; going on with %r", before, key)
        self._give_out()


def _is_awaited(step: AgentStep) -> bool:
    name = step.name if not step.within else name_within(step.name)
    return step.action.kind not in _NOT_AWAITED and not name.startswith(_ESCALATION)
