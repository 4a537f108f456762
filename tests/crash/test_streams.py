"""Workers are killed while many follow what they say: everybody ends with exactly what is stored and recorded."""

import random
import time
from collections.abc import Callable

import pytest

from agent_statestore.errors import StoreUnavailable
from celery_agents import enqueue
from tests.crash.outages import kill_and_start
from tests.crash.scene import Cell, Scene
from tests.crash.speakers import speaking
from tests.crash.viewers import Audience, check
from tests.services.machine import machine
from tests.services.process import ServerProcess

SMALL = [Cell("redis", "redis", "prefork"), Cell("embedded", "sqlite", "prefork")]
LARGE = [Cell("redis", "redis", "threads"), Cell("embedded", "postgresql", "threads")]


def speak_before_an_audience(
    scene: Scene,
    *,
    executions: int,
    parts: int,
    viewers: int,
    kill_every: float,
    limit_seconds: float,
    outage: Callable[[], None] | None = None,
) -> str:
    """Kill workers, and once the store, until all has been said; return what it was like, in a sentence."""
    started = [enqueue(speaking, [number, parts], runtime=scene.runtime) for number in range(executions)]
    audience, dice, kills = Audience(started, viewers), random.Random(1), 0
    audience.start()
    scene.wait_until("something is said", lambda: any(viewer.seen for viewer in audience.viewers))
    began = next_kill = time.monotonic()
    left, outages = list(started), 0
    while left:
        pace = max(machine.latest, 1.0)
        assert time.monotonic() - began < limit_seconds * pace, f"{len(left)} are not over\n{scene.last_words()}"
        ready = [worker for worker in scene.workers if worker.container.is_ready]
        if ready and time.monotonic() >= next_kill:
            worker = dice.choice(ready)
            worker.kill()
            worker.container.start_again()
            kills += 1
            next_kill = time.monotonic() + kill_every * pace
            if outage is not None and kills == 2:
                outage()
                outages = 1
        try:
            left = [execution for execution in left if not execution.state.is_over]
        except StoreUnavailable:
            continue
        time.sleep(0.05)
    audience.join(60 * max(machine.latest, 1.0))
    kinds = check(audience, scene.runtime.store)
    assert kinds["recovered"], "no worker died in the middle of anything"
    assert kinds["try_failed"]
    assert outage is None or outages
    return (
        f"{executions} executions, {viewers} viewers, {audience.reconnects} reconnects, {kills} workers "
        f"killed, {outages} outages of the store, "
        f"{kinds.total()} events ({kinds['text']} of text, {kinds['recovered']} recoveries, {kinds['gap']} gaps): "
        "none lost, none doubled, none out of order"
    )


@pytest.mark.worker(lease_seconds=2.0, ring_seconds=1.0, imports=["tests.crash.speakers"])
@pytest.mark.parametrize(
    "cell", [SMALL[0], *(pytest.param(cell, marks=pytest.mark.full) for cell in SMALL[1:])], ids=str, indirect=True
)
def test_viewers_see_what_is_stored_whoever_dies(scene: Scene) -> None:
    speak_before_an_audience(scene, executions=3, parts=3, viewers=12, kill_every=1.0, limit_seconds=60)


class TestManyViewers:
    """Of a store that keeps what it has acknowledged."""

    @pytest.fixture
    def store_url(self, store_server_url: str) -> str:
        return store_server_url

    @pytest.mark.chaos
    @pytest.mark.timeout(1800)
    @pytest.mark.worker(lease_seconds=6.0, ring_seconds=2.0, imports=["tests.crash.speakers"])
    @pytest.mark.parametrize("cell", LARGE, ids=str, indirect=True)
    def test_a_thousand_viewers_lose_their_connections(
        self, scene: Scene, store_server: ServerProcess, capsys: pytest.CaptureFixture[str]
    ) -> None:
        outage = kill_and_start(store_server, down_seconds=1.0)
        said = speak_before_an_audience(
            scene, executions=50, parts=24, viewers=1000, kill_every=3.0, limit_seconds=600, outage=outage
        )
        with capsys.disabled():
            print(f"\n  {said}")
