"""What executions are held against, and how that is told."""

import subprocess
import sys

import psutil

from benchmarks.executions.cpu import cpu_of
from benchmarks.executions.goals import Figures, goals
from benchmarks.measuring import Rounds


def figures(**drained: float) -> Figures:
    """Figures of one round, in seconds; names with an underscore for each space."""
    rounds = Rounds({name.replace("_", " "): [seconds] for name, seconds in drained.items()})
    return Figures(rounds, rounds, Rounds(), Rounds(), Rounds({"bare": [1.0], "alike, Redis": [1.6]}))


def test_a_goal_is_held_or_missed_by_the_ratio_of_rates() -> None:
    base = {"bare, no-op": 1.0}
    for seconds, expected in ((1.0, "yes"), (1 / 0.65, "yes"), (2.0, "NO")):
        rows = {row["what"]: row for row in goals(figures(**base, **{"alike, Redis, 1 step": seconds}))}
        row = rows["alike, Redis, 1 step / bare, no-op"]
        assert row["held"] == expected, seconds
        assert row["measured, times"] == row["by CPU, times"] == 1 / seconds


def test_a_latency_is_missed_above_its_goal() -> None:
    rows = {row["what"]: row for row in goals(figures())}
    assert rows["to the first step, alike, Redis / bare"]["held"] == "NO"


def test_what_was_not_measured_is_neither_held_nor_missed() -> None:
    assert {row["held"] for row in goals(figures()) if "DBOS" in str(row["what"])} == {None}


def test_the_cpu_of_a_process_that_has_ended_stays_counted() -> None:
    """A connection that a pool closes takes its server process with it, in the middle of a turn."""
    work = "subprocess.run([sys.executable, '-c', 'sum(range(10**7))'])"
    code = f"import subprocess, sys; {work}; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        parent = psutil.Process(process.pid)
        assert parent.children() == []
        own = parent.cpu_times()
        assert cpu_of(parent) > own.user + own.system + 0.05
        process.communicate("\n")
