"""`roll_back`: go on from an earlier step with something that somebody says.

It is a fork that goes on in the place of the execution, which is cancelled, and not a step by which the journal of the
same execution calls what came later void. What happened stays happened: those steps, their calls and their costs stay
readable where they were recorded, under an audit trail of their own. Their keys, and the idempotency keys of their
calls, are those of that execution, so that a call that is made anew for another reason is a new one outside, too. Under
a live attempt nobody but its holder writes: the holder is stopped first, and no step is taken on both sides.

The message is stored with the fork, in one write. With a `message_id` the fork's id is made of it, so that a call may
be repeated, after a crash or a timeout, and there is one fork.
"""

from dataclasses import replace
from typing import Final
from uuid import UUID, uuid5

from agent_statestore.clock import Clock, SystemClock
from agent_statestore.codec import decode_message, encode_signal, mailbox_key, stamp
from agent_statestore.codec.exported import ExportedExecution, ExportedSignal
from agent_statestore.documents.sessions import namespace_of
from agent_statestore.envelope import format_of
from agent_statestore.plain_text import line_logger
from agent_statestore.records import SayMode
from agent_statestore.store import Store
from celery_agents.client.execution import Execution
from celery_agents.current import current_runtime
from celery_agents.engine.journal.outgoing import as_said, is_of_session
from celery_agents.engine.pauses.question import MISSING
from celery_agents.lifecycle.decider import PYTHON, Decider
from celery_agents.lifecycle.saying import signal_of
from celery_agents.lifecycle.services import Services
from celery_agents.replay import operations

log = line_logger(__name__)

_ROLLBACKS: Final = UUID("0197a1a4-5d1c-7c61-9b61-6d0f4b6d2e55")


def roll_back(
    execution_id: str,
    to_step: int,
    text: str,
    *,
    message_id: str | None = None,
    sender: str | None = None,
    channel: str = PYTHON,
    timeout: float = 60.0,
    runtime: Services | None = None,
    clock: Clock | None = None,
) -> Execution:
    """Cancel an execution unless it is over, and go on from one of its steps in a new one, which reads `text` first.

    Return the new execution. It shares the first `to_step` steps (see `fork`), and reads the text where it comes to
    what is not recorded any more: a loop agent, or an integration, tells its model before the next call. What the
    execution had said to its session after that step is taken out of the end of the conversation; what it did to the
    world stays done.

    Repeat the call, with the same `message_id`, if it raised `TimeoutError` or its caller died. Raises what `rewind`
    raises, and what `Execution.say` raises for the text.
    """
    services = runtime or current_runtime()
    by = Decider(sender=sender, channel=channel)
    said = signal_of(services, text, mode=SayMode.NEXT_BOUNDARY, message_id=message_id, by=by)
    new_id = None if message_id is None else str(uuid5(_ROLLBACKS, f"{execution_id}/{message_id}"))
    if new_id is not None and services.store.get_summary(new_id) is not None:
        return Execution(new_id, services, channel)
    source = operations._exported(services, execution_id)
    new = operations._prepared(services, source, to_step, MISSING, {}, MISSING, by, clock)
    execution = Execution(execution_id, services, channel)
    if not execution.state.is_over:
        operations._require_free(services, new, but=execution_id)
        operations._check_children(services.store, execution.steps()[:to_step])
        operations._cancel(execution, services, timeout, sender, f"rolled back to step {to_step}")
        source = operations._exported(services, execution_id)
        new = operations._prepared(services, source, to_step, MISSING, {}, MISSING, by, clock)
    now_us = max((clock or SystemClock()).now_us(), int(new.header["created_us"]))
    stamped = stamp(encode_signal(said, services.store.max_value_bytes), now_us)
    mail = ExportedSignal(said.signal_id, said.kind.value, mailbox_key(said.key, said.round), stamped)
    header = {**new.header, "format": max(int(new.header["format"]), format_of(stamped))}
    if new_id is not None:
        header["execution_id"] = new_id
    new = replace(new, header=header, signals=(mail,))
    _take_over_session(services.store, execution_id, new)
    return operations._started(services, new)


def _take_over_session(store: Store, execution_id: str, new: ExportedExecution) -> None:
    """Take what the execution had said out of the end of the session; what it said in the shared steps is the fork's.

    It may be repeated at any point.
    """
    session_id: str | None = new.header["session_id"]
    if session_id is None:
        return
    session, own_id = store.session(session_id), new.execution_id
    if session.last_of(execution_id):
        length, first = session.length(), None
        for message in session.messages():
            if message.execution_id != execution_id:
                first = None
            elif first is None:
                first = message.number
        if first is None:
            log.warning("session %s: others have spoken since, so nothing of %s is taken out", session_id, execution_id)
            return
        session.rewind(min(first - 1, length))
    said = [as_said(one, own_id) for one in map(decode_message, new.messages) if is_of_session(one)]
    stored = session.last_of(own_id)
    if said[stored:]:
        operations_ = session.appending(said[stored:], first=stored + 1, at=session.length())
        store.documents.write([store.expect_no_holder(namespace_of(session_id)), *operations_])
