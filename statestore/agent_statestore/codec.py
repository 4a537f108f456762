"""Records to stored text and back: the one place that knows the fields of every envelope.

A backend stores what `encode_new` and `encode_checkpoint` return, and gives `decode_context` back what it stored. It
never looks into the texts. The header of an execution is a flat mapping whose names are the same in every backend
(`HEADER_FIELDS`): columns in SQL, hash fields in Redis.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

from agent_statestore.checkpoint import Checkpoint, NewExecution
from agent_statestore.clock import duration_us, from_us, to_us
from agent_statestore.envelope import FORMAT, Fields, dump, load, require_readable, seal, unseal
from agent_statestore.records import (
    Action,
    AgentContext,
    AgentStep,
    AuditEntry,
    AuditEvent,
    ErrorInfo,
    ExecutionSummary,
    Memory,
    Message,
    RagChunk,
    Result,
    Signal,
    SignalKind,
    StepChanges,
    Wait,
    WaitKind,
)
from agent_statestore.states import AgentState

# Of these actions the engine records no intent, so that their steps are new ones: what stores may count on, as long as
# whoever did record an intent gets its result recorded, too.
WITHOUT_INTENT: Final = frozenset({"step"})

# Larger than any real time in microseconds, and still exact in a double, which is what Lua counts with.
NEVER_US: Final = 2**53 - 1

# A failure must always fit: one that says "the value is too large" would otherwise be too large itself.
ERROR_ROOM_BYTES: Final = 256 * 1024

# name: meaning. Times are microseconds since the epoch.
HEADER_FIELDS: Final = {
    "execution_id": "the execution",
    "format": "format version of the header and of the plain JSON values",
    "agent_id": "which agent",
    "session_id": "conversation, or null",
    "user_id": "user, or null",
    "parent_execution_id": "the execution that spawned this one, or null",
    "idempotency_key": "unique per agent, or null",
    "queue": "Celery queue to ring on, or null for the default",
    "priority": "message priority, or null",
    "metadata": "JSON object",
    "input": "JSON",
    "state": "AgentState",
    "waiting": "envelope of Wait, or null",
    "wait_key": "key of the wait, or null",
    "wait_signal": "kind of signal that ends the wait, or null",
    "output": "JSON, or null while not completed",
    "error": "envelope of ErrorInfo, or null",
    "version": "applied checkpoints",
    "token": "last fencing token = number of claims; 0 = never claimed",
    "crashes": "claims in a row that recorded nothing and were not given back",
    "rings": "rings since something last happened",
    "cancel_requested": "1 once a cancel is in the mailbox",
    "owner": "owner of the last claim until its lease is given back, else null",
    "lease_until_us": "end of the lease; 0 = no lease",
    "not_before_us": "a claim is refused before; 0 = at once, NEVER_US = only a signal ends the pause",
    "due_us": "when the bell is rung next, or null",
    "step_count": "highest step number",
    "checkpoint_id": "id of the last applied checkpoint, or null",
    "created_us": "creation",
    "updated_us": "last write",
    "ended_us": "when it was over, or null",
}

# Of a failure's error, what its entry in the audit trail keeps.
_REASON_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class EncodedStep:
    """One step as stored: its number, journal key, envelope, and whether it has a result.

    `kind` is that of its action, known of a step that is to be written.
    """

    number: int
    name: str
    text: str
    is_done: bool
    kind: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class EncodedCheckpoint:
    """A checkpoint as stored texts; see `Checkpoint` for the meaning of each part."""

    checkpoint_id: str
    steps: tuple[EncodedStep, ...]
    messages: tuple[str, ...]
    working_memory: tuple[tuple[str, str], ...]
    forget: tuple[str, ...]
    facts: tuple[str, ...]
    entities: tuple[tuple[str, str], ...]
    rag_context: tuple[str, ...]
    state: AgentState | None
    waiting: str | None
    wait_key: str | None
    wait_signal: str | None
    wake_us: int | None
    output: str | None
    error: str | None
    consumed: tuple[str, ...]
    announce_us: int | None
    gives_back_lease: bool
    by: str | None
    reason: str | None
    after_checkpoint: str | None


class AuditRow(NamedTuple):
    """An entry of the audit trail as stored; see `AuditEntry`. `signal` is what `encode_signal` made."""

    position: int
    at_us: int
    event: str
    from_state: str | None
    to_state: str | None
    attempt: int
    worker: str | None
    by: str | None
    reason: str | None
    signal: str | None


def encode_new(execution_id: str, new: NewExecution, now_us: int | None, max_bytes: int) -> dict[str, str | int | None]:
    """The header of a new execution.

    With `now_us` None the caller's server fills in `created_us`, `updated_us` and (unless `start_at` set it) `due_us`.
    """
    start_us = None if new.start_at is None else to_us(new.start_at)
    first_ring_us = duration_us(new.first_ring)
    return {
        "execution_id": execution_id,
        "format": FORMAT,
        "agent_id": new.agent_id,
        "session_id": new.session_id,
        "user_id": new.user_id,
        "parent_execution_id": new.parent_execution_id,
        "idempotency_key": new.idempotency_key,
        "queue": new.queue,
        "priority": new.priority,
        "metadata": dump(dict(new.metadata), "metadata", max_bytes),
        "input": dump(new.input, "input", max_bytes),
        "state": AgentState.IDLE.value,
        "waiting": None,
        "wait_key": None,
        "wait_signal": None,
        "output": None,
        "error": None,
        "version": 0,
        "token": 0,
        "crashes": 0,
        "rings": 0,
        "cancel_requested": 0,
        "owner": None,
        "lease_until_us": 0,
        "not_before_us": start_us or 0,
        "due_us": start_us if start_us is not None else (None if now_us is None else now_us + first_ring_us),
        "step_count": 0,
        "checkpoint_id": None,
        "created_us": now_us,
        "updated_us": now_us,
        "ended_us": None,
    }


def encode_checkpoint(checkpoint: Checkpoint, max_bytes: int) -> EncodedCheckpoint:
    """The texts of a checkpoint. Raises `NotSerialisable` or `ValueTooLarge`, naming the part."""
    state, waiting, announce_within = checkpoint.state, checkpoint.waiting, checkpoint.announce_within
    over = state is not None and state.is_over
    # Most parts of most checkpoints are empty: for those not even a generator is made.
    return EncodedCheckpoint(
        checkpoint_id=checkpoint.checkpoint_id,
        steps=tuple([encode_step(step, max_bytes) for step in checkpoint.steps]) if checkpoint.steps else (),
        messages=tuple([encode_message(message, max_bytes) for message in checkpoint.messages])
        if checkpoint.messages
        else (),
        working_memory=_encode_items("working_memory", checkpoint.working_memory, max_bytes)
        if checkpoint.working_memory
        else (),
        forget=checkpoint.forget,
        facts=_encode_facts(checkpoint, max_bytes) if checkpoint.facts else (),
        entities=_encode_items("entities", checkpoint.entities, max_bytes) if checkpoint.entities else (),
        rag_context=tuple([_encode_rag(chunk, max_bytes) for chunk in checkpoint.rag_context])
        if checkpoint.rag_context
        else (),
        state=state,
        waiting=None if waiting is None else _encode_wait(waiting, max_bytes),
        wait_key=None if waiting is None else waiting.key,
        wait_signal=None if waiting is None else WAIT_SIGNAL.get(waiting.kind),
        wake_us=None if waiting is None or waiting.wake_at is None else to_us(waiting.wake_at),
        output=dump(checkpoint.output, "output", max_bytes) if over else None,
        error=None if checkpoint.error is None else _encode_error(checkpoint.error, max_bytes),
        consumed=checkpoint.consumed,
        announce_us=None if announce_within is None else duration_us(announce_within),
        gives_back_lease=state is not None and checkpoint.gives_back_lease,
        by=checkpoint.by,
        reason=checkpoint.reason if checkpoint.reason is not None else _reason_of(checkpoint.error),
        after_checkpoint=checkpoint.after_checkpoint,
    )


def encode_step(step: AgentStep, max_bytes: int) -> EncodedStep:
    """A step as stored."""
    action, result, changes = step.action, step.result, step.changes
    does: Fields = {"kind": action.kind}
    if action.tool is not None or action.input is not None or action.thought is not None:
        does = _present(kind=action.kind, tool=action.tool, input=action.input, thought=action.thought)
    did: Fields | None = None
    if result is not None:
        did = {"ok": result.success}
        if result.output is not None:
            did["output"] = result.output
    text = seal(
        {
            "n": step.step_number,
            "name": step.name,
            "action": does,
            "result": did,
            "error": None if result is None or result.error is None else _error_fields(result.error),
            "attempt": step.attempt,
            "tries": None if step.tries == 1 else step.tries,
            "in_flight": step.in_flight or None,
            "wrote": None if step.said is None or step.remembered is None else [step.said, step.remembered],
            "at": to_us(step.timestamp),
            "took": duration_us(step.duration),
            "changes": None
            if changes is None
            else {
                "memory": dict(changes.memory),
                "forgotten": list(changes.forgotten),
                "messages": changes.messages,
                "facts": changes.facts,
            },
        },
        f"step {step.name!r}",
        max_bytes if result is None or result.success else max_bytes + ERROR_ROOM_BYTES,
    )
    return EncodedStep(step.step_number, step.name, text, result is not None, action.kind)


def encode_signal(signal: Signal, max_bytes: int) -> str:
    """A signal as stored."""
    return seal(
        {
            "id": signal.signal_id,
            "kind": signal.kind.value,
            "key": signal.key or None,
            "payload": signal.payload,
            "sender": signal.sender,
            "reason": signal.reason,
            "at": to_us(signal.sent_at),
        },
        "signal",
        max_bytes,
    )


def decode_summary(header: Mapping[str, Any]) -> ExecutionSummary:
    """The summary of a stored header."""
    return ExecutionSummary(**_summary_fields(header))


def decode_context(
    header: Mapping[str, Any],
    *,
    steps: Iterable[str | bytes],
    messages: Iterable[str | bytes],
    working_memory: Mapping[str, str | bytes],
    facts: Iterable[str | bytes],
    entities: Mapping[str, str | bytes],
    rag_context: Iterable[str | bytes],
    signals: Iterable[str | bytes],
) -> AgentContext:
    """The context made of a stored header and the parts in their order. `signals` are the unconsumed ones."""
    output = header.get("output")
    noted = [unseal(text, "fact") for text in facts]
    return AgentContext(
        **_summary_fields(header),
        input=load(header["input"]),
        output=None if output is None else load(output),
        steps=tuple(decode_step(text) for text in steps),
        memory=Memory(
            conversation_history=tuple(decode_message(text) for text in messages),
            working_memory={key: load(text) for key, text in working_memory.items()},
            facts=tuple(fields.get("fact") for fields in noted),
            run_facts=tuple(fields.get("fact") for fields in noted if fields.get("by_run")),
            entities={key: load(text) for key, text in entities.items()},
        ),
        rag_context=tuple(_decode_rag(text) for text in rag_context),
        signals=tuple(decode_signal(text) for text in signals),
        last_checkpoint=_text(header.get("checkpoint_id")) or "",
    )


def decode_step(text: str | bytes) -> AgentStep:
    """A stored step."""
    fields = unseal(text, "step")
    result, error, changes = fields.get("result"), fields.get("error"), fields.get("changes")
    said, remembered = fields.get("wrote", (None, None))
    return AgentStep(
        step_number=fields["n"],
        name=fields["name"],
        action=Action(**fields["action"]),
        result=None
        if result is None
        else Result(
            success=result["ok"],
            output=result.get("output"),
            error=None if error is None else _error_of(error),
        ),
        attempt=fields["attempt"],
        tries=fields.get("tries", 1),
        in_flight=fields.get("in_flight", False),
        said=said,
        remembered=remembered,
        timestamp=from_us(fields["at"]),
        duration=timedelta(microseconds=fields["took"]),
        changes=None
        if changes is None
        else StepChanges(
            memory=changes["memory"],
            forgotten=tuple(changes["forgotten"]),
            messages=changes["messages"],
            facts=changes["facts"],
        ),
    )


def decode_signal(text: str | bytes) -> Signal:
    """A stored signal."""
    fields = unseal(text, "signal")
    return Signal(
        signal_id=fields["id"],
        kind=SignalKind(fields["kind"]),
        key=fields.get("key", ""),
        payload=fields.get("payload"),
        sender=fields.get("sender"),
        reason=fields.get("reason"),
        sent_at=from_us(fields["at"]),
    )


# The kind of signal that ends a wait, as stored; a timer has none.
WAIT_SIGNAL: Final = {
    WaitKind.INPUT: SignalKind.ANSWER.value,
    WaitKind.APPROVAL: SignalKind.APPROVAL.value,
    WaitKind.EVENT: SignalKind.EVENT.value,
    WaitKind.CHILD: SignalKind.CHILD.value,
}


def decode_audit(row: AuditRow) -> AuditEntry:
    """A stored entry of the audit trail."""
    return AuditEntry(
        position=row.position,
        at=from_us(row.at_us),
        event=AuditEvent(row.event),
        from_state=None if row.from_state is None else AgentState(row.from_state),
        to_state=None if row.to_state is None else AgentState(row.to_state),
        attempt=row.attempt,
        worker=row.worker,
        by=row.by,
        reason=row.reason,
        signal=None if row.signal is None else decode_signal(row.signal),
    )


# The signals with which people decide something.
_DECISIONS: Final = frozenset({SignalKind.ANSWER, SignalKind.APPROVAL, SignalKind.CANCEL})


def noted_as(signal: Signal) -> AuditEvent | None:
    """What an accepted signal is called in the audit trail; None for one that is not noted.

    An event is noted if somebody stands behind it. Those that executions wake each other with, and those of programs
    that name nobody, may be many, and would leave nothing to be asked about.
    """
    if signal.kind in _DECISIONS:
        return AuditEvent.DECIDED
    if signal.kind is SignalKind.EVENT and signal.sender is not None:
        return AuditEvent.RECEIVED
    return None


def decode_wait(text: str | bytes) -> Wait:
    """A stored wait."""
    fields = unseal(text, "wait")
    wake = fields.get("wake")
    return Wait(
        kind=WaitKind(fields["kind"]),
        key=fields["key"],
        prompt=fields.get("prompt"),
        schema=fields.get("schema"),
        asked_at=from_us(fields["at"]),
        wake_at=None if wake is None else from_us(wake),
    )


def _summary_fields(header: Mapping[str, Any]) -> Fields:
    execution_id = _text(header["execution_id"])
    require_readable(f"execution {execution_id}", int(header["format"]))
    waiting, error = header.get("waiting"), header.get("error")
    priority, due_us = header.get("priority"), header.get("due_us")
    lease_until_us, ended_us = int(header["lease_until_us"]), header.get("ended_us")
    return {
        "execution_id": execution_id,
        "agent_id": _text(header["agent_id"]),
        "session_id": _text(header.get("session_id")),
        "user_id": _text(header.get("user_id")),
        "parent_execution_id": _text(header.get("parent_execution_id")),
        "idempotency_key": _text(header.get("idempotency_key")),
        "queue": _text(header.get("queue")),
        "priority": None if priority is None else int(priority),
        "metadata": load(header["metadata"]),
        "state": AgentState(_text(header["state"]) or ""),
        "waiting": None if waiting is None else decode_wait(waiting),
        "error": None if error is None else _error_of(unseal(error, "error")),
        "version": int(header["version"]),
        "attempt": int(header["token"]),
        "crashes": int(header["crashes"]),
        "step_count": int(header["step_count"]),
        "cancel_requested": bool(int(header["cancel_requested"])),
        "owner": _text(header.get("owner")),
        "lease_expires_at": from_us(lease_until_us) if lease_until_us else None,
        "due_at": None if due_us is None else from_us(int(due_us)),
        "created_at": from_us(int(header["created_us"])),
        "updated_at": from_us(int(header["updated_us"])),
        "ended_at": None if ended_us is None else from_us(int(ended_us)),
    }


def _text(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def _present(**fields: Any) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


def _encode_facts(checkpoint: Checkpoint, max_bytes: int) -> tuple[str, ...]:
    by_run = checkpoint.facts_by_run or None
    return tuple([seal({"fact": fact, "by_run": by_run}, "facts", max_bytes) for fact in checkpoint.facts])


def _encode_items(field: str, items: Mapping[str, Any], max_bytes: int) -> tuple[tuple[str, str], ...]:
    return tuple((key, dump(value, f"{field}[{key!r}]", max_bytes)) for key, value in items.items())


def encode_message(message: Message, max_bytes: int) -> str:
    """A message as stored. Raises `NotSerialisable` or `ValueTooLarge`."""
    return seal(
        {
            "role": message.role,
            "content": message.content,
            "at": to_us(message.timestamp),
            "metadata": dict(message.metadata) or None,
            "by_run": message.by_run or None,
        },
        "message",
        max_bytes,
    )


def decode_message(text: str | bytes) -> Message:
    """A stored message."""
    fields = unseal(text, "message")
    return Message(
        role=fields["role"],
        content=fields.get("content"),
        timestamp=from_us(fields["at"]),
        metadata=fields.get("metadata", {}),
        by_run=fields.get("by_run", False),
    )


def _encode_rag(chunk: RagChunk, max_bytes: int) -> str:
    return seal(
        {
            "content": chunk.content,
            "source": chunk.source,
            "score": chunk.score,
            "metadata": dict(chunk.metadata) or None,
        },
        "rag_context",
        max_bytes,
    )


def _decode_rag(text: str | bytes) -> RagChunk:
    fields = unseal(text, "rag_context")
    return RagChunk(
        content=fields.get("content"),
        source=fields.get("source"),
        score=fields.get("score"),
        metadata=fields.get("metadata", {}),
    )


def _encode_wait(wait: Wait, max_bytes: int) -> str:
    return seal(
        {
            "kind": wait.kind.value,
            "key": wait.key,
            "prompt": wait.prompt,
            "schema": None if wait.schema is None else dict(wait.schema),
            "at": to_us(wait.asked_at),
            "wake": None if wait.wake_at is None else to_us(wait.wake_at),
        },
        "waiting",
        max_bytes,
    )


def _encode_error(error: ErrorInfo, max_bytes: int) -> str:
    return seal(_error_fields(error), "error", max_bytes + ERROR_ROOM_BYTES)


def _reason_of(error: ErrorInfo | None) -> str | None:
    if error is None:
        return None
    return f"{error.type}: {error.message}"[:_REASON_CHARACTERS].replace("\x00", "\ufffd")


def _error_fields(error: ErrorInfo) -> Fields:
    return _present(
        type=error.type,
        message=error.message,
        args=None if error.args is None else list(error.args),
        bases=list(error.bases) or None,
        traceback=error.traceback,
    )


def _error_of(fields: Fields) -> ErrorInfo:
    args = fields.get("args")
    return ErrorInfo(
        type=fields["type"],
        message=fields["message"],
        args=None if args is None else tuple(args),
        bases=tuple(fields.get("bases", ())),
        traceback=fields.get("traceback"),
    )
