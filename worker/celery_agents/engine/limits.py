"""Which limit of an execution is reached: decided from numbers and the clock, and from what people have added.

What a person adds is recorded as a step of its own. These stand outside the code's order, so an attempt reads them from
the journal when it begins. For the question to a person see `pauses.limit`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from agent_statestore.records import AgentContext, AgentStep, JSONValue, WaitKind
from celery_agents.define import deadline
from celery_agents.define.budget import Budget
from celery_agents.define.called_as import CalledKind
from celery_agents.engine.journal.paused_on import interrupted_by
from celery_agents.errors import BudgetExceeded, DeadlineExceeded, LimitExceeded, MaxStepsExceeded

LIMIT: Final = "limit"

_STEPS, _SECONDS, _TOKENS, _COST = "steps", "seconds", "tokens", "cost"
# Nobody means more, and what is longer does not fit into a date.
_LONGEST_SECONDS: Final = timedelta(days=36_500).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A limit that is reached: its name, the error that says so, and whether a person may be asked to raise it."""

    what: str
    error: LimitExceeded
    may_ask: bool


class Limits:
    """The limits of one attempt, with what people have added to them.

    `now` is the time on the store's clock; `spent` gives what was spent so far, by name.
    """

    def __init__(
        self,
        budget: Budget,
        context: AgentContext,
        *,
        now: Callable[[], datetime],
        spent: Callable[[], Mapping[str, float]],
    ) -> None:
        self._budget = budget
        self._context = context
        self._now = now
        self._spent = spent
        self._added: dict[str, float] = {_STEPS: 0, _SECONDS: 0, _TOKENS: 0, _COST: 0}
        self._asked: Counter[str] = Counter()
        self._questions = 0  # in all
        self._exempt = 0  # steps that do not count
        self._refused: set[str] = set()
        # By the key of the step, or else by the kind and key of the wait.
        self._interrupted: dict[object, datetime] = {}

    @cached_property
    def _first_deadline(self) -> datetime | None:
        if self._budget.deadline is None and deadline.KEY not in self._context.metadata:
            return None
        # Not before it is asked for, inside the agent's call: what is wrong with it fails the execution.
        return deadline.of(self._context, self._budget.deadline)

    @property
    def deadline(self) -> datetime | None:
        """When the execution has to be over, with the time that people have added."""
        first = self._first_deadline
        return None if first is None else first + timedelta(seconds=min(self._added[_SECONDS], _LONGEST_SECONDS))

    def read(self, steps: Iterable[AgentStep]) -> list[str]:
        """Take in what was added, from the journal; return the keys of the steps that say so, or that ask for it."""
        asked = [step for step in steps if step.action.kind == LIMIT]
        self._exempt = sum(1 for step in steps if step.action.kind == CalledKind.HANDLER)
        for step in asked:
            if step.result is not None:
                self.take_in(step.action.input, step.result.output)
        return [step.name for step in asked]

    def take_in(self, asked: Mapping[str, JSONValue], more: float) -> None:
        """Take in an answer: `asked` is the input of the step that records it; nothing more is a refusal."""
        what = asked["limit"]
        self._asked[what] += 1
        self._questions += 1
        self._added[what] += more
        if not more:
            self._refused.add(what)
        self.keep_interrupted(asked)

    def keep_interrupted(self, asked: Mapping[str, JSONValue]) -> None:
        """Keep since when it was waited for what the question interrupted."""
        for one in interrupted_by(dict(asked)):
            of = one["step"] if "step" in one else (one.get("kind"), one.get("key"))
            self._interrupted[of] = datetime.fromisoformat(one["since"])

    def exempt(self) -> None:
        """One more step that is about to be taken does not count: it handles an event, of which a model sends many."""
        self._exempt += 1

    def next_question(self, what: str) -> str:
        """Return the key of the next question whether this limit may be raised."""
        return f"{LIMIT} {what} {self._asked[what] + 1}"

    def began_waiting(self, kind: WaitKind, key: str, step: str) -> datetime | None:
        """Return when this wait of this step began, if the question of a limit came between."""
        return self._interrupted.get(step) or self._interrupted.get((kind.value, key))

    def reached(self, steps: int) -> Reached | None:
        """Return the limit that is reached, if any. `steps` is the number of the step that is about to be taken."""
        budget, added = self._budget, self._added
        if self._first_deadline is not None and (overdue := self._overdue()) is not None:
            return self._reached(_SECONDS, overdue)
        # What people have added are steps, too.
        if steps - self._questions - self._exempt > budget.max_steps + added[_STEPS]:
            return self._reached(_STEPS, MaxStepsExceeded(int(budget.max_steps + added[_STEPS])))
        if budget.max_tokens is None and budget.max_cost is None:
            return None
        spent = self._spent()
        for what, limit in ((_TOKENS, budget.max_tokens), (_COST, budget.max_cost)):
            if limit is not None and spent.get(what, 0) > limit + added[what]:
                return self._reached(what, BudgetExceeded(what, limit + added[what], spent[what]))
        return None

    def check_deadline(self) -> None:
        """Raise `DeadlineExceeded` if the time is up and nobody is to be asked."""
        overdue = self._overdue()
        if overdue is not None and not self._reached(_SECONDS, overdue).may_ask:
            raise overdue

    def _overdue(self) -> DeadlineExceeded | None:
        until = self.deadline
        return None if until is None or self._now() < until else DeadlineExceeded(until.isoformat())

    def _reached(self, what: str, error: LimitExceeded) -> Reached:
        return Reached(what=what, error=error, may_ask=self._budget.ask and what not in self._refused)
