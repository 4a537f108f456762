"""The journal: the steps that are recorded, looked up by key while the agent's code is led past them again."""

from collections import Counter
from collections.abc import Iterable, Iterator
from threading import get_ident
from typing import Final, NoReturn

from agent_statestore.records import Action, AgentStep
from celery_agents.define.names import LONGEST_DERIVED_NAME, LONGEST_STEP_NAME, MARK, check_step_name
from celery_agents.engine.course import Course
from celery_agents.engine.journal.memory import RunMemory
from celery_agents.engine.stage import Stage
from celery_agents.engine.steps.scope import Nesting
from celery_agents.errors import JournalMismatch
from celery_agents.misuse import NestedStep, StepInThread

# The kinds of actions whose input are arguments by name.
_WITH_ARGUMENTS: Final = frozenset({"tool", "approval", "model", "handler"})


class Journal:
    """The recorded steps of one execution by key: a name plus its occurrence (`search`, `search#2`).

    Keys, not positions, so that steps may be added to an agent's code between deploys.
    """

    def __init__(
        self, steps: Iterable[AgentStep], *, course: Course, nesting: Nesting, memory: RunMemory, stage: Stage | None
    ) -> None:
        self._steps = {step.name: step for step in steps}
        # The number of the last step that is recorded.
        self.last_number = max((step.step_number for step in self._steps.values()), default=0)
        self._course = course
        self._nesting = nesting
        self._memory = memory
        self._stage = stage
        self._occurrences: Counter[str] = Counter()
        self._reached: set[str] = set()
        # The thread, or that of the loop, in which the agent's function runs.
        self.thread = get_ident()

    def __iter__(self) -> Iterator[AgentStep]:
        return iter(self._steps.values())

    def come_to(self, name: str, *, is_derived: bool = False) -> str:
        """The code has come to a step: return its key, that of the next occurrence of `name` in the code's order.

        Called in the thread, or on the loop, of the agent's function. `is_derived`: `name` is made of the key of
        another step, which the code came to there. Raise `InvalidRecord` for an invalid name, `NestedStep` inside of
        another step's function, and `StepInThread` in any other thread.
        """
        if self._stage is not None:
            self._stage.come_to_step()
        if self._course.stopped is not None:
            # The agent's code caught the exception that unwinds it. There is nothing left for it to do.
            raise self._course.stopped
        inside = self._nesting.step_around
        if inside is not None or (get_ident() != self.thread and not is_derived):
            self._refuse(name, inside)
        if is_derived or type(name) is not str or name not in self._occurrences:
            check_step_name(name, LONGEST_DERIVED_NAME if is_derived else LONGEST_STEP_NAME)
        self._occurrences[name] += 1
        occurrence = self._occurrences[name]
        key = name if occurrence == 1 else f"{name}{MARK}{occurrence}"
        self._reached.add(key)
        return key

    def _refuse(self, name: str, inside: str | None) -> NoReturn:
        """Say why no step can be taken here: in a thread of the code's own, whatever the agent's function does."""
        if inside is None or (get_ident() != self.thread and self._nesting.step_of_context is None):
            raise StepInThread(name)
        raise NestedStep(name, inside)

    def upcoming_key(self, name: str) -> str:
        """Return the key that `come_to` would, without coming to it."""
        occurrence = self._occurrences[name] + 1
        return name if occurrence == 1 else f"{name}{MARK}{occurrence}"

    def has(self, key: str) -> bool:
        """Whether a step, or its intent, is recorded."""
        return key in self._steps

    def look_up(self, key: str, action: Action) -> AgentStep | None:
        """Return the step recorded under `key`, if any; the memory is then as it was after that step.

        Raise `JournalMismatch` if it did something else than `action`.
        """
        step = self._steps.get(key)
        if step is not None:
            mismatch = _mismatch(key, step.action, action)
            if mismatch is not None:
                if self._stage is not None:
                    self._stage.contradicted(mismatch)
                raise mismatch
            # What is pending beside concurrent steps may never have been stored: another one may be recorded before it.
            if step.result is not None and not (self._nesting.is_concurrent and step.changes is None):
                self._memory.repeat_step(step.changes)
        if self._stage is not None:
            self._stage.looked_up(key, step)
        return step

    def pass_by(self, keys: Iterable[str]) -> None:
        """These steps stand outside the code's order: the code never comes to them."""
        self._reached.update(keys)

    def step(self, key: str) -> AgentStep:
        """The step that is recorded under this key. Raises `KeyError`."""
        return self._steps[key]

    def number_for(self, key: str) -> int:
        """The number under which the step of this key is, or will be, recorded."""
        step = self._steps.get(key)
        return self.last_number + 1 if step is None else step.step_number

    def add(self, step: AgentStep) -> None:
        """Takes in a step that was just recorded."""
        self._steps[step.name] = step
        self._course.unrecorded.discard(step.name)
        self.last_number = max(self.last_number, step.step_number)

    def check_all_reached(self) -> None:
        """Raises `JournalMismatch` if the code came to its end past steps that are recorded.

        They were renamed or removed: what the code did in their place may have happened twice.
        """
        for key in self._steps:
            if key not in self._reached:
                raise JournalMismatch(key, "recorded in an earlier attempt, but the code never came to it")


def _mismatch(key: str, recorded: Action, action: Action) -> JournalMismatch | None:
    """Return how the code contradicts what is recorded, if it does."""
    if recorded.kind != action.kind:
        return JournalMismatch(key, f"recorded as {recorded.kind!r}, but the code asks for {action.kind!r}")
    if recorded.tool != action.tool:
        return JournalMismatch(key, f"recorded with tool {recorded.tool!r}, but the code calls {action.tool!r}")
    if action.kind in ("event", "child", "spawn") and recorded.input != action.input:
        return JournalMismatch(key, f"recorded for {recorded.input!r}, but the code asks for {action.input!r}")
    # A parameter that was added to the tool since, with a default, is no contradiction.
    if (
        action.kind in _WITH_ARGUMENTS
        and recorded.input is not None
        and action.input is not None
        and {name: action.input.get(name) for name in recorded.input} != recorded.input
    ):
        return JournalMismatch(
            key,
            f"{'tool' if action.kind == 'approval' else action.kind} {recorded.tool!r} was called with "
            f"{recorded.input!r}, but the code calls it with {action.input!r}; values that differ between attempts "
            "(times, random numbers) belong into a step",
        )
    return None
