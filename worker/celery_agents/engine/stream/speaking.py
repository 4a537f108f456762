"""The stream of an execution as the agent's code has it: where that code is, decides what its words belong to."""

from functools import partial

from agent_statestore.records import JSONValue
from agent_statestore.streams.records import StreamKind
from celery_agents.define.live import LiveStream
from celery_agents.engine.attempt import Attempt


def live_stream(attempt: Attempt, step: str | None = None, tried: int = 0) -> LiveStream:
    """Return the stream for the step of this key; without one, for wherever the code is when it says something."""
    if attempt.outlet is None:
        return LiveStream(partial(_say_to_nobody, attempt, step))
    if step is not None:
        return LiveStream(partial(_say_in, attempt, step, tried))
    return LiveStream(partial(_say, attempt))


def _say_to_nobody(attempt: Attempt, step: str | None, kind: StreamKind, data: dict[str, JSONValue]) -> None:
    """Streams are off. What a call has said is its text nevertheless, if somebody interrupts it."""
    step = step or attempt.nesting.step_around
    if step is not None and kind is StreamKind.TEXT:
        attempt.held.cuttable.says(step, str(data["delta"]))


def _say_in(attempt: Attempt, step: str, tried: int, kind: StreamKind, data: dict[str, JSONValue]) -> None:
    assert attempt.outlet is not None
    attempt.outlet.say(kind, data, step=step, tried=tried)
    if kind is StreamKind.TEXT:
        attempt.held.cuttable.says(step, str(data["delta"]))


def _say(attempt: Attempt, kind: StreamKind, data: dict[str, JSONValue]) -> None:
    outlet, nesting = attempt.outlet, attempt.nesting
    assert outlet is not None
    step = nesting.step_around
    if step is None and (group := nesting.group) is not None:
        step = group.keys[-1]
    if step is not None:
        _say_in(attempt, step, 0, kind, data)
        return
    # Between steps: the next attempt comes here again, and what was said then is not said once more.
    index = attempt.memory.count_said()
    if index is not None:
        outlet.say(kind, {**data, "index": index} if kind is StreamKind.EMITTED else data)
