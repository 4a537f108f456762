"""What the tests of the Redis backend's topologies do with a store: the whole life of an execution, and documents."""

from datetime import UTC, datetime, timedelta

from agent_statestore.checkpoint import Checkpoint, NewExecution
from agent_statestore.documents import DocumentQuery, DocumentStore, Put, Remove
from agent_statestore.query import Query
from agent_statestore.records import (
    Action,
    AgentStep,
    Lease,
    Message,
    RagChunk,
    Result,
    Signal,
    SignalKind,
    Wait,
    WaitKind,
)
from agent_statestore.redis import RedisStore
from agent_statestore.redis.watching import RedisWatch
from agent_statestore.states import AgentState
from agent_statestore.streams.records import StreamAppend
from agent_statestore.testing.contract.streams import part_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def step(number: int) -> AgentStep:
    """A recorded step."""
    return AgentStep(
        step_number=number,
        name=f"step{number}",
        action=Action(kind="step"),
        result=Result(success=True),
        timestamp=NOW,
    )


def claimed(store: RedisStore, execution_id: str) -> Lease:
    """The lease of a claim that succeeds."""
    claim = store.claim(execution_id, "host:1", MINUTE)
    assert claim is not None
    return claim.lease


def live(store: RedisStore) -> None:
    """Takes one execution through every primitive, beside others that share the indexes, and removes everything."""
    others = [store.create_context("a", session_id="s").execution_id for _ in range(40)]
    new = NewExecution(agent_id="a", session_id="s", user_id="u", idempotency_key="k", first_ring=timedelta(0))
    execution_id = store.create(new).execution_id
    assert store.create(new).execution_id == execution_id
    assert [due.execution_id for due in store.take_due(10, timedelta(0))] == [execution_id]
    store.mark_rung([(execution_id, 0)], timedelta(0), MINUTE)
    lease = claimed(store, execution_id)
    everything = Checkpoint(
        steps=(step(1), AgentStep(step_number=2, name="intent", action=Action(kind="tool"), timestamp=NOW)),
        messages=(Message(role="user", content="hi", timestamp=NOW),),
        working_memory={"a": 1},
        facts=("f",),
        entities={"e": 1},
        rag_context=(RagChunk(content="c"),),
    )
    with store.watch(execution_id) as watch:
        assert isinstance(watch, RedisWatch)
        store.checkpoint(execution_id, everything, lease)
        assert watch.wait(5)
    live_stream(store, lease)
    assert store.renew([lease], MINUTE).lost == frozenset()
    assert [found.execution_id for found in store.find_leases("host")] == [execution_id]
    store.checkpoint(
        execution_id,
        Checkpoint(
            state=AgentState.WAITING_FOR_INPUT, waits=(Wait(kind=WaitKind.INPUT, key="q", asked_at=NOW),), forget=("a",)
        ),
        lease,
    )
    answer = Signal(signal_id="s1", kind=SignalKind.ANSWER, key="q", payload={})
    assert store.send(execution_id, answer).woke
    lease = claimed(store, execution_id)
    store.checkpoint(execution_id, Checkpoint(consumed=("s1",)), lease)
    assert store.release(lease)
    lease = claimed(store, execution_id)
    store.checkpoint(execution_id, Checkpoint(state=AgentState.FAILED, announce_within=MINUTE), lease)
    store.settle(execution_id)
    assert store.find_ended(datetime.now(UTC) + MINUTE) == (execution_id,)
    store.requeue(execution_id)
    context = store.get_context(execution_id)
    assert context is not None
    assert store.get_by_idempotency_key("a", "k") == context
    assert store.get_audit(execution_id)
    exported = store.export(execution_id)
    assert exported is not None
    assert store.purge(execution_id)
    assert store.restore(exported)
    assert [step.name for step in context.steps] == ["step1", "intent", "step3"]
    assert len(store.get_steps(execution_id)) == 3
    first = store.find(Query(session_id="s", limit=30))
    second = store.find(Query(session_id="s", cursor=first.next_cursor))
    found = {summary.execution_id for page in (first, second) for summary in page.items}
    assert found == {execution_id, *others}
    assert [item.execution_id for item in store.find(Query(user_id="u", states=[AgentState.IDLE])).items] == [
        execution_id
    ]
    assert store.find(Query(session_id="s", limit=1, oldest_first=True)).items[0].execution_id in others
    assert store.take_rate("mail", 1, MINUTE).is_taken
    assert store.take_rate("mail", 1, MINUTE).is_promised
    live_documents(store.documents)
    store.tidy()
    assert store.delete_context(execution_id)
    assert store.clear() == len(others)


def live_stream(store: RedisStore, lease: Lease) -> None:
    """Takes the stream of an execution through every primitive."""
    execution_id, begun = lease.execution_id, store.read_streams({lease.execution_id: 0}, 10)[lease.execution_id].last
    listener = store.listen_streams()
    listener.follow([execution_id])
    while execution_id not in listener.wait(5):
        pass
    assert store.append_events([StreamAppend(lease=lease, part=part_of(lease, 1, *"abc"))])[0].accepted
    assert listener.wait(5) == {execution_id}
    listener.unfollow(execution_id)
    assert listener.wait(0.05) == frozenset()
    listener.close()
    store.checkpoint(execution_id, Checkpoint(steps=(step(3),), stream=part_of(lease, 4, "d")), lease)
    assert store.trim_stream(execution_id, 2) == 2
    page = store.read_events(execution_id, begun)
    assert page is not None
    assert [event.data["value"] for event in page.events] == ["c", "d"]


def live_documents(documents: DocumentStore) -> None:
    """Takes documents of many roots, and so of all servers, through every primitive; leaves some."""
    places = [(("n", str(number)), "k") for number in range(20)]
    for namespace, key in places:
        # Too large for a cell, and gone at once or replaced.
        soon = timedelta(microseconds=1) if namespace[1] < "2" else MINUTE
        documents.put(namespace, key, b"\xff" * 2000, ttl=soon)
    assert documents.tidy() == 12
    for namespace, key in places:
        documents.put(namespace, key, key, metadata={"m": namespace[1]})
    query = DocumentQuery(namespace=("n",), below=True, limit=15, newest_first=True)
    read = [document for document in documents.get_many(places) if document is not None]
    assert [document.value for document in read] == ["k"] * 20
    assert [*documents.list_all(query)] == sorted(read, key=lambda document: document.place)[::-1]
    documents.write([Put(namespace=("m", "1", "2"), key=str(number), value=number) for number in range(9)])
    documents.write([Remove(namespace=("m", "1", "2"), key="1")])
    assert documents.remove_under(("m", "1", "2")) == 8
    assert documents.remove_under(("n", "1")) == 1
    documents.copy_under(("n", "2"), ("m", "3"))
    assert documents.remove_under(("n",)) == 19
