"""The rules for a store that several processes share, and for several stores on one server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.codec.exported import ExportedExecution
from agent_statestore.documents import DocumentQuery
from agent_statestore.documents.errors import DocumentConflict
from agent_statestore.documents.log import DocumentLog, LogEntry
from agent_statestore.errors import AlreadyAnswered, ExecutionNotFound, ExecutionOver, LeaseLost, StepConflict
from agent_statestore.query import Query
from agent_statestore.records import AuditEvent, Turn
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.auditing import assert_chained, decide_and_move
from agent_statestore.testing.contract.ending import ended
from agent_statestore.testing.contract.races import add_many, assert_nothing_lost, sweep
from agent_statestore.testing.contract.removal_races import assert_no_trace
from agent_statestore.testing.contract.watching import Change, every_change, slowly, wait_until
from agent_statestore.testing.kit.builders import (
    TTL,
    YEAR,
    answer,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    pause,
    summary_of,
)
from agent_statestore.testing.kit.processes import ProcessTeam, Reopen, process_team
from agent_statestore.testing.kit.stories import SITUATIONS, export_of
from agent_statestore.testing.kit.suite import Suite

PROCESSES = 3
ROUNDS = 6


def claim_token(store: Store, member: int, execution_id: str) -> int | None:
    made = store.claim(execution_id, f"process:{member}", TTL)
    return None if made is None else made.lease.token


def add(store: Store, member: int, execution_id: str) -> None:
    add_many(store, execution_id, member)


def write_step(store: Store, member: int, execution_id: str, number: int) -> bool:
    try:
        store.checkpoint(execution_id, Checkpoint(steps=(done(number, output=member),)))
    except StepConflict:
        return False
    return True


def send_answer(store: Store, member: int, execution_id: str) -> bool:
    try:
        return store.send(execution_id, answer(member)).woke
    except AlreadyAnswered:
        return False


def create_once(store: Store, member: int, key: str) -> str:
    del member
    return store.create_context("agent", "input", idempotency_key=key).execution_id


def take_all(store: Store, member: int) -> list[str]:
    del member
    return sweep(store, 7)


def decide(store: Store, member: int, execution_id: str) -> None:
    del member
    decide_and_move(store, execution_id, ROUNDS)


def delete(store: Store, member: int, execution_id: str) -> bool:
    return store.delete_context(execution_id, by=str(member))


def delete_or_write(store: Store, member: int, execution_id: str) -> bool:
    """Delete as the first member, and write as any other."""
    if member == 0:
        return store.delete_context(execution_id)
    try:
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), state=AgentState.COMPLETED, output=member))
    except (ExecutionNotFound, ExecutionOver):
        return False
    return True


def take_rates(store: Store, member: int, bucket: str, count: int) -> list[Turn]:
    del member
    return [store.take_rate(bucket, 10, timedelta(minutes=1)) for _ in range(count)]


def restore(store: Store, member: int, exported: ExportedExecution) -> bool:
    del member
    return store.restore(exported)


def append_each(store: Store, member: int, namespace: tuple[str, ...]) -> None:
    """Append entries one by one, each behind what the others have appended."""
    log = DocumentLog(store.documents, namespace)
    for number in range(ROUNDS):
        while True:
            try:
                log.append([LogEntry(value=[member, number])] * 2, at=log.length(), write_id=f"{member}-{number}")
            except DocumentConflict:
                continue
            break


class SharedConformance(Suite):
    """Processes."""

    @pytest.fixture
    def reopen(self) -> Reopen:
        """Return a callable that opens the store of this test anew, also in another process.

        The backend's test class overrides this.
        """
        raise NotImplementedError("override the fixture `reopen`")

    @pytest.fixture
    def store(self, reopen: Reopen, clock: ManualClock) -> Iterator[Store]:
        """Return the store of this test, emptied."""
        with reopen(clock=clock) as store:
            store.clear()
            yield store
            store.clear()

    @pytest.fixture(scope="class")
    @classmethod
    def team(cls) -> Iterator[ProcessTeam]:
        """Return the processes that race."""
        with process_team(PROCESSES) as team:
            yield team

    def test_it_says_that_it_is_shared(self, store: Store) -> None:
        assert store.is_shared is True

    def test_what_one_instance_wrote_another_reads(self, store: Store, reopen: Reopen, clock: ManualClock) -> None:
        execution_id, lease = claimed(store, session_id="s", idempotency_key="key")
        with reopen(clock=clock) as other:
            assert other.get_context(execution_id) == context_of(store, execution_id)
            assert create(other, idempotency_key="key") == execution_id
            assert other.claim(execution_id, "host:2", TTL) is None
            other.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        assert store.get_steps(execution_id) == (done(1),)

    def test_it_outlives_the_instance_that_wrote_it(self, store: Store, reopen: Reopen, clock: ManualClock) -> None:
        with reopen(clock=clock) as other:
            execution_id, _ = claimed(other)
            before = context_of(other, execution_id)
        other.close()  # closing twice is harmless
        assert context_of(store, execution_id) == before

    def test_without_an_injected_clock_the_servers_time_counts(self, store: Store, reopen: Reopen) -> None:
        with reopen(clock=None) as real:
            execution_id, lease = claimed(real)
            summary = summary_of(store, execution_id)
            assert abs(datetime.now(UTC) - summary.created_at) < timedelta(minutes=5)
            assert abs(real.now() - summary.created_at) < timedelta(minutes=5)
            assert summary.due_at == summary.lease_expires_at == lease.expires_at
            assert lease.expires_at - claim(real, create(real)).now < TTL
            assert real.renew([lease], timedelta(hours=1)).lost == frozenset()
            assert [found.execution_id for found in real.find_leases("")].count(execution_id) == 1
            assert due_ids(real) == []
            real.release(lease)
            assert due_ids(real) == [execution_id]
            real.mark_rung([(execution_id, 1)], TTL, TTL)
            assert due_ids(real) == []
            lease = claim(real, execution_id, ttl=timedelta(microseconds=1)).lease
            with pytest.raises(LeaseLost):
                real.checkpoint(execution_id, Checkpoint(), lease)
            assert real.renew([lease], TTL).lost == {execution_id}
            claim(real, execution_id)

    def test_of_several_claiming_processes_exactly_one_wins(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        execution_id = create(store)
        for token in range(1, ROUNDS + 1):
            tokens = team.run(reopen, clock, claim_token, execution_id)
            assert sorted(tokens, key=str) == [token] + [None] * (len(team) - 1)
            clock.advance(TTL)

    def test_writing_processes_lose_nothing_and_leave_no_gap(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        execution_id = create(store)
        team.run(reopen, clock, add, execution_id)
        assert_nothing_lost(store, execution_id, len(team))

    def test_of_several_processes_with_one_step_number_exactly_one_wins(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        execution_id = create(store)
        for number in range(1, ROUNDS + 1):
            assert sorted(team.run(reopen, clock, write_step, execution_id, number)) == [False] * (len(team) - 1) + [
                True
            ]
        assert summary_of(store, execution_id).step_count == ROUNDS

    def test_of_several_answering_processes_exactly_the_first_wins(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        for _ in range(ROUNDS):
            execution_id = create(store)
            store.checkpoint(execution_id, pause())
            woke = team.run(reopen, clock, send_answer, execution_id)
            (kept,) = context_of(store, execution_id).signals
            assert [member for member, did in enumerate(woke) if did] == [kept.payload]

    def test_of_several_processes_with_one_idempotency_key_exactly_one_creates(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        for number in range(ROUNDS):
            assert len(set(team.run(reopen, clock, create_once, str(number)))) == 1
        assert len(store.find().items) == ROUNDS

    def test_several_sweeping_processes_take_each_due_execution_exactly_once(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        made = sorted(create(store) for _ in range(60))
        clock.advance(YEAR)
        taken = [execution_id for part in team.run(reopen, clock, take_all) for execution_id in part]
        assert sorted(taken + sweep(store, 7)) == made

    def test_without_an_injected_clock_trails_and_ends_have_the_servers_time(
        self, store: Store, reopen: Reopen
    ) -> None:
        with reopen(clock=None) as real:
            execution_id = create(real)
            real.update_state(execution_id, AgentState.COMPLETED)
            margin, now = timedelta(minutes=5), datetime.now(UTC)
            ended_at = summary_of(real, execution_id).ended_at
            assert ended_at is not None
            for moment in (ended_at, *(entry.at for entry in real.get_audit(execution_id))):
                assert abs(now - moment) < margin
            assert real.find_ended(now - margin) == ()
            assert real.find_ended(now + margin) == (execution_id,)
            real.delete_context(execution_id)
            assert real.find_deleted(now - margin) == ()
            assert bool(real.find_deleted(now + margin)) is store.keeps_deleted

    def test_what_one_instance_removed_or_moved_another_sees(
        self, store: Store, reopen: Reopen, clock: ManualClock
    ) -> None:
        execution_id = create(store, idempotency_key="key")
        with reopen(clock=clock) as other:
            exported, trail = export_of(other, execution_id), other.get_audit(execution_id)
            assert exported == export_of(store, execution_id)
            assert trail == store.get_audit(execution_id)
            assert other.get_by_idempotency_key("agent", "key") == context_of(store, execution_id)
            other.delete_context(execution_id)
            assert store.export(execution_id) is None
            assert store.purge(execution_id) is store.keeps_deleted
            assert other.get_audit(execution_id) == ()
            assert other.restore(exported) is True
        assert store.get_audit(execution_id) == trail
        assert store.restore(exported) is False

    @every_change
    def test_a_change_through_another_instance_wakes(
        self, store: Store, reopen: Reopen, clock: ManualClock, change: Change
    ) -> None:
        execution_id = create(store)
        before = store.export(execution_id)
        with reopen(clock=clock) as other, store.watch(execution_id) as watch, ThreadPoolExecutor(1) as pool:
            changing = pool.submit(slowly, change, other, execution_id)
            wait_until(watch, lambda: store.export(execution_id) != before)
            changing.result()

    def test_deciding_processes_leave_no_gap_in_the_trail(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        execution_id = create(store)
        team.run(reopen, clock, decide, execution_id)
        trail = store.get_audit(execution_id)
        assert_chained(trail)
        assert [entry.event for entry in trail].count(AuditEvent.DECIDED) == ROUNDS * len(team)

    def test_of_several_deleting_processes_exactly_one_deletes(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        for _ in range(ROUNDS):
            execution_id = create(store)
            assert sorted(team.run(reopen, clock, delete, execution_id)) == [False] * (len(team) - 1) + [True]
            trail = store.get_audit(execution_id)
            assert [entry.event for entry in trail].count(AuditEvent.DELETED) == int(store.keeps_deleted)

    def test_a_deletion_in_one_process_and_writes_in_others_leave_no_half(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        for _ in range(ROUNDS):
            execution_id = create(store, session_id="s")
            outcomes = team.run(reopen, clock, delete_or_write, execution_id)
            assert outcomes[0] is True
            assert outcomes[1:].count(True) <= 1
            assert_no_trace(store, clock, execution_id)

    def test_of_several_processes_each_gets_turns_of_its_own(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        assert store.take_rate("another", 10, timedelta(minutes=1)).is_taken
        parts = team.run(reopen, clock, take_rates, "mail", ROUNDS)
        turns = [turn for part in parts for turn in part]
        assert sorted(turn.wait.total_seconds() for turn in turns) == [6.0 * n for n in range(len(turns))]
        assert [turn.is_taken for turn in turns].count(True) == 1

    def test_without_an_injected_clock_turns_have_the_servers_time(self, store: Store, reopen: Reopen) -> None:
        hour = timedelta(hours=1)
        assert store.clear() == 0
        with reopen(clock=None) as real:
            assert real.take_rate("mail", 1, hour).is_taken
            turn = real.take_rate("mail", 1, hour)
            assert hour - timedelta(minutes=1) < turn.wait <= hour
            assert real.take_rate("quick", 1_000_000, timedelta(seconds=1)).is_taken
            assert real.take_rate("quick", 1_000_000, timedelta(seconds=1), within=hour).is_taken

    def test_of_several_restoring_processes_exactly_one_restores(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam, other_store: Store
    ) -> None:
        exported = export_of(other_store, SITUATIONS["everything"](other_store, clock))
        for _ in range(ROUNDS):
            outcomes = team.run(reopen, clock, restore, exported)
            assert sorted(outcomes) == [False] * (len(team) - 1) + [True]
            assert export_of(store, exported.execution_id) == exported
            store.purge(exported.execution_id)

    def test_processes_that_append_to_one_log_lose_nothing_and_leave_no_gap(
        self, store: Store, reopen: Reopen, clock: ManualClock, team: ProcessTeam
    ) -> None:
        namespace = ("session", "s", "log")
        team.run(reopen, clock, append_each, namespace)
        entries = list(DocumentLog(store.documents, namespace).read())
        assert [entry.version for entry in entries] == list(range(1, 2 * ROUNDS * len(team) + 1))
        values = [entry.value for entry in entries]
        assert values[::2] == values[1::2]
        for member in range(len(team)):
            assert [value for value in values[::2] if value[0] == member] == [[member, n] for n in range(ROUNDS)]

    def test_without_an_injected_clock_documents_have_the_servers_time(self, store: Store, reopen: Reopen) -> None:
        namespace, hour = ("a", "b"), timedelta(hours=1)
        assert store.documents.namespaces() == ()
        with reopen(clock=None) as real:
            documents = real.documents
            version = documents.put(namespace, "long", 1, ttl=hour)
            document = documents.get(namespace, "long")
            assert document is not None
            assert abs(datetime.now(UTC) - document.created_at) < timedelta(minutes=5)
            assert document.updated_at == document.created_at == from_us(version)
            assert document.expires_at == document.created_at + hour
            documents.put(namespace, "short", 1, ttl=timedelta(microseconds=1))
            assert documents.get_many([(namespace, "short"), (namespace, "long")])[0] is None
            assert [each.key for each in documents.list(DocumentQuery(namespace=namespace)).items] == ["long"]
            documents.put(namespace, "short", 1, if_version=0, ttl=timedelta(microseconds=1))
            assert documents.tidy() == 1
            assert documents.remove_under(namespace) == 1


class NeighbourConformance(Suite):
    """Two stores on one server, each under its own prefix."""

    @pytest.fixture
    def neighbour(self, clock: ManualClock) -> Iterator[Store]:
        """Return a second store on the server of `store`. The backend's test class overrides this."""
        raise NotImplementedError("override the fixture `neighbour`")

    def test_neighbours_do_not_see_each_other(self, store: Store, neighbour: Store, clock: ManualClock) -> None:
        here, there = create(store, idempotency_key="key"), create(neighbour, idempotency_key="key")
        assert here != there
        assert store.get_context(there) is None
        assert [item.execution_id for item in store.find().items] == [here]
        claim(neighbour, there)
        assert store.find_leases("") == ()
        clock.advance(YEAR)
        assert due_ids(store) == [here]
        assert due_ids(neighbour) == [there]

    def test_clearing_leaves_the_neighbour_alone(self, store: Store, neighbour: Store, clock: ManualClock) -> None:
        for _ in range(3):
            create(store)
        kept, lease = claimed(neighbour, session_id="s", idempotency_key="key")
        neighbour.checkpoint(kept, Checkpoint(steps=(done(1),), working_memory={"a": 1}), lease)
        before = context_of(neighbour, kept)
        assert store.clear() == 3
        assert context_of(neighbour, kept) == before
        assert [item.execution_id for item in neighbour.find(Query(session_id="s")).items] == [kept]
        assert create(neighbour, idempotency_key="key") == kept
        clock.advance(TTL)
        assert due_ids(neighbour) == [kept]
        assert neighbour.clear() == 1

    def test_neighbours_have_rates_of_their_own(self, store: Store, neighbour: Store) -> None:
        hour = timedelta(hours=1)
        assert store.take_rate("mail", 1, hour).is_taken
        assert neighbour.take_rate("mail", 1, hour).is_taken
        store.clear()
        assert not neighbour.take_rate("mail", 1, hour).is_taken
        assert store.take_rate("mail", 1, hour).is_taken

    def test_neighbours_have_documents_of_their_own(self, store: Store, neighbour: Store) -> None:
        namespace = ("a", "b")
        for number, each in enumerate((store, neighbour)):
            each.documents.put(namespace, "k", number, if_version=0)
            each.documents.put(namespace, "short", number, ttl=timedelta(microseconds=1))
        store.documents.remove_under(namespace)
        store.tidy()
        store.clear()
        assert store.documents.namespaces() == ()
        kept = neighbour.documents.get(namespace, "k")
        assert kept is not None
        assert kept.value == 1

    def test_neighbours_do_not_see_each_others_ends_trails_and_copies(
        self, store: Store, neighbour: Store, clock: ManualClock
    ) -> None:
        there = ended(neighbour, AgentState.FAILED)
        deleted = create(neighbour, idempotency_key="key")
        neighbour.delete_context(deleted)
        kept = create(neighbour, idempotency_key="key")
        exported, trail = export_of(neighbour, there), neighbour.get_audit(deleted)
        later = from_us(clock.now_us()) + YEAR
        assert store.find_ended(later) == store.find_deleted(later) == ()
        assert store.get_audit(there) == store.get_audit(deleted) == ()
        assert store.get_by_idempotency_key("agent", "key") is None
        assert store.export(there) is None
        assert store.purge(there) is store.purge(deleted) is store.delete_context(kept) is False
        assert store.drop_archived(there, exported.place) is False
        assert store.restore(exported) is True
        assert store.restore(export_of(neighbour, kept)) is True
        store.requeue(there)
        assert store.clear() == 2
        assert export_of(neighbour, there) == exported
        assert neighbour.find_ended(later) == (there,)
        assert neighbour.get_audit(deleted) == trail
        assert bool(neighbour.find_deleted(later)) is neighbour.keeps_deleted
        assert create(neighbour, idempotency_key="key") == kept
