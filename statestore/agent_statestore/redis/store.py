"""`RedisStore`: executions in Redis or Valkey. Each primitive is one script (`scripts/*.lua`), called in one place."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Final

from agent_statestore.checkpoint import Checkpoint, LeasedWrite, NewExecution, Via, require_lease_of, require_said
from agent_statestore.clock import Clock, duration_us, from_us, since_us, to_us
from agent_statestore.codec import (
    EncodedCheckpoint,
    decode_steps,
    decode_trail,
    encode_checkpoint,
    encode_signal,
)
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.codec.streams import event_of_signal
from agent_statestore.contract.duties import Duty, check_duty
from agent_statestore.contract.watch import Watch
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES, FORMAT, reading
from agent_statestore.errors import ExecutionNotFound, ExecutionUnreadable, InvalidRecord, StoreError
from agent_statestore.query import EVERYTHING, Query, check_limit, end_of_steps
from agent_statestore.recall.vectors import VectorIndex
from agent_statestore.records import (
    AgentContext,
    AgentStep,
    AuditEntry,
    Checkpointed,
    Claim,
    Due,
    ExecutionSummary,
    Lease,
    Page,
    Renewed,
    Sent,
    Signal,
    Turn,
)
from agent_statestore.redis import answers, arguments, idempotency, leasing, moving, removing, ringing
from agent_statestore.redis.creating import create_at_once, creation_of
from agent_statestore.redis.documents import RedisDocuments
from agent_statestore.redis.finding import find_ended, find_page, read_summaries
from agent_statestore.redis.keys import (
    Keys,
    idempotency_field,
    partition_of,
)
from agent_statestore.redis.mail import RedisMail
from agent_statestore.redis.scripts import script
from agent_statestore.redis.servers.connection import Client, Connection, connect, masked_url_of, sibling_of
from agent_statestore.redis.servers.durability import durability_warning
from agent_statestore.redis.streams import RedisStreaming
from agent_statestore.redis.vectors import vectors_of
from agent_statestore.redis.watching import watch
from agent_statestore.redis.writing import General, Ordinary, write_each
from agent_statestore.rules.creating import create_each, same_execution, same_id
from agent_statestore.rules.rates import asked, turn_of
from agent_statestore.states import OVER, AgentState

DEFAULT_KEY_PREFIX: Final = "agent:state:"
DEFAULT_COMPLETED_TTL: Final = timedelta(hours=24)
DEFAULT_FAILED_TTL: Final = timedelta(days=7)


class RedisStore(RedisStreaming, RedisMail):
    """A store in Redis 6.2 or newer, Valkey, or Redis Cluster, without any module.

    Give a `url`, as `open_redis` describes it, or a `client`: a `redis.Redis` or a `redis.RedisCluster`, whose settings
    are copied to separate connections of the store, which repeat nothing by themselves. Only a client with a pool of a
    special kind is used as it is; it should be made with `retry=Retry(NoBackoff(), 0)`, because a silent repetition of
    `claim` makes an execution wait for its own lease.

    Expiry: an execution that is completed or cancelled expires after `completed_ttl`, a failed one after `failed_ttl`
    (None: never). An active one does not expire unless `default_ttl` is set; then it expires that long after the last
    write to it or renewal of its lease, but never while it is queued or paused. Expiry counts by the server's time,
    also under an injected `clock`. `tidy` removes what it leaves in the indexes. After `hold_finished`, an execution
    that is over expires that long after `drop_archived` instead, and at once where the time to live is None, which
    would keep it here and there for ever.

    A deleted execution is purged at once, with its audit trail; the `by` and `reason` of `delete_context` are only
    checked.

    `watch` opens one connection for each watch, on which the server announces every write to the execution. An expiry
    is announced when `tidy` finds it. The user of the URL needs the right to the channels `<key_prefix>*`; without it
    nothing is announced, and a watch looks in intervals.

    Executions that were over before this version first wrote to them have no entry in the list of `find_ended`: they
    expire as before.

    The server's configuration decides what survives its crash; see `durability_warning`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Client | None = None,
        key_prefix: str = DEFAULT_KEY_PREFIX,
        default_ttl: timedelta | None = None,
        completed_ttl: timedelta | None = DEFAULT_COMPLETED_TTL,
        failed_ttl: timedelta | None = DEFAULT_FAILED_TTL,
        clock: Clock | None = None,
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
    ) -> None:
        if (url is None) == (client is None):
            raise InvalidRecord("url", "needs either a url or a client")
        self._keys = Keys(key_prefix)
        self._working_ttl = arguments.milliseconds("default_ttl", default_ttl)
        self._over_ttl = {
            AgentState.COMPLETED: arguments.milliseconds("completed_ttl", completed_ttl),
            AgentState.FAILED: arguments.milliseconds("failed_ttl", failed_ttl),
            AgentState.CANCELLED: arguments.milliseconds("completed_ttl", completed_ttl),
        }
        own = connect(url) if url is not None else sibling_of(client)  # type: ignore[arg-type]
        self.url = masked_url_of(own if url is None else url)
        self.max_value_bytes = max_value_bytes
        self._clock = clock
        self._connection = Connection(own, self.url)
        self._documents = RedisDocuments(self._connection, self._keys, self._now)
        # With several servers, one that does not answer would hold up what the others have to write.
        self.writes_together = own.topology.is_one_server

    # -- creating and reading ------------------------------------------------------------------------------------------

    def create(self, new: NewExecution) -> AgentContext:
        while True:
            creation = creation_of(self._keys, new, self._now(), self.max_value_bytes)
            status, answer = self._connection.run(script("create"), creation.keys, creation.arguments)
            if answers.text(status) == "THERE" and new.execution_id is not None:
                there = self.get_context(creation.execution_id)
                if there is not None:
                    return same_id(there, new)
                continue  # it was deleted between the two looks
            if answers.text(status) != "TAKEN":
                return creation.context(int(answer))
            existing = self.get_context(answers.text(answer))
            if existing is not None:
                return same_execution(existing, new)
            # The execution is gone: deleted or expired between the two looks, or restored into another partition once.
            idempotency.free_if_gone(self._connection, self._keys, creation.field, answers.text(answer))

    def create_many(self, news: Sequence[NewExecution]) -> tuple[AgentContext, ...]:
        """Create many in one round trip to each server; see `Store.create_many`."""
        now = self._now()
        creations = [creation_of(self._keys, new, now, self.max_value_bytes) for new in news]
        return create_each(news, self.create, lambda: create_at_once(self._connection, creations))

    def get_context(self, execution_id: str) -> AgentContext | None:
        keys = self._keys.execution(execution_id, parts=arguments.PARTS_OF_CONTEXT)
        parts = self._connection.run(script("get_context"), keys, (execution_id,))
        return None if parts is None else answers.context(parts)

    def get_summary(self, execution_id: str) -> ExecutionSummary | None:
        return read_summaries(self._connection, self._keys, (execution_id,))[0]

    def get_steps(self, execution_id: str, after: int = 0, limit: int | None = None) -> tuple[AgentStep, ...]:
        end = end_of_steps(after, limit)
        key = self._keys.own(execution_id)[1]
        (texts,) = self._connection.send_each([("LRANGE", key, max(after, 0), -1 if end is None else end - 1)])
        return decode_steps(execution_id, texts)

    def find(self, query: Query = EVERYTHING) -> Page:
        return find_page(self._connection, self._keys, query)

    def get_by_idempotency_key(self, agent_id: str, idempotency_key: str) -> AgentContext | None:
        field, gone = idempotency_field(agent_id, idempotency_key), None
        while True:
            holder = idempotency.holder_of(self._connection, self._keys, field)
            context = None if holder is None else self.get_context(holder)
            # Between the two looks the key may have gone from one execution to another.
            if context is not None or holder is None or holder == gone:
                return context
            gone = holder

    def get_audit(self, execution_id: str) -> tuple[AuditEntry, ...]:
        (entries,) = self._connection.send_each([("LRANGE", self._keys.audit(execution_id), 0, -1)])
        return decode_trail(execution_id, reading(execution_id, "audit", lambda: [*answers.audit_rows(entries)]))

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
        return find_ended(self._connection, self._keys, since_us(after), to_us(before), among, limit)

    # -- the lease -----------------------------------------------------------------------------------------------------

    def claim(self, execution_id: str, owner: str, ttl: timedelta) -> Claim | None:
        keys = self._keys.execution_and_shared(execution_id, with_states=True)
        answer = self._connection.run(
            script("claim"), keys, (self._now(), execution_id, owner, duration_us(ttl), self._working_ttl, FORMAT)
        )
        if answer is None:
            return None
        if answers.text(answer[0]) != "OK":
            answers.refuse(answer, execution_id)
        token, until_us, now_us = (int(number) for number in answer[1:4])
        lease = Lease(execution_id=execution_id, token=token, owner=owner, ttl=ttl, expires_at=from_us(until_us))
        try:
            return Claim(lease=lease, context=answers.context(answer[4]), now=from_us(now_us))
        except ExecutionUnreadable as fault:
            raise fault.under(lease) from fault

    def renew(self, leases: Sequence[Lease], ttl: timedelta) -> Renewed:
        by_partition: defaultdict[int, list[Lease]] = defaultdict(list)
        for lease in leases:
            by_partition[partition_of(lease.execution_id)].append(lease)
        now, calls = self._now(), []
        for partition, group in by_partition.items():
            keys = [*self._keys.of_partition(partition, "due", "leases", "expiring")]
            per_lease = len(self._keys.own("")) if self._working_ttl else 1
            values: list[str | int] = [now, duration_us(ttl), self._working_ttl, per_lease]
            for lease in group:
                keys += self._keys.own(lease.execution_id)[:per_lease]
                values += [lease.execution_id, lease.token]
            calls.append((keys, values))
        outcome: dict[str, set[str]] = {"0": set(), "1": set(), "2": set()}
        answered = self._connection.run_each(script("renew"), calls)
        for group, answer in zip(by_partition.values(), answered, strict=True):
            for lease, status in zip(group, answer, strict=True):
                outcome[answers.text(status)].add(lease.execution_id)
        return Renewed(lost=frozenset(outcome["0"]), cancel_requested=frozenset(outcome["2"]))

    def release(self, lease: Lease, *, crashed: bool = False) -> bool:
        execution_id = lease.execution_id
        values = (self._now(), execution_id, lease.token, "1" if crashed else "0")
        return bool(self._connection.run(script("release"), self._keys.execution_and_shared(execution_id), values))

    def forgive(self, lease: Lease, crashes: int) -> bool:
        values = (self._now(), lease.token, crashes)
        return bool(self._connection.run(script("forgive"), self._keys.own(lease.execution_id)[:1], values))

    def find_leases(self, owner_prefix: str) -> tuple[Lease, ...]:
        return leasing.find_leases(self._connection, self._keys, self._now(), owner_prefix)

    # -- writing -------------------------------------------------------------------------------------------------------

    def checkpoint(self, execution_id: str, checkpoint: Checkpoint, lease: Lease | None = None) -> Checkpointed:
        require_lease_of(execution_id, lease)
        change = encode_checkpoint(checkpoint, self.max_value_bytes, self.max_context_bytes)
        token = None if lease is None else lease.token
        ttl = self._ttl_ms(change.state)
        step = arguments.only_step(change)
        if step is not None and token is not None and not ttl:
            version_and_cancel = self._connection.run(
                script("append_step"),
                self._keys.of_step(execution_id, is_told=change.stream is not None),
                arguments.append_step(self._now(), change, token, step),
            )
            if version_and_cancel is not None:
                version, cancel_requested = version_and_cancel
                return Checkpointed(version=int(version), cancel_requested=bool(int(cancel_requested)), due_now=False)
        answer = self._connection.run(
            script("checkpoint"),
            self._keys_of(execution_id, change, ttl),
            arguments.checkpoint(self._now(), execution_id, change, token, ttl),
        )
        return answers.checkpointed(answer, execution_id, change, token)

    def checkpoint_each(self, writes: Sequence[LeasedWrite]) -> list[Checkpointed | StoreError]:
        """Write all in one round trip; see `Store.checkpoint_each`."""
        if not self.writes_together:
            return super().checkpoint_each(writes)
        calls: list[Ordinary | General | InvalidRecord] = []
        for write in writes:
            execution_id, token = write.lease.execution_id, write.lease.token
            try:
                change = encode_checkpoint(write.checkpoint, self.max_value_bytes, self.max_context_bytes)
            except InvalidRecord as error:
                calls.append(error)
                continue
            ttl = self._ttl_ms(change.state)
            general = General(
                execution_id,
                change,
                token,
                partial(self._keys_of, execution_id, change, ttl),
                partial(arguments.checkpoint, self._now(), execution_id, change, token, ttl),
            )
            step = arguments.only_step(change)
            if step is None or ttl:
                calls.append(general)
            else:
                values = arguments.append_step(self._now(), change, token, step)
                calls.append(
                    Ordinary(self._keys.of_step(execution_id, is_told=change.stream is not None), values, general)
                )
        return write_each(self._connection, calls)

    def _keys_of(self, execution_id: str, change: EncodedCheckpoint, ttl: str) -> list[bytes]:
        """Return the keys of `checkpoint.lua`."""
        state = change.state
        if state is None and not ttl:
            keys = self._keys.execution(execution_id, parts=arguments.parts_of(change))
            if change.stream is not None:
                keys.append(self._keys.events(execution_id))
        else:
            keys = self._keys.execution_and_shared(execution_id, with_states=state is not None)
        if state is AgentState.IDLE:
            keys += self._keys.ended(partition_of(execution_id), (AgentState.FAILED,))
        elif state is not None:
            keys += self._keys.ended(partition_of(execution_id), (state,))
        return keys

    def send(self, execution_id: str, signal: Signal) -> Sent:
        text, told = encode_signal(signal, self.max_value_bytes), event_of_signal(signal, self.max_value_bytes)
        values = arguments.send(
            (self._now(), execution_id, self._working_ttl), signal, text, told, self.max_mailbox, self.max_context_bytes
        )
        answer = self._connection.run(script("send"), self._keys.execution_and_shared(execution_id), values)
        if answers.text(answer[0]) != "OK":
            answers.refuse(answer, execution_id, key=signal.key, limit=self.max_mailbox)
        return Sent(woke=answers.text(answer[1]) == "1")

    def count_descendant(self, execution_id: str, limit: int) -> bool:
        counted = self._connection.run(script("count_descendant"), (self._keys.header(execution_id),), (limit,))
        if counted is None:
            raise ExecutionNotFound(execution_id)
        return bool(counted)

    # -- ringing -------------------------------------------------------------------------------------------------------

    def take_due(self, limit: int, grace: timedelta) -> tuple[Due, ...]:
        return ringing.take_due(self._connection, self._keys, self._now(), limit, grace)

    def mark_rung(self, rung: Iterable[tuple[str, int]], first: timedelta, maximum: timedelta) -> None:
        ringing.mark_rung(self._connection, self._keys, self._now(), rung, first, maximum)

    def settle(self, execution_id: str) -> None:
        partition = partition_of(execution_id)
        shared = (*self._keys.of_partition(partition, "due", "bells"), *self._keys.ended(partition))
        self._connection.run(script("settle"), (self._keys.header(execution_id), *shared), (execution_id,))

    # -- rates ---------------------------------------------------------------------------------------------------------

    def take_rate(
        self,
        bucket: str,
        limit: int,
        per: timedelta,
        *,
        within: timedelta = timedelta(0),
        promised: bool = False,
    ) -> Turn:
        question = asked(bucket, limit, per, within, promised)
        values = (
            self._now(),
            bucket,
            question.interval_us,
            question.longest_us,
            question.within_us,
            "1" if question.promised else "0",
            question.farthest_us,
        )
        keys = self._keys.of_partition(partition_of(bucket), "rates")
        answer, wait_us = self._connection.run(script("take_rate"), keys, values)
        return turn_of(int(wait_us), answers.text(answer))

    # -- duties, documents ---------------------------------------------------------------------------------------------

    @property
    def documents(self) -> RedisDocuments:
        return self._documents

    @cached_property
    def vectors(self) -> VectorIndex:
        """The index of the vectors of facts; with vector sets where the server has them. One round trip at first."""
        return vectors_of(self._connection, self._keys, self._now, self._documents)

    def take_duty(self, duty: str, owner: str, ttl: timedelta, *, instead: bool = False) -> Duty:
        check_duty(duty, owner, ttl)
        return leasing.take_duty(self._connection, self._keys, self._now(), duty, owner, ttl, instead)

    # -- removing ------------------------------------------------------------------------------------------------------

    def delete_context(
        self, execution_id: str, *, by: str | None = None, reason: str | None = None, via: Via | None = None
    ) -> bool:
        require_said(by, reason)
        del via  # nothing is kept that could tell of it
        return self.purge(execution_id)

    def purge(self, execution_id: str) -> bool:
        return removing.delete(self._connection, self._keys, execution_id)

    def clear(self) -> int:
        self._documents.clear()
        return removing.clear(self._connection, self._keys)

    def tidy(self, limit: int = 1000) -> int:
        return removing.tidy(self._connection, self._keys, limit) + self._documents.tidy(limit)

    # -- moving between stores -----------------------------------------------------------------------------------------

    def export(self, execution_id: str) -> ExportedExecution | None:
        return moving.export(self._connection, self._keys, execution_id)

    def restore(self, exported: ExportedExecution) -> bool:
        ttl_ms = self._ttl_ms(AgentState(exported.header["state"]))
        return moving.restore(self._connection, self._keys, self._now(), exported, ttl_ms)

    def drop_archived(self, execution_id: str, place: tuple[int, int, int]) -> bool:
        return moving.drop_archived(self._connection, self._keys, execution_id, place, [*self._over_ttl.values()])

    # -- waiting -------------------------------------------------------------------------------------------------------

    def watch(self, execution_id: str) -> Watch:
        return watch(self._connection, self._keys.header(execution_id))

    # -- the connection ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        self._connection.call("ping")

    def durability_warning(self) -> str | None:
        return durability_warning(self._connection, self.url)

    def close(self) -> None:
        self._connection.close()

    def _ttl_ms(self, state: AgentState | None) -> str:
        """Return how long an execution that is in this state after a write gets to live, as the scripts take it."""
        if state is None or not state.is_over:
            return self._working_ttl
        return "" if self.holds_finished else self._over_ttl[state]

    def now(self) -> datetime:
        if self._clock is not None:
            return from_us(self._clock.now_us())
        return from_us(int(self._connection.run(script("now"), self._keys.of_partition(0, "due"), ())))

    def _now(self) -> str | int:
        """Return the injected time, or an empty text, for which the scripts take the server's."""
        return "" if self._clock is None else self._clock.now_us()
