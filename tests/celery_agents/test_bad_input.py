"""Bad input: refused where it is given, by an error that names what is wrong, and with nothing half-written left.

What models and people send to loops, approvals and HTTP handlers is tested beside those; inputs at `enqueue` in
`test_client.py`.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic
import pytest

from agent_statestore import AgentState, InvalidRecord, QuestionNotAsked, SignalKind
from agent_statestore.errors import ExecutionOver
from celery_agents import Agent, AsyncRun, Retry, Run, agent, enqueue, tool
from celery_agents.errors import (
    AgentsError,
    ChildFailed,
    InvalidAnswer,
    InvalidArguments,
    InvalidResult,
    UnknownAgent,
)
from celery_agents.host.runtime import Runtime
from tests.celery_agents.driving import Calls, Engine
from tests.celery_agents.household import Household

IMPATIENT = Retry(retries=3, first_delay=timedelta(milliseconds=1))
NAMES = ["Ärger", "世界", "🦆" * 20, "صباح", "e\u0301", "a b\tc", "%s {x} $1 ; --", "x" * 180]
VALUES = ["Grüße 🦆", "\x00\x1f", "e\u0301", {"ключ": ["значение", None, 1.5e300, -0.0]}, 2**70, "\u2028", [[]] * 50]


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


# -- tools -------------------------------------------------------------------------------------------------------------


class Order(pydantic.BaseModel):
    item: str
    count: pydantic.PositiveInt = 1


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "order"),
        (({"item": "duck", "count": 0},), {}, "order.count|count"),
        (({"item": "duck", "count": "many"},), {}, "count"),
        (({"count": 1},), {}, "item"),
        (({"item": "duck"},), {"day": "someday"}, "day"),
        (({"item": "duck"},), {"whom": "me"}, "whom"),
        (({"item": "duck"}, "2026-01-01", "too many"), {}, "many"),
        (({"item": object()},), {}, "JSON"),
        (({"item": "duck", "count": math.nan},), {}, "count|JSON"),
        ((endless(),), {}, "JSON|[Cc]irc|recurs"),
    ],
)
def test_wrong_arguments_of_a_tool_are_an_error_that_names_them_and_the_tool_is_not_called(
    engine: Engine, calls: Calls, args: tuple[Any, ...], kwargs: dict[str, Any], named: str
) -> None:
    @tool(registry=engine.registry, retries=3, first_delay=timedelta(milliseconds=1))
    def buy(order: Order, day: datetime | None = None) -> str:
        """Buys."""
        calls("bought")
        return "ok"

    seen: list[str] = []

    def work(run: Run, input: None) -> str:
        with pytest.raises((InvalidArguments, InvalidRecord), match=named) as raised:
            run.tool(buy, *args, **kwargs)
        seen.append(f"{type(raised.value).__name__} {raised.value}")
        run.ask("go on?")
        return run.tool(buy, Order(item="duck"))

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert calls.made == []
    engine.answer(execution_id, "yes")
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "ok", outcome.error
    assert calls.made == ["bought"]
    assert len(set(seen)) == 1
    assert len(seen) == 2


@pytest.mark.parametrize(
    "value",
    [
        object(),
        math.nan,
        -math.inf,
        b"\xff\xfe",
        "\ud800",
        {"a": {"b": [{1, 2, object()}]}},
        endless(),
        nested(100_000),
        lambda: 1,
        (number for number in iter(object, 1)),
    ],
    ids=["object", "nan", "inf", "bytes", "surrogate", "inside", "cycle", "deep", "function", "generator"],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_result_that_is_no_json_fails_its_step_once_and_the_agent_may_go_on(
    engine: Engine, calls: Calls, value: Any, is_async: bool
) -> None:
    def make() -> Any:
        calls("made")
        return value

    def work(run: Run, input: None) -> str:
        with pytest.raises((InvalidResult, InvalidRecord)):
            run.options(retry=IMPATIENT).step("make", make)
        return run.step("after", lambda: "went on")

    async def works(run: AsyncRun, input: None) -> Any:
        with pytest.raises((InvalidResult, InvalidRecord)):
            await run.options(retry=IMPATIENT).step("make", make)
        return await run.step("after", lambda: "went on")

    execution_id = engine.start(engine.agent(works if is_async else work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "went on", outcome.error
    assert calls.made == ["made"]
    assert [step.name for step in engine.context(execution_id).steps] == ["make", "after"]


@pytest.mark.parametrize("value", [object(), math.nan, "\ud800", endless(), nested(100_000)])
def test_an_output_that_is_no_json_fails_the_execution_and_not_the_worker(engine: Engine, value: Any) -> None:
    def work(run: Run, input: None) -> Any:
        return value

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    context = engine.context(execution_id)
    assert context.state is AgentState.FAILED
    assert context.error is not None
    assert "InvalidResult" in context.error.type
    assert context.attempt == 1


# -- answers and events ------------------------------------------------------------------------------------------------


def test_an_answer_that_fails_its_schema_is_refused_by_field_and_the_question_stands(runtime: Runtime) -> None:
    @agent(registry=runtime.registry)
    def asking(run: Run, input: None) -> str:
        order = run.ask("What?", schema=Order)
        return f"{order.count} {order.item}"

    execution = enqueue(asking, runtime=runtime)
    runtime.executor.execute(execution.id, "host/1/0")
    before = execution.context()
    for answer, named in (({"count": 2}, "item"), ({"item": "duck", "count": 0}, "count"), ("duck", "object")):
        with pytest.raises(InvalidAnswer, match=named):
            execution.resume(answer)
    with pytest.raises(InvalidRecord):
        execution.resume({"item": "\ud800"})
    with pytest.raises(QuestionNotAsked):
        execution.resume({"item": "duck"}, key="another")
    assert execution.context() == before
    execution.resume({"item": "Ente 🦆", "count": 2})
    runtime.executor.execute(execution.id, "host/1/0")

    assert execution.context().output == "2 Ente 🦆"


def test_an_event_that_nobody_waits_for_is_kept_until_the_end_and_refused_after_it() -> None:
    home = Household()

    def work(run: Run, input: None) -> Any:
        return run.ask("?")

    execution_id = home.start(home.agent(work))
    home.event(execution_id, "nobody waits for this", 1)
    home.work()
    home.event(execution_id, "nor for this", 2)
    home.work()
    context = home.context(execution_id)
    assert context.state is AgentState.WAITING_FOR_INPUT
    assert [signal.payload for signal in context.signals] == [1, 2]
    home.answer(execution_id, "done")
    home.work()

    assert home.context(execution_id).output == "done"
    with pytest.raises(ExecutionOver):
        home.event(execution_id, "nor for this", 3)


# -- agents that start agents ------------------------------------------------------------------------------------------


def test_two_agents_that_start_each_other_end_and_every_one_of_them_says_why() -> None:
    home = Household()

    def ping(run: Run, input: int) -> Any:
        return run.gather(run.spawn("pong", input + 1))

    def pong(run: Run, input: int) -> Any:
        return run.gather(run.spawn("ping", input + 1))

    first, second = home.agent(ping), home.agent(pong)
    home.start(first, 0)
    home.work()

    family = [*home.all(first), *home.all(second)]
    assert len(family) == home.limits.max_depth
    for one in family:
        assert one.state is AgentState.FAILED
        assert one.error is not None
        assert "generations" in one.error.message


def test_an_unknown_agent_is_refused_with_those_there_are() -> None:
    home = Household()

    def parent(run: Run, input: None) -> str:
        with pytest.raises(UnknownAgent, match=r"'nobody'; registered agents: parent"):
            run.spawn("nobody", 1)
        return "went on"

    execution_id = home.start(home.agent(parent))
    home.work()

    assert home.context(execution_id).output == "went on"
    assert home.store.find().items[1:] == ()


def test_a_child_whose_agent_no_worker_knows_waits_for_one_that_does() -> None:
    home = Household()

    def parent(run: Run, input: None) -> list[Any]:
        return run.gather(run.spawn(newer))

    def child(run: Run, input: None) -> str:
        return "from the newer worker"

    newer = Agent(child, name="newer")
    execution_id = home.start(home.agent(parent))
    home.work(within=timedelta(minutes=1))
    assert home.context(execution_id).state is AgentState.WAITING
    home.registry.add_agent(newer)
    home.work(within=timedelta(minutes=1))

    assert home.context(execution_id).output == ["from the newer worker"]


def test_an_input_that_a_childs_newer_schema_refuses_fails_the_child_by_field() -> None:
    home, ids = Household(), []

    def child(run: Run, input: Order) -> str:
        return input.item

    def parent(run: Run, input: None) -> str:
        try:
            run.gather(ids[0] if ids else run.spawn("child", {"item": "duck"}))
        except ChildFailed as error:
            return str(error)
        return "done"

    home.agent(child)
    execution_id = home.start(home.agent(parent))
    home.execute(execution_id)
    # A deploy between the spawn and the start of the child.
    Newer = pydantic.create_model("Newer", item=(str, ...), size=(int, ...))  # noqa: N806 - a class
    child.__annotations__["input"] = Newer
    home.agent(child)
    home.work()

    assert "size: Field required" in home.context(execution_id).output


# -- names and values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a#2", "x" * 201, "nul\x00", "\ud800", None, 7, ["x"]])
@pytest.mark.parametrize(
    "use",
    [
        lambda run, name: run.step(name, lambda: 1),
        lambda run, name: run.ask("?", name=name),
        lambda run, name: run.sleep(1, name=name),
        lambda run, name: run.spawn("work", name=name),
        lambda run, name: run.transaction(name, print),
    ],
    ids=["step", "ask", "sleep", "spawn", "transaction"],
)
def test_a_name_that_no_journal_keeps_is_refused_and_nothing_is_written(
    engine: Engine, name: Any, use: Callable[[Run, Any], Any]
) -> None:
    def work(run: Run, input: None) -> str:
        with pytest.raises(InvalidRecord):
            use(run, name)
        return run.step("after", lambda: "went on")

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "went on", outcome.error
    assert len(engine.context(execution_id).steps) == 1


@pytest.mark.parametrize("name", ["a#2", "x" * 201, "nul\x00", "\ud800", None, 7])
def test_an_event_of_a_name_that_no_journal_keeps_is_refused(engine: Engine, name: Any) -> None:
    def work(run: Run, input: None) -> str:
        with pytest.raises((AgentsError, InvalidRecord)):
            run.wait_for(name)
        return run.step("after", lambda: "went on")

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "went on", outcome.error


@pytest.mark.parametrize("name", NAMES)
def test_any_text_may_be_a_name_of_everything(name: str) -> None:
    home = Household()

    def child(run: Run, input: str) -> str:
        return input

    def work(run: Run, input: None) -> list[Any]:
        @tool(name=name, registry=home.registry)
        def use() -> str:
            """Used."""
            return "tool"

        run.memory[name] = name
        got = [run.step(name, lambda: "step"), run.tool(use), run.ask("?", name=f"ask {name}")]
        got.append(run.wait_for(name))
        run.sleep(timedelta(hours=1), name=f"sleep {name}")
        return [*got, *run.gather(run.spawn(f"child {name}", name, name=f"spawn {name}"))]

    home.agent(child, name=f"child {name}")
    execution_id = home.start(home.agent(work, name=name), session_id=name, user_id=name)
    home.work()
    home.answer(execution_id, "answer", f"ask {name}")
    home.event(execution_id, name, "event")
    home.work(within=timedelta(hours=2))

    context = home.context(execution_id)
    assert context.output == ["step", "tool", "answer", "event", name], context.error
    assert context.memory.working_memory == {name: name}


@pytest.mark.parametrize("value", VALUES)
def test_any_json_goes_everywhere_and_comes_back(value: Any) -> None:
    home = Household()

    def child(run: Run, input: Any) -> Any:
        return input

    def work(run: Run, input: Any) -> list[Any]:
        run.memory["value"] = input
        run.say("user", input)
        run.remember(input)
        got = [input, run.step("step", lambda: input), run.ask(input), run.wait_for("event")]
        return [*got, *run.gather(run.spawn("child", input)), run.memory["value"]]

    home.agent(child)
    execution_id = home.start(home.agent(work), value)
    home.work()
    home.answer(execution_id, value)
    home.event(execution_id, "event", value)
    home.work()

    context = home.context(execution_id)
    assert context.output == [value] * 6, context.error
    assert context.memory.facts == (value,)
    assert context.memory.conversation_history[0].content == value


@pytest.mark.parametrize("value", [math.nan, "\ud800", endless(), nested(100_000), object()])
def test_what_is_no_json_is_refused_wherever_it_is_given(value: Any) -> None:
    home = Household()

    def work(run: Run, input: None) -> str:
        for use in (
            lambda: run.ask(value),
            lambda: run.ask("?", choices=[value]),
            lambda: run.ask("?", default=value),
            lambda: run.say("user", value),
            lambda: run.remember(value),
            lambda: run.memory.update(key=value),
            lambda: run.spawn("work", value),
            lambda: run.spawn("work", metadata={"x": value}),
        ):
            with pytest.raises((AgentsError, InvalidRecord)):
                use()
        return "went on"

    execution_id = home.start(home.agent(work))
    home.work()
    with pytest.raises(InvalidRecord):
        home.send(execution_id, SignalKind.EVENT, "event", value)

    context = home.context(execution_id)
    assert context.output == "went on", context.error
    assert (context.memory.conversation_history, context.memory.facts, context.memory.working_memory) == ((), (), {})
    assert len(home.store.find().items) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"deadline": timedelta(0)}, "deadline"),
        ({"deadline": timedelta(days=-1)}, "deadline"),
        ({"deadline": timedelta.max}, "deadline"),
        ({"deadline": datetime(2026, 1, 1)}, "deadline"),  # noqa: DTZ001 - the fault
        ({"start_at": datetime(2026, 1, 1)}, "start_at"),  # noqa: DTZ001 - the fault
        ({"start_at": datetime(9999, 1, 1, tzinfo=UTC)}, "start_at"),
        ({"metadata": {"agents.deadline": "never"}}, r"agents\.deadline"),
        ({"metadata": ["x"]}, "metadata"),
        ({"metadata": {"x": object()}}, "metadata"),
        ({"priority": "high"}, "priority"),
        ({"session_id": ""}, "session_id"),
    ],
)
def test_a_bad_option_of_a_start_is_refused_by_name_and_nothing_is_stored(
    runtime: Runtime, options: dict[str, Any], named: str
) -> None:
    @agent(registry=runtime.registry)
    def idle(run: Run, input: None) -> None:
        return None

    with pytest.raises(InvalidRecord, match=named):
        enqueue(idle, runtime=runtime, **options)

    assert runtime.store.find().items == ()
