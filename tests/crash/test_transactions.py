"""A step writes to the user's own table in one transaction with its checkpoint: exactly once, whenever it dies."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text

from agent_statestore import AgentContext, AgentState
from celery_agents import Execution, enqueue
from tests.crash.bookings import COMMITTED_APART, TABLE, Booking, Place, book
from tests.crash.ledger import STARTED
from tests.crash.outages import check_log, kill_and_start, wait_for_calls
from tests.crash.scene import Cell, Scene
from tests.services.machine import scaled
from tests.services.process import ServerProcess

pytestmark = pytest.mark.worker(imports=["tests.crash.bookings"])

STORES = [Cell("embedded", store, "prefork") for store in ("sqlite", "postgresql", "mariadb")]
# What both servers show the same way is shown on each in `make test-all`.
ONE_SERVER = [STORES[1], pytest.param(STORES[2], marks=pytest.mark.full)]
EXECUTIONS = 50


@pytest.fixture
def bookings(store_url: str) -> Iterator[Engine]:
    """The database of the store, with the user's table in it."""
    engine = create_engine(store_url, poolclass=NullPool)  # the server may be restarted
    with engine.begin() as connection:
        connection.execute(text(TABLE))
    yield engine
    engine.dispose()


def finish(scene: Scene, execution: Execution, bookings: Engine) -> AgentContext:
    """Waits for the end; the table must have one row of the execution, and its journal must tell of that row."""
    scene.wait_until(f"{execution.id} is over", lambda: execution.state.is_over)
    context = execution.context()
    assert context.state is AgentState.COMPLETED, context.error
    with bookings.connect() as connection:
        query = text("SELECT token FROM bookings WHERE execution_id = :id")
        tokens = list(connection.scalars(query, {"id": execution.id}))
    assert len(tokens) == 1, f"{len(tokens)} rows of one execution"
    recorded = [step.result.output for step in context.steps if step.result is not None]
    assert recorded == [*tokens, None], "the journal tells of another row"
    assert context.output == tokens[0]
    return context


@pytest.mark.parametrize("cell", STORES, ids=str, indirect=True)
def test_a_killed_process_leaves_both_row_and_record_or_neither(scene: Scene, bookings: Engine) -> None:
    executions = {place: enqueue(book, Booking(place=place), runtime=scene.runtime) for place in Place}
    for place, execution in executions.items():
        context = finish(scene, execution, bookings)
        assert [row.attempt for row in scene.ledger.rows(place, execution.id)] == [1], f"nobody died {place}"
        assert context.attempt == 2
        calls = sum(1 for _ in scene.ledger.rows(STARTED, execution.id))
        assert calls == (1 if place in (Place.AFTER_COMMIT, Place.BEFORE_NEXT_STEP) else 2), place


@pytest.mark.parametrize("cell", STORES[:1], ids=str, indirect=True)
def test_a_write_with_a_connection_of_its_own_is_made_twice(scene: Scene, bookings: Engine) -> None:
    """What is shown above is seen to fail where the row and the record are not in one transaction."""
    execution = enqueue(book, Booking(place=COMMITTED_APART, apart=True), runtime=scene.runtime)
    with pytest.raises(AssertionError, match="2 rows of one execution"):
        finish(scene, execution, bookings)


@pytest.mark.worker(imports=["tests.crash.bookings"], lease_seconds=1.0)
@pytest.mark.parametrize("cell", ONE_SERVER, ids=str, indirect=True)
def test_the_row_of_a_thawed_worker_that_lost_its_lease_is_undone(scene: Scene, bookings: Engine) -> None:
    execution = enqueue(book, Booking(hold=True), runtime=scene.runtime)
    first = scene.wait_for_call(execution, 1)
    frozen = scene.worker_of(first)
    frozen.freeze()
    second = scene.wait_for_call(execution, 1, attempt=2)
    assert second.worker != first.worker
    scene.open(execution, 1)
    scene.wait_until(f"{execution.id} is over", lambda: execution.state.is_over)
    frozen.thaw()
    scene.wait_for_log(frozen, f"[{execution.id}] ignored")
    context = finish(scene, execution, bookings)
    assert [step.attempt for step in context.steps] == [2, 2]


class TestWhileTheServerIsKilled:
    """The other side of the transaction dies, and nobody knows whether a commit on its way was made."""

    @pytest.fixture
    def store_url(self, store_server_url: str) -> str:
        return store_server_url

    @pytest.mark.worker(imports=["tests.crash.bookings"], lease_seconds=8.0, ring_seconds=2.0)
    @pytest.mark.parametrize("cell", ONE_SERVER, ids=str, indirect=True)
    def test_each_execution_has_one_row(self, scene: Scene, bookings: Engine, store_server: ServerProcess) -> None:
        executions = [enqueue(book, Booking(seconds=scaled(0.15)), runtime=scene.runtime) for _ in range(EXECUTIONS)]
        for share in (EXECUTIONS // 3, 2 * EXECUTIONS // 3):
            wait_for_calls(scene, share)
            kill_and_start(store_server, down_seconds=0.5)()
        for execution in executions:
            finish(scene, execution, bookings)
        calls = sum(1 for _ in scene.ledger.rows(STARTED))
        assert calls > EXECUTIONS, "no transaction was broken off"
        for worker in scene.workers:
            check_log(worker, outages=2)
