"""The journal: the steps that are recorded, looked up by key while the agent's code is led past them again."""

from collections import Counter
from collections.abc import Iterable, Iterator

from agent_statestore.records import Action, AgentStep
from celery_agents.define.names import LONGEST_DERIVED_NAME, LONGEST_STEP_NAME, MARK, check_step_name
from celery_agents.errors import JournalMismatch


class Journal:
    """The recorded steps of one execution by key: a name plus its occurrence (`search`, `search#2`).

    Keys, not positions, so that steps may be added to an agent's code between deploys.
    """

    def __init__(self, steps: Iterable[AgentStep]) -> None:
        self._steps = {step.name: step for step in steps}
        self._occurrences: Counter[str] = Counter()
        self._reached: set[str] = set()
        self._highest = max((step.step_number for step in self._steps.values()), default=0)

    def __len__(self) -> int:
        return self._highest

    def __iter__(self) -> Iterator[AgentStep]:
        return iter(self._steps.values())

    def next_key(self, name: str, *, is_derived: bool = False) -> str:
        """The key of the next occurrence of `name` in the code's order; `is_derived`: made of the key of another step.

        Raises `InvalidRecord` for what is no name.
        """
        check_step_name(name, LONGEST_DERIVED_NAME if is_derived else LONGEST_STEP_NAME)
        self._occurrences[name] += 1
        occurrence = self._occurrences[name]
        key = name if occurrence == 1 else f"{name}{MARK}{occurrence}"
        self._reached.add(key)
        return key

    def upcoming_key(self, name: str) -> str:
        """The key that `next_key` would give, without coming to it."""
        occurrence = self._occurrences[name] + 1
        return name if occurrence == 1 else f"{name}{MARK}{occurrence}"

    def has(self, key: str) -> bool:
        """Whether a step, or its intent, is recorded."""
        return key in self._steps

    def look_up(self, key: str, action: Action) -> AgentStep | None:
        """The step recorded under `key`, if any. Raises `JournalMismatch` if it did something else than `action`."""
        step = self._steps.get(key)
        if step is None:
            return None
        recorded = step.action
        if recorded.kind != action.kind:
            raise JournalMismatch(key, f"recorded as {recorded.kind!r}, but the code asks for {action.kind!r}")
        if recorded.tool != action.tool:
            raise JournalMismatch(key, f"recorded with tool {recorded.tool!r}, but the code calls {action.tool!r}")
        if action.kind in ("event", "child", "spawn") and recorded.input != action.input:
            raise JournalMismatch(key, f"recorded for {recorded.input!r}, but the code asks for {action.input!r}")
        # A parameter that was added to the tool since, with a default, is no contradiction.
        if (
            action.kind in ("tool", "approval")
            and {name: action.input.get(name) for name in recorded.input} != recorded.input
        ):
            raise JournalMismatch(
                key,
                f"tool {recorded.tool!r} was called with {recorded.input!r}, but the code calls it with "
                f"{action.input!r}; values that differ between attempts (times, random numbers) belong into a step",
            )
        return step

    def pass_by(self, keys: Iterable[str]) -> None:
        """These steps stand outside the code's order: the code never comes to them."""
        self._reached.update(keys)

    @property
    def next_number(self) -> int:
        """The number of the next new step."""
        return self._highest + 1

    def step(self, key: str) -> AgentStep:
        """The step that is recorded under this key. Raises `KeyError`."""
        return self._steps[key]

    def number_for(self, key: str) -> int:
        """The number under which the step of this key is, or will be, recorded."""
        step = self._steps.get(key)
        return self._highest + 1 if step is None else step.step_number

    def add(self, step: AgentStep) -> None:
        """Takes in a step that was just recorded."""
        self._steps[step.name] = step
        self._highest = max(self._highest, step.step_number)

    def check_all_reached(self) -> None:
        """Raises `JournalMismatch` if the code came to its end past steps that are recorded.

        They were renamed or removed: what the code did in their place may have happened twice.
        """
        for key in self._steps:
            if key not in self._reached:
                raise JournalMismatch(key, "recorded in an earlier attempt, but the code never came to it")
