"""One execution at a time writes to a namespace, and of its attempts the last."""

from functools import partial

import pytest

from agent_statestore.clock import ManualClock
from agent_statestore.documents import Expect, Put
from agent_statestore.documents.errors import DocumentConflict, NamespaceHeld
from agent_statestore.documents.holding import never_held
from agent_statestore.errors import LeaseLost
from agent_statestore.records import Lease
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import TTL, claim, claimed, move, pause
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import raised, succeeded, together

NS = ("session", "s-1")
THREADS = 5


class HoldingConformance(Suite):
    """`hold_namespace`."""

    def test_a_namespace_is_held_until_the_execution_is_over(self, store: Store) -> None:
        first, lease = claimed(store)
        _, other = claimed(store)
        hold = store.hold_namespace(NS, lease)
        hold.write(store.documents, [Put(namespace=NS, key="a", value=1)])
        with pytest.raises(NamespaceHeld) as refused:
            store.hold_namespace(NS, other)
        assert (refused.value.namespace, refused.value.execution_id) == (NS, first)
        store.hold_namespace((*NS, "below"), other)
        store.checkpoint(first, pause(), lease)
        with pytest.raises(NamespaceHeld):
            store.hold_namespace(NS, other)
        store.update_state(first, AgentState.CANCELLED)
        taken = store.hold_namespace(NS, other)
        with pytest.raises(LeaseLost):
            hold.write(store.documents, [Put(namespace=NS, key="a", value="late")])
        taken.write(store.documents, [Put(namespace=NS, key="b", value=2)])
        assert [each.key for each in store.documents.get_many([(NS, "a"), (NS, "b")]) if each] == ["a", "b"]

    def test_a_new_attempt_takes_over_from_the_one_before(self, store: Store, clock: ManualClock) -> None:
        execution_id, zombie = claimed(store)
        late = store.hold_namespace(NS, zombie)
        clock.advance(TTL)
        lease = claim(store, execution_id).lease
        hold = store.hold_namespace(NS, lease)
        with pytest.raises(LeaseLost):
            late.write(store.documents, [Put(namespace=NS, key="a", value="late")])
        with pytest.raises(LeaseLost):
            store.hold_namespace(NS, zombie)
        hold.write(store.documents, [Put(namespace=NS, key="a", value=1, if_version=0)])
        with pytest.raises(DocumentConflict):
            hold.write(store.documents, [Put(namespace=NS, key="a", value=1, if_version=0)])

    def test_the_documents_of_an_execution_that_is_gone_are_free(self, store: Store) -> None:
        gone, lease = claimed(store)
        store.hold_namespace(NS, lease)
        store.purge(gone)
        _, other = claimed(store)
        store.hold_namespace(NS, other)

    def test_one_of_several_executions_gets_a_namespace(self, store: Store) -> None:
        leases: list[Lease] = [claimed(store)[1] for _ in range(THREADS)]
        outcomes = together(*(partial(store.hold_namespace, NS, lease) for lease in leases))
        assert raised(outcomes) == [NamespaceHeld] * (THREADS - 1), outcomes
        assert len(succeeded(outcomes)) == 1

    def test_an_execution_that_is_over_takes_nothing_from_a_later_one(self, store: Store) -> None:
        gone, zombie = claimed(store)
        store.hold_namespace(NS, zombie)
        move(store, gone, AgentState.COMPLETED, zombie)
        later, lease = claimed(store)
        hold = store.hold_namespace(NS, lease)
        move(store, later, AgentState.COMPLETED, lease)
        with pytest.raises(LeaseLost):
            store.hold_namespace(NS, zombie)
        hold.write(store.documents, [Put(namespace=NS, key="a", value=1)])

    def test_who_holds_nothing_writes_unless_an_execution_holds_it(self, store: Store) -> None:
        def write(expected: Expect) -> None:
            store.documents.write([expected, Put(namespace=NS, key="a", value=1)])

        write(never_held(NS))
        assert store.expect_no_holder(NS) == never_held(NS)
        execution_id, lease = claimed(store)
        store.hold_namespace(NS, lease)
        with pytest.raises(DocumentConflict):
            write(never_held(NS))
        with pytest.raises(NamespaceHeld):
            store.expect_no_holder(NS)
        move(store, execution_id, AgentState.COMPLETED, lease)
        free = store.expect_no_holder(NS)
        write(free)
        _, other = claimed(store)
        store.hold_namespace(NS, other)
        with pytest.raises(DocumentConflict):
            write(free)
