"""Races between threads that share one store."""

import multiprocessing
import sys
import threading
import warnings
from functools import partial

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock
from agent_statestore.errors import (
    AlreadyAnswered,
    ExecutionNotFound,
    ExecutionOver,
    IdempotencyConflict,
    QuestionNotAsked,
    StepConflict,
)
from agent_statestore.query import Query
from agent_statestore.records import Checkpointed, Claim, JSONValue, Renewed, Result, Sent, SignalKind, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    TTL,
    YEAR,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    event,
    message,
    pause,
    signal,
    stamped,
    summary_of,
)
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import PATIENCE_SECONDS, all_succeeded, raised, succeeded, together

THREADS = 4
ROUNDS = 20


def add_many(store: Store, execution_id: str, writer: int, count: int = 8) -> None:
    """Append to every part of a context, `count` times each."""
    for number in range(count):
        store.add_step(execution_id, f"{writer}-{number}", result=Result(success=True, output=[writer, number]))
        store.add_message(execution_id, "user", [writer, number])
        store.add_fact(execution_id, [writer, number])
        store.set_working_memory(execution_id, f"{writer}-{number}", number)
        store.set_entity(execution_id, f"{writer}-{number}", number)


def assert_nothing_lost(store: Store, execution_id: str, writers: int, count: int = 8) -> None:
    """Check what several `add_many` have left."""
    context = context_of(store, execution_id)
    everything = [[writer, number] for writer in range(writers) for number in range(count)]
    by_key = {f"{writer}-{number}": number for writer, number in everything}
    assert [step.step_number for step in context.steps] == list(range(1, writers * count + 1))
    outputs = [step.result.output for step in context.steps if step.result is not None]
    contents = [item.content for item in context.memory.conversation_history]
    for written in (outputs, contents, list(context.memory.facts)):
        assert sorted(written) == everything
        for writer in range(writers):
            assert [item for item in written if item[0] == writer] == [[writer, number] for number in range(count)]
    assert context.memory.working_memory == context.memory.entities == by_key
    assert context.version == 5 * writers * count


def contents_of(store: Store, execution_id: str, role: str) -> list[JSONValue]:
    """Return the contents of all messages of one role."""
    history = context_of(store, execution_id).memory.conversation_history
    return [item.content for item in history if item.role == role]


def sweep(store: Store, limit: int) -> list[str]:
    """Take due executions until none is left."""
    taken: list[str] = []
    while part := due_ids(store, limit, YEAR):
        taken += part
    return taken


class RaceConformance(Suite):
    """Threads."""

    def test_of_several_claimants_exactly_one_wins(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        for token in range(1, ROUNDS + 1):
            claims = all_succeeded(
                together(*(partial(store.claim, execution_id, f"host:{n}", TTL) for n in range(THREADS)))
            )
            (won,) = [made for made in claims if made is not None]
            assert won.lease.token == token
            assert summary_of(store, execution_id).owner == won.lease.owner
            clock.advance(TTL)

    def test_a_claim_and_a_renewal_of_the_expired_lease_never_both_win(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        for _ in range(ROUNDS):
            clock.advance(TTL)
            outcomes = together(partial(store.claim, execution_id, "host:2", TTL), partial(store.renew, [lease], TTL))
            claimed_now, renewed = outcomes
            assert isinstance(claimed_now, Claim)
            assert renewed == Renewed(lost=frozenset({execution_id}))
            lease = claimed_now.lease

    def test_of_a_release_and_a_break_of_one_lease_exactly_one_counts(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        for _ in range(ROUNDS):
            outcomes = all_succeeded(together(*(partial(store.release, lease) for _ in range(THREADS))))
            assert sorted(outcomes) == [False] * (THREADS - 1) + [True]
            assert summary_of(store, execution_id).crashes == 0
            lease = claim(store, execution_id).lease

    def test_of_concurrent_creates_with_one_idempotency_key_exactly_one_creates(self, store: Store) -> None:
        for number in range(ROUNDS):
            same = [partial(store.create_context, "agent", "input", idempotency_key=str(number))] * THREADS
            assert len({context.execution_id for context in all_succeeded(together(*same))}) == 1
            others = (partial(store.create_context, "agent", n, idempotency_key=f"{number}'") for n in range(THREADS))
            outcomes = together(*others)
            assert len(succeeded(outcomes)) == 1
            assert set(raised(outcomes)) == {IdempotencyConflict}
        assert len(store.find(Query(limit=1000)).items) == 2 * ROUNDS

    def test_concurrent_writers_lose_nothing_and_leave_no_gap(self, store: Store) -> None:
        execution_id = create(store)
        all_succeeded(together(*(partial(add_many, store, execution_id, writer) for writer in range(THREADS))))
        assert_nothing_lost(store, execution_id, THREADS)

    def test_of_several_writers_of_one_step_number_exactly_one_wins(self, store: Store) -> None:
        execution_id = create(store)
        for number in range(1, ROUNDS + 1):
            outcomes = together(
                *(
                    partial(store.checkpoint, execution_id, Checkpoint(steps=(done(number, output=n),), facts=(n,)))
                    for n in range(THREADS)
                )
            )
            assert len(succeeded(outcomes)) == 1
            assert raised(outcomes) == [StepConflict] * (THREADS - 1)
        context = context_of(store, execution_id)
        assert [step.result.output for step in context.steps if step.result] == list(context.memory.facts)
        assert len(context.steps) == context.version == ROUNDS

    def test_one_checkpoint_sent_several_times_at_once_is_applied_once(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        for number in range(1, ROUNDS + 1):
            change = Checkpoint(steps=(done(number),), messages=(message(number),))
            outcomes = all_succeeded(
                together(*(partial(store.checkpoint, execution_id, change, lease) for _ in range(THREADS)))
            )
            assert {written.version for written in outcomes} == {number}
        context = context_of(store, execution_id)
        assert len(context.memory.conversation_history) == len(context.steps) == ROUNDS

    def test_of_concurrent_answers_exactly_the_first_wins(self, store: Store) -> None:
        for kind, sent in ((WaitKind.INPUT, SignalKind.ANSWER), (WaitKind.APPROVAL, SignalKind.APPROVAL)):
            for _ in range(ROUNDS // 2):
                execution_id, lease = claimed(store)
                store.checkpoint(execution_id, pause(kind), lease)
                outcomes = together(
                    *(partial(store.send, execution_id, signal(sent, payload=n)) for n in range(THREADS))
                )
                assert succeeded(outcomes) == [Sent(woke=True)]
                assert raised(outcomes) == [AlreadyAnswered] * (THREADS - 1)
                (kept,) = context_of(store, execution_id).signals
                assert isinstance(outcomes[kept.payload], Sent)

    def test_of_one_signal_sent_several_times_at_once_one_arrives(self, store: Store, clock: ManualClock) -> None:
        for _ in range(ROUNDS):
            execution_id = create(store)
            store.checkpoint(execution_id, pause(WaitKind.EVENT))
            sent = stamped(event(), clock)
            outcomes = all_succeeded(together(*(partial(store.send, execution_id, sent) for _ in range(THREADS))))
            assert sorted(outcome.woke for outcome in outcomes) == [False] * (THREADS - 1) + [True]
            assert context_of(store, execution_id).signals == (sent,)

    def test_a_signal_at_the_moment_of_the_pause_is_never_lost(self, store: Store) -> None:
        for kind, make in ((WaitKind.EVENT, event), (WaitKind.TIMER, cancel), (WaitKind.INPUT, cancel)):
            for _ in range(ROUNDS):
                execution_id, lease = claimed(store)
                outcomes = together(
                    partial(store.checkpoint, execution_id, pause(kind), lease),
                    partial(store.send, execution_id, make()),
                )
                written, sent = all_succeeded(outcomes)
                assert isinstance(written, Checkpointed)
                assert isinstance(sent, Sent)
                assert written.due_now != sent.woke, "exactly one of the two rings the bell"
                assert due_ids(store) == [execution_id]
                assert claim(store, execution_id).context.signals
                store.delete_context(execution_id)

    def test_an_answer_at_the_moment_of_the_question_is_refused_or_wakes(self, store: Store) -> None:
        for _ in range(ROUNDS):
            execution_id, lease = claimed(store)
            outcomes = together(
                partial(store.checkpoint, execution_id, pause(), lease),
                partial(store.send, execution_id, signal(SignalKind.ANSWER)),
            )
            written, sent = outcomes
            assert isinstance(written, Checkpointed)
            assert not written.due_now
            if isinstance(sent, Sent):
                assert sent.woke
                assert due_ids(store) == [execution_id]
            else:
                assert isinstance(sent, QuestionNotAsked)
                assert summary_of(store, execution_id).due_at is None
                assert store.send(execution_id, signal(SignalKind.ANSWER)).woke
            store.delete_context(execution_id)

    def test_a_signal_at_the_moment_of_the_end_is_refused_or_kept(self, store: Store) -> None:
        for _ in range(ROUNDS):
            execution_id, lease = claimed(store)
            over = Checkpoint(state=AgentState.COMPLETED, output=1)
            outcomes = together(
                partial(store.checkpoint, execution_id, over, lease), partial(store.send, execution_id, cancel())
            )
            context = context_of(store, execution_id)
            assert (context.state, context.due_at) == (AgentState.COMPLETED, None)
            if isinstance(outcomes[1], Exception):
                assert isinstance(outcomes[1], ExecutionOver)
            assert bool(context.signals) == context.cancel_requested == isinstance(outcomes[1], Sent)

    def test_several_sweepers_take_each_due_execution_exactly_once(self, store: Store, clock: ManualClock) -> None:
        made = sorted(create(store) for _ in range(60))
        clock.advance(YEAR)
        outcomes = all_succeeded(together(*(partial(sweep, store, 7) for _ in range(THREADS))))
        taken = [execution_id for part in (*outcomes, sweep(store, 7)) for execution_id in part]
        assert sorted(taken) == made

    def test_a_write_at_the_moment_of_the_removal_brings_nothing_back(self, store: Store) -> None:
        for _ in range(ROUNDS):
            execution_id = create(store, session_id="s")
            change = Checkpoint(steps=(done(1),), messages=(message("x"),), working_memory={"a": 1})
            outcomes = together(
                partial(store.delete_context, execution_id), partial(store.checkpoint, execution_id, change)
            )
            assert outcomes[0] is True
            assert raised(outcomes) in ([], [ExecutionNotFound])
            assert store.get_context(execution_id) is None
            assert store.get_steps(execution_id) == ()
            assert store.find(Query(session_id="s")).items == ()

    def test_a_reader_sees_whole_checkpoints_only(self, store: Store) -> None:
        execution_id = create(store)

        def write() -> bool:
            for n in range(1, ROUNDS + 1):
                change = Checkpoint(
                    steps=(done(n),), messages=(message(n),), facts=(n,), working_memory={"n": n}, entities={"n": n}
                )
                store.checkpoint(execution_id, change)
            return True

        def read() -> bool:
            for _ in range(ROUNDS):
                seen, memory = context_of(store, execution_id), context_of(store, execution_id).memory
                assert len(seen.steps) == seen.step_count == seen.version
                assert len(seen.memory.conversation_history) == len(seen.memory.facts) == seen.version
                assert memory.working_memory.get("n", 0) == memory.entities.get("n", 0) == len(memory.facts)
            return True

        all_succeeded(together(write, read, read))

    def test_it_works_on_both_sides_of_a_fork_in_the_middle_of_other_calls(self, store: Store) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, Checkpoint(facts=tuple(range(200))))
        stop = threading.Event()

        def read_all_the_time() -> None:
            while not stop.is_set():
                context_of(store, execution_id)

        reader = threading.Thread(target=read_all_the_time, daemon=True)
        reader.start()
        try:
            for name in ("first", "second", "third"):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # the test needs other threads to exist
                    child = multiprocessing.get_context("fork").Process(
                        target=_use_in_child, args=(store, execution_id, name)
                    )
                    child.start()
                for number in range(10):
                    store.add_message(execution_id, f"parent of {name}", number)
                child.join(20)
                if child.is_alive():
                    child.kill()
                    child.join()
                assert child.exitcode == 0
                assert contents_of(store, execution_id, f"parent of {name}") == list(range(10))
        finally:
            stop.set()
            reader.join(PATIENCE_SECONDS)


def _use_in_child(store: Store, execution_id: str, name: str) -> None:
    try:
        for number in range(10):
            store.add_message(execution_id, name, number)
        store.create_context("child")
        seen = contents_of(store, execution_id, name)
    except Exception as error:  # noqa: BLE001 - the child's only way to say it
        sys.exit(repr(error))
    sys.exit(0 if seen == list(range(10)) else "lost messages")
