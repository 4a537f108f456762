"""Tools: validated arguments, a retry policy of their own, a record of what was called."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pydantic
import pytest

from tests.worker.driving import Calls, Engine
from worker import InvalidArguments, RegistrationError, Registry, Retry, Run, Tool, agent, tool


class Query(pydantic.BaseModel):
    text: str
    limit: int = 10


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def search(registry: Registry, calls: Calls) -> Tool[..., list[str]]:
    @tool(registry=registry, retries=2, retry_on=[OSError], first_delay=timedelta(milliseconds=1))
    def search(query: Query, *, deep: bool = False) -> list[str]:
        """Looks things up."""
        calls(query)
        if query.text == "flaky" and len(calls.made) < 3:
            raise OSError("down")
        return [query.text] * query.limit

    return search


def test_a_tool_call_is_a_step_with_its_name_and_arguments(engine: Engine, search: Tool[..., list[str]]) -> None:
    def work(run: Run, input: None) -> Any:
        return run.tool(search, {"text": "ü", "limit": 2}, deep=True)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["ü", "ü"]
    (step,) = engine.context(execution_id).steps
    assert (step.name, step.action.kind, step.action.tool) == ("search", "tool", "search")
    assert step.action.input == {"query": {"text": "ü", "limit": 2}, "deep": True}


def test_a_tools_own_retry_policy_counts(engine: Engine, search: Tool[..., list[str]], calls: Calls) -> None:
    def work(run: Run, input: None) -> Any:
        return run.tool(search, Query(text="flaky", limit=1))

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == ["flaky"]
    assert len(calls.made) == 3


@pytest.mark.parametrize(
    ("args", "kwargs", "field"),
    [
        (({"limit": 1},), {}, "text"),
        (({"text": "a", "limit": "many"},), {}, "limit"),
        (({"text": "a"},), {"deep": "perhaps"}, "deep"),
        ((), {}, "query"),
        (({"text": "a"},), {"wide": True}, "wide"),
        ((object(),), {}, "search"),
    ],
)
def test_wrong_arguments_are_refused_by_field_and_not_tried_again(
    engine: Engine, search: Tool[..., list[str]], calls: Calls, args: Any, kwargs: Any, field: str
) -> None:
    def work(run: Run, input: None) -> Any:
        return run.tool(search, *args, **kwargs)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, InvalidArguments)
    assert field in str(outcome.error)
    assert calls.made == []


def test_a_validation_error_of_the_tools_own_code_is_its_own(engine: Engine, registry: Registry) -> None:
    @tool(registry=registry)
    def parse(text: str) -> int:
        return Query.model_validate({"limit": text}).limit

    def work(run: Run, input: None) -> Any:
        return run.tool(parse, "x")

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert not isinstance(outcome.error, InvalidArguments)
    assert "Query" in str(outcome.error)


def test_a_tool_describes_itself_to_models(search: Tool[..., list[str]]) -> None:
    assert search.description == "Looks things up."
    schema = search.json_schema
    assert set(schema["properties"]) == {"query", "deep"}
    assert schema["required"] == ["query"]


def test_a_tool_may_be_called_as_a_function(search: Tool[..., list[str]]) -> None:
    assert search({"text": "a", "limit": 1}) == ["a"]


def test_what_cannot_be_registered_is_refused(registry: Registry) -> None:
    def generator(run: Run, input: None) -> Iterator[None]:
        yield

    def generator_tool() -> Iterator[None]:
        yield

    def no_parameters() -> None: ...

    def unknown_type(run: Run, input: "Nowhere") -> None: ...  # type: ignore[name-defined] # noqa: F821

    def two(run: Run, input: None) -> None: ...

    with pytest.raises(RegistrationError, match="generator"):
        agent(registry=registry)(generator)
    with pytest.raises(RegistrationError, match="generator"):
        tool(registry=registry)(generator_tool)
    with pytest.raises(RegistrationError, match="on_crash"):
        tool(registry=registry, on_crash="pray")(lambda: None)
    with pytest.raises(RegistrationError, match="timeout"):
        tool(registry=registry, timeout=timedelta(0))(lambda: None)
    with pytest.raises(RegistrationError, match="deadline"):
        agent(registry=registry, deadline=timedelta(0))(two)
    with pytest.raises(RegistrationError, match="max_cost"):
        agent(registry=registry, max_cost=0)(two)
    with pytest.raises(RegistrationError, match="on_limit"):
        agent(registry=registry, on_limit="shrug")(two)  # type: ignore[call-overload]
    with pytest.raises(RegistrationError, match="two parameters"):
        agent(registry=registry)(no_parameters)
    with pytest.raises(RegistrationError, match="Nowhere"):
        agent(registry=registry)(unknown_type)
    with pytest.raises(RegistrationError, match="max_steps"):
        agent(registry=registry, max_steps=0)(two)
    with pytest.raises(RegistrationError, match="retries"):
        Retry(retries=-1)
    assert registry.agents == ()


def test_the_delay_before_a_retry_grows_up_to_its_limit_and_is_never_zero() -> None:
    import random

    retry = Retry(retries=10, first_delay=timedelta(seconds=1), max_delay=timedelta(seconds=20))
    jitter = random.Random(7)
    for tries, full in enumerate([1, 2, 4, 8, 16, 20, 20], start=1):
        delays = [retry.delay_seconds(tries, jitter) for _ in range(200)]
        assert full / 2 <= min(delays) < max(delays) <= full
        assert len(set(delays)) > 100
