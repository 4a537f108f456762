"""`MemoryStore`: executions in this process's memory, for tests and for programs that are one process."""

import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice

from agent_statestore.checkpoint import Checkpoint, NewExecution, Via, new_execution_id, require_lease_of, require_said
from agent_statestore.clock import Clock, SystemClock, duration_us, from_us, since_us, to_us
from agent_statestore.codec import (
    decode_context,
    decode_steps,
    decode_summary,
    decode_trail,
    encode_checkpoint,
    encode_new,
    encode_signal,
    mailbox_key,
    noted_as,
    stamp,
)
from agent_statestore.codec.exported import ExportedExecution, ExportedSignal
from agent_statestore.codec.headers import new_bytes
from agent_statestore.codec.signals import decode_mailbox
from agent_statestore.codec.streams import EncodedPart, event_of_signal
from agent_statestore.contract.mail import Heard
from agent_statestore.contract.watch import Watch
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES, octets, require_readable
from agent_statestore.errors import ExecutionNotFound, ExecutionUnreadable, IdempotencyKeyTaken
from agent_statestore.memory.execution import StoredExecution, restored
from agent_statestore.memory.finding import find_due, find_ended, find_page
from agent_statestore.memory.streaming import MemoryStreamPrimitives
from agent_statestore.memory.watch import MemoryWatch
from agent_statestore.query import EVERYTHING, Query, check_limit, end_of_steps
from agent_statestore.records import (
    AgentContext,
    AgentStep,
    AuditEntry,
    AuditEvent,
    Checkpointed,
    Claim,
    Due,
    ExecutionSummary,
    Lease,
    Page,
    Renewed,
    Sent,
    Signal,
)
from agent_statestore.rules.checkpoints import check_checkpoint, outcome
from agent_statestore.rules.creating import same_execution, same_id
from agent_statestore.rules.growth import Growth
from agent_statestore.rules.hearing import heard
from agent_statestore.rules.leases import (
    claim_changes,
    is_leased,
    lease_of,
    may_claim,
    next_ring_us,
    release_changes,
)
from agent_statestore.rules.moving import may_drop, may_restore
from agent_statestore.rules.signals import MailBounds, check_signal, signal_changes
from agent_statestore.states import OVER, AgentState


class MemoryStore(MemoryStreamPrimitives):
    """A store that keeps executions in this process, and loses them with it.

    Threads may share it; other processes do not see it, so a worker whose pool forks refuses to start on it.
    """

    is_shared = False
    keeps_deleted = True
    writes_together = True

    def __init__(self, *, clock: Clock | None = None, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES) -> None:
        super().__init__(clock or SystemClock())
        self.url = "memory://"
        self.max_value_bytes = max_value_bytes
        self._by_idempotency_key: dict[tuple[str, str], str] = {}
        # The executions that are deleted and not purged, in the order of deletion, with the time of it.
        self._deleted: dict[str, tuple[int, StoredExecution]] = {}
        _instances.add(self)

    def create(self, new: NewExecution) -> AgentContext:
        execution_id = new.execution_id or new_execution_id()
        now_us = self._clock.now_us()
        header = encode_new(execution_id, new, now_us, self.max_value_bytes)
        with self._changed:
            if execution_id in self._executions or execution_id in self._deleted:
                return same_id(self.get_context(execution_id), new)
            if new.idempotency_key is not None:
                taken = self._by_idempotency_key.setdefault((new.agent_id, new.idempotency_key), execution_id)
                if taken != execution_id:
                    return same_execution(self._context(taken), new)
            execution = self._executions[execution_id] = StoredExecution(header, context_bytes=new_bytes(header))
            execution.note(AuditEvent.CREATED, now_us, to_state=AgentState.IDLE)
            return self._context(execution_id)

    def get_context(self, execution_id: str) -> AgentContext | None:
        with self._changed:
            execution = self._executions.get(execution_id)
            if execution is None:
                return None
            return decode_context(
                execution.header,
                steps=[step.text for step in execution.steps],
                messages=execution.messages,
                working_memory=execution.working_memory,
                facts=execution.facts,
                entities=execution.entities,
                rag_context=execution.rag_context,
                signals=execution.unconsumed(),
            )

    def get_summary(self, execution_id: str) -> ExecutionSummary | None:
        with self._changed:
            execution = self._executions.get(execution_id)
            return None if execution is None else decode_summary(execution.header)

    def get_steps(self, execution_id: str, after: int = 0, limit: int | None = None) -> tuple[AgentStep, ...]:
        end = end_of_steps(after, limit)
        with self._changed:
            execution = self._executions.get(execution_id)
            steps = [] if execution is None else execution.steps[max(after, 0) : end]
        return decode_steps(execution_id, [step.text for step in steps])

    def find(self, query: Query = EVERYTHING) -> Page:
        with self._changed:
            return find_page(self._executions.values(), query)

    def get_by_idempotency_key(self, agent_id: str, idempotency_key: str) -> AgentContext | None:
        with self._changed:
            execution_id = self._by_idempotency_key.get((agent_id, idempotency_key))
            return None if execution_id is None else self._context(execution_id)

    def get_audit(self, execution_id: str) -> tuple[AuditEntry, ...]:
        with self._changed:
            execution = self._executions.get(execution_id)
            if execution is None and execution_id in self._deleted:
                execution = self._deleted[execution_id][1]
            rows = [] if execution is None else list(execution.audit)
        return decode_trail(execution_id, rows)

    def find_ended(
        self,
        before: datetime,
        *,
        after: datetime | None = None,
        states: Iterable[AgentState] | None = None,
        limit: int = 100,
    ) -> tuple[str, ...]:
        check_limit(limit)
        among = OVER if states is None else frozenset(states)
        with self._changed:
            return find_ended(self._executions.values(), since_us(after), to_us(before), among, limit)

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        with self._changed:
            execution, now_us = self._executions.get(execution_id), self._clock.now_us()
            if execution is None:
                return None
            header = execution.header
            if not may_claim(execution_id, header, now_us):
                return None
            header.update(claim_changes(header, owner, ttl, now_us))
            execution.note(AuditEvent.CLAIMED, now_us, to_state=AgentState.THINKING)
            header["state"] = AgentState.THINKING.value
            self._changed.notify_all()
            lease = lease_of(header, ttl)
            try:
                return Claim(lease=lease, context=self._context(execution_id), now=from_us(now_us))
            except ExecutionUnreadable as fault:
                raise fault.under(lease) from fault

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        lost, cancelled = set(), set()
        with self._changed:
            now_us = self._clock.now_us()
            for lease in leases:
                header = self._header_under(lease, now_us)
                if header is None:
                    lost.add(lease.execution_id)
                    continue
                header["lease_until_us"] = header["due_us"] = now_us + duration_us(ttl)
                if header["cancel_requested"]:
                    cancelled.add(lease.execution_id)
        return Renewed(lost=frozenset(lost), cancel_requested=frozenset(cancelled))

    def get_mailbox(self, execution_id: str) -> tuple[Signal, ...]:
        with self._changed:
            execution = self._executions.get(execution_id)
            texts = [] if execution is None or execution.is_over else execution.unconsumed()
        return decode_mailbox(execution_id, texts)

    def hear(self, leases: Sequence[Lease]) -> Heard:
        with self._changed:
            found = [(lease, self._executions.get(lease.execution_id)) for lease in leases]
            return heard(leases, [execution.heard() for _, execution in found if execution is not None])

    def release(self, lease: Lease, *, crashed: bool = False) -> bool:
        with self._changed:
            now_us = self._clock.now_us()
            header = self._header_under(lease, now_us)
            if header is None:
                return False
            header.update(release_changes(header, crashed=crashed, now_us=now_us))
            return True

    def forgive(self, lease: Lease, crashes: int) -> bool:
        with self._changed:
            header = self._header_under(lease, self._clock.now_us())
            if header is None:
                return False
            header["crashes"] = min(header["crashes"], crashes)
            return True

    def find_leases(self, owner_prefix: str) -> tuple[Lease, ...]:
        with self._changed:
            now_us = self._clock.now_us()
            return tuple(
                lease_of(header, timedelta(microseconds=header["lease_until_us"] - now_us))
                for header in (execution.header for execution in self._executions.values())
                if is_leased(header, now_us) and header["owner"].startswith(owner_prefix)
            )

    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        require_lease_of(execution_id, lease)
        change = encode_checkpoint(checkpoint, self.max_value_bytes, self.max_context_bytes)
        with self._changed:
            execution, now_us = self._executions.get(execution_id), self._clock.now_us()
            intents = {} if execution is None else execution.intents_among(change.steps)
            header = None if execution is None else execution.header
            growth = Growth(0, 0, 0) if execution is None else execution.growth(change)
            applied = check_checkpoint(execution_id, header, change, lease, intents, now_us, growth)
            if applied is not None:
                return applied
            assert execution is not None
            execution.apply(change, lease, now_us)
            self._changed.notify_all()
            return outcome(execution.header, now_us)

    def send(self, execution_id: str, signal: Signal) -> Sent:
        text, told = encode_signal(signal, self.max_value_bytes), event_of_signal(signal, self.max_value_bytes)
        with self._changed:
            execution, now_us = self._executions.get(execution_id), self._clock.now_us()
            kind, key = signal.kind.value, mailbox_key(signal.key, signal.round)
            stamped = stamp(text, now_us)
            size = octets(stamped) + (0 if execution is None else execution.context_bytes)
            repeated = check_signal(
                execution_id,
                None if execution is None else execution.header,
                signal,
                sent=execution is not None and signal.signal_id in execution.signals,
                answered=execution is not None and execution.was_answered(kind, key),
                waiting=0 if execution is None else execution.waiting(),
                bounds=MailBounds(self.max_mailbox, self.max_context_bytes, size),
            )
            if repeated is not None:
                return repeated
            assert execution is not None
            changes, answer = signal_changes(execution.header, signal, text, now_us)
            execution.context_bytes = size
            execution.signals[signal.signal_id] = ExportedSignal(signal.signal_id, kind, key, stamped)
            execution.forget_signals(self.max_mailbox)
            noted = noted_as(signal)
            if noted is not None:
                execution.note(noted, now_us, by=signal.sender, reason=signal.reason, signal=stamped)
            execution.header.update(changes)
            if told is not None:
                execution.stream.append(EncodedPart(0, (told,)), now_us)
            self._changed.notify_all()
            return answer

    def count_descendant(self, execution_id: str, limit: int) -> bool:
        with self._changed:
            execution = self._executions.get(execution_id)
            if execution is None:
                raise ExecutionNotFound(execution_id)
            if execution.descendants >= limit:
                return False
            execution.descendants += 1
            return True

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        with self._changed:
            now_us = self._clock.now_us()
            taken = [execution.header for execution in find_due(self._executions.values(), now_us, limit)]
            for header in taken:
                header["due_us"] = now_us + duration_us(grace)
            return tuple(
                Due(
                    execution_id=header["execution_id"],
                    agent_id=header["agent_id"],
                    queue=header["queue"],
                    priority=header["priority"],
                    token=header["token"],
                    rings=header["rings"],
                    cancel_requested=bool(header["cancel_requested"]),
                    over=AgentState(header["state"]).is_over,
                )
                for header in taken
            )

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        with self._changed:
            now_us = self._clock.now_us()
            for execution_id, token in rung:
                execution = self._executions.get(execution_id)
                if execution is None:
                    continue
                header = execution.header
                ring_us = next_ring_us(header, token, first, maximum, now_us)
                if ring_us is not None:
                    header.update(due_us=ring_us, rings=header["rings"] + 1)

    def settle(self, execution_id: str) -> None:
        with self._changed:
            execution = self._executions.get(execution_id)
            if execution is not None and AgentState(execution.header["state"]).is_over:
                execution.header["due_us"] = None

    def delete_context(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> bool:
        require_said(by, reason)
        with self._changed:
            execution, now_us = self._executions.pop(execution_id, None), self._clock.now_us()
            if execution is None:
                return False
            self._free_key(execution)
            execution.note(AuditEvent.DELETED, now_us, by=by, reason=reason, via=via)
            self._deleted[execution_id] = (now_us, execution)
            self._changed.notify_all()
            return True

    def purge(self, execution_id: str) -> bool:
        with self._changed:
            execution = self._executions.pop(execution_id, None)
            if execution is None:
                return self._deleted.pop(execution_id, None) is not None
            self._free_key(execution)
            self._changed.notify_all()
            return True

    def find_deleted(self, before: datetime, limit: int = 100) -> tuple[str, ...]:
        check_limit(limit)
        before_us = to_us(before)
        with self._changed:
            found = (execution_id for execution_id, (at_us, _) in self._deleted.items() if at_us < before_us)
            return tuple(islice(found, limit))

    def clear(self) -> int:
        with self._changed:
            count = len(self._executions)
            self._executions.clear()
            self._by_idempotency_key.clear()
            self._deleted.clear()
            self._documents.clear()
            self._rates.clear()
            self._duties.clear()
            self._changed.notify_all()
            return count

    def export(self, execution_id: str) -> ExportedExecution | None:
        with self._changed:
            execution = self._executions.get(execution_id)
            if execution is None:
                return None
            require_readable(f"execution {execution_id}", execution.header["format"])
            return execution.exported()

    def restore(self, exported: ExportedExecution) -> bool:
        header, execution_id = exported.header, exported.execution_id
        require_readable(f"execution {execution_id}", header["format"])
        with self._changed:
            present = self._executions.get(execution_id)
            if execution_id in self._deleted or (
                present is not None
                and not may_restore(present.header, len(present.audit), exported, self._clock.now_us())
            ):
                return False
            if header["idempotency_key"] is not None:
                key = (header["agent_id"], header["idempotency_key"])
                if self._by_idempotency_key.setdefault(key, execution_id) != execution_id:
                    raise IdempotencyKeyTaken(header["agent_id"], header["idempotency_key"])
            self._executions[execution_id] = restored(exported)
            self._changed.notify_all()
            return True

    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool:
        with self._changed:
            execution = self._executions.get(execution_id)
            if execution is None or not may_drop(execution.header, len(execution.audit), place):
                return False
            return self.purge(execution_id)

    def watch(self, execution_id: str) -> Watch:
        return MemoryWatch(self._changed, lambda: self._mark_of(execution_id))

    def _mark_of(self, execution_id: str) -> object:
        """Return a value that differs after every change that a watcher learns of."""
        execution = self._executions.get(execution_id)
        return None if execution is None else (execution.place, len(execution.signals))

    def _free_key(self, execution: StoredExecution) -> None:
        header = execution.header
        if header["idempotency_key"] is not None:
            del self._by_idempotency_key[header["agent_id"], header["idempotency_key"]]

    def now(self) -> datetime:
        return from_us(self._clock.now_us())

    def check(self) -> None:
        """Do nothing: the memory of this process always works."""

    def close(self) -> None:
        """Do nothing: there is no connection, and the contents stay readable."""


_instances: "weakref.WeakSet[MemoryStore]" = weakref.WeakSet()


def _renew_locks() -> None:
    """Renew the locks: one that another thread held at the fork would stay locked in the child for ever."""
    for store in list(_instances):
        store._changed = threading.Condition()


os.register_at_fork(after_in_child=_renew_locks)


def open_memory(url: str, *, max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES, clock: Clock | None = None) -> MemoryStore:
    """Return a new store for `memory://`."""
    del url
    return MemoryStore(clock=clock, max_value_bytes=max_value_bytes)
