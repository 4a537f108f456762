"""The audit trail: what it notes, with which particulars, and what it does not note."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from agent_statestore.checkpoint import Checkpoint, Via
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import (
    ExecutionNotFound,
    ExecutionOver,
    IllegalTransition,
    InvalidRecord,
    LeaseHeld,
    LeaseLost,
    NotSerialisable,
    QuestionNotAsked,
    StepConflict,
    StoreError,
)
from agent_statestore.records import AuditEntry, AuditEvent, ErrorInfo, Signal, SignalKind, WaitKind
from agent_statestore.states import OVER, AgentState
from agent_statestore.store import Store
from agent_statestore.testing.contract.creating import UNKNOWN_IDS
from agent_statestore.testing.kit.builders import (
    BOOM,
    GRACE,
    INSTANT,
    TTL,
    answer,
    cancel,
    claim,
    claimed,
    create,
    done,
    pause,
    stamped,
)
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import all_succeeded, together

LONG = "\N{SLIGHTLY SMILING FACE}x ключ\n" * 1000
TEXTS = ["", "Ünï \u2028 '\"\\ --", "\N{SLIGHTLY SMILING FACE}", " a ", LONG]
VIA = Via(channel="command line", os_user="Jörg \N{SLIGHTLY SMILING FACE}")
REFUSED_TEXTS = ["a\x00b", "\ud800", "x\udfff"]


def last(store: Store, execution_id: str) -> AuditEntry:
    """Return the newest entry of a trail."""
    return store.get_audit(execution_id)[-1]


def assert_chained(trail: tuple[AuditEntry, ...]) -> None:
    """Check that the positions have no gap, and that each entry begins in the state in which the one before ended."""
    assert [entry.position for entry in trail] == list(range(1, len(trail) + 1))
    state = None
    for entry in trail:
        assert entry.from_state is state
        state = entry.to_state or state


def decide_and_move(store: Store, execution_id: str, rounds: int = 6) -> None:
    """Make writes that the trail notes, in competition with others that do the same."""
    for number in range(rounds):
        store.send(execution_id, cancel())
        store.update_state(execution_id, (AgentState.THINKING, AgentState.USING_TOOL)[number % 2])


class AuditConformance(Suite):
    """`get_audit`."""

    def test_the_trail_begins_with_the_creation(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store, idempotency_key="key")
        created = AuditEntry(position=1, at=from_us(clock.now_us()), event=AuditEvent.CREATED, to_state=AgentState.IDLE)
        assert store.get_audit(execution_id) == (created,)
        clock.advance(TTL)
        assert create(store, idempotency_key="key") == execution_id
        assert store.get_audit(execution_id) == (created,)

    @pytest.mark.parametrize("execution_id", UNKNOWN_IDS)
    def test_an_unknown_execution_has_no_trail(self, store: Store, execution_id: str) -> None:
        create(store)
        assert store.get_audit(execution_id) == ()

    def test_every_claim_is_noted_with_its_worker_and_attempt(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        clock.advance(INSTANT)
        claim(store, execution_id, "host:1")
        first = AuditEntry(
            position=2,
            at=from_us(clock.now_us()),
            event=AuditEvent.CLAIMED,
            from_state=AgentState.IDLE,
            to_state=AgentState.THINKING,
            attempt=1,
            worker="host:1",
        )
        assert store.get_audit(execution_id)[1:] == (first,)
        clock.advance(TTL)  # the first worker is dead
        claim(store, execution_id, "Ünï:2")
        second = replace(
            first, position=3, at=from_us(clock.now_us()), from_state=AgentState.THINKING, attempt=2, worker="Ünï:2"
        )
        assert store.get_audit(execution_id)[1:] == (first, second)

    def test_a_write_that_changes_the_state_is_noted(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        clock.advance(INSTANT)
        store.update_state(execution_id, AgentState.USING_TOOL, by="ada", reason="because", via=VIA, lease=lease)
        moved = AuditEntry(
            position=3,
            at=from_us(clock.now_us()),
            event=AuditEvent.MOVED,
            from_state=AgentState.THINKING,
            to_state=AgentState.USING_TOOL,
            attempt=1,
            worker=lease.owner,
            by="ada",
            reason="because",
            channel=VIA.channel,
            os_user=VIA.os_user,
        )
        assert last(store, execution_id) == moved
        back = replace(moved, position=4, from_state=moved.to_state, to_state=moved.from_state, by=None, reason=None)
        store.update_state(execution_id, AgentState.THINKING, via=Via(channel="http"), lease=lease)
        assert last(store, execution_id) == replace(back, channel="http", os_user=None)
        store.update_state(execution_id, AgentState.USING_TOOL, lease=lease)
        assert last(store, execution_id) == replace(moved, position=5, by=None, reason=None, channel=None, os_user=None)

    def test_an_entry_says_through_what_a_signal_came(self, store: Store) -> None:
        execution_id = create(store)
        sent = replace(cancel(), channel=VIA.channel, os_user=VIA.os_user)
        store.send(execution_id, sent)
        entry = last(store, execution_id)
        assert (entry.channel, entry.os_user) == (VIA.channel, VIA.os_user)
        assert entry.signal is not None
        assert entry.signal.signal_id == sent.signal_id

    @pytest.mark.parametrize("state", sorted(OVER | {AgentState.WAITING}))
    def test_a_write_that_gives_the_lease_back_was_still_made_by_its_worker(
        self, store: Store, state: AgentState
    ) -> None:
        execution_id, lease = claimed(store)
        change = Checkpoint(state=state) if state.is_over else pause(WaitKind.EVENT)
        store.checkpoint(execution_id, change, lease)
        entry = last(store, execution_id)
        assert (entry.event, entry.worker, entry.attempt) == (AuditEvent.MOVED, lease.owner, 1)
        assert (entry.from_state, entry.to_state) == (AgentState.THINKING, state)

    def test_without_a_living_lease_no_worker_is_named(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        store.update_state(execution_id, AgentState.THINKING, by="ada")
        entry = last(store, execution_id)
        assert (entry.attempt, entry.worker, entry.by) == (0, None, "ada")
        claim(store, execution_id)
        clock.advance(TTL)
        store.send(execution_id, cancel())
        store.update_state(execution_id, AgentState.USING_TOOL)
        for entry in store.get_audit(execution_id)[-2:]:
            assert (entry.attempt, entry.worker) == (1, None)

    def test_under_a_living_lease_a_decision_names_the_worker(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.send(execution_id, cancel())
        entry = last(store, execution_id)
        assert (entry.event, entry.attempt, entry.worker, entry.by) == (AuditEvent.DECIDED, 1, lease.owner, "ada")

    def test_a_failures_reason_is_its_error(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.update_state(execution_id, AgentState.FAILED, error=BOOM, lease=lease)
        entry = last(store, execution_id)
        assert (entry.to_state, entry.by, entry.reason) == (AgentState.FAILED, None, "builtins:ValueError: boom")
        execution_id = create(store)
        store.update_state(execution_id, AgentState.FAILED, error=BOOM, by="ada", reason="enough")
        entry = last(store, execution_id)
        assert (entry.by, entry.reason) == ("ada", "enough")

    @pytest.mark.parametrize("text", ["\N{SLIGHTLY SMILING FACE}" * 1000, "ключ " * 100_000, "a\x00b"])
    def test_of_an_error_the_beginning_is_kept_as_the_reason(self, store: Store, text: str) -> None:
        execution_id = create(store)
        store.update_state(execution_id, AgentState.FAILED, error=ErrorInfo(type="t", message=text))
        assert last(store, execution_id).reason == f"t: {text}"[:500].replace("\x00", "\N{REPLACEMENT CHARACTER}")

    def test_a_release_of_a_dead_letter_says_who_and_why(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        store.update_state(execution_id, AgentState.FAILED, error=BOOM, lease=lease)
        clock.advance(INSTANT)
        store.requeue(execution_id, by="ada", reason="mended")
        assert last(store, execution_id) == AuditEntry(
            position=4,
            at=from_us(clock.now_us()),
            event=AuditEvent.MOVED,
            from_state=AgentState.FAILED,
            to_state=AgentState.IDLE,
            attempt=1,
            by="ada",
            reason="mended",
        )

    def test_a_trail_goes_on_through_a_whole_life(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, pause(), lease)
        store.send(execution_id, answer())
        lease = claim(store, execution_id, "host:2").lease
        store.update_state(execution_id, AgentState.USING_TOOL, lease=lease)
        store.update_state(execution_id, AgentState.FAILED, error=BOOM, lease=lease)
        store.requeue(execution_id)
        store.update_state(execution_id, AgentState.COMPLETED)
        trail = store.get_audit(execution_id)
        assert_chained(trail)
        assert [entry.event.value for entry in trail] == [
            *("created", "claimed", "moved", "decided", "claimed", "moved", "moved", "moved", "moved")
        ]

    # -- what is not noted ---------------------------------------------------------------------------------------------

    def test_a_write_that_keeps_the_state_is_not_noted(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        before = store.get_audit(execution_id)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),), by="ada", reason="because"), lease)
        store.update_state(execution_id, AgentState.THINKING, by="ada", lease=lease)
        assert store.get_audit(execution_id) == before
        store.checkpoint(execution_id, pause(key="one"), lease)
        store.checkpoint(execution_id, pause(key="another"))
        assert len(store.get_audit(execution_id)) == len(before) + 1

    def test_a_repeated_checkpoint_is_noted_once(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        change = Checkpoint(state=AgentState.COMPLETED, by="ada")
        store.checkpoint(execution_id, change, lease)
        before = store.get_audit(execution_id)
        clock.advance(INSTANT)
        store.checkpoint(execution_id, change, lease)
        store.checkpoint(execution_id, change)
        assert store.get_audit(execution_id) == before

    def test_lease_care_and_ringing_are_not_noted(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        before = store.get_audit(execution_id)
        store.renew([lease], TTL)
        store.release(lease)
        store.take_due(10, GRACE)
        store.mark_rung([(execution_id, 1)], TTL, TTL)
        assert store.get_audit(execution_id) == before
        store.update_state(execution_id, AgentState.CANCELLED)
        before = store.get_audit(execution_id)
        store.settle(execution_id)
        assert store.claim(execution_id, "host:2", TTL) is None
        assert store.get_audit(execution_id) == before

    def test_refused_writes_are_not_noted(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)

        def refused(error: type[StoreError], call: Callable[..., Any], *args: Any) -> None:
            before = store.get_audit(execution_id)
            with pytest.raises(error):
                call(execution_id, *args)
            assert store.get_audit(execution_id) == before

        over = Checkpoint(state=AgentState.COMPLETED)
        assert store.claim(execution_id, "host:2", TTL) is None
        refused(LeaseHeld, store.checkpoint, over)
        refused(LeaseLost, store.checkpoint, over, replace(lease, token=2))
        refused(StepConflict, store.checkpoint, replace(over, steps=(done(7),)), lease)
        refused(IllegalTransition, store.checkpoint, Checkpoint(state=AgentState.IDLE), lease)
        refused(NotSerialisable, store.checkpoint, replace(over, output={1}), lease)
        refused(QuestionNotAsked, store.send, answer())
        clock.advance(TTL)
        refused(LeaseLost, store.checkpoint, over, lease)
        assert len(store.get_audit(execution_id)) == 2
        store.checkpoint(execution_id, over)
        refused(ExecutionOver, store.checkpoint, Checkpoint(state=AgentState.THINKING))
        refused(ExecutionOver, store.send, cancel())

    # -- texts ---------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:10]))
    def test_any_text_says_why(self, store: Store, clock: ManualClock, text: str) -> None:
        """Who did it is a name, which has rules of its own."""
        execution_id = create(store)
        sent = Signal(signal_id="s", kind=SignalKind.CANCEL, sender="Jörg 🙂", reason=text)
        store.send(execution_id, sent)
        store.update_state(execution_id, AgentState.FAILED, error=BOOM, by="Jörg 🙂", reason=text)
        store.requeue(execution_id, by="Jörg 🙂", reason=text, via=VIA)
        trail = store.get_audit(execution_id)[1:]
        assert (trail[-1].channel, trail[-1].os_user) == (VIA.channel, VIA.os_user)
        assert [(entry.by, entry.reason) for entry in trail] == [("Jörg 🙂", text)] * 3
        assert trail[0].signal == stamped(sent, clock)

    @pytest.mark.parametrize("text", REFUSED_TEXTS, ids=repr)
    def test_a_text_that_no_backend_could_hold_is_refused_before_anything_is_sent(
        self, store: Store, text: str
    ) -> None:
        execution_id = create(store)
        before = store.get_audit(execution_id)
        for told in ({"by": text}, {"reason": text}):
            for addressee in (execution_id, "unknown"):  # an unknown one would be refused as unknown, were it asked for
                with pytest.raises(InvalidRecord):
                    store.update_state(addressee, AgentState.FAILED, error=BOOM, **told)  # type: ignore[arg-type]
                with pytest.raises(InvalidRecord):
                    store.requeue(addressee, **told)  # type: ignore[arg-type]
                with pytest.raises(InvalidRecord):
                    store.delete_context(addressee, **told)  # type: ignore[arg-type]
        for told in ({"sender": text}, {"reason": text}):
            with pytest.raises(InvalidRecord):
                store.send(execution_id, replace(cancel(), **told))  # type: ignore[arg-type]
        assert store.get_audit(execution_id) == before
        with pytest.raises(ExecutionNotFound):
            store.requeue("unknown", by="ada")

    # -- several writers -----------------------------------------------------------------------------------------------

    def test_each_execution_has_a_trail_of_its_own(self, store: Store) -> None:
        one, other = create(store), create(store)
        for execution_id in (one, other, one):
            store.send(execution_id, cancel())
        assert [len(store.get_audit(execution_id)) for execution_id in (one, other)] == [3, 2]

    def test_concurrent_writers_leave_no_gap_in_the_trail(self, store: Store) -> None:
        execution_id = create(store)
        all_succeeded(together(*(partial(decide_and_move, store, execution_id) for _ in range(4))))
        trail = store.get_audit(execution_id)
        assert_chained(trail)
        assert [entry.event for entry in trail].count(AuditEvent.DECIDED) == 24
        noted = [entry.signal.signal_id for entry in trail if entry.signal is not None]
        assert len(set(noted)) == 24

    def test_a_refused_end_is_not_noted_beside_the_one_that_won(self, store: Store) -> None:
        for _ in range(10):
            execution_id = create(store)
            ends = [Checkpoint(state=state, by=state.value) for state in sorted(OVER)]
            calls = [partial(store.checkpoint, execution_id, end) for end in ends]
            together(*calls, partial(store.claim, execution_id, "host:1", TTL))
            trail = store.get_audit(execution_id)
            assert_chained(trail)
            ended = [entry for entry in trail if entry.to_state in OVER]
            summary = store.get_summary(execution_id)
            assert summary is not None
            assert len(ended) == int(summary.state.is_over)
            assert [entry.by for entry in ended] == [summary.state.value] * len(ended)
            assert [entry.event for entry in trail].count(AuditEvent.CLAIMED) == summary.attempt
