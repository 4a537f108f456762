"""`diff`, which finds where two executions differ, step by step. Steps are compared by their keys in the journal."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent_statestore.records import Action, AgentContext, AgentStep, ErrorInfo, JSONValue, Result
from celery_agents.engine.relatives import SPAWN


class StepChange(StrEnum):
    """How a step differs.

    `ONLY_IN_A`, `ONLY_IN_B`: the other execution has no step of this key. `ACTION`: the step should do something else
    (and perhaps had another result). `RESULT`: the step should do the same, and had another result, or has none yet.
    """

    ONLY_IN_A = "only_in_a"
    ONLY_IN_B = "only_in_b"
    ACTION = "action"
    RESULT = "result"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDifference:
    """A step that differs, as each of the two executions has it."""

    key: str
    change: StepChange
    a: AgentStep | None
    b: AgentStep | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifference:
    """Something other than a step that differs: `agent_id`, `input`, `state`, `output` or `error`."""

    field: str
    a: JSONValue
    b: JSONValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference between two executions, named by their ids.

    `alike` counts the steps that are the same in both. `steps` are the others, in the order of `a` and then of `b`: the
    two part at the first one. It makes no difference who did a step, when, how long it took and how often it was tried,
    nor which ids children have.
    """

    a: str
    b: str
    alike: int
    fields: tuple[FieldDifference, ...]
    steps: tuple[StepDifference, ...]

    @property
    def first(self) -> StepDifference | None:
        """The step where the two part; None if no step differs."""
        return self.steps[0] if self.steps else None

    def __bool__(self) -> bool:
        """Return whether they differ at all."""
        return bool(self.fields or self.steps)


def diff(a: AgentContext, b: AgentContext) -> Difference:
    """Compare two executions as they were read. Nothing is looked up."""
    in_a, in_b = ({step.name: step for step in context.steps} for context in (a, b))
    steps = sorted(_steps(in_a, in_b), key=_place)
    return Difference(
        a=a.execution_id,
        b=b.execution_id,
        alike=len(in_a.keys() & in_b.keys()) - sum(1 for step in steps if step.a is not None and step.b is not None),
        fields=tuple(_fields(a, b)),
        steps=tuple(steps),
    )


def _steps(in_a: dict[str, AgentStep], in_b: dict[str, AgentStep]) -> Iterator[StepDifference]:
    for key in in_a | in_b:
        a, b = in_a.get(key), in_b.get(key)
        if b is None:
            yield StepDifference(key=key, change=StepChange.ONLY_IN_A, a=a, b=b)
        elif a is None:
            yield StepDifference(key=key, change=StepChange.ONLY_IN_B, a=a, b=b)
        elif _text(_of_action(a.action)) != _text(_of_action(b.action)):
            yield StepDifference(key=key, change=StepChange.ACTION, a=a, b=b)
        elif _text(_of_result(a)) != _text(_of_result(b)):
            yield StepDifference(key=key, change=StepChange.RESULT, a=a, b=b)


def _place(difference: StepDifference) -> tuple[int, bool]:
    """Order by the number in either; of two steps with the same number, the one of `a` comes first."""
    numbers = [step.step_number for step in (difference.a, difference.b) if step is not None]
    return min(numbers), difference.a is None


def _fields(a: AgentContext, b: AgentContext) -> Iterator[FieldDifference]:
    pairs: dict[str, tuple[JSONValue, JSONValue]] = {
        "agent_id": (a.agent_id, b.agent_id),
        "input": (a.input, b.input),
        "state": (a.state.value, b.state.value),
        "output": (a.output, b.output),
        "error": (_of_error(a.error), _of_error(b.error)),
    }
    for field, (one, other) in pairs.items():
        if _text(one) != _text(other):
            yield FieldDifference(field=field, a=one, b=other)


# A child's end is recorded under the child's id.
_CHILD: Final = "child"


def _of_action(action: Action) -> JSONValue:
    return [action.kind, action.tool, None if action.kind == _CHILD else action.input, action.thought, action.title]


def _of_result(step: AgentStep) -> JSONValue:
    result: Result | None = step.result
    if result is None:
        return None
    output = result.output
    if step.action.kind == SPAWN and isinstance(output, dict):
        output = {name: value for name, value in output.items() if name != "execution_id"}
    return [result.success, output, _of_error(result.error)]


def _of_error(error: ErrorInfo | None) -> JSONValue:
    return None if error is None else {"type": error.type, "message": error.message}


def _text(value: JSONValue) -> str:
    """Return JSON text: 1 and true differ in it, and the order of keys makes no difference."""
    return json.dumps(value, sort_keys=True)
