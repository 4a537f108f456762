"""What the figures are held against."""

from dataclasses import dataclass
from typing import Final

from benchmarks.measuring import Rounds
from benchmarks.report import Value

_BARE: Final = "bare, no-op"

# What is to be drained at least how many times as fast as what.
_DRAINED: Final = (
    ("alike, Redis, 1 step", _BARE, 0.65),
    ("alike, Redis, 10 steps", "bare, Redis, 10 raw writes", 0.75),
    ("shipped, Redis, 1 step", "shipped, Redis, no-op", 0.6),
    ("alike, PostgreSQL, 0 steps", "DBOS, 0 steps", 2.5),
    ("alike, PostgreSQL, 0 steps", "Absurd, 0 steps", 0.6),
    ("alike, PostgreSQL, 10 steps", "Absurd, 10 steps", 1.0),
)
# Sent, alone and beside a working worker.
_SENT: Final = (("alike, Redis, 1 step", _BARE, 0.6), ("alike, PostgreSQL, 1 step", _BARE, 0.45))
# Many sent in one call, against as many calls.
_MANY: Final = tuple(
    (f"alike, {store}, enqueue_many", f"alike, {store}, 1 step", 5.0) for store in ("Redis", "PostgreSQL")
)
# How many times as long it may take to a first step.
_LATENCIES: Final = (("alike, Redis", "bare", 1.5), ("alike, PostgreSQL", "bare", 2.0))


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds for each execution: until it is drained, of everybody's CPU, of sending it, and until its first step.

    `beside` is sending beside a working worker, `alone` while it stands still.
    """

    drained: Rounds
    cpu: Rounds
    beside: Rounds
    alone: Rounds
    latency: Rounds


def goals(figures: Figures) -> list[dict[str, Value]]:
    """Return a row for each goal. What was not measured has no ratio, and is neither held nor missed."""
    rows = [
        _row(f"{name} / {base}", _rate(figures.drained, name, base), goal, by_cpu=_rate(figures.cpu, name, base))
        for name, base, goal in _DRAINED
    ]
    for said, rounds in (("beside a working worker", figures.beside), ("alone", figures.alone)):
        rows += [
            _row(f"enqueue, {name} / delay(), {said}", _rate(rounds, name, base), goal) for name, base, goal in _SENT
        ]
    rows += [_row(f"{name} / enqueue, alone", _rate(figures.alone, name, base), goal) for name, base, goal in _MANY]
    for name, base, most in _LATENCIES:
        ratio = figures.latency.ratio(name, base) if name in figures.latency.medians else None
        rows.append(_row(f"to the first step, {name} / {base}", ratio, most, is_most=True))
    return rows


def _rate(rounds: Rounds, name: str, base: str) -> float | None:
    return rounds.rate_ratio(name, base) if {name, base} <= set(rounds.medians) else None


def _row(
    what: str, ratio: float | None, goal: float, *, is_most: bool = False, by_cpu: float | None = None
) -> dict[str, Value]:
    held = None if ratio is None else (ratio <= goal if is_most else ratio >= goal)
    return {
        "what": what,
        "measured, times": ratio,
        "by CPU, times": by_cpu,
        "goal, times": goal,
        "is": "at most" if is_most else "at least",
        "held": {True: "yes", False: "NO", None: None}[held],
    }
