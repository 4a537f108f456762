"""Calls of tools as one decision of a model has them: allowed, and then made, all at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent_statestore.records import JSONValue, Result
from celery_agents.define.tool import Tool
from celery_agents.engine.run.run import Run
from celery_agents.engine.steps.call import Call, CallOptions, Place
from celery_agents.engine.steps.parallel import DEFAULT_LIMIT, allow_all, caught, take_all
from celery_agents.engine.steps.taking import ReachedStep


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedCall:
    """How a call ended: what is recorded of it, if anything is, and the error that it raised, if it did.

    `changed` are the arguments that a person has put in place of those that were given; None for these.
    """

    result: Result | None
    error: Exception | None
    changed: Mapping[str, JSONValue] | None


class ToolCalls:
    """The calls of one decision, in their order. For agents whose code is a loop around a model."""

    def __init__(self, run: Run) -> None:
        self._attempt = run._attempt
        self._places: list[Place] = []
        self._allowed: list[ReachedStep | Exception] = []

    def add(self, tool: Tool[..., Any], arguments: Mapping[str, Any]) -> None:
        """The code has come to a call of this tool. What keeps it from being made is told by `make`."""
        self._places.append(Place.of(self._attempt, Call(name=tool.name, function=tool, kwargs=arguments)))

    def allow(self) -> None:
        """Unwind the agent until people have decided about all calls that need it; they are asked at once."""
        self._allowed = allow_all(self._attempt, self._places, CallOptions())

    def make(self) -> list[EndedCall]:
        """Make all calls at once, each a step; return their ends when all have ended."""
        steps = self._allowed
        if len(steps) == 1 and isinstance(steps[0], ReachedStep):
            # A tool that is alone may change the memory.
            ends = [caught(steps[0].finish, self._attempt.course.interrupts)]
        else:
            ends = take_all(self._attempt, steps, DEFAULT_LIMIT)
        return [self._ended(*call) for call in zip(self._places, steps, ends, strict=True)]

    def _ended(self, place: Place, reached: ReachedStep | Exception, end: Any) -> EndedCall:
        journal, changed = self._attempt.journal, None
        if isinstance(reached, ReachedStep) and place.approval is not None:
            allowed = reached.step.action.input
            changed = allowed if allowed != place.approval.arguments else None
        return EndedCall(
            result=journal.step(place.key).result if journal.has(place.key) else None,
            error=end if isinstance(end, Exception) else None,
            changed=changed,
        )
