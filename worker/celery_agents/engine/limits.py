"""What one execution may use: steps, time, tokens, cost. A limit that is reached fails the execution, or asks a person.

What a person adds is recorded as a step of its own. These stand outside the code's order, so an attempt reads them from
the journal when it begins.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final

from agent_statestore.records import Action, AgentContext, AgentStep, JSONValue, Result, WaitKind
from celery_agents.define import deadline
from celery_agents.engine.journal.memory import RunMemory
from celery_agents.engine.pauses import wait
from celery_agents.errors import BudgetExceeded, DeadlineExceeded, LimitExceeded, MaxStepsExceeded

if TYPE_CHECKING:
    from celery_agents.engine.attempt import Attempt

LIMIT: Final = "limit"

_STEPS, _SECONDS, _TOKENS, _COST = "steps", "seconds", "tokens", "cost"
# Nobody means more, and what is longer does not fit into a date.
_LONGEST_SECONDS: Final = timedelta(days=36_500).total_seconds()
# Nor can a limit that is a float be raised by more than floats hold.
_MOST: Final = 10**300


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The limits of one execution; None is no limit.

    `deadline` is how long it may take from its creation, pauses included. With `ask` a limit that is reached pauses the
    execution, and a person may raise it; otherwise the execution fails.
    """

    max_steps: int
    deadline: timedelta | None = None
    max_tokens: float | None = None
    max_cost: float | None = None
    ask: bool = False


def spent_in(memory: RunMemory) -> dict[str, float]:
    """What was spent so far, by name."""
    return {name: memory.spent.get(name, 0) for name in (_TOKENS, _COST)}


class Limits:
    """The limits of one attempt, with what people have added to them."""

    def __init__(self, budget: Budget, context: AgentContext) -> None:
        self._budget = budget
        self._context = context
        self._added: dict[str, float] = {_STEPS: 0, _SECONDS: 0, _TOKENS: 0, _COST: 0}
        self._asked: Counter[str] = Counter()
        self._refused: set[str] = set()
        self._interrupted: dict[str, datetime] = {}

    @cached_property
    def _first_deadline(self) -> datetime | None:
        # Not before it is asked for, inside the agent's call: what is wrong with it fails the execution.
        return deadline.of(self._context, self._budget.deadline)

    @property
    def deadline(self) -> datetime | None:
        """When the execution has to be over, with the time that people have added."""
        first = self._first_deadline
        return None if first is None else first + timedelta(seconds=min(self._added[_SECONDS], _LONGEST_SECONDS))

    def take_in(self, steps: Iterable[AgentStep]) -> list[str]:
        """Reads what was added from the journal; returns the keys of the steps that say so."""
        extensions = [step for step in steps if step.action.kind == LIMIT and step.result is not None]
        for step in extensions:
            assert step.result is not None
            self._take_in(step.action.input, step.result.output)
        return [step.name for step in extensions]

    def _take_in(self, asked: JSONValue, more: float) -> None:
        what = asked["limit"]
        self._asked[what] += 1
        self._added[what] += more
        if not more:
            self._refused.add(what)
        if "during" in asked:
            self._interrupted[asked["during"]["step"]] = datetime.fromisoformat(asked["during"]["since"])

    def began_waiting(self, step: str) -> datetime | None:
        """When the wait of this step began, if the question of a limit came between."""
        return self._interrupted.get(step)

    def check(self, attempt: "Attempt", steps: int, *, in_step: bool, standing: wait.Standing | None = None) -> None:
        """Raises `LimitExceeded`, or unwinds the agent to ask a person, if a limit is reached.

        `steps` is the number of the step that is about to be taken; `standing` the wait that the execution is in.
        """
        while (reached := self._reached(attempt, steps)) is not None:
            what, error = reached
            if not self._budget.ask or what in self._refused:
                raise error
            self._ask(attempt, what, error, in_step=in_step, standing=standing)

    def check_deadline(self, now: datetime) -> None:
        """Raises `DeadlineExceeded` if the time is up and nobody is to be asked."""
        error = self._overdue(now)
        if error is not None and (not self._budget.ask or _SECONDS in self._refused):
            raise error

    def _reached(self, attempt: "Attempt", steps: int) -> tuple[str, LimitExceeded] | None:
        budget, added = self._budget, self._added
        overdue = self._overdue(attempt.now())
        if overdue is not None:
            return _SECONDS, overdue
        # What people have added are steps, too.
        if steps - sum(self._asked.values()) > budget.max_steps + added[_STEPS]:
            return _STEPS, MaxStepsExceeded(int(budget.max_steps + added[_STEPS]))
        if budget.max_tokens is None and budget.max_cost is None:
            return None
        spent = spent_in(attempt.memory)
        for what, limit in ((_TOKENS, budget.max_tokens), (_COST, budget.max_cost)):
            if limit is not None and spent[what] > limit + added[what]:
                return what, BudgetExceeded(what, limit + added[what], spent[what])
        return None

    def _overdue(self, now: datetime) -> DeadlineExceeded | None:
        until = self.deadline
        return None if until is None or now < until else DeadlineExceeded(until.isoformat())

    def _ask(
        self,
        attempt: "Attempt",
        what: str,
        error: LimitExceeded,
        *,
        in_step: bool,
        standing: wait.Standing | None,
    ) -> None:
        with attempt.lock:
            key = f"limit {what} {self._asked[what] + 1}"
            asked: dict[str, JSONValue] = {"limit": what}
            if standing is not None:
                asked["during"] = {"step": standing.step, "since": standing.since.isoformat()}
            waited = wait.wait(
                attempt,
                WaitKind.INPUT,
                key,
                timeout=None,
                prompt={"question": f"{error}. How many {what} more may it use? 0 lets it fail.", **asked},
                schema=_ANSWER,
                in_step=in_step,
                beyond_limits=True,
            )
            assert waited.signal is not None, "a question without a deadline"
            # A refusal is recorded too, so that code that goes on past the error is not asked about for ever.
            more = _amount(waited.signal.payload)
            result = Result(success=True, output=more)
            attempt.record(attempt.make_step(key, Action(kind=LIMIT, input=asked), result, started=waited.since))
            attempt.journal.pass_by((key,))
            self._take_in(asked, more)
        if not more:
            raise error


def _amount(answer: JSONValue) -> float:
    """What a person adds. An answer that came past the client's check, and is no amount, adds nothing."""
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return 0
    return min(max(answer, 0), _MOST)


_ANSWER: Final[dict[str, JSONValue]] = {"type": "number", "minimum": 0}
