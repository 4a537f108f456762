"""Forks and rewinds in the session of an agent that rejects a second active execution."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, ExportedExecution, InvalidRecord
from celery_agents import Agent, Registry, Run, SessionBusy, agent
from celery_agents.client.execution import Execution
from celery_agents.testing import LocalAgents, LocalExecution
from tests.celery_agents.cli.cli_driving import CLI, refused


def ask_once(run: Run, input: Any) -> Any:
    run.step("begin", lambda: 1)
    return run.ask("what?")


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def alone(registry: Registry) -> Agent:
    return agent(registry=registry, name="alone", session_policy="reject")(ask_once)


@pytest.fixture
def agents(registry: Registry) -> LocalAgents:
    return LocalAgents(registry=registry)


@pytest.fixture
def over(agents: LocalAgents, alone: Agent) -> LocalExecution:
    """An execution that has ended, in session "s"."""
    execution = agents.start(alone, session_id="s").run()
    execution.resume("tea")
    return execution.run()


def all_of(agents: LocalAgents) -> list[str]:
    return [one.execution_id for one in agents.store.find().items]


def test_a_fork_in_a_free_session_starts_and_keeps_others_out(agents: LocalAgents, alone: Agent, over: Any) -> None:
    fork = over.fork(1).run()
    assert (fork.summary().session_id, fork.state) == ("s", AgentState.WAITING_FOR_INPUT)
    with pytest.raises(SessionBusy, match=fork.id):
        agents.start(alone, session_id="s")


def test_a_fork_in_a_busy_session_is_refused_and_stores_nothing(agents: LocalAgents, alone: Agent, over: Any) -> None:
    busy = agents.start(alone, session_id="s").run()
    before = all_of(agents)
    for source in (over, busy):
        with pytest.raises(SessionBusy) as refusal:
            source.fork(1)
        assert refusal.value.execution_id == busy.id
    assert all_of(agents) == before


@pytest.mark.parametrize("session_id", ["another", None])
def test_a_fork_into_another_session_is_not_in_the_way(
    agents: LocalAgents, alone: Agent, over: Any, session_id: str | None
) -> None:
    busy = agents.start(alone, session_id="s").run()
    forks = [over.fork(1, session_id=session_id)]
    assert forks[0].summary().session_id == session_id
    if session_id is None:
        forks.append(busy.fork(1, session_id=None))
    for fork in forks:
        fork.run().resume("coffee")
        assert fork.wait() == "coffee"


@pytest.mark.parametrize("session_id", ["", "x" * 256, "a\x00", 1])
def test_a_session_that_cannot_be_stored_is_refused(over: Any, session_id: Any) -> None:
    with pytest.raises(InvalidRecord, match="session_id"):
        over.fork(1, session_id=session_id)


def test_who_was_quicker_keeps_the_session(
    agents: LocalAgents, alone: Agent, over: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore: Callable[[ExportedExecution], bool] = agents.store.restore
    started: list[str] = []

    def started_meanwhile(exported: ExportedExecution) -> bool:
        started.append(agents.start(alone, session_id="s").id)
        try:
            return restore(exported)
        finally:
            assert agents.store.take_due(10, timedelta(seconds=1)) == ()  # no sweeper has the fork worked on

    with monkeypatch.context() as patched:
        patched.setattr(agents.store, "restore", started_meanwhile, raising=False)
        with pytest.raises(SessionBusy, match="busy with"):
            over.fork(1)
    assert all_of(agents) == [*started, over.id]


def test_agents_of_other_policies_fork_beside_each_other(agents: LocalAgents, registry: Registry) -> None:
    together = agent(registry=registry, name="together")(ask_once)
    source = agents.start(together, session_id="s").run()
    fork = source.fork(1).run()
    assert source.state is fork.state is AgentState.WAITING_FOR_INPUT


def test_a_rewind_takes_the_place_of_what_it_cancels(agents: LocalAgents, alone: Agent) -> None:
    source = agents.start(alone, session_id="s").run()
    again = source.rewind(1).run()
    assert source.state is AgentState.CANCELLED
    again.resume("tea")
    assert again.wait() == "tea"


def test_a_rewind_into_a_session_that_is_busy_cancels_nothing(agents: LocalAgents, alone: Agent) -> None:
    source, busy = (agents.start(alone, session_id=name).run() for name in ("s", "t"))
    with pytest.raises(SessionBusy, match=busy.id):
        source.rewind(1, session_id="t")
    assert source.state is AgentState.WAITING_FOR_INPUT


def test_a_rewind_is_not_held_up_by_the_children_that_it_cancels(agents: LocalAgents, registry: Registry) -> None:
    @agent(registry=registry, session_policy="reject")
    def delegating(run: Run, depth: int) -> Any:
        run.step("begin", lambda: 1)
        return run.gather(run.spawn(delegating, depth - 1))[0] if depth else run.ask("what?")

    source = agents.start(delegating, 2, session_id="s").run()
    again = source.rewind(1).run()
    assert source.state is AgentState.CANCELLED
    again.children[0].children[0].resume("tea")
    assert again.wait() == "tea"


def test_the_command_line_forks_into_another_session(cli: CLI) -> None:
    agent(registry=cli.runtime.registry, name="alone", session_policy="reject")(ask_once)
    source = cli.enqueue("alone", "--session", "s")
    cli.execute(source)
    refused(cli("fork", source, "--at-step", "1"), "'s'", "busy", source)
    fork = Execution(cli("fork", source, "--at-step", "1", "--session", "t").stdout.strip(), cli.runtime)
    assert fork.summary().session_id == "t"
