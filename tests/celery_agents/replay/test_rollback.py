"""Rolling back: a fork goes on in the place of an execution, and hears first what somebody said."""

import json
from typing import Any

import pytest

from agent_statestore import AgentState, InvalidRecord
from celery_agents import Agent, Registry, Run, agent
from celery_agents.client.execution import Execution
from celery_agents.http import Executions
from celery_agents.http.messages import Request
from celery_agents.testing import LocalAgents, LocalExecution
from tests.celery_agents.cli.cli_driving import CLI, refused


def three_steps(run: Run, input: Any) -> Any:
    """Note what was said before each step; ask at the end."""
    heard: list[str] = []
    for name in ("one", "two", "three"):
        heard += [f"{name}: {saying.text}" for saying in run.said()]
        if run.session_id is not None:
            run.session.say("user", name)
        MADE.append(run.step(name, lambda name=name: name))
    run.ask("?")
    return heard


MADE: list[str] = []


@pytest.fixture
def registry() -> Registry:
    MADE.clear()
    return Registry()


@pytest.fixture
def steps(registry: Registry) -> Agent:
    return agent(registry=registry, name="steps")(three_steps)


@pytest.fixture
def agents(registry: Registry) -> LocalAgents:
    return LocalAgents(registry=registry)


def said(agents: LocalAgents) -> list[tuple[str, Any]]:
    return [(message.execution_id, message.content) for message in agents.store.session("s").messages()]


def done(execution: LocalExecution) -> Any:
    execution.run().resume("ok")
    return execution.wait()


def test_the_fork_hears_it_where_it_comes_to_what_is_not_recorded(agents: LocalAgents, steps: Agent) -> None:
    old = agents.start(steps).run()
    made = list(MADE)
    new = old.roll_back(1, "not so", message_id="m", sender="ada")
    assert old.state is AgentState.CANCELLED
    assert [signal.payload for signal in new.context().signals] == ["not so"]
    assert old.roll_back(1, "not so", message_id="m").id == new.id, "it may be repeated"
    assert done(new) == ["two: not so"]
    assert MADE[len(made) :].count("two") == 2, "taken anew, and passed when the answer came"
    assert [step.attempt for step in new.steps()][:2] == [0, 1]
    assert new.roll_back(2, "and again", message_id="m").id != new.id
    reasons = [entry.reason for entry in agents.store.get_audit(old.id) if entry.by == "ada"]
    assert reasons == ["rolled back to step 1"]
    with pytest.raises(InvalidRecord):
        old.roll_back(9, "x")
    with pytest.raises(InvalidRecord):
        old.roll_back(1, "")


def test_what_it_had_said_to_the_session_after_that_step_is_taken_out(
    agents: LocalAgents, steps: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = agents.start(steps, session_id="s")
    done(first)
    old = agents.start(steps, session_id="s").run()
    assert [content for _, content in said(agents)] == ["one", "two", "three"] * 2
    before = said(agents)[:3]
    with monkeypatch.context() as patch:  # its caller dies before the fork is stored
        patch.setattr(agents.store, "restore", lambda *_: (_ for _ in ()).throw(RuntimeError()))
        with pytest.raises(RuntimeError):
            old.roll_back(2, "not so", message_id="m")
    assert said(agents)[3:] != [(old.id, each) for each in ("one", "two", "three")]
    new = old.roll_back(2, "not so", message_id="m")
    assert said(agents) == [*before, (new.id, "one")]
    assert done(new) == ["two: not so"]
    assert said(agents) == [*before, *((new.id, each) for each in ("one", "two", "three"))]


def test_one_that_works_is_stopped_first(agents: LocalAgents, registry: Registry) -> None:
    outcome: list[Any] = []

    @agent(registry=registry)
    def works(run: Run, input: Any) -> Any:
        run.step("one", lambda: 1)

        def meanwhile() -> None:
            with pytest.raises(TimeoutError):
                execution.roll_back(1, "stop", message_id="m", timeout=0.0)
            outcome.append(len(agents.store.find().items))

        run.step("two", meanwhile)
        return [saying.text for saying in run.said()]

    execution = agents.start(works)
    execution.run()
    assert (execution.state, outcome) == (AgentState.CANCELLED, [1])
    assert execution.roll_back(1, "stop", message_id="m").fork  # it is a handle
    new = execution.roll_back(2, "go", message_id="n")
    assert new.wait() == ["go"]


def test_the_command_line_and_http_roll_back(cli: CLI) -> None:
    agent(registry=cli.runtime.registry, name="steps")(three_steps)
    old = cli.enqueue("steps")
    cli.execute(old)
    refused(cli("say", old, "x", "--mode", "rollback"), "--to-step", code=2)
    refused(cli("say", old, "x", "--to-step", "1"), "--mode rollback", code=2)
    new = cli("say", old, "not so", "--mode", "rollback", "--to-step", "1").stdout.strip()
    assert Execution(old, cli.runtime).state is AgentState.CANCELLED
    cli.execute(new)
    assert "#said" in [step.name for step in Execution(new, cli.runtime).steps()][1]

    executions = Executions(runtime=cli.runtime, permit=lambda *_: True)

    def say(**body: Any) -> Any:
        content = json.dumps(body).encode()
        request = Request(method="POST", path=f"/executions/{new}/say", content_type="application/json", body=content)
        return executions.handle(request, "ada")

    assert say(text="x", mode="rollback").status == say(text="x", to_step=1).status == 400
    assert say(text="x", mode="louder").status == 400
    reply = say(text="not so either", mode="rollback", to_step=2)
    assert (reply.status, reply.value["result"]) == (200, "rolled back")
    cli.execute(reply.value["execution_id"])
    assert Execution(reply.value["execution_id"], cli.runtime).steps()[3].name == "#said#3"
