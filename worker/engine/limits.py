"""What one execution may use: steps, time, tokens, cost. A limit that is reached fails the execution, or asks a person.

What a person adds is recorded as a step of its own. These stand outside the code's order, so an attempt reads them from
the journal when it begins.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from statestore.records import Action, AgentContext, AgentStep, JSONValue, Result, WaitKind
from worker import deadline
from worker.engine import waiting
from worker.errors import BudgetExceeded, DeadlineExceeded, LimitExceeded, MaxStepsExceeded

if TYPE_CHECKING:
    from worker.engine.attempt import Attempt

LIMIT: Final = "limit"
# In the working memory: what was spent.
SPENT_KEY: Final = "agents.spent"

_STEPS, _SECONDS, _TOKENS, _COST = "steps", "seconds", "tokens", "cost"


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


def spent_in(memory: Mapping[str, JSONValue]) -> dict[str, float]:
    """What was spent so far, by name."""
    spent = memory.get(SPENT_KEY) or {}
    return {name: spent.get(name, 0) for name in (_TOKENS, _COST)}


class Limits:
    """The limits of one attempt, with what people have added to them."""

    def __init__(self, budget: Budget, context: AgentContext) -> None:
        self._budget = budget
        self._added: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self.deadline = deadline.of(context, budget.deadline)

    def take_in(self, steps: Iterable[AgentStep]) -> list[str]:
        """Reads what was added from the journal; returns the keys of the steps that say so."""
        extensions = [step for step in steps if step.action.kind == LIMIT and step.result is not None]
        for step in extensions:
            self._take_in(step.action.input, step.result)
        return [step.name for step in extensions]

    def _take_in(self, what: str, result: Result | None) -> None:
        self._asked[what] += 1
        if result is not None and result.success:
            self._added[what] += result.output

    def check(self, attempt: "Attempt", steps: int, *, in_step: bool) -> None:
        """Raises `LimitExceeded`, or unwinds the agent to ask a person, if a limit is reached.

        `steps` is the number of the step that is about to be taken.
        """
        while (reached := self._reached(attempt, steps)) is not None:
            what, error = reached
            if not self._budget.ask:
                raise error
            self._ask(attempt, what, error, in_step=in_step)

    def check_deadline(self, now: datetime) -> None:
        """Raises `DeadlineExceeded` if the time is up and nobody is to be asked."""
        error = self._overdue(now)
        if error is not None and not self._budget.ask:
            raise error

    def _reached(self, attempt: "Attempt", steps: int) -> tuple[str, LimitExceeded] | None:
        budget, added = self._budget, self._added
        overdue = self._overdue(attempt.now())
        if overdue is not None:
            return _SECONDS, overdue
        # What people have added are steps, too.
        if steps - sum(self._asked.values()) > budget.max_steps + added[_STEPS]:
            return _STEPS, MaxStepsExceeded(budget.max_steps + added[_STEPS])
        if budget.max_tokens is None and budget.max_cost is None:
            return None
        spent = spent_in(attempt.memory)
        for what, limit in ((_TOKENS, budget.max_tokens), (_COST, budget.max_cost)):
            if limit is not None and spent[what] > limit + added[what]:
                return what, BudgetExceeded(what, limit + added[what], spent[what])
        return None

    def _overdue(self, now: datetime) -> DeadlineExceeded | None:
        if self.deadline is None:
            return None
        until = self.deadline + timedelta(seconds=self._added[_SECONDS])
        return DeadlineExceeded(until.isoformat()) if now >= until else None

    def _ask(self, attempt: "Attempt", what: str, error: LimitExceeded, *, in_step: bool) -> None:
        with attempt.lock:
            key = f"limit {what} {self._asked[what] + 1}"
            waited = waiting.wait(
                attempt,
                WaitKind.INPUT,
                key,
                timeout=None,
                prompt={
                    "question": f"{error}. How many {what} more may it use? 0 lets it fail.",
                    "limit": what,
                },
                schema=_ANSWER,
                in_step=in_step,
                beyond_limits=True,
            )
            assert waited.signal is not None, "a question without a deadline"
            more: Any = waited.signal.payload
            if not isinstance(more, int | float) or more <= 0:
                raise error
            action, result = Action(kind=LIMIT, input=what), Result(success=True, output=more)
            attempt.record(attempt.make_step(key, action, result, started=waited.since))
            attempt.journal.pass_by((key,))
            self._take_in(what, result)


_ANSWER: Final[dict[str, JSONValue]] = {"type": "number", "minimum": 0}
