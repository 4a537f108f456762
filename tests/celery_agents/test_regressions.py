"""What an attack on the engine found, one test each."""

import asyncio
import pickle
import sys
import types
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, InvalidRecord, ValueTooLarge
from celery_agents import RegistrationError, Run, StepFailed, tool
from celery_agents.engine.outcome import Ending
from celery_agents.host.announcing import tellable
from tests.celery_agents.driving import Calls, Crash, Engine


@pytest.mark.parametrize("key", ["https://example.org/" + "p" * 300, "", "a\x00b", "\ud800", 7])
def test_a_memory_key_that_no_store_keeps_is_refused_where_it_is_written(
    engine: Engine, calls: Calls, key: Any
) -> None:
    def work(run: Run, input: None) -> str:
        with pytest.raises(InvalidRecord, match="memory key"):
            run.memory[key] = 1
        return run.step("pay", lambda: calls("paid"))

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "paid"
    assert calls.made == ["paid"]


@pytest.mark.parametrize(("role", "content"), [("user", "x" * 1990), ("u\ud800", "x"), ("", "x")])
def test_a_message_that_does_not_fit_with_its_frame_is_refused_where_it_is_said(
    engine: Engine, role: str, content: str
) -> None:
    engine.store.max_value_bytes = 2000

    def work(run: Run, input: None) -> str:
        with pytest.raises(InvalidRecord):
            run.say(role, content)
        return run.step("one", lambda: "went on")

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "went on"


@pytest.mark.parametrize("argument", [float("nan"), "x" * 3000])
def test_a_tool_whose_arguments_cannot_be_recorded_is_not_called(engine: Engine, calls: Calls, argument: Any) -> None:
    engine.store.max_value_bytes = 2000

    @tool(registry=engine.registry)
    def charge(amount: Any) -> None:
        calls(amount)

    def work(run: Run, input: None) -> str:
        with pytest.raises(InvalidRecord, match="arguments of tool 'charge'"):
            run.tool(charge, argument)
        return "not charged"

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "not charged"
    assert calls.made == []


@pytest.mark.parametrize("value", [float("nan"), "x" * 3000])
def test_a_step_whose_record_fails_leaves_nothing_behind_on_any_attempt(engine: Engine, value: Any) -> None:
    engine.store.max_value_bytes = 2000
    seen: list[Any] = []

    def work(run: Run, input: None) -> None:
        def odd() -> Any:
            run.memory["from the failed step"] = 1
            run.say("assistant", "from the failed step")
            run.remember("from the failed step")
            return value

        with pytest.raises(InvalidRecord):
            run.step("odd", odd)
        run.say("assistant", "after")
        run.step("next", lambda: 1)
        seen.append((dict(run.memory), [message.content for message in run.messages], list(run.memory.facts)))
        if len(seen) == 1:
            raise Crash
        run.say("assistant", "end")

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.execute(execution_id)

    assert seen == [({}, ["after"], [])] * 2
    memory = engine.context(execution_id).memory
    assert [message.content for message in memory.conversation_history] == ["after", "end"]
    assert (memory.working_memory, memory.facts) == ({}, ())


def test_a_failure_is_caught_alike_by_a_process_that_has_not_got_its_class(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("lazy_library")

    class ConnectionLost(OSError):
        __module__ = "lazy_library"
        __qualname__ = "ConnectionLost"

    module.ConnectionLost = ConnectionLost  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lazy_library", module)
    caught: list[Exception] = []

    def fail() -> None:
        raise ConnectionLost("no route")

    def work(run: Run, input: None) -> str:
        try:
            run.step("call", fail)
        except OSError as error:
            caught.append(error)
        if len(caught) == 1:
            raise Crash
        return "fell back"

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    monkeypatch.delitem(sys.modules, "lazy_library")
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "fell back"
    told = tellable(execution_id, caught[1])
    assert str(pickle.loads(pickle.dumps(told))) == str(caught[1])
    assert isinstance(caught[0], ConnectionLost)
    assert isinstance(caught[1], StepFailed)
    assert "no route" in str(caught[1])


def test_facts_from_outside_do_not_displace_the_runs_own(engine: Engine) -> None:
    def work(run: Run, input: None) -> list[Any]:
        run.remember("mine-1")
        run.step("one", lambda: 1)
        run.ask("?")
        run.remember("mine-2")
        run.step("two", lambda: 2)
        return list(run.memory.facts)

    execution_id = engine.start(engine.agent(work))
    engine.store.add_fact(execution_id, "before")
    engine.execute(execution_id)
    engine.store.add_fact(execution_id, "meanwhile")
    engine.answer(execution_id, 1)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["mine-1", "mine-2"]
    assert engine.context(execution_id).memory.facts == ("before", "mine-1", "meanwhile", "mine-2")


@pytest.mark.parametrize("error", [asyncio.CancelledError("gone"), GeneratorExit("gone")])
@pytest.mark.parametrize("inside_step", [True, False])
def test_odd_exceptions_of_the_agents_code_are_failures(
    engine: Engine, error: BaseException, inside_step: bool
) -> None:
    def fail() -> None:
        raise error

    def work(run: Run, input: None) -> None:
        if inside_step:
            run.step("fail", fail)
        fail()

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.ending is Ending.FAILED
    assert type(error).__name__ in str(outcome.error)
    assert engine.context(execution_id).state is AgentState.FAILED


def test_a_time_limit_ends_the_attempt_and_is_not_the_steps_failure(engine: Engine, calls: Calls) -> None:
    class TimeLimit(Exception):
        pass

    engine.interrupts = (TimeLimit,)

    def slow() -> str:
        calls("slow")
        if len(calls.made) == 1:
            raise TimeLimit
        return "done"

    def work(run: Run, input: None) -> str:
        return run.step("slow", slow)

    execution_id = engine.start(engine.agent(work))
    with pytest.raises(TimeLimit):
        engine.execute(execution_id)
    context = engine.context(execution_id)
    assert (context.step_count, context.owner, context.crashes) == (0, None, 1)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "done"


def test_a_default_need_not_be_a_valid_answer(engine: Engine) -> None:
    answers: list[Any] = []

    def work(run: Run, input: None) -> None:
        answers.append(run.ask("Sure?", schema=bool, timeout=timedelta(days=1), default=None))
        if len(answers) == 1:
            raise Crash

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.clock.advance(timedelta(days=1, seconds=1))
    engine.crash(execution_id)
    engine.execute(execution_id)

    assert answers == [None, None]
    assert engine.context(execution_id).state is AgentState.COMPLETED


def test_a_parameter_that_a_tool_gained_between_deploys_is_no_contradiction(engine: Engine, calls: Calls) -> None:
    def first(query: str) -> str:
        return calls(query)

    def second(query: str, limit: int = 10) -> str:
        return calls(query)

    searching: Any = None

    def work(run: Run, input: None) -> str:
        found = run.tool(searching, "otters")
        if run.attempt == 1:
            raise Crash
        return found

    for function in (first, second):
        function.__qualname__ = function.__name__ = "search"
    execution_id = engine.start(engine.agent(work))
    searching = tool(registry=engine.registry)(first)
    engine.crash(execution_id)
    searching = tool(registry=engine.registry)(second)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "otters"
    assert calls.made == ["otters"]


def test_a_generator_is_no_agent(engine: Engine) -> None:
    def work(run: Run, input: None) -> Any:
        yield 1

    with pytest.raises(RegistrationError, match="generator"):
        engine.agent(work)


def test_an_unrecordable_prompt_is_refused_where_it_is_asked(engine: Engine) -> None:
    engine.store.max_value_bytes = 2000

    def work(run: Run, input: None) -> str:
        with pytest.raises(ValueTooLarge, match="prompt"):
            run.ask("x" * 3000)
        return "asked nobody"

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "asked nobody"
