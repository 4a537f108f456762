"""A recorded step never runs again, and returns the same on the first run and after a crash."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import pydantic
import pytest

from agent_statestore import AgentState
from celery_agents import Retry, Run
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from celery_agents.errors import (
    InvalidResult,
    JournalMismatch,
    MaxStepsExceeded,
    StepFailed,
)
from celery_agents.misuse import NestedStep
from tests.celery_agents.driving import Calls, Crash, Engine


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int
    y: float


class Person(pydantic.BaseModel):
    name: str
    born: date


def test_a_crash_repeats_no_recorded_step(engine: Engine, calls: Calls) -> None:
    die = True

    def work(run: Run, input: None) -> list[int]:
        done = [run.step("one", calls, 1), run.step("two", calls, 2)]
        if die:
            raise Crash
        return [*done, run.step("three", calls, 3)]

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    die = False
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [1, 2, 3]
    assert calls.made == [1, 2, 3]
    context = engine.context(execution_id)
    assert [(step.step_number, step.name, step.attempt) for step in context.steps] == [
        (1, "one", 1),
        (2, "two", 1),
        (3, "three", 2),
    ]
    assert context.state is AgentState.COMPLETED
    assert context.output == [1, 2, 3]


def test_the_step_in_flight_runs_again(engine: Engine, calls: Calls) -> None:
    def fetch() -> str:
        calls("fetch")
        if len(calls.made) == 1:
            raise Crash
        return "page"

    def work(run: Run, input: None) -> str:
        return run.step("fetch", fetch)

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)

    assert calls.made == ["fetch", "fetch"]
    assert [step.name for step in engine.context(execution_id).steps] == ["fetch"]


def test_occurrences_of_one_name_have_keys_of_their_own(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: int) -> int:
        return sum(run.step("add", calls, number) for number in range(input))

    execution_id = engine.start(engine.agent(work), 3)
    engine.execute(execution_id)

    assert [step.name for step in engine.context(execution_id).steps] == ["add", "add#2", "add#3"]


def returns_date() -> date:
    return date(2026, 1, 2)


def returns_moment() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def returns_tuple() -> tuple[int, str]:
    return (1, "a")


def returns_mapping() -> dict[int, set[str]]:
    return {1: {"a"}}


def returns_point() -> Point:
    return Point(1, 2.5)


def returns_person() -> Person:
    return Person(name="Łukasz 🦊", born=date(1999, 12, 31))


def returns_colour() -> Colour:
    return Colour.RED


def returns_decimal() -> Decimal:
    return Decimal("1.10")


def returns_bytes() -> bytes:
    return "é".encode()


def returns_duration() -> timedelta:
    return timedelta(days=1, microseconds=5)


def returns_big() -> int:
    return 2**200


def returns_none() -> None:
    return None


def returns_text_with_nul() -> str:
    return "a\x00b\ud83d".replace("\ud83d", "") + "\N{PILE OF POO}"


@pytest.mark.parametrize(
    "function",
    [
        returns_date,
        returns_moment,
        returns_tuple,
        returns_mapping,
        returns_point,
        returns_person,
        returns_colour,
        returns_decimal,
        returns_bytes,
        returns_duration,
        returns_big,
        returns_none,
        returns_text_with_nul,
    ],
)
def test_a_result_has_the_same_type_and_value_before_and_after_a_crash(engine: Engine, function: Any) -> None:
    seen: list[Any] = []

    def work(run: Run, input: None) -> None:
        seen.append(run.step("make", function))
        if len(seen) == 1:
            raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)

    assert engine.context(execution_id).state is AgentState.COMPLETED
    assert seen[0] == seen[1] == function()
    assert type(seen[0]) is type(seen[1]) is type(function())


def test_without_an_annotation_a_result_is_what_json_makes_of_it_from_the_start(engine: Engine) -> None:
    seen: list[Any] = []

    def work(run: Run, input: None) -> None:
        seen.append(run.step("make", lambda: ({"when": date(2026, 1, 2), "pair": (1, 2)},)))
        if len(seen) == 1:
            raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)

    assert seen == [[{"when": "2026-01-02", "pair": [1, 2]}]] * 2


class Picky(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}: {hint}")
        self.code = code


class Plain(LookupError):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("bad", 7), ValueError),
        (Plain("gone"), Plain),
        (KeyError("k"), KeyError),
        (FileNotFoundError(2, "No such file", "x.txt"), FileNotFoundError),
        (Picky(3, hint="wörk"), Picky),
    ],
)
def test_a_recorded_failure_is_raised_again_as_the_same_error(
    engine: Engine, calls: Calls, error: Exception, kind: type[Exception]
) -> None:
    seen: list[Exception] = []

    def fail() -> None:
        calls("fail")
        raise error

    def work(run: Run, input: None) -> str:
        try:
            run.step("fail", fail)
        except kind as caught:
            seen.append(caught)
        if len(seen) == 1:
            raise Crash
        return "handled"

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "handled"
    assert calls.made == ["fail"]
    assert [type(one) for one in seen] == [kind, kind]
    assert str(seen[0]) == str(seen[1])
    recorded = engine.context(execution_id).steps[0].result
    assert recorded is not None
    assert recorded.error is not None
    assert recorded.error.message


def local_error() -> Exception:
    class Hidden(Exception):
        pass

    return Hidden("nobody finds me")


@pytest.mark.parametrize(
    "error", [local_error(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "nobody finds me")], ids=["local", "bytes"]
)
def test_an_error_that_cannot_be_made_again_is_a_step_failure_both_times(engine: Engine, error: Exception) -> None:
    seen: list[Exception] = []

    def fail() -> None:
        raise error

    def work(run: Run, input: None) -> None:
        try:
            run.step("fail", fail)
        except StepFailed as caught:
            seen.append(caught)
        if len(seen) == 1:
            raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)

    assert [str(one) for one in seen] == [str(seen[0])] * 2
    assert "nobody finds me" in str(seen[0])


@pytest.mark.parametrize("value", [object(), float("nan"), {"a": {1, object()}}, "\ud800"])
def test_a_result_that_is_not_json_fails_the_step_once_and_for_all(engine: Engine, calls: Calls, value: Any) -> None:
    def make() -> Any:
        calls("make")
        return value

    def work(run: Run, input: None) -> None:
        run.options(retry=Retry(retries=3)).step("make", make)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.FAILED
    assert calls.made == ["make"]
    assert "make" in str(outcome.error)
    context = engine.context(execution_id)
    assert context.state is AgentState.FAILED
    assert [step.result is not None and step.result.success for step in context.steps] == [False]


def test_a_result_over_the_size_limit_fails_the_step_and_names_it(engine: Engine) -> None:
    engine.store.max_value_bytes = 1000

    def work(run: Run, input: None) -> None:
        run.step("huge", lambda: "x" * 2000)

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    error = engine.context(execution_id).error
    assert error is not None
    assert "huge" in error.message
    assert "1000" in error.message


def test_a_result_that_contradicts_its_annotation_fails_the_step(engine: Engine) -> None:
    def lies() -> int:
        return "not a number"  # type: ignore[return-value]

    def work(run: Run, input: None) -> None:
        run.step("lies", lies)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, InvalidResult)


def test_steps_may_be_added_between_deploys(engine: Engine, calls: Calls) -> None:
    deployed = 1

    def work(run: Run, input: None) -> str:
        if deployed == 2:
            run.step("new", calls, "new")
        run.step("old", calls, "old")
        if deployed == 1:
            raise Crash
        return "done"

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    deployed = 2
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "done"
    assert calls.made == ["old", "new"]


@pytest.mark.parametrize("change", ["removed", "renamed", "other kind", "other arguments"])
def test_code_that_contradicts_the_journal_fails_clearly(engine: Engine, calls: Calls, change: str) -> None:
    from celery_agents.decorators import tool

    deployed = 1

    @tool(registry=engine.registry)
    def search(query: str) -> str:
        return query

    def work(run: Run, input: None) -> str:
        if deployed == 1:
            run.step("find", search, "a")
            raise Crash
        if change == "renamed":
            run.step("seek", search, "a")
        if change == "other kind":
            run.ask("?", name="find")
        if change == "other arguments":
            run.step("find", search, "b")
        return "done"

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    deployed = 2
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert isinstance(outcome.error, JournalMismatch)
    assert "'find'" in str(outcome.error)
    assert engine.context(execution_id).state is AgentState.FAILED


def test_a_step_inside_a_step_is_refused(engine: Engine) -> None:
    def work(run: Run, input: None) -> None:
        run.step("outer", lambda: run.step("inner", lambda: 1))

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, NestedStep)


@pytest.mark.parametrize("name", ["", "a#2", "x" * 300])
def test_a_bad_step_name_is_refused(engine: Engine, name: str) -> None:
    def work(run: Run, input: None) -> None:
        run.step(name, lambda: 1)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.FAILED
    assert engine.context(execution_id).steps == ()


def test_an_output_on_the_last_permitted_step_counts(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: int) -> str:
        for number in range(input):
            run.step("add", calls, number)
        return "answer"

    made = engine.agent(work, max_steps=3)
    allowed, refused = engine.execute(engine.start(made, 3)), engine.execute(engine.start(made, 4))

    assert allowed is not None
    assert allowed.output == "answer"
    assert refused is not None
    assert isinstance(refused.error, MaxStepsExceeded)


def test_an_agent_without_a_limit_of_its_own_has_the_workers(engine: Engine, calls: Calls) -> None:
    engine.limits = Defaults(max_steps=2)

    def work(run: Run, input: None) -> None:
        while True:
            run.step("again", calls, 1)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, MaxStepsExceeded)
    assert calls.made == [1, 1]


def test_a_resume_counts_recorded_steps_towards_the_limit(engine: Engine, calls: Calls) -> None:
    def work(run: Run, input: None) -> None:
        for number in range(5):
            run.step("add", calls, number)
            if number == 1 and run.attempt == 1:
                raise Crash

    execution_id = engine.start(engine.agent(work, max_steps=3))
    engine.crash(execution_id)
    engine.execute(execution_id)

    assert calls.made == [0, 1, 2]
    assert engine.context(execution_id).step_count == 3


def refuses_to_be_made() -> Exception:
    try:
        Person.model_validate({})
    except pydantic.ValidationError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("make", [refuses_to_be_made], ids=["pydantic"])
def test_an_error_that_refuses_to_be_made_again_keeps_its_message(engine: Engine, make: Any) -> None:
    def fail() -> None:
        raise make()

    def work(run: Run, input: None) -> None:
        run.step("fail", fail)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, StepFailed)
    assert "validation errors for Person" in str(outcome.error)
