"""What an agent writes beside its steps is stored once, and looks the same on every attempt."""

from typing import Any

import pytest

from agent_statestore import NotSerialisable, ValueTooLarge
from celery_agents import Run
from tests.celery_agents.driving import Crash, Engine


def test_an_agent_sees_the_same_memory_at_every_point_of_every_attempt(engine: Engine) -> None:
    seen: list[list[Any]] = []

    def look(run: Run) -> Any:
        run.memory["inside"] = run.memory.get("inside", 0) + 1
        run.say("tool", "looked")
        run.remember("a fact from inside")
        return "looked"

    def work(run: Run, input: None) -> None:
        views: list[Any] = []
        seen.append(views)

        def view() -> None:
            views.append((dict(run.memory), [message.content for message in run.messages], list(run.memory.facts)))

        view()
        run.memory["count"] = run.memory.get("count", 0) + 1
        run.say("assistant", "one")
        view()
        run.step("look", look, run)
        view()
        run.memory["count"] += 1
        del run.memory["inside"]
        run.remember("a fact")
        run.say("assistant", "two")
        view()
        if run.attempt < 3:
            raise Crash
        run.step("last", lambda: 1)

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    engine.crash(execution_id)
    engine.execute(execution_id)

    assert seen[0] == seen[1] == seen[2]
    memory = engine.context(execution_id).memory
    assert memory.working_memory == {"count": 2}
    assert [message.content for message in memory.conversation_history] == ["one", "looked", "two"]
    assert memory.facts == ("a fact from inside", "a fact")


def test_a_failed_step_leaves_memory_as_it_was(engine: Engine) -> None:
    def work(run: Run, input: None) -> Any:
        run.memory["recorded"] = 1
        run.step("one", lambda: 1)
        run.memory["pending"] = 2

        def fail() -> None:
            run.memory["recorded"] = "overwritten"
            run.memory["recorded"] = "twice"
            del run.memory["pending"]
            run.memory["new"] = 3
            del run.memory["new"]
            run.say("assistant", "from a failed step")
            raise LookupError

        with pytest.raises(LookupError):
            run.step("fail", fail)
        return dict(run.memory)

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == {"recorded": 1, "pending": 2}
    memory = engine.context(execution_id).memory
    assert memory.working_memory == {"recorded": 1, "pending": 2}
    assert memory.conversation_history == ()


def test_changes_without_a_later_step_travel_with_the_end(engine: Engine) -> None:
    def work(run: Run, input: None) -> None:
        run.memory["x"] = {"deep": [1, 2]}
        run.say("assistant", "bye")

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    memory = engine.context(execution_id).memory
    assert memory.working_memory == {"x": {"deep": [1, 2]}}
    assert [message.content for message in memory.conversation_history] == ["bye"]


def test_reading_memory_gives_a_copy(engine: Engine) -> None:
    def work(run: Run, input: None) -> Any:
        run.memory["list"] = [1]
        run.memory["list"].append(2)
        return run.memory["list"]

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == [1]


@pytest.mark.parametrize(("value", "error"), [(object(), NotSerialisable), ("x" * 3000, ValueTooLarge)])
def test_a_bad_value_is_refused_where_it_is_written(engine: Engine, value: Any, error: type[Exception]) -> None:
    engine.store.max_value_bytes = 2000
    raised: list[str] = []

    def work(run: Run, input: None) -> str:
        for write in (
            lambda: run.memory.__setitem__("key", value),
            lambda: run.say("user", value),
            lambda: run.remember(value),
        ):
            with pytest.raises(error) as caught:
                write()
            raised.append(str(caught.value))
        return "still alive"

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "still alive"
    assert "key" in raised[0]


def test_messages_of_others_are_kept_and_not_taken_for_the_runs_own(engine: Engine) -> None:
    def work(run: Run, input: None) -> Any:
        run.say("assistant", "question")
        run.ask("?")
        run.say("assistant", "thanks")
        return [message.content for message in run.messages]

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    engine.store.add_message(execution_id, "user", "by the way")
    engine.answer(execution_id, 1)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == ["question", "thanks"]
    history = engine.context(execution_id).memory.conversation_history
    assert [message.content for message in history] == ["question", "by the way", "thanks"]
