"""The journal: the steps that are recorded, looked up by key while the agent's code is led past them again."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from threading import Lock, get_ident
from typing import Final, NoReturn

from agent_statestore.records import Action, AgentStep, require_amount
from celery_agents.define.names import LONGEST_DERIVED_NAME, LONGEST_STEP_NAME, MARK, check_step_name, name_in_group
from celery_agents.engine.course import Course
from celery_agents.engine.journal.memory import RunMemory
from celery_agents.engine.stage import Stage
from celery_agents.engine.steps.scope import Nesting
from celery_agents.errors import JournalMismatch
from celery_agents.misuse import GroupEnded, NestedStep, SpentInVain, StepInThread

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
        # What all recorded steps have spent, those too that the code has not come to yet; and what those have that
        # the code has the results of, which is the same at each point of the code on every attempt.
        self.spent: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        # What the tries of steps in flight have spent, with what is recorded of them already. Whether there is any of
        # all this: for those who would look, as most steps spend nothing.
        self.spending: dict[str, dict[str, float]] = {}
        self.has_spent = False
        # Whether results are the code's as soon as they are recorded. To tasks of an async agent they are given.
        self.sees_at_once = True
        self._seen: set[str] = set()
        self._spending = Lock()
        # The keys that the claim found, of which the last ones are given up once the code has come to them.
        self._ahead = list(self._steps)
        self._looks = 0
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
        # The groups that the steps of this attempt are taken in, the outermost first.
        self.within: dict[str, tuple[str, ...]] = {}
        # Steps in groups that are recorded themselves: the code does not come to them any more.
        self.passed: set[str] = set()
        self._in_groups: dict[str, list[str]] = {}
        for step in [step for step in self._steps.values() if step.within]:
            self._take_in_grouped(step)
        for step in [step for step in self._steps.values() if step.spent]:
            self.has_spent = True
            _add(self.spent, step.spent)

    def _take_in_grouped(self, step: AgentStep) -> None:
        for group in step.within:
            self._in_groups.setdefault(group, []).append(step.name)
            around = self._steps.get(group)
            if around is not None and around.result is not None:
                self.passed.add(step.name)
                self._reached.add(step.name)

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
        group = self._nesting.group if self._nesting.has_groups else None
        if group is not None:
            if group.is_over:
                raise GroupEnded(name, group.keys[-1])
            name = name_in_group(group.keys[-1], name)
        self._occurrences[name] += 1
        occurrence = self._occurrences[name]
        key = name if occurrence == 1 else f"{name}{MARK}{occurrence}"
        self._reached.add(key)
        if group is not None:
            self.within[key] = group.keys
        return key

    def come_to_look(self, name: str) -> str:
        """The code has come to a look at what was said: return its key, which no step of the code's can have."""
        if self._stage is not None:
            self._stage.come_to_step()
        self._course.check_goes_on()
        inside = self._nesting.step_around
        if inside is not None or get_ident() != self.thread:
            self._refuse(name, inside)
        self._looks += 1
        key = f"{MARK}{name}" if self._looks == 1 else f"{MARK}{name}{MARK}{self._looks}"
        self._reached.add(key)
        group = self._nesting.group if self._nesting.has_groups else None
        if group is not None:
            self.within[key] = group.keys
        return key

    def _refuse(self, name: str, inside: str | None) -> NoReturn:
        """Say why no step can be taken here: in a thread of the code's own, whatever the agent's function does."""
        if inside is None or (get_ident() != self.thread and self._nesting.step_of_context is None):
            raise StepInThread(name)
        raise NestedStep(name, inside)

    def upcoming_key(self, name: str) -> str:
        """Return the key that `come_to` would, without coming to it."""
        group = self._nesting.group
        if group is not None:
            name = name_in_group(group.keys[-1], name)
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
            if self.has_spent and self.sees_at_once:
                self.see((key,))
        if self._stage is not None:
            self._stage.looked_up(key, step)
        return step

    def pass_by(self, keys: Iterable[str], *, beside: str | None = None) -> None:
        """These steps stand outside the code's order: the code never comes to them.

        They are in the same groups as the step of the key `beside`.
        """
        self._reached.update(keys)
        if beside in self.within:
            self.within |= dict.fromkeys(keys, self.within[beside])

    def check_group_reached(self, group: str) -> None:
        """Raise `JournalMismatch` if the function of a group came to its end past steps that are recorded in it."""
        for key in self._in_groups.get(group, ()):
            self._check_reached(key)

    def step(self, key: str) -> AgentStep:
        """The step that is recorded under this key. Raises `KeyError`."""
        return self._steps[key]

    def number_for(self, key: str) -> int:
        """The number under which the step of this key is, or will be, recorded."""
        step = self._steps.get(key)
        return self.last_number + 1 if step is None else step.step_number

    def add(self, step: AgentStep) -> None:
        """Takes in a step that was just recorded."""
        if self.has_spent:
            self._count(step)
        self._steps[step.name] = step
        self._course.unrecorded.discard(step.name)
        self.last_number = max(self.last_number, step.step_number)

    # -- what was spent ------------------------------------------------------------------------------------------------

    def spend(self, key: str, amounts: Mapping[str, float]) -> None:
        """The step of this key, which is in flight, has spent this. In any thread.

        Raise `SpentInVain` for a step that has its result, and `InvalidRecord` for a sum that no record takes.
        """
        with self._spending:
            step = self._steps.get(key)
            if step is not None and step.result is not None:
                raise SpentInVain(f"step {key!r} has ended and is recorded: spend before its function returns")
            sums = dict(self.spent_on(key))
            _add(sums, amounts)
            for name, amount in sums.items():
                require_amount(name, amount)
            # A new one each time, as records are made of it.
            self.spending[key] = sums
            self.has_spent = True

    def spent_on(self, key: str) -> Mapping[str, float]:
        """Return what all tries of a step have spent, as it is to be recorded."""
        step = self._steps.get(key)
        return self.spending.get(key) or ({} if step is None else step.spent)

    def _count(self, step: AgentStep) -> None:
        """A step is recorded. Its intent, if there was one, has said a part of what it has spent."""
        before = self._steps.get(step.name)
        _add(self.spent, step.spent)
        if before is not None:
            _add(self.spent, {name: -amount for name, amount in before.spent.items()})
        if step.result is None:
            return
        with self._spending:
            self.spending.pop(step.name, None)
            self._steps[step.name] = step
        if self.sees_at_once:
            self.see((step.name,))

    def see(self, keys: Iterable[str]) -> None:
        """The code has the results of these steps."""
        for key in keys:
            step = self._steps.get(key)
            if step is None or step.result is None:
                continue
            for one in (step, *[self._steps[inner] for inner in self._in_groups.get(key, ())]):
                if one.spent and one.name not in self._seen:
                    self._seen.add(one.name)
                    _add(self.seen, one.spent)

    def check_all_reached(self) -> None:
        """Raises `JournalMismatch` if the code came to its end past steps that are recorded.

        They were renamed or removed: what the code did in their place may have happened twice.
        """
        for key in self._steps:
            self._check_reached(key)

    def _check_reached(self, key: str) -> None:
        if key not in self._reached:
            raise JournalMismatch(key, "recorded in an earlier attempt, but the code never came to it")


def _add(sums: dict[str, float], amounts: Mapping[str, float]) -> None:
    for name, amount in amounts.items():
        if amount:
            sums[name] = sums.get(name, 0) + amount


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


def has_ahead(journal: Journal) -> bool:
    """Return whether something is recorded that the code has not come to yet."""
    ahead, reached = journal._ahead, journal._reached
    while ahead and ahead[-1] in reached:
        ahead.pop()
    return bool(ahead)
