"""Chaos: a small dose with every run of the tests, and the full one as `make chaos`.

`CHAOS_SEED` repeats a run's decisions (what is killed, and when); the timing of the machine is not repeated.
"""

import os
import secrets

import pytest

from tests.crash.chaos import Chaos, run_chaos
from tests.crash.scene import Cell, Scene

SEED = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))

EMBEDDED = Cell("embedded", "sqlite", "prefork")
SERVERS = [Cell("redis", "postgresql", "threads"), Cell("redis", "redis", "prefork")]
SMALL_CELLS = [EMBEDDED, *(pytest.param(cell, marks=pytest.mark.full) for cell in SERVERS)]
CELLS = [EMBEDDED, *SERVERS, Cell("redis", "mariadb", "prefork"), Cell("redis", "hybrid", "threads")]


@pytest.mark.worker(lease_seconds=2.0, ring_seconds=1.0, imports=["tests.crash.another_host"])
@pytest.mark.parametrize("cell", SMALL_CELLS, ids=str, indirect=True)
def test_a_small_dose(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    chaos = Chaos(
        executions=20,
        steps=10,
        step_seconds=(0.01, 0.1),
        kill_every_seconds=(0.7, 1.5),
        limit_seconds=60,
        seed=SEED,
    )
    figures = run_chaos(scene, chaos)
    with capsys.disabled():
        print(f"\n{figures.table()}")
    assert figures.kills, "everything was over before anything was killed"


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.worker(lease_seconds=5.0, ring_seconds=5.0)
@pytest.mark.parametrize("cell", CELLS, ids=str, indirect=True)
def test_a_hundred_executions(scene: Scene, cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    chaos = Chaos(
        executions=100,
        steps=20,
        step_seconds=(0.02, 0.2),
        kill_every_seconds=(1.0, 4.0),
        limit_seconds=600,
        seed=SEED,
    )
    figures = run_chaos(scene, chaos)
    with capsys.disabled():
        print(f"\n\n{cell}\n{figures.table()}")
    assert figures.kills
