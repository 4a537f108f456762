"""`Execution.delete`: whoever waits for an execution goes on when it is deleted."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, ExecutionNotFound
from agent_statestore.errors import FormatTooNew
from celery_agents import Agent, ChildFailed, Registry, Run, agent
from celery_agents.testing import LocalAgents


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def asking(registry: Registry) -> Agent:
    @agent(registry=registry)
    def asking(run: Run, input: Any) -> Any:
        return run.ask("what?")

    return asking


@pytest.fixture
def parent(registry: Registry, asking: Agent) -> Agent:
    @agent(registry=registry)
    def parent(run: Run, input: int) -> list[Any]:
        children = [run.spawn(asking) for _ in range(input)]
        ends = run.gather(*children, return_exceptions=True)
        return [one.type if isinstance(one, ChildFailed) else one for one in ends]

    return parent


@pytest.fixture
def agents(registry: Registry) -> LocalAgents:
    return LocalAgents(registry=registry)


def test_a_parent_goes_on_when_the_child_that_it_waits_for_is_deleted(agents: LocalAgents, parent: Agent) -> None:
    execution = agents.start(parent, 1).run()
    (child,) = execution.children

    assert child.delete(sender="ada", reason="asked for by the customer") is True

    assert execution.wait() == ["gone"]
    (*_, deleted) = agents.store.get_audit(child.id)
    assert (deleted.event, deleted.by, deleted.reason) == ("deleted", "ada", "asked for by the customer")
    with pytest.raises(ExecutionNotFound):
        child.summary()


def test_a_parent_that_waits_for_another_child_learns_of_it_later(agents: LocalAgents, parent: Agent) -> None:
    execution = agents.start(parent, 2).run()
    first, second = execution.children
    second.delete()
    agents.run()
    assert execution.state is AgentState.WAITING

    first.resume(1)

    assert execution.wait() == [1, "gone"]


def test_an_end_that_nobody_told_of_is_told_before_the_deletion(agents: LocalAgents, parent: Agent) -> None:
    execution = agents.start(parent, 1).run()
    (child,) = execution.children
    agents.store.update_state(child.id, AgentState.CANCELLED)  # by a worker that died of it

    child.delete()

    assert execution.wait() == ["gone"]


def test_a_deletion_is_told_only_once(agents: LocalAgents, parent: Agent) -> None:
    execution = agents.start(parent, 1).run()
    (child,) = execution.children
    assert child.delete() is True
    assert child.delete() is False
    assert len(execution.context().signals) == 1


def test_the_next_in_the_session_goes_on_when_the_one_before_it_is_deleted(
    agents: LocalAgents, registry: Registry
) -> None:
    @agent(registry=registry, session_policy="queue")
    def asking_in_turn(run: Run, input: int) -> Any:
        return input if input else run.ask("what?")

    first, second = (agents.start(asking_in_turn, number, session_id="s") for number in range(2))
    agents.run()
    assert second.state is AgentState.WAITING

    first.delete()

    assert second.wait() == 1


def test_children_of_what_is_deleted_are_left_to_run(agents: LocalAgents, parent: Agent) -> None:
    execution = agents.start(parent, 1).run()
    (child,) = execution.children
    execution.delete()
    child.resume("done")
    assert child.wait() == "done"


def test_what_cannot_be_told_is_logged_and_the_execution_is_deleted_nevertheless(
    agents: LocalAgents, parent: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    execution = agents.start(parent, 1).run()
    (child,) = execution.children

    def refuses(*_: Any) -> None:
        raise FormatTooNew("execution", 99, 1)

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(type(agents.runtime.ends), "_tell_parent", refuses)
        assert child.delete() is True

    assert "will notice later" in caplog.text
    agents.run()
    assert execution.state is AgentState.WAITING
    agents.advance(timedelta(hours=1))
    assert execution.wait() == ["gone"]


def test_the_async_facade_deletes(agents: LocalAgents, asking: Agent) -> None:
    execution = agents.start(asking).run()
    assert asyncio.run(execution.aio.delete(reason="no")) is True
    assert agents.store.get_summary(execution.id) is None
