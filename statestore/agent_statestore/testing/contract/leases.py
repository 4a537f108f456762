"""Claim, renew, release."""

from dataclasses import replace
from datetime import timedelta

import pytest

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock, from_us
from agent_statestore.errors import LeaseLost
from agent_statestore.records import Lease, Renewed, SignalKind, WaitKind
from agent_statestore.states import OVER, AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    GRACE,
    INSTANT,
    TTL,
    cancel,
    claim,
    claimed,
    context_of,
    create,
    done,
    due_ids,
    event,
    intent,
    message,
    move,
    pause,
    signal,
    stamped,
    summary_of,
)
from agent_statestore.testing.kit.suite import Suite


class LeaseConformance(Suite):
    """`claim`, `renew`, `release`, `forgive`, `find_leases`."""

    def test_the_store_tells_its_time(self, store: Store, clock: ManualClock) -> None:
        assert store.now() == from_us(clock.now_us())
        clock.advance(timedelta(days=1))
        assert store.now() == from_us(clock.now_us())

    def test_a_claim_returns_the_lease_and_the_context_under_it(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store, input={"a": 1})
        store.add_message(execution_id, "user", "hi")
        made = claim(store, execution_id, "host:7", TTL)
        now = from_us(clock.now_us())
        assert made.now == now
        assert made.lease == Lease(execution_id=execution_id, token=1, owner="host:7", ttl=TTL, expires_at=now + TTL)
        assert made.context == context_of(store, execution_id)
        assert (made.context.state, made.context.attempt, made.context.crashes) == (AgentState.THINKING, 1, 1)
        assert (made.context.owner, made.context.lease_expires_at) == ("host:7", now + TTL)
        assert made.context.due_at == now + TTL
        assert made.context.memory.conversation_history[0].content == "hi"

    def test_a_claim_leaves_the_version_alone(self, store: Store) -> None:
        execution_id = create(store)
        store.add_message(execution_id, "user", "hi")
        assert claim(store, execution_id).context.version == 1

    def test_nobody_claims_while_a_lease_lives(self, store: Store, clock: ManualClock) -> None:
        execution_id, _ = claimed(store)
        before = context_of(store, execution_id)
        clock.advance(TTL - INSTANT)
        assert store.claim(execution_id, "host:1", TTL) is None
        assert store.claim(execution_id, "host:2", TTL) is None
        assert context_of(store, execution_id) == before

    def test_a_lease_ends_at_its_very_moment(self, store: Store, clock: ManualClock) -> None:
        execution_id, _ = claimed(store)
        clock.advance(TTL)
        assert claim(store, execution_id, "host:2").lease.token == 2

    @pytest.mark.parametrize("state", sorted(OVER))
    def test_nobody_claims_what_is_over(self, store: Store, state: AgentState) -> None:
        execution_id = create(store)
        move(store, execution_id, state)
        before = context_of(store, execution_id)
        assert store.claim(execution_id, "host:1", TTL) is None
        assert context_of(store, execution_id) == before

    def test_tokens_grow_by_one_across_release_expiry_and_pause(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        tokens = [lease.token]
        store.release(lease)
        tokens.append(claim(store, execution_id).lease.token)
        clock.advance(TTL)
        lease = claim(store, execution_id).lease
        tokens.append(lease.token)
        store.checkpoint(execution_id, pause(WaitKind.EVENT), lease)
        store.send(execution_id, event())
        lease = claim(store, execution_id).lease
        tokens.append(lease.token)
        store.update_state(execution_id, AgentState.FAILED, lease=lease)
        store.requeue(execution_id)
        tokens.append(claim(store, execution_id).lease.token)
        assert tokens == [1, 2, 3, 4, 5]
        assert summary_of(store, execution_id).attempt == 5

    def test_a_claim_keeps_what_is_waited_for_and_the_mailbox(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, pause(WaitKind.CHILD, "child"))
        waiting = summary_of(store, execution_id).waiting
        ended = stamped(signal(SignalKind.CHILD, "child", {"ok": True}), clock)
        store.send(execution_id, ended)
        context = claim(store, execution_id).context
        assert (context.state, context.waiting, context.signals) == (AgentState.THINKING, waiting, (ended,))

    def test_a_claim_sets_the_rings_back(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        store.mark_rung([(execution_id, 0)], TTL, GRACE)
        claim(store, execution_id)
        clock.advance(TTL)
        (due,) = store.take_due(1, GRACE)
        assert (due.rings, due.token) == (0, 1)

    def test_renewing_moves_the_end_and_the_due_time(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        clock.advance(TTL - INSTANT)
        assert store.renew([lease], timedelta(minutes=1)) == Renewed()
        until = from_us(clock.now_us()) + timedelta(minutes=1)
        summary = summary_of(store, execution_id)
        assert (summary.lease_expires_at, summary.due_at, summary.attempt) == (until, until, 1)
        clock.advance(timedelta(minutes=1) - INSTANT)
        store.checkpoint(execution_id, Checkpoint(), lease)
        clock.advance(INSTANT)
        with pytest.raises(LeaseLost):
            store.checkpoint(execution_id, Checkpoint(), lease)

    def test_renewing_may_be_repeated(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        assert store.renew([lease, lease], TTL) == store.renew([lease], TTL) == Renewed()
        assert summary_of(store, execution_id).lease_expires_at == lease.expires_at

    def test_renewing_nothing_does_nothing(self, store: Store) -> None:
        assert store.renew([], TTL) == Renewed()

    def test_an_expired_lease_is_not_renewed_even_if_nobody_claimed(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        clock.advance(TTL)
        before = context_of(store, execution_id)
        assert store.renew([lease], TTL) == Renewed(lost=frozenset({execution_id}))
        assert context_of(store, execution_id) == before
        claim(store, execution_id)

    def test_many_leases_are_renewed_at_once_and_only_the_lost_ones_are_named(
        self, store: Store, clock: ManualClock
    ) -> None:
        kept, cancelled, released, expired, deleted, finished = (claimed(store) for _ in range(6))
        unknown = Lease(execution_id="unknown", token=1, owner="o", ttl=TTL, expires_at=kept[1].expires_at)
        store.send(cancelled[0], cancel())
        store.release(released[1])
        store.update_state(finished[0], AgentState.COMPLETED, lease=finished[1])
        store.delete_context(deleted[0])
        clock.advance(INSTANT)
        store.renew([kept[1], cancelled[1]], TTL)
        clock.advance(TTL - INSTANT)
        everything = [kept, cancelled, released, expired, deleted, finished]
        assert store.renew([*(lease for _, lease in everything), unknown], TTL) == Renewed(
            lost=frozenset({released[0], expired[0], deleted[0], finished[0], "unknown"}),
            cancel_requested=frozenset({cancelled[0]}),
        )

    def test_a_stale_lease_is_not_renewed_and_its_successor_is_untouched(
        self, store: Store, clock: ManualClock
    ) -> None:
        execution_id, stale = claimed(store)
        clock.advance(TTL)
        claim(store, execution_id, "host:2")
        before = context_of(store, execution_id)
        clock.advance(INSTANT)
        assert store.renew([stale], TTL).lost == {execution_id}
        assert context_of(store, execution_id) == before

    def test_releasing_makes_it_due_and_claimable_at_once(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        clock.advance(INSTANT)
        assert store.release(lease) is True
        summary = summary_of(store, execution_id)
        assert (summary.state, summary.owner, summary.lease_expires_at) == (AgentState.THINKING, None, None)
        assert summary.due_at == from_us(clock.now_us())
        assert due_ids(store) == [execution_id]
        claim(store, execution_id)

    def test_releasing_twice_does_nothing_the_second_time(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        store.release(lease)
        before = context_of(store, execution_id)
        clock.advance(INSTANT)
        assert store.release(lease) is False
        assert store.release(lease, crashed=True) is False
        assert context_of(store, execution_id) == before

    @pytest.mark.parametrize("crashed", [False, True])
    def test_a_stale_or_expired_lease_releases_nothing(self, store: Store, clock: ManualClock, crashed: bool) -> None:
        execution_id, stale = claimed(store)
        clock.advance(TTL)
        before = context_of(store, execution_id)
        assert store.release(stale, crashed=crashed) is False
        assert context_of(store, execution_id) == before
        claim(store, execution_id)
        before = context_of(store, execution_id)
        assert store.release(stale, crashed=crashed) is False
        assert context_of(store, execution_id) == before
        store.delete_context(execution_id)
        assert store.release(stale, crashed=crashed) is False

    def test_a_claim_that_was_given_back_is_no_crash(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.release(lease)
        assert summary_of(store, execution_id).crashes == 0

    def test_a_forgiven_claim_counts_as_no_crash_however_it_ends(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        assert store.release(lease, crashed=True) is True
        for ends in ("its lease runs out", "it is broken", "it is forgiven twice"):
            lease = claim(store, execution_id).lease
            before = context_of(store, execution_id)
            assert before.crashes == 2, ends
            assert store.forgive(lease, 1) is True, ends
            assert context_of(store, execution_id) == replace(before, crashes=1), ends
            if ends == "it is forgiven twice":
                assert store.forgive(lease, 1) is True
            if ends == "its lease runs out":
                clock.advance(TTL)
            else:
                assert store.release(lease, crashed=True) is True, ends
            assert summary_of(store, execution_id).crashes == 1, ends

    def test_forgiving_never_adds_a_crash(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        assert store.forgive(lease, 3) is True
        assert summary_of(store, execution_id).crashes == 0

    def test_a_lost_lease_forgives_nothing(self, store: Store, clock: ManualClock) -> None:
        expired, given_back, deleted, finished, claimed_anew = (claimed(store) for _ in range(5))
        store.release(given_back[1], crashed=True)
        store.delete_context(deleted[0])
        store.update_state(finished[0], AgentState.COMPLETED, lease=finished[1])
        clock.advance(TTL)
        claim(store, claimed_anew[0], "host:2")
        lost = (expired, given_back, deleted, finished, claimed_anew)
        before = [store.get_context(execution_id) for execution_id, _ in lost]
        assert [store.forgive(lease, 0) for _, lease in lost] == [False] * len(lost)
        unknown = replace(expired[1], execution_id="unknown")
        assert store.forgive(unknown, 0) is False
        assert [store.get_context(execution_id) for execution_id, _ in lost] == before

    def test_a_broken_lease_and_an_expired_one_count_as_crashes(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        assert store.release(lease, crashed=True) is True
        assert summary_of(store, execution_id).crashes == 1
        claim(store, execution_id)
        clock.advance(TTL)
        lease = claim(store, execution_id).lease
        assert summary_of(store, execution_id).crashes == 3
        store.release(lease)
        assert summary_of(store, execution_id).crashes == 2

    def test_crashes_never_fall_below_zero(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        store.release(lease)
        assert summary_of(store, execution_id).crashes == 0

    def test_only_recorded_steps_and_pauses_set_the_crashes_back(self, store: Store, clock: ManualClock) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(messages=(message("x"),), working_memory={"a": 1}), lease)
        store.checkpoint(execution_id, Checkpoint(state=AgentState.USING_TOOL), lease)
        assert summary_of(store, execution_id).crashes == 1
        store.checkpoint(execution_id, Checkpoint(steps=(intent(1),)), lease)
        assert summary_of(store, execution_id).crashes == 0
        clock.advance(TTL)
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
        assert summary_of(store, execution_id).crashes == 0
        clock.advance(TTL)
        lease = claim(store, execution_id).lease
        store.checkpoint(execution_id, pause(), lease)
        assert summary_of(store, execution_id).crashes == 0

    def test_living_leases_are_found_by_the_beginning_of_their_owner(self, store: Store, clock: ManualClock) -> None:
        leases = {}
        for owner in ("host-a:1", "host-a:12", "host-b:1", "gone:1"):
            leases[owner] = claim(store, create(store), owner, INSTANT if owner == "gone:1" else TTL).lease
        clock.advance(timedelta(seconds=5))
        found = store.find_leases("host-a:")
        assert {lease.owner for lease in found} == {"host-a:1", "host-a:12"}
        assert {lease.ttl for lease in found} == {TTL - timedelta(seconds=5)}
        for lease in found:
            made = leases[lease.owner]
            assert (lease.execution_id, lease.token, lease.expires_at) == (
                made.execution_id,
                made.token,
                made.expires_at,
            )
        assert {lease.owner for lease in store.find_leases("")} == {"host-a:1", "host-a:12", "host-b:1"}
        assert store.find_leases("host-c") == ()

    @pytest.mark.parametrize("character", ["%", "_", "*", "?", "[", "\\"])
    def test_the_beginning_of_an_owner_is_no_pattern(self, store: Store, character: str) -> None:
        claim(store, create(store), f"host{character}x")
        claim(store, create(store), "hostXx")
        assert [lease.owner for lease in store.find_leases(f"host{character}")] == [f"host{character}x"]

    def test_a_lease_that_was_given_back_is_not_found(self, store: Store) -> None:
        _, released = claimed(store)
        paused, lease = claimed(store)
        store.release(released)
        store.checkpoint(paused, pause(), lease)
        assert store.find_leases("") == ()

    def test_a_found_lease_may_be_broken_by_its_finder(self, store: Store) -> None:
        execution_id, _ = claimed(store)
        (found,) = store.find_leases("host:")
        assert store.release(found, crashed=True) is True
        claim(store, execution_id, "host:2")
