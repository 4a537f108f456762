"""What people say to a loop agent while it runs: its model is told, before it decides again.

What was decided and not begun when somebody said something is not done: the model is told that, too, in the place of a
result, so that the conversation has no call without one. An end puts nobody off either: there is one turn more.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from agent_statestore.records import JSONValue
from celery_agents.engine.run.run import Run
from celery_agents.loop import messages, verdicts
from celery_agents.loop.actions import AskUser, Complete, Respond, Think, UseTool, UseTools, WaitFor
from celery_agents.loop.context import LoopResult

_PUT_OFF: Final = "PutOff"
_WHY: Final = "the user has said something first"


class Told(NamedTuple):
    """A message of the conversation."""

    role: str
    content: JSONValue


def heard(run: Run) -> Iterator[Told]:
    """Yield what was said since the last look, before the model decides."""
    for saying in run.said():
        yield Told("user", saying.text)


def is_put_off(run: Run, action: Any) -> list[Told] | None:
    """Return what to tell in the place of doing what was decided, if somebody has said something; else None."""
    match action:
        case Think() | Respond(goes_on=True):
            return None  # it is said, and the next turn looks
        case Complete() | Respond():
            said = run.said()
        case _:
            said = run.said(turn_is_over=False)
    if not said:
        return None
    return [*_instead_of(action), *(Told("user", saying.text) for saying in said)]


def results_of(action: Any) -> tuple[LoopResult, ...]:
    """Return the ends of calls that were put off."""
    return tuple(_of_call(call) for call in verdicts.calls_of(action))


def _instead_of(action: Any) -> Iterator[Told]:
    match action:
        case UseTool() | UseTools():
            calls = verdicts.calls_of(action)
            yield Told("assistant", messages.of_calls(action.text, calls))
            for call in calls:
                yield Told("tool", messages.of_result(_of_call(call), has_changed=False))
        case Respond():
            yield Told("assistant", action.message)
        case Complete():
            if action.message:
                yield Told("assistant", action.message)
            yield Told("system", f"You did not end here: {_WHY}.")
        case AskUser():
            yield Told("system", f"Your question was not asked: {_WHY}. It was: {action.question}")
        case WaitFor():
            yield Told("system", f"You did not wait: {_WHY}.")


def _of_call(call: Any) -> LoopResult:
    error = f"{_PUT_OFF}: it was not called, as {_WHY}"
    return LoopResult(
        name=call.tool, success=False, error=error, error_type=_PUT_OFF, call_id=call.id, arguments=call.arguments
    )
