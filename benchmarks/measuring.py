"""Taking turns: every round measures all figures of a comparison, and ratios are formed within a round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

# One turn: it makes its calls, and returns what each of them measured.
Turn = Callable[[], Sequence[float]]


@dataclass(slots=True)
class Rounds:
    """The median of each name's turn in each round."""

    medians: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median over all rounds."""
        return median(self.medians[name])

    def ratio(self, name: str, base: str) -> float:
        """Return how many times `base` it is: the median of the rounds' ratios, which slow drifts do not move."""
        return median(
            value / of_base for value, of_base in zip(self.medians[name], self.medians[base], strict=True) if of_base
        )

    def rate_ratio(self, name: str, base: str) -> float:
        """Return `ratio` for rates where seconds were measured."""
        return self.ratio(base, name)


def take_turns(turns: Mapping[str, Turn], rounds: int, *, warm_up: bool = True) -> Rounds:
    """Run all turns `rounds` times, every other round in the opposite order, after one round that does not count."""
    measured = Rounds({name: [] for name in turns})
    names = list(turns)
    if warm_up:
        for name in names:
            turns[name]()
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            measured.medians[name].append(median(turns[name]()))
    return measured


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
