"""What people say to an execution that runs agents of the OpenAI Agents SDK: the user's input, before the next request.

The SDK makes the input of each request anew, from what it was given and what the agents have done. So what was said is
put in at the same place in each later request of the run. An agent that works for another one, as a tool of it or as a
guardrail, is not told.
"""

from dataclasses import dataclass, field
from typing import Any

from celery_agents.define.saying import CallInterrupted, Saying
from celery_agents.engine.run.async_run import AsyncRun


def items_of(said: tuple[Saying, ...]) -> list[dict[str, Any]]:
    """Return what was said as items of an input."""
    return [{"role": "user", "content": saying.text} for saying in said]


def as_items(given: Any) -> list[Any]:
    """Return an input as items."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else list(given)


@dataclass(slots=True)
class ToldMessages:
    """What was put into the inputs of one run: the items, each with the number of the SDK's own items before it."""

    _items: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def put_into(self, given: Any) -> Any:
        """Return an input with what belongs into it."""
        if not self._items:
            return given
        own, told, made = as_items(given), list(self._items), list[Any]()
        for number, item in enumerate(own):
            while told and told[0][0] <= number:
                made.append(told.pop(0)[1])
            made.append(item)
        return [*made, *(item for _, item in told)]

    async def hear(self, run: AsyncRun, given: Any) -> None:
        """Put what was said since the last look at the end of this input."""
        self._add(given, items_of(await run.said()))

    async def hear_interrupted(self, run: AsyncRun, given: Any, interrupted: CallInterrupted) -> None:
        """Put what the model had said, and what it was interrupted with, at the end of this input."""
        said = [{"role": "assistant", "content": interrupted.text}] if interrupted.text else []
        self._add(given, [*said, *items_of(await run.said())])

    def _add(self, given: Any, items: list[dict[str, Any]]) -> None:
        place = len(as_items(given))
        self._items += [(place, item) for item in items]
