"""A fleet at rest costs its store little, and a death in it is noticed all the same. The time is simulated."""

import heapq
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery

from agent_statestore import ManualClock, MemoryStore
from agent_statestore.contract import Duty, StorePrimitives
from celery_agents import Agent, Registry, agent, enqueue, install
from celery_agents.host import bell
from celery_agents.host.recovery.deaths import Deaths
from celery_agents.host.recovery.duty import SweepDuty
from celery_agents.host.recovery.presence import Presence
from celery_agents.host.recovery.rounds import Rounds
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime, runtime_of

LEASE, SWEEP = 15.0, 5.0
PRIMITIVES = sorted(StorePrimitives.__abstractmethods__)
SLACK = 1e-5  # times are whole microseconds


class CountingStore(MemoryStore):
    """Counts every call that would go to a server, and can be away."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.calls = 0


def _counting(name: str) -> object:
    whole = getattr(MemoryStore, name)

    def call(self: CountingStore, *args: object, **options: object) -> object:
        self.calls += 1
        return whole(self, *args, **options)

    return call


for _name in {*PRIMITIVES, "tidy"}:
    setattr(CountingStore, _name, _counting(_name))


class Fleet:
    """Workers at rest, of which each does on a simulated clock what a worker's sweeper thread does."""

    def __init__(self, runtime: Runtime, store: CountingStore, clock: ManualClock, size: int, host: Path) -> None:
        self.host = host
        self.runtime, self.store, self.clock = runtime, store, clock
        self.at = 0.0
        self.duties: dict[int, SweepDuty] = {}
        self.rounds: dict[int, Rounds] = {}
        self._turns: list[tuple[float, int]] = []
        self._random = random.Random(7)
        for number in range(size):
            self.start(number, at=self._random.uniform(0, 1))

    def start(self, number: int, at: float) -> None:
        duty = self.duties[number] = SweepDuty(
            self.store,
            f"worker-{number}",
            lease_seconds=self.runtime.settings.lease_seconds,
            sweep_seconds=self.runtime.settings.sweep_seconds,
            uniform=self._random.uniform,
        )
        deaths = Deaths(self.store.url, Presence(self.host))
        self.rounds[number] = Rounds(self.runtime.settings, Sweeper(self.runtime, deaths=deaths), duty)
        heapq.heappush(self._turns, (at, number))

    def kill(self, number: int) -> None:
        """Nothing is done any more, and nothing said."""
        del self.duties[number], self.rounds[number]

    @property
    def sweeping(self) -> list[int]:
        return [number for number, duty in self.duties.items() if duty.is_held]

    def run_until(self, at: float, stop_at_ring: list[str] | None = None) -> None:
        while self._turns and self._turns[0][0] <= at and not stop_at_ring:
            moment, number = heapq.heappop(self._turns)
            if number in self.rounds:
                self._move_to(moment)
                heapq.heappush(self._turns, (moment + self.rounds[number].go(moment, set()) + SLACK, number))
        if not stop_at_ring:
            self._move_to(at)

    def _move_to(self, at: float) -> None:
        self.clock.advance(timedelta(seconds=at - self.at))
        self.at = at


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> CountingStore:
    return CountingStore(clock)


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The executions whose bells a sweeper has rung."""
    rung: list[str] = []
    monkeypatch.setattr(bell, "ring", lambda *_, execution_id, **__: rung.append(execution_id) or True)
    return rung


@pytest.fixture
def runtime(store: CountingStore) -> Iterator[Runtime]:
    app = Celery("theirs", broker="memory://", set_as_current=False)
    # The watch makes no call of the store at rest, which `test_deaths` shows, and would only cost time here.
    app.conf.update(agents_lease_seconds=LEASE, agents_sweep_seconds=SWEEP, agents_watch_seconds=3600.0)
    install(app, registry=Registry())
    runtime = runtime_of(app)
    runtime._store = store
    yield runtime
    app.close()


@pytest.fixture
def simple(runtime: Runtime) -> Agent:
    @agent(name="simple", registry=runtime.registry)
    def simple(run: object, input: None) -> None: ...

    return simple


def test_a_thousand_workers_at_rest_make_less_than_200_calls_a_second_together(
    runtime: Runtime, store: CountingStore, clock: ManualClock, tmp_path: Path
) -> None:
    fleet = Fleet(runtime, store, clock, 1000, tmp_path)
    fleet.run_until(20.0)
    before = store.calls
    fleet.run_until(40.0)
    assert 50 < (store.calls - before) / 20 < 160
    assert len(fleet.sweeping) == 1
    for size in (1, 2, 10):
        few = Fleet(runtime, CountingStore(clock), clock, size, tmp_path)
        runtime._store = few.store
        few.run_until(30.0)
        before = few.store.calls
        few.run_until(90.0)
        assert (few.store.calls - before) / 60 <= 0.5 + 0.2 * size


@pytest.mark.parametrize("size", [2, 3, 1000])
def test_the_death_of_the_one_that_sweeps_rings_within_lease_and_sweep_interval(
    runtime: Runtime,
    store: CountingStore,
    clock: ManualClock,
    tmp_path: Path,
    rung: list[str],
    simple: Agent,
    size: int,
) -> None:
    """It works on an execution at that moment, too."""
    fleet = Fleet(runtime, store, clock, size, tmp_path)
    fleet.run_until(20.0)
    for number in range(2 if size > 3 else 6):
        (sweeping,) = fleet.sweeping
        execution = enqueue(simple, None, runtime=runtime)
        rung.clear()
        store.claim(execution.id, f"worker-{sweeping}", runtime.settings.lease)
        died_at = fleet.at
        fleet.kill(sweeping)
        fleet.run_until(died_at + LEASE + SWEEP + SLACK, rung)
        assert rung == [execution.id], f"death {number}: at {fleet.at - died_at} s nobody had rung"
        assert fleet.at - died_at >= LEASE
        store.delete_context(execution.id)
        fleet.start(1000 + number, fleet.at)  # takes the duty over; the dead one comes back under another name
        fleet.run_until(fleet.at + 20.0 + number)


def test_whatever_the_settings_the_death_of_the_one_that_sweeps_is_noticed_in_time(
    runtime: Runtime, store: CountingStore, clock: ManualClock, tmp_path: Path
) -> None:
    for lease, sweep in ((0.3, 5.0), (1.0, 0.2), (15.0, 60.0), (15.0, 5.0), (3600.0, 5.0)):
        runtime._settings = runtime.settings.model_copy(update={"lease_seconds": lease, "sweep_seconds": sweep})
        for _ in range(8):
            store.clear()
            fleet = Fleet(runtime, store, clock, 2, tmp_path)
            fleet.run_until(3.0 + 3 * sweep)
            (sweeping,) = fleet.sweeping
            died_at = fleet.at
            fleet.kill(sweeping)
            fleet.run_until(died_at + lease + sweep + SLACK)
            assert fleet.sweeping, (lease, sweep)


def test_a_worker_that_starts_sweeps_at_once_whoever_had_the_duty(
    runtime: Runtime, store: CountingStore, clock: ManualClock, tmp_path: Path, rung: list[str], simple: Agent
) -> None:
    fleet = Fleet(runtime, store, clock, 1, tmp_path)
    fleet.run_until(7.0)
    fleet.kill(0)  # the only one
    execution = enqueue(simple, None, runtime=runtime)
    store.release(store.claim(execution.id, "worker-0", timedelta(minutes=1)).lease)  # type: ignore[union-attr]
    rung.clear()
    fleet.start(1, fleet.at)
    fleet.run_until(fleet.at)
    assert rung == [execution.id]
    assert fleet.sweeping == [1]


def test_all_join_in_while_more_is_due_than_one_sweep_takes(
    runtime: Runtime, store: CountingStore, clock: ManualClock, tmp_path: Path, rung: list[str], simple: Agent
) -> None:
    runtime._settings = runtime.settings.model_copy(update={"sweep_batch": 5})
    fleet = Fleet(runtime, store, clock, 20, tmp_path)
    fleet.run_until(20.0)
    swept: set[str] = set()
    take = SweepDuty.look

    for _ in range(400):
        execution = enqueue(simple, None, runtime=runtime)
        store.release(store.claim(execution.id, "x", timedelta(minutes=1)).lease)  # type: ignore[union-attr]
    rung.clear()

    def look(duty: SweepDuty) -> float:
        pause = take(duty)
        if duty.is_held:
            swept.add(duty._owner)
        return pause

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SweepDuty, "look", look)
        fleet.run_until(fleet.at + 12.0)
    assert sorted(set(rung)) == sorted(rung), "none is rung twice"
    assert len(rung) == 400
    assert len(swept) > 5
    fleet.run_until(fleet.at + 20.0)
    assert len(fleet.sweeping) == 1


def test_a_worker_that_shuts_down_leaves_the_sweeping_to_others_at_once(
    runtime: Runtime, store: CountingStore, clock: ManualClock, tmp_path: Path
) -> None:
    fleet = Fleet(runtime, store, clock, 2, tmp_path)
    fleet.run_until(20.0)
    (sweeping,) = fleet.sweeping
    fleet.rounds[sweeping].end()
    assert not fleet.sweeping
    fleet.kill(sweeping)
    assert store.take_duty("sweep", "anybody", timedelta(0)) == Duty(owner="anybody", left=timedelta(0))
    fleet.run_until(fleet.at + 2 * SWEEP)
    assert len(fleet.sweeping) == 1
