"""What a checkpoint tells the stream of its execution."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from agent_statestore.envelope import dump
from agent_statestore.errors import NotSerialisable
from agent_statestore.records import AgentStep, ErrorInfo, JSONValue, Wait, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.streams.records import StreamEvent, StreamKind, StreamPart

# An output, a prompt or an argument that is larger is left out: readers find it in the execution.
MOST_TOLD_BYTES: Final = 16 * 1024
_MOST_MESSAGE: Final = 1_000


def told_by(
    change: Mapping[str, Any], asked_before: Collection[tuple[WaitKind, str]], now: datetime
) -> Iterator[StreamEvent]:
    """Yield the events of a write: `change` are fields of a `Checkpoint`. `asked_before` are waits told of before."""
    steps: Sequence[AgentStep] = change.get("steps", ())
    for step in steps:
        if step.result is not None:
            yield StreamEvent(
                kind=StreamKind.STEP_RECORDED, data=_recorded(step), at=now, step=step.name, tried=step.tries
            )
    state: AgentState | None = change.get("state")
    if state is None:
        return
    if state.is_paused:
        waits: Sequence[Wait] = change["waits"]
        shown = [as_told(wait) for wait in waits]
        for wait, told in zip(waits, shown, strict=True):
            if (wait.kind, wait.key) not in asked_before:
                yield StreamEvent(kind=StreamKind.ASKED, data=told, at=now)
        yield StreamEvent(kind=StreamKind.PAUSED, data={"waits": [_address(told) for told in shown]}, at=now)
    elif state.is_over:
        yield StreamEvent(kind=StreamKind.ENDED, data=_ended(state, change), at=now)


def ending(state: AgentState, error: ErrorInfo | None = None) -> StreamPart:
    """Return what is told of an end that no attempt has come to."""
    return StreamPart(events=(StreamEvent(kind=StreamKind.ENDED, data=_ended(state, {"error": error})),))


def as_told(wait: Wait) -> dict[str, JSONValue]:
    """Return what a stream tells of a wait."""
    told: dict[str, JSONValue] = {"wait": wait.kind.value, "key": wait.key, "round": wait.round}
    prompt = wait.prompt
    if wait.kind is WaitKind.APPROVAL and isinstance(prompt, dict):
        told |= {name: prompt[name] for name in ("tool", "description", "arguments", "digest") if name in prompt}
    elif prompt is not None:
        told["prompt"] = prompt
    if wait.schema is not None:
        told["schema"] = dict(wait.schema)
    if wait.wake_at is not None:
        told["until"] = wait.wake_at.isoformat()
    return _bounded(told)


def _address(told: Mapping[str, JSONValue]) -> dict[str, JSONValue]:
    return {name: told[name] for name in ("wait", "key", "round")}


def _recorded(step: AgentStep) -> dict[str, JSONValue]:
    assert step.result is not None
    told: dict[str, JSONValue] = {
        "number": step.step_number,
        "action": step.action.kind,
        "success": step.result.success,
    }
    if step.action.tool is not None:
        told["tool"] = step.action.tool
    if step.result.error is not None:
        told["error"] = of_error(step.result.error)
    return told


def of_error(error: ErrorInfo) -> dict[str, JSONValue]:
    """Return what a stream tells of an error."""
    return {"type": error.type, "message": error.message[:_MOST_MESSAGE]}


def failed_try(error: BaseException, next_in: float | None) -> dict[str, JSONValue]:
    """Return what a stream tells of a try that failed; the next one comes in so many seconds, if any does."""
    kind = type(error)
    told = {"type": f"{kind.__module__}:{kind.__qualname__}", "message": _said(error)}
    return told if next_in is None else {**told, "next_in": round(next_in, 3)}


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - of the error's own class
        text = ""
    return text.encode("utf-8", "replace").decode()[:_MOST_MESSAGE]


def _ended(state: AgentState, change: Mapping[str, Any]) -> dict[str, JSONValue]:
    told: dict[str, JSONValue] = {"state": state.value}
    if state is AgentState.COMPLETED:
        told["output"] = change.get("output")
    error: ErrorInfo | None = change.get("error")
    if error is not None:
        told["error"] = of_error(error)
    return _bounded(told)


def _bounded(told: dict[str, JSONValue]) -> dict[str, JSONValue]:
    """Return it without the values that are too large, or that JSON cannot carry: the write itself refuses those."""
    for name, value in list(told.items()):
        if isinstance(value, str | int | float | bool | None) and not (isinstance(value, str) and len(value) > 4_000):
            continue
        try:
            is_small = len(dump(value, name)) <= MOST_TOLD_BYTES
        except NotSerialisable:
            is_small = False
        if not is_small:
            del told[name]
            told["omitted"] = [*told.get("omitted", ()), name]
    return told
