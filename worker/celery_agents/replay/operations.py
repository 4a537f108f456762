"""`fork` and `rewind`: start another execution that begins with the recorded steps of an existing one."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from agent_statestore.clock import Clock, SystemClock
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.envelope import seal_value
from agent_statestore.errors import ExecutionNotFound, InvalidRecord
from agent_statestore.records import AgentStep, JSONValue, require_name
from agent_statestore.store import Store
from celery_agents.client.execution import Execution
from celery_agents.current import current_runtime
from celery_agents.define import deadline as deadlines
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.turns import Turns, require_no_key
from celery_agents.engine.pauses.question import MISSING, Missing
from celery_agents.engine.relatives import SPAWN
from celery_agents.errors import UnknownAgent
from celery_agents.lifecycle.decider import PYTHON, Decider
from celery_agents.lifecycle.services import Services
from celery_agents.lifecycle.turns import admission
from celery_agents.replay.forks import forked

# How often to look whether a lease has run out, because nobody tells of that.
_LOOK_SECONDS: Final = 1.0


def fork(
    execution_id: str,
    at_step: int,
    *,
    input: Any = MISSING,  # noqa: A002 - the field's standard name
    metadata: Mapping[str, JSONValue] | None = None,
    deadline: datetime | timedelta | None = None,
    session_id: str | Missing | None = MISSING,
    sender: str | None = None,
    reason: str | None = None,
    channel: str = PYTHON,
    runtime: Services | None = None,
    clock: Clock | None = None,
) -> Execution:
    """Start a new execution that shares the first `at_step` steps of another one, which stays as it is.

    The shared steps are not run again: their results are read, and their `attempt` is 0. The code goes on from there,
    with a new execution id, new idempotency keys, limits and audit trail. `at_step=0` shares nothing but the input.
    `input` replaces that input, and is checked against the agent's schema. `metadata` are set over those of the other
    execution; its deadline is not taken along. `session_id` is another session, or None; by default the session stays
    the same, where an agent with `session_policy="reject"` allows no second active execution, not even a fork of the
    active one. `sender`, `reason` and `channel` (through what
    this is asked for) are recorded in the audit trail. `clock` gives the time of creation.

    The `on_crash` policy settles a call that was in flight at the cut. Children that were spawned before it are shared;
    the fork looks once an hour at a child that is not over yet. Signals stay with the other execution: a question is
    asked again, an event must be sent again, a sleep begins anew.

    Raises `ExecutionNotFound` (also for a deleted execution). Raises `InvalidRecord` for a step that is not recorded,
    for one that is being executed at this moment, and for a cut between an approval and the call that it allows. Raises
    `SessionBusy`, with nothing stored, and for another input `UnknownAgent` and `InvalidInput`.
    """
    services = runtime or current_runtime()
    source = _exported(services, execution_id)
    given = deadlines.added_to(metadata or {}, deadline)
    by = Decider(sender=sender, reason=reason, channel=channel)
    new = _prepared(services, source, at_step, input, given, session_id, by, clock)
    _check_not_in_flight(services.store, source, at_step)
    return _started(services, new)


def rewind(
    execution_id: str,
    to_step: int,
    *,
    input: Any = MISSING,  # noqa: A002 - the field's standard name
    metadata: Mapping[str, JSONValue] | None = None,
    deadline: datetime | timedelta | None = None,
    session_id: str | Missing | None = MISSING,
    sender: str | None = None,
    reason: str | None = None,
    channel: str = PYTHON,
    timeout: float = 60.0,
    runtime: Services | None = None,
    clock: Clock | None = None,
) -> Execution:
    """Cancel an execution unless it is over, and fork it at a step; the fork goes on in its place. See `fork`.

    An execution that is being executed ends at its next step boundary. This waits for that up to `timeout` seconds, so
    that no step is taken on both sides. Cancelling the execution cancels its children, but a child that the fork would
    share must not be cancelled: unless such a child is over, nothing is done, and `InvalidRecord` says so.

    Raises what `fork` raises, before anything is cancelled. Raises `TimeoutError` when the cancel has been asked for
    and the call must be repeated. Also repeat a call that raised `SessionBusy` after the cancel: a child of the same
    agent must still stop, or somebody was quicker.
    """
    services = runtime or current_runtime()
    given = deadlines.added_to(metadata or {}, deadline)
    by = Decider(sender=sender, reason=reason, channel=channel)
    new = _prepared(services, _exported(services, execution_id), to_step, input, given, session_id, by, clock)
    execution = Execution(execution_id, services, channel)
    if not execution.state.is_over:
        _require_free(services, new, but=execution_id)
        _check_children(services.store, execution.steps()[:to_step])
        _cancel(execution, services, timeout, sender, reason or f"rewound to step {to_step}")
        # It may have gone on before it ended: an intent may have got its result.
        source = _exported(services, execution_id)
        new = _prepared(services, source, to_step, input, given, session_id, by, clock)
    return _started(services, new)


def _exported(services: Services, execution_id: str) -> ExportedExecution:
    source = services.store.export(execution_id)
    if source is None:
        raise ExecutionNotFound(execution_id)
    return source


def _prepared(
    services: Services,
    source: ExportedExecution,
    at_step: int,
    value: Any,
    metadata: Mapping[str, JSONValue],
    session_id: str | Missing | None,
    by: Decider,
    clock: Clock | None,
) -> ExportedExecution:
    max_bytes = services.store.max_value_bytes
    require_no_key(metadata)
    if session_id is not MISSING:
        if session_id is not None:
            require_name("session_id", session_id)
        source = replace(source, header={**source.header, "session_id": session_id})
    input_text = None
    if value is not MISSING:
        agent = _agent_of(services, source)
        encoded = agent.encode_input(value)
        input_text = seal_value(encoded, "input", max_bytes)
        # The fork is counted under the key of the input that it has.
        metadata = agent.turns.added_to(metadata, partial(agent.decode_input, encoded))
    return forked(
        source,
        at_step,
        now_us=(clock or SystemClock()).now_us(),
        max_bytes=max_bytes,
        input_text=input_text,
        metadata=metadata,
        by=by,
    )


def _started(services: Services, new: ExportedExecution) -> Execution:
    """Store the fork and ring its bell. Raise `SessionBusy`, with nothing stored; see `lifecycle.create`."""
    store, header = services.store, new.header
    demands = _require_free(services, new)
    if demands is not None:
        # It must not be due before the second look.
        grace_us = services.settings.publish_grace_seconds * 1_000_000
        new = replace(new, header={**header, "due_us": int(header["created_us"] + grace_us)})
    store.restore(new)
    if demands is not None:
        admission.keep_or_purge(store, demands, header["session_id"], new.execution_id)
    summary = services.store.get_summary(new.execution_id)
    if summary is not None:
        services.ring(summary)
    return Execution(new.execution_id, services)


def _require_free(services: Services, new: ExportedExecution, *, but: str | None = None) -> Turns | None:
    """Return the demands of an agent that rejects others in the fork's session; None if it does not reject them.

    An agent that is not known here demands nothing here. Raise `SessionBusy`.
    """
    session_id: str | None = new.header["session_id"]
    if session_id is None:
        return None
    try:
        demands = _agent_of(services, new).turns
    except UnknownAgent:
        return None
    if not demands.rejects(session_id):
        return None
    admission.require_free(services.store, demands, session_id, but=but)
    return demands


def _agent_of(services: Services, source: ExportedExecution) -> AgentDefinition:
    agent_id: str = source.header["agent_id"]
    if services.registry.find(agent_id) is None:
        services.load_agents()
    return services.registry.agent(agent_id)


def _check_not_in_flight(store: Store, source: ExportedExecution, at_step: int) -> None:
    """Refuse a cut at a step that a living process executes now: nobody else may do it, or ask about it, beside it."""
    begun = [step.number for step in source.steps[:at_step] if not step.is_done]
    if not begun or not source.leased_until_us:
        return
    summary = store.get_summary(source.execution_id)
    if summary is None or summary.owner is None:
        return
    if any(lease.execution_id == source.execution_id for lease in store.find_leases(summary.owner)):
        raise InvalidRecord(
            "at_step",
            f"step {begun[0]} of execution {source.execution_id} is being executed: fork at step {begun[0] - 1}, or "
            "when it is recorded",
        )


def _check_children(store: Store, steps: tuple[AgentStep, ...]) -> None:
    for step in steps:
        if step.action.kind == SPAWN and step.attempt and step.result is not None and step.result.success:
            child = store.get_summary(step.result.output["execution_id"])
            if child is not None and not child.state.is_over:
                raise InvalidRecord(
                    "to_step",
                    f"step {step.step_number} started execution {child.execution_id}, which would be cancelled: rewind "
                    f"to step {step.step_number - 1}, wait until it is over, or fork",
                )


def _cancel(execution: Execution, services: Services, timeout: float, sender: str | None, reason: str) -> None:
    """Cancel an execution and return when it is over. Raise `TimeoutError`."""
    give_up_at = time.monotonic() + timeout
    with execution.watch() as watch:
        if not execution.cancel(sender=sender, reason=reason):
            return
        while not execution.state.is_over:
            remaining = give_up_at - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(
                    f"execution {execution.id} is still being executed after {timeout:g} s; its cancel is asked for"
                )
            watch.wait(min(_LOOK_SECONDS, remaining))
            services.ends.finish_cancel(execution.id)
