"""What the figures are held against."""

from dataclasses import dataclass

from benchmarks.measuring import Rounds
from benchmarks.report import Value

_BARE = "bare, no-op"


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds: of an execution drained, of one sent `beside` a working worker and `alone`, and up to a first step."""

    drained: Rounds
    beside: Rounds
    alone: Rounds
    latency: Rounds


@dataclass(frozen=True, slots=True)
class _Goal:
    """How many times `base` a rate is at least; with `is_most`, how many times its seconds are at most."""

    what: str
    rounds: Rounds
    name: str
    base: str
    goal: float
    is_most: bool = False

    def row(self) -> dict[str, Value]:
        ratio: float | None = None
        is_held: bool | None = None
        if {self.name, self.base} <= set(self.rounds.medians):
            measure = self.rounds.ratio if self.is_most else self.rounds.rate_ratio
            ratio = measure(self.name, self.base)
            is_held = ratio <= self.goal if self.is_most else ratio >= self.goal
        return {
            "what": self.what,
            "measured / base": ratio,
            "goal / base": self.goal,
            "is": "at most" if self.is_most else "at least",
            "held": {True: "yes", False: "NO", None: None}[is_held],
        }


def goals(figures: Figures) -> list[dict[str, Value]]:
    """Return a row for each goal."""
    drained, beside, alone, latency = figures.drained, figures.beside, figures.alone, figures.latency
    redis, postgresql = "alike, Redis", "alike, PostgreSQL"
    listed = [
        _Goal("alike, Redis, 1 step / bare no-op", drained, f"{redis}, 1 step", _BARE, 0.65),
        _Goal(
            "alike, Redis, 10 steps / bare with 10 raw writes",
            drained,
            f"{redis}, 10 steps",
            "bare, Redis, 10 raw writes",
            0.75,
        ),
        _Goal(
            "shipped, Redis, 1 step / no-op of the same app",
            drained,
            "shipped, Redis, 1 step",
            "shipped, Redis, no-op",
            0.6,
        ),
        _Goal("PostgreSQL, 0 steps / DBOS", drained, f"{postgresql}, 0 steps", "DBOS, 0 steps", 2.5),
        _Goal("PostgreSQL, 0 steps / Absurd", drained, f"{postgresql}, 0 steps", "Absurd, 0 steps", 0.6),
        _Goal("PostgreSQL, 10 steps / Absurd, 10 steps", drained, f"{postgresql}, 10 steps", "Absurd, 10 steps", 1.0),
    ]
    for said, rounds in (("beside a working worker", beside), ("alone", alone)):
        listed += [
            _Goal(f"enqueue, Redis / delay(), {said}", rounds, f"{redis}, 1 step", _BARE, 0.6),
            _Goal(f"enqueue, PostgreSQL / delay(), {said}", rounds, f"{postgresql}, 1 step", _BARE, 0.45),
        ]
    listed += [
        _Goal("latency to the first step, Redis / bare", latency, redis, "bare", 1.5, is_most=True),
        _Goal("latency to the first step, PostgreSQL / bare", latency, postgresql, "bare", 2.0, is_most=True),
    ]
    return [goal.row() for goal in listed]
