"""What a test has planned, and whether it came about: one that did not would make the test pass, and test nothing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from celery_agents.testing.crashes import Crashes, PlannedCrash

STEP: Final = "step"
TOOL: Final = "tool"

_MOST_NAMED: Final = 30


class PlanNotReached(AssertionError):
    """What a test planned with `LocalAgents.replace` or `LocalAgents.crash_at` never came about.

    The message says what did instead: most often a name is misspelt.
    """


@dataclass(frozen=True, slots=True)
class StandIn:
    """What is called in the place of the functions of steps, or of a tool. Planned after so many claims."""

    function: Callable[..., Any]
    is_required: bool
    since: int


@dataclass
class Plans:
    """The stand-ins and deaths of one `LocalAgents`. `claims` counts how often work has begun."""

    crashes: Crashes = field(default_factory=Crashes)
    claims: int = 0
    _stand_ins: dict[tuple[str, str], StandIn] = field(default_factory=dict)
    _used: set[tuple[str, str]] = field(default_factory=set)
    _called: dict[tuple[str, str], None] = field(default_factory=dict)

    def stand_in(self, name: str, tool: str | None) -> Callable[..., Any] | None:
        """What to call in a step of this name, which calls this tool if any. A step's own stand-in goes first."""
        places = [(STEP, name)] if tool is None else [(STEP, name), (TOOL, tool)]
        for place in places:
            self._called[place] = None
        for place in places:
            if place in self._stand_ins:
                self._used.add(place)
                return self._stand_ins[place].function
        return None

    def replace(self, kind: str, name: str, function: Callable[..., Any], *, is_required: bool) -> None:
        """From now on."""
        self._used.discard((kind, name))
        self._stand_ins[kind, name] = StandIn(function, is_required, self.claims)

    def check(self, *, even_without_work: bool = False) -> None:
        """Raises `PlanNotReached` for a plan that did not come about in the work that was done since.

        Without any such work it may still come about, unless there will be none.
        """
        for (kind, name), stand_in in self._stand_ins.items():
            is_due = even_without_work or stand_in.since < self.claims
            if is_due and stand_in.is_required and (kind, name) not in self._used:
                raise PlanNotReached(self._about_stand_in(kind, name))
        for crash in self.crashes.planned:
            if (even_without_work or crash.since < self.claims) and crash.required and not crash.happened:
                raise PlanNotReached(self._about_crash(crash))

    def _about_stand_in(self, kind: str, name: str) -> str:
        if kind == TOOL:
            return f"replace({name!r}, ...): this tool was never called; {_named('tools that were', self._names(TOOL))}"
        if (TOOL, name) in self._called:
            return (
                f"replace({name!r}, ...): no step has this name, but a tool that was called: give replace the tool "
                "itself"
            )
        if any(key.partition("#")[0] == name for _, key in self.crashes.reached):
            return f"replace({name!r}, ...): the step of this name calls no function that can be replaced"
        return f"replace({name!r}, ...): no step of this name was taken; {_named('steps that were', self._names(STEP))}"

    def _about_crash(self, crash: PlannedCrash) -> str:
        plan = f"crash_at({crash.step!r}, {crash.when.value!r})"
        reached = {
            key: moments
            for (execution_id, key), moments in self.crashes.reached.items()
            if crash.execution_id in (None, execution_id)
        }
        if crash.step not in reached:
            return f"{plan}: no step of this key was come to; {_named('keys that were', reached)}"
        moments = ", ".join(sorted({moment.value for moment in reached[crash.step]}))
        return f"{plan}: the step was come to, but not that moment of it; those that were: {moments}"

    def _names(self, kind: str) -> Iterator[str]:
        return (name for each, name in self._called if each == kind)


def _named(what: str, names: Iterable[str]) -> str:
    known = [repr(name) for name in names]
    more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    return f"{what}: {', '.join(known[:_MOST_NAMED]) or 'none'}{more}"
