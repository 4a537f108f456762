"""Following one execution until it is over, on which all ways of showing its progress are built."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent_statestore.records import AgentStep, ExecutionSummary, Wait
from celery_agents.client.execution import LOOK_ANYWAY_SECONDS, Execution
from celery_agents.lifecycle.signals import approvals_of, questions_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look showed: the execution, the steps whose result is new, and the steps that have only begun."""

    summary: ExecutionSummary
    recorded: tuple[AgentStep, ...] = ()
    intents: tuple[AgentStep, ...] = ()

    @property
    def questions(self) -> tuple[Wait, ...]:
        """The questions whose answers the execution waits for."""
        return questions_of(self.summary)

    @property
    def approvals(self) -> tuple[Wait, ...]:
        """The approvals that the execution waits for."""
        return approvals_of(self.summary)


def follow(execution: Execution) -> Iterator[Look]:
    """Yield a first look, one look after each change, and the last look when the execution is over.

    Each recorded step is in exactly one look. Raise `ExecutionNotFound`, also when the execution is removed meanwhile.
    """
    steps = _NewSteps(execution)
    last: tuple[object, ...] | None = None
    with execution.watch() as watch:
        while True:
            summary = execution.summary()
            seen = _what_changes(summary)
            if seen != last:
                last = seen
                watch.progress()
                yield steps.look(summary)
            if summary.state.is_over:
                return
            watch.wait(LOOK_ANYWAY_SECONDS)


class _NewSteps:
    """Remembers which steps were shown. Steps that run in parallel get their results in any order."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._all_shown_up_to = 0
        self._shown_above: set[int] = set()

    def look(self, summary: ExecutionSummary) -> Look:
        if summary.step_count == self._all_shown_up_to:
            return Look(summary=summary)
        steps = self._execution.steps(after=self._all_shown_up_to)
        recorded = tuple(s for s in steps if s.result is not None and s.step_number not in self._shown_above)
        intents = tuple(s for s in steps if s.result is None)
        self._shown_above.update(step.step_number for step in recorded)
        while self._all_shown_up_to + 1 in self._shown_above:
            self._all_shown_up_to += 1
            self._shown_above.remove(self._all_shown_up_to)
        return Look(summary=summary, recorded=recorded, intents=intents)


def _what_changes(summary: ExecutionSummary) -> tuple[object, ...]:
    """Return what counts as a change: a claim does, without a checkpoint; a renewal of its lease does not."""
    return (summary.version, summary.state, summary.attempt, summary.cancel_requested, summary.owner)
