"""What people get wrong when they write agents: each is refused where it is made, and the message names it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_statestore.errors import InvalidRecord
from agent_statestore.states import AgentState
from celery_agents import AsyncRun, ExecutionFailed, RegistrationError, Registry, Retry, Run, agent, loop_agent, tool
from celery_agents.testing import LocalAgents


def add(a: int, b: int = 2) -> int:
    return a + b


async def soon(value: int) -> int:
    return value


async def is_large(arguments: dict[str, Any]) -> bool:
    return bool(arguments)


def work(run: Run, value: Any) -> Any:
    return value


class Plain:
    """No JSON form."""


def takes_plain(a: Plain) -> None: ...


def failure_of(function: Callable[..., Any]) -> str:
    """The message of the error that an execution of such an agent fails with."""
    registry = Registry()
    agents = LocalAgents(registry=registry)
    execution = agents.start(agent(registry=registry)(function), 1)
    with pytest.raises(ExecutionFailed) as failed:
        execution.wait()
    return f"{failed.value.type}: {failed.value.message}"


# -- registering -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a#2", "n" * 191, 5, "a\0b", "\ud800"])
def test_agents_and_tools_are_not_named_what_no_step_can_be_named(name: Any) -> None:
    registry = Registry()
    with pytest.raises(RegistrationError, match="not a name for an agent or a tool"):
        tool(name=name, registry=registry)(add)
    with pytest.raises(RegistrationError, match="not a name for an agent or a tool"):
        agent(name=name, registry=registry)(work)
    with pytest.raises(RegistrationError, match="not a name for an agent or a tool"):
        loop_agent(name=name, registry=registry)(lambda _: None)
    assert not registry.agents
    assert not registry.tools


def test_the_longest_name_of_a_tool_can_be_called_approved_and_repeated() -> None:
    registry = Registry()
    agents = LocalAgents(registry=registry)
    longest = tool(name="é" * 190, requires_approval=True, registry=registry)(add)

    @agent(name="ü" * 190, registry=registry)
    def twice(run: Run, value: int) -> int:
        return run.tool(longest, value) + run.tool(longest, value)

    execution = agents.start(twice, 1)
    for _ in range(2):
        execution.run()
        assert execution.state is AgentState.WAITING_FOR_APPROVAL
        execution.approve()
    assert execution.wait() == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 5}, "timeout needs a positive duration, a timedelta, not 5"),
        ({"approval_timeout": timedelta(0)}, "approval_timeout needs a positive duration"),
        ({"retries": "3"}, "retries: needs a number of at least 0, not '3'"),
        ({"retry_on": OSError}, r"retry_on: needs a tuple of exception classes, such as \(OSError,\), not <class"),
        ({"first_delay": 5}, "first_delay: needs a duration, a timedelta, not 5"),
        ({"requires_approval": "yes"}, "requires_approval is True, False or a plain function, not 'yes'"),
        ({"requires_approval": is_large}, "requires_approval is True, False or a plain function"),
    ],
)
def test_options_of_tools_are_checked_where_they_are_given(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        tool(registry=Registry(), **options)(add)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": "5"}, "max_steps needs a number of at least 1, not '5'"),
        ({"max_steps": 2.5}, "max_steps needs a number of at least 1, not 2.5"),
        ({"max_cost": "5"}, "max_cost needs a positive number, not '5'"),
        ({"deadline": 5}, "deadline needs a positive duration, a timedelta, not 5"),
    ],
)
def test_options_of_agents_are_checked_where_they_are_given(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        agent(registry=Registry(), **options)(work)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": [add]}, "its tools are tools, agents, or names of them, not <function add"),
        ({"max_turns": "5"}, "max_turns needs a number of at least 1, not '5'"),
        ({"timeout": 5}, "timeout needs a positive duration, a timedelta, not 5"),
        ({"retry": 3}, r"retry needs a Retry, such as Retry\(retries=3\), not 3"),
    ],
)
def test_options_of_loop_agents_are_checked_where_they_are_given(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        loop_agent(registry=Registry(), **options)(lambda _: None)


@pytest.mark.parametrize("decorator", [tool, agent])
def test_a_name_is_not_given_to_a_decorator_by_position(decorator: Any) -> None:
    with pytest.raises(RegistrationError, match=r"takes options by name \(name=\.\.\.\), not 'search'"):
        decorator("search")


def test_a_parameter_without_a_json_form_is_named_with_its_tool() -> None:
    with pytest.raises(RegistrationError, match="takes_plain: the annotation of a parameter has no JSON form"):
        tool(registry=Registry())(takes_plain)
    with pytest.raises(RegistrationError, match="dict: its parameters are not known"):
        tool(registry=Registry())(dict)


def test_an_agent_takes_its_input_by_position() -> None:
    def by_name(run: Run, *, value: Any) -> Any: ...

    with pytest.raises(RegistrationError, match="a function of two parameters"):
        agent(registry=Registry())(by_name)


# -- inside an agent ---------------------------------------------------------------------------------------------------


def test_what_is_no_function_is_refused_with_the_name_of_the_step() -> None:
    def with_a_value(run: Run, value: int) -> Any:
        return run.step("count", 5)  # type: ignore[call-overload, arg-type]

    def with_a_coroutine(run: Run, value: int) -> Any:
        coroutine = soon(1)
        try:
            return run.step("count", coroutine)  # type: ignore[call-overload, arg-type]
        finally:
            coroutine.close()

    def beside_others(run: Run, value: int) -> Any:
        return run.parallel({"one": lambda: 1, "count": 5})  # type: ignore[dict-item]

    for function in (with_a_value, beside_others):
        assert "step 'count' needs a function and, behind it, its arguments, not 5" in failure_of(function)
    assert "give the function, without calling it" in failure_of(with_a_coroutine)


def test_what_is_no_tool_is_refused_as_such() -> None:
    def by_name(run: Run, value: int) -> Any:
        return run.tool("add", a=1)  # type: ignore[arg-type]

    async def plain_function(run: AsyncRun, value: int) -> Any:
        return await run.tool(add, a=1)  # type: ignore[arg-type]

    assert "needs a tool, which is a function with @tool, not 'add'" in failure_of(by_name)
    assert "needs a tool, which is a function with @tool, not <function add" in failure_of(plain_function)


def test_options_of_a_step_are_checked_before_it_runs() -> None:
    def retrying(run: Run, value: int) -> Any:
        return run.options(retry=3).step("one", lambda: 1)  # type: ignore[arg-type]

    def hurrying(run: Run, value: int) -> Any:
        return run.options(timeout=3).step("one", lambda: 1)  # type: ignore[arg-type]

    assert "retry needs a Retry, such as Retry(retries=3), not 3" in failure_of(retrying)
    assert "timeout needs a positive duration, a timedelta, not 3" in failure_of(hurrying)


@pytest.mark.parametrize("choices", ["yes", []])
def test_choices_are_a_list_of_answers(choices: Any) -> None:
    def asking(run: Run, value: int) -> Any:
        return run.ask("Sure?", choices=choices)

    assert f"choices needs a list of the answers allowed, not {choices!r}" in failure_of(asking)


def test_a_result_that_is_not_of_its_annotated_type_is_said_to_be_so_in_a_sentence() -> None:
    def returning_text(run: Run, value: int) -> int:
        return "x"  # type: ignore[return-value]

    assert failure_of(returning_text).endswith("its annotation expects `int` [input_value='x', input_type=str]")


def test_a_coroutine_that_is_returned_is_named_as_such() -> None:
    coroutines = []

    def returning(run: Run, value: int) -> Any:
        coroutines.append(soon(1))
        return coroutines[0]

    assert failure_of(returning).endswith("it is a coroutine; was it to be awaited?")
    coroutines[0].close()


# -- what is not awaited -----------------------------------------------------------------------------------------------


def test_an_async_agent_does_not_complete_without_what_it_never_awaited() -> None:
    done = []

    async def forgetful(run: AsyncRun, value: int) -> str:
        run.step("pay", done.append, 1)  # type: ignore[unused-coroutine]
        return "paid"

    async def sleepless(run: AsyncRun, value: int) -> str:
        await run.step("first", add, 1)
        run.sleep(5)  # type: ignore[unused-coroutine]
        return "slept"

    assert "run.step(...) was called and never awaited, so it was not done" in failure_of(forgetful)
    assert "run.sleep(...) was called and never awaited" in failure_of(sleepless)
    assert not done


def test_what_was_awaited_by_a_task_or_cancelled_before_it_began_is_not_missed() -> None:
    registry = Registry()
    agents = LocalAgents(registry=registry)

    @agent(registry=registry)
    async def with_tasks(run: AsyncRun, value: int) -> list[int]:
        task = asyncio.create_task(run.step("never", add, 1))
        task.cancel()
        return list(await asyncio.gather(run.step("a", add, 1), run.step("b", add, 2), return_exceptions=True))

    execution = agents.start(with_tasks, 1)
    assert execution.wait() == [3, 4]
    assert {step.name for step in execution.steps()} == {"a", "b"}


# -- names of steps ----------------------------------------------------------------------------------------------------

NOT_NAMES = {
    "too long": "s" * 201,
    "empty": "",
    "an occurrence": "a#2",
    "NUL": "a\0b",
    "a lone surrogate": "\ud800",
    "a number": 5,
    "nothing": None,
}

BY_NAME: dict[str, Callable[[Run, Any], Any]] = {
    "step": lambda run, name: run.step(name, add, 1),
    "transaction": lambda run, name: run.transaction(name, add, 1),
    "parallel": lambda run, name: run.parallel({name: lambda: 1}),
    "ask": lambda run, name: run.ask("what?", name=name),
    "sleep": lambda run, name: run.sleep(3600, name=name),
    "sleep_until": lambda run, name: run.sleep_until(datetime(2027, 1, 1, tzinfo=UTC), name=name),
    "spawn": lambda run, name: run.spawn("child", 1, name=name),
}


@pytest.mark.parametrize("how", BY_NAME)
@pytest.mark.parametrize("name", NOT_NAMES.values(), ids=NOT_NAMES)
def test_what_is_no_name_of_a_step_is_refused_where_it_is_given(name: Any, how: str) -> None:
    refusals: list[InvalidRecord] = []

    def naming(run: Run, value: int) -> Any:
        with pytest.raises(InvalidRecord) as refusal:
            BY_NAME[how](run, name)
        refusals.append(refusal.value)
        return run.step("goes on", add, 1)

    registry = Registry()
    execution = LocalAgents(registry=registry).start(agent(registry=registry)(naming), 1)
    assert execution.wait() == 3
    (refusal,) = refusals
    assert refusal.field.startswith(f"step {ascii(name)[:77]}")
    assert refusal.reason.startswith("not a name for a step: ")
    assert [step.name for step in execution.steps()] == ["goes on"]


@pytest.mark.parametrize("name", ["s" * 200, "é\u00a0\u2028" * 66, "a\nb\t\x1b[31m", "\N{SLIGHTLY SMILING FACE}" * 200])
def test_a_name_of_any_other_characters_serves_for_all_that_is_named_after_it(name: str) -> None:
    registry = Registry()
    agents = LocalAgents(registry=registry)
    escalated: list[Any] = []

    @agent(registry=registry)
    def child(run: Run, value: int) -> int:
        return value

    @agent(registry=registry)
    def naming(run: Run, value: int) -> list[Any]:
        children = [run.spawn(child, number, name=name) for number in range(12)]
        answers = [
            run.ask("what?", name="?" + name[1:], timeout=timedelta(hours=1), default=number, escalate=escalated.append)
            for number in range(2)
        ]
        return [*run.gather(*children), *answers]

    execution = agents.start(naming, 1).run()
    agents.advance(timedelta(hours=8))
    assert execution.wait() == [*range(12), 0, 1]
    assert escalated == ["what?", "what?"]


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paid#2", "e" * 191, "", 5, "a\0b"])
def test_an_event_that_nobody_can_wait_for_is_refused_by_its_name_on_both_sides(name: Any) -> None:
    def waiting(run: Run, value: int) -> Any:
        return run.wait_for(name)

    assert f"event {ascii(name)[:70]}" in failure_of(waiting)
    assert "not a name for an event" in failure_of(waiting)
    registry = Registry()
    agents = LocalAgents(registry=registry)
    execution = agents.start(agent(registry=registry)(work), 1)
    with pytest.raises(InvalidRecord, match="not a name for an event"):
        execution.send_event(name, 1)


def test_an_event_of_the_longest_name_arrives() -> None:
    registry = Registry()
    agents = LocalAgents(registry=registry)

    @agent(registry=registry)
    def waiting(run: Run, value: int) -> list[int]:
        return [run.wait_for("é" * 190) for _ in range(2)]

    execution = agents.start(waiting, 1)
    execution.send_event("é" * 190, 1)
    execution.send_event("é" * 190, 2)
    assert execution.wait() == [1, 2]


# -- arguments by any name ---------------------------------------------------------------------------------------------


def test_arguments_of_any_name_are_shown_to_be_approved_as_they_are_to_be_given() -> None:
    registry = Registry()
    agents = LocalAgents(registry=registry)
    asked: list[dict[str, Any]] = []

    def look(arguments: dict[str, Any]) -> bool:
        asked.append(arguments)
        return True

    @tool(requires_approval=look, registry=registry)
    def paint(room: str, **colours: int) -> str:
        return f"{room} {colours}"

    @agent(registry=registry)
    def painting(run: Run, value: int) -> str:
        return run.tool(paint, "hall", rot=1)

    execution = agents.start(painting, 1).run()
    waiting = execution.approval
    assert waiting is not None
    assert waiting.prompt["arguments"] == {"room": "hall", "rot": 1} == asked[0]
    execution.approve(arguments={**waiting.prompt["arguments"], "grün": 2})
    assert execution.wait() == "hall {'rot': 1, 'grün': 2}"
    assert execution.steps()[1].action.input == {"room": "hall", "rot": 1, "grün": 2}


def test_what_is_no_function_replaces_none() -> None:
    with pytest.raises(TypeError, match="replace needs a function"):
        LocalAgents(registry=Registry()).replace("search", ["a page"])  # type: ignore[arg-type]


def test_a_retry_is_made_of_a_number_and_durations() -> None:
    with pytest.raises(RegistrationError, match="max_delay: needs a duration, a timedelta, not 5"):
        Retry(retries=1, max_delay=5)  # type: ignore[arg-type]


def test_a_moment_that_is_no_datetime_is_refused_by_name() -> None:
    registry = Registry()
    agents = LocalAgents(registry=registry)
    known = agent(registry=registry)(work)
    with pytest.raises(InvalidRecord, match="start_at: needs a datetime, not 'tomorrow'"):
        agents.start(known, 1, start_at="tomorrow")  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord, match="deadline: needs a datetime or a timedelta, not 5"):
        agents.start(known, 1, deadline=5)  # type: ignore[arg-type]
