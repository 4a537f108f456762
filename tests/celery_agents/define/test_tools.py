"""Tools: validated arguments, a retry policy of their own, a record of what was called."""

import asyncio
from collections.abc import Iterator
from datetime import date, timedelta
from enum import Enum
from typing import Annotated, Any

import pydantic
import pytest

from celery_agents import InvalidArguments, RegistrationError, Registry, Retry, Run, Tool, ToolContext, agent, tool
from tests.celery_agents.driving import Calls, Crash, Engine


class Colour(Enum):
    RED = "red"


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


# -- the context of a call ---------------------------------------------------------------------------------------------


def test_a_tool_gets_the_context_of_its_call_wherever_it_stands(engine: Engine, registry: Registry) -> None:
    seen: list[ToolContext] = []

    @tool(registry=registry)
    def first(context: ToolContext, text: str, *, loud: bool = False) -> str:
        seen.append(context)
        return text.upper() if loud else text

    @tool(registry=registry)
    def last(text: str, loud: bool = False, *, context: ToolContext) -> str:
        seen.append(context)
        return text.upper() if loud else text

    @tool(registry=registry)
    async def middle(text: str, context: ToolContext | None = None, loud: bool = False, **more: int) -> str:
        assert context is not None
        seen.append(context)
        return f"{text.upper() if loud else text}{more}"

    def work(run: Run, input: None) -> list[Any]:
        run.memory["mood"] = "sunny"
        run.say("user", "hello")
        return [
            run.tool(first, "ä", loud=True),
            run.step("last", last, "ö", True),  # type: ignore[call-arg]
            run.tool(middle, "ü", loud=True, deep=3),
            run.tool(first, "ß"),
        ]

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["Ä", "Ö", "Ü{'deep': 3}", "ß"]
    assert [context.key for context in seen] == ["first", "last", "middle", "first#2"]
    assert [context.idempotency_key for context in seen] == [f"{execution_id}/{context.key}" for context in seen]
    context = seen[0]
    assert (context.execution_id, context.agent_id, context.tries) == (execution_id, "work", 1)
    assert (dict(context.memory), [one.content for one in context.messages]) == ({"mood": "sunny"}, ["hello"])
    assert [step.action.input for step in engine.context(execution_id).steps] == [
        {"text": "ä", "loud": True},
        {"text": "ö", "loud": True},
        {"text": "ü", "loud": True, "deep": 3},
        {"text": "ß", "loud": False},
    ]


def test_models_are_shown_neither_the_context_nor_a_way_to_give_one(engine: Engine, registry: Registry) -> None:
    @tool(registry=registry)
    def pay(
        context: ToolContext, to: Query, amount: Annotated[int, pydantic.Field(gt=0, description="in cents")]
    ) -> None:
        """Moves money.

        For good.
        """

    assert pay.description == "Moves money.\n\nFor good."
    schema = pay.json_schema
    assert list(schema["properties"]) == ["to", "amount"]
    assert schema["required"] == ["to", "amount"]
    assert schema["properties"]["amount"] == {
        "description": "in cents",
        "exclusiveMinimum": 0,
        "title": "Amount",
        "type": "integer",
    }
    assert schema["$defs"]["Query"]["properties"]["limit"]["default"] == 10
    assert "ToolContext" not in str(schema)

    def work(run: Run, input: None) -> None:
        arguments: dict[str, Any] = {"to": {"text": "a"}, "amount": 1, "context": {"user_id": "root"}}
        run.step("pay", pay, **arguments)

    outcome = engine.execute(engine.start(engine.agent(work)))
    assert outcome is not None
    assert isinstance(outcome.error, InvalidArguments)
    assert "context" in str(outcome.error)


def test_the_idempotency_key_is_the_same_on_every_try_and_after_every_crash(engine: Engine, registry: Registry) -> None:
    seen: list[tuple[str, int]] = []

    @tool(registry=registry, retries=5, first_delay=timedelta(milliseconds=1))
    def pay(context: ToolContext, amount: int) -> int:
        seen.append((context.idempotency_key, context.tries))
        if len(seen) in (2, 3):
            raise Crash
        if len(seen) < 6:
            raise OSError("down")
        return amount

    def work(run: Run, input: None) -> list[int]:
        return [run.tool(pay, amount=5), run.tool(pay, amount=5)]

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == [5, 5]
    assert [key for key, _ in seen] == [f"{execution_id}/pay"] * 6 + [f"{execution_id}/pay#2"]
    assert seen[-1][1] == 1


def test_a_tool_that_needs_a_context_says_so_outside_of_a_run_and_one_that_can_do_without_does(
    registry: Registry,
) -> None:
    @tool(registry=registry)
    def needs(context: ToolContext, text: str) -> str:
        return text

    @tool(registry=registry)
    def takes(text: str, context: ToolContext | None = None) -> str:
        return f"{text} {context}"

    with pytest.raises(InvalidArguments, match="needs a ToolContext"):
        needs(text="a")  # type: ignore[call-arg]
    assert takes("a") == "a None"


# -- arguments ---------------------------------------------------------------------------------------------------------


def test_arguments_are_typed_nested_and_have_their_defaults(engine: Engine, registry: Registry) -> None:
    seen: list[Any] = []

    @tool(registry=registry)
    def plan(
        queries: list[Query], day: date, *, colour: Colour = Colour.RED, by_name: dict[str, Query] | None = None
    ) -> None:
        seen.append((queries, day, colour, by_name))

    def work(run: Run, input: None) -> None:
        queries: Any = [{"text": "a"}, Query(text="b", limit=1)]
        arguments: dict[str, Any] = {"by_name": {"c": {"text": "c"}}}
        run.step("plan", plan, queries, *["2026-01-02"], **arguments)  # type: ignore[arg-type]

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    assert seen == [([Query(text="a"), Query(text="b", limit=1)], date(2026, 1, 2), Colour.RED, {"c": Query(text="c")})]
    (step,) = engine.context(execution_id).steps
    assert step.action.input == {
        "queries": [{"text": "a"}, {"text": "b", "limit": 1}],
        "day": "2026-01-02",
        "colour": "red",
        "by_name": {"c": {"text": "c"}},
    }


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"queries": [{"text": "a"}, {"limit": 1}], "day": "2026-01-02"}, "queries.1.text"),
        ({"queries": [], "day": "yesterday"}, "day"),
        ({"queries": [], "day": "2026-01-02", "colour": "blue"}, "colour"),
    ],
)
def test_a_fault_deep_inside_names_its_place(registry: Registry, arguments: dict[str, Any], field: str) -> None:
    @tool(registry=registry)
    def plan(queries: list[Query], day: date, colour: Colour = Colour.RED) -> None:
        raise AssertionError("never called")

    with pytest.raises(InvalidArguments, match=field):
        plan(**arguments)
    with pytest.raises(InvalidArguments, match=field):
        plan(*arguments.values())


def test_an_argument_that_json_cannot_carry_calls_nothing(engine: Engine, registry: Registry, calls: Calls) -> None:
    @tool(registry=registry, retries=3)
    def send(text: Any) -> None:
        calls(text)

    def work(run: Run, input: None) -> list[str]:
        told = []
        for number, value in enumerate((object(), float("nan"), "\ud800", "x" * 3000)):
            with pytest.raises(ValueError, match=r"text|argument") as refused:
                run.step(f"send {number}", send, value)
            told.append(type(refused.value).__name__)
        return told

    engine.store.max_value_bytes = 2000
    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == ["InvalidArguments", "NotSerialisable", "NotSerialisable", "ValueTooLarge"]
    assert calls.made == []


def test_a_parameter_that_was_added_with_a_default_contradicts_no_journal(engine: Engine, registry: Registry) -> None:
    @tool(registry=registry)
    def look(text: str) -> str:
        return text

    @tool(registry=Registry(), name="look")
    def look_deeper(text: str, deep: bool = True) -> str:
        raise AssertionError("recorded")

    now: Tool[..., str] = look

    def work(run: Run, input: None) -> str:
        found = run.tool(now, "a")
        if run.attempt == 1:
            raise Crash
        return found

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    now = look_deeper
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "a"


# -- policies ----------------------------------------------------------------------------------------------------------


def test_only_the_errors_named_are_tried_again(engine: Engine, registry: Registry, calls: Calls) -> None:
    @tool(registry=registry, retries=3, retry_on=[ConnectionError], first_delay=timedelta(milliseconds=1))
    def look(kind: str) -> None:
        calls(kind)
        raise {"derived": ConnectionResetError, "other": PermissionError}[kind]

    def work(run: Run, input: None) -> None:
        for kind in ("other", "derived"):
            with pytest.raises(OSError):  # noqa: PT011 - which one is not what this test is about
                run.tool(look, kind)

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    assert calls.made == ["other"] + ["derived"] * 4
    assert [step.tries for step in engine.context(execution_id).steps] == [1, 4]


def test_an_async_tool_has_arguments_context_retries_and_a_type_in_a_plain_agent(
    engine: Engine, registry: Registry
) -> None:
    tries: list[int] = []

    @tool(registry=registry, retries=2, first_delay=timedelta(milliseconds=1))
    async def look(context: ToolContext, query: Query) -> Query:
        await asyncio.sleep(0)
        tries.append(context.tries)
        if context.tries < 3:
            raise OSError("down")
        return query

    def work(run: Run, input: None) -> str:
        query: Any = {"text": "ü"}
        found: Any = run.tool(look, query=query)
        assert isinstance(found, Query)
        return found.text

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "ü"
    assert tries == [1, 2, 3]


def test_what_no_model_and_no_approver_could_call_by_name_is_refused(registry: Registry) -> None:
    def positional(text: str, /) -> None: ...

    def any_number(*texts: str) -> None: ...

    def look(text: str) -> None: ...

    with pytest.raises(RegistrationError, match="'text'"):
        tool(registry=registry)(positional)
    with pytest.raises(RegistrationError, match="'texts'"):
        tool(registry=registry)(any_number)
    with pytest.raises(RegistrationError, match="on_crash function is called with the tool's arguments, by name"):
        tool(registry=registry, on_crash=lambda other: other)(look)
    with pytest.raises(RegistrationError, match="retry_on"):
        tool(registry=registry, retry_on=["OSError"])(look)  # type: ignore[list-item]
    with pytest.raises(RegistrationError, match="retry_on"):
        tool(registry=registry, retry_on=OSError)(look)  # type: ignore[call-overload]
    with pytest.raises(RegistrationError, match="retry_on"):
        Retry(retry_on=OSError)  # type: ignore[arg-type]
    assert registry.tools == ()
