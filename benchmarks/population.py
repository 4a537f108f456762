"""Many executions, as a store has them after a while: made in memory in order of time, and put into other stores."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agent_statestore import AgentState, Checkpoint, ManualClock, MemoryStore, Message, NewExecution, Store
from agent_statestore.query import Query
from agent_statestore.records import ErrorInfo, Wait, WaitKind
from benchmarks.executing import LEASE, OWNER, make_step, payload

AGENTS: Final = 10
EXECUTIONS_PER_SESSION: Final = 20
EXECUTIONS_PER_USER: Final = 100
FAILED_IN: Final = 20  # one of this many finished executions has failed

_STEPS: Final = 2
_STEP_BYTES: Final = 200
_SPAN: Final = timedelta(hours=1)
_ERROR: Final = ErrorInfo(type="builtins:ValueError", message="no")


def populated(finished: int, active: int = 0) -> MemoryStore:
    """Return a store in memory with this many executions of two steps, created at even intervals in the last hour.

    Active executions are spread evenly among the finished ones. Half of them are due; the others wait for a person. The
    number of executions of a session and of a user is always the same. There are ten agents, so their number of
    executions grows.
    """
    count = finished + active
    start = datetime.now(UTC) - _SPAN
    clock = ManualClock(start)
    store = MemoryStore(clock=clock)
    output = payload(_STEP_BYTES)
    for number in range(count):
        # Whole numbers: the n-th active execution stands where n of `active` have passed.
        is_active = (number + 1) * active // count > number * active // count
        _add(store, number, output, start, is_active=is_active, users=max(count // EXECUTIONS_PER_USER, 1))
        clock.advance(_SPAN / count)
    return store


def _add(store: Store, number: int, output: str, start: datetime, *, is_active: bool, users: int) -> None:
    execution_id = store.create(
        NewExecution(
            agent_id=f"agent {number % AGENTS}",
            session_id=f"session {number // EXECUTIONS_PER_SESSION}",
            user_id=f"user {number % users}",
            input=number,
            metadata={"number": number},
            first_ring=timedelta(0),
        )
    ).execution_id
    if is_active and number % 2:
        return
    claim = store.claim(execution_id, OWNER, LEASE)
    assert claim is not None
    store.checkpoint(
        execution_id,
        Checkpoint(
            steps=tuple(make_step(step, output) for step in range(1, _STEPS + 1)),
            messages=(Message(role="agent", content=output, timestamp=start),),
            working_memory={"number": number},
        ),
        claim.lease,
    )
    store.checkpoint(execution_id, _last_write(number, start, is_active=is_active), claim.lease)


def _last_write(number: int, start: datetime, *, is_active: bool) -> Checkpoint:
    if is_active:
        wait = Wait(kind=WaitKind.INPUT, key="ask", prompt="?", asked_at=start)
        return Checkpoint(state=AgentState.WAITING_FOR_INPUT, waits=(wait,))
    if number % FAILED_IN == 0:
        return Checkpoint(state=AgentState.FAILED, error=_ERROR)
    return Checkpoint(state=AgentState.COMPLETED, output=number)


def ids_of(store: Store, **wanted: Any) -> list[str]:
    """Return the ids of all executions that `find` finds with these filters, oldest first."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = store.find(Query(**wanted, limit=1000, cursor=cursor))
        ids += [summary.execution_id for summary in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids[::-1]


def put(source: Store, target: Store, execution_ids: list[str]) -> None:
    """Put executions of one store into another one, unchanged."""
    for execution_id in execution_ids:
        exported = source.export(execution_id)
        assert exported is not None
        target.restore(exported)
