"""The stored form of a fork: a new execution that begins with the recorded steps of another one.

Recorded work is reused, and never done again: a recorded effect has happened once, and belongs to both. The `attempt`
of each step that is taken over is 0, which marks it. The fork does not know what is not recorded:

- The mailbox stays with the other execution. So does its present working memory, because nobody knows what it was at
  that step: the engine stores it anew with the first checkpoint, as the code and the recorded steps make it.
- An intent is taken over as an intent. Its `on_crash` policy settles what it leaves open, as after a crash.
- A child that was spawned within those steps is shared: the fork reads its end, and does not cancel it.
- An approval counts for one call. It is refused if that call lies beyond the cut, where it would be made a second time.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from agent_statestore.checkpoint import new_execution_id
from agent_statestore.codec import AuditRow, decode_message, decode_step, encode_step, encode_via
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.envelope import seal_value, unseal, unseal_value
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import AgentStep, AuditEvent, JSONValue
from agent_statestore.states import AgentState
from celery_agents.define import deadline, turns
from celery_agents.lifecycle.decider import Decider

# Keys in the metadata of a fork.
FORKED_FROM: Final = "agents.forked_from"
AT_STEP: Final = "agents.at_step"

_AS_NEW: Final[Mapping[str, Any]] = {
    # The fork of a child is nobody's child: the parent waits for the original.
    "parent_execution_id": None,
    "idempotency_key": None,
    "state": AgentState.IDLE.value,
    "waits": None,
    "awaited": None,
    "output": None,
    "error": None,
    "version": 0,
    "token": 0,
    "crashes": 0,
    "cancel_requested": 0,
    "not_before_us": 0,
    "checkpoint_id": None,
    "ended_us": None,
}


def forked(
    source: ExportedExecution,
    at_step: int,
    *,
    now_us: int,
    max_bytes: int,
    input_text: str | None = None,
    metadata: Mapping[str, JSONValue],
    by: Decider,
) -> ExportedExecution:
    """Return a new execution, due at once, that shares the first `at_step` steps. `input_text` is other
    input, as stored.

    `metadata` are set over those of the source. Raise `InvalidRecord` for a step at which the source cannot be cut.
    """
    steps = [decode_step(step.text) for step in source.steps]
    _check_cut(source.execution_id, at_step, steps)
    kept, dropped = steps[:at_step], steps[at_step:]
    header = source.header
    # The creation must not come before the last write of the source, even if this host's clock is behind the store's.
    created_us = max(now_us, int(header["updated_us"]))
    # The source's deadline has had its time, and another input has another key.
    left = {deadline.KEY} if input_text is None else {deadline.KEY, turns.KEY}
    merged = {name: value for name, value in unseal_value(header["metadata"]).items() if name not in left}
    merged |= {**metadata, FORKED_FROM: source.execution_id, AT_STEP: at_step}
    origin = f"forked from {source.execution_id} at step {at_step}"
    created = AuditRow(
        position=1,
        at_us=created_us,
        event=AuditEvent.CREATED.value,
        from_state=None,
        to_state=AgentState.IDLE.value,
        attempt=0,
        worker=None,
        by=by.sender,
        reason=origin if by.reason is None else f"{origin}: {by.reason}",
        signal=encode_via(by.via),
    )
    return ExportedExecution(
        header={
            **header,
            **_AS_NEW,
            "execution_id": new_execution_id(),
            "metadata": seal_value(merged, "metadata", max_bytes),
            "input": header["input"] if input_text is None else input_text,
            "step_count": at_step,
            "created_us": created_us,
            "updated_us": created_us,
            # In the past by any clock: due at once.
            "due_us": int(header["updated_us"]),
        },
        steps=tuple(encode_step(replace(step, attempt=0), sys.maxsize) for step in kept),
        messages=_messages_before(source.messages, kept, dropped),
        facts=_facts_before(source.facts, kept, dropped),
        entities=source.entities,
        rag_context=source.rag_context,
        audit=(created,),
    )


def _check_cut(execution_id: str, at_step: int, steps: Sequence[AgentStep]) -> None:
    if isinstance(at_step, bool) or not isinstance(at_step, int) or not 0 <= at_step <= len(steps):
        raise InvalidRecord(
            "at_step", f"execution {execution_id} has {len(steps)} steps: needs 0 to {len(steps)}, not {at_step!r}"
        )
    for approval in _unused_approvals(steps[:at_step]):
        raise InvalidRecord(
            "at_step",
            f"step {approval.step_number} ({approval.name!r}) approves of one call, which lies beyond step {at_step}: "
            f"fork at step {approval.step_number - 1} to have it asked for again, or after the call to reuse that",
        )


def _unused_approvals(steps: Sequence[AgentStep]) -> list[AgentStep]:
    """Return the approvals of calls that are not even begun within these steps."""
    keys = {step.name for step in steps}
    given = (
        step for step in steps if step.action.kind == "approval" and step.result is not None and step.result.success
    )
    return [approval for approval in given if approval.name.removeprefix("approve ") not in keys]


# -- what was said and remembered by then ------------------------------------------------------------------------------


def _messages_before(
    messages: Iterable[str], kept: Sequence[AgentStep], dropped: Sequence[AgentStep]
) -> tuple[str, ...]:
    """Return others' messages, and those the agent's code had said when the last of these steps was recorded."""
    count = _count(kept, dropped, [step.said for step in kept], [step.said for step in dropped])
    end = max((step.timestamp + step.duration for step in kept), default=None)
    before: list[str] = []
    own = 0
    for text in messages:
        message = decode_message(text)
        if message.by_run:
            own += 1
            is_later = own > count if count is not None else end is None or message.timestamp > end
            if is_later:
                continue
        before.append(text)
    return tuple(before)


def _facts_before(facts: Iterable[str], kept: Sequence[AgentStep], dropped: Sequence[AgentStep]) -> tuple[str, ...]:
    """Return the same for facts, which have no time: where they were not counted, all of them stay."""
    count = _count(kept, dropped, [step.remembered for step in kept], [step.remembered for step in dropped])
    before: list[str] = []
    own = 0
    for text in facts:
        if unseal(text, "fact").get("by_run"):
            own += 1
            if count is not None and own > count:
                continue
        before.append(text)
    return tuple(before)


def _count(
    kept: Sequence[AgentStep],
    dropped: Sequence[AgentStep],
    by_kept: Sequence[int | None],
    by_dropped: Sequence[int | None],
) -> int | None:
    """Return how many there were before anything beyond the cut could be known; None where steps did not count.

    Among steps side by side, a later number may have been recorded earlier: what was said upon its result goes, too.
    """
    if not kept:
        return 0
    if any(count is None for count in by_kept):
        return None
    until = max(count for count in by_kept if count is not None)
    known = [
        count for step, count in zip(dropped, by_dropped, strict=True) if step.result is not None and count is not None
    ]
    return min([until, *known])
