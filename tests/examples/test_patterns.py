"""The examples of patterns: each in this process, without Celery, and all of them on a real worker."""

import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest

from agent_statestore import AgentState
from celery_agents import Agent, Execution, enqueue
from celery_agents.celery import make_app
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.testing import LocalAgents, When
from examples.patterns.approval import refund
from examples.patterns.async_agent import reachable
from examples.patterns.fan_out import count_words, count_words_on_all_workers
from examples.patterns.pipeline import release_notes
from examples.patterns.routing import ticket
from examples.patterns.supervisor import supervisor
from tests.services.commands import Command, environment
from tests.services.machine import scaled

LOG = "added: agents\nno change\nfixed: a crash\nadded: tools\n"
NOTES = "## added\n- agents\n- tools\n\n## fixed\n- a crash\n"
DOCUMENTS = ["the cat", "the dog", "the cat sat"]
WORDS = {"the": 3, "cat": 2, "dog": 1, "sat": 1}
QUESTIONS = ["Is it durable?", "Nonsense", "Is it fast?"]
REPORT = "1. Is it durable? Yes.\n2. Is it fast? Yes."


pytestmark = pytest.mark.xdist_group("patterns")  # one worker for all of them


@pytest.fixture
def agents() -> LocalAgents:
    return LocalAgents()


@pytest.fixture
def address() -> Iterator[str]:
    """Where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


# -- in this process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["parse", "group", "render"])
@pytest.mark.parametrize("when", list(When))
def test_a_pipeline_goes_on_where_it_died(agents: LocalAgents, step: str, when: When) -> None:
    execution = agents.start(release_notes, LOG)
    crash = agents.crash_at(step, when)
    with pytest.raises(TimeoutError):
        execution.wait()
    assert execution.wait() == NOTES
    assert crash.happened
    assert [recorded.name for recorded in execution.steps()] == ["parse", "group", "render"]


def test_a_route_is_taken_by_what_was_found(agents: LocalAgents) -> None:
    assert agents.start(ticket, "My refund is late").wait() == "billing: My refund is late"
    assert agents.start(ticket, "It is slow").wait() == "manual: It is slow"
    urgent = agents.start(ticket, "A crash again")
    assert urgent.wait() == "on call: A crash again"
    assert [message.content for message in urgent.context().memory.conversation_history] == [
        "Somebody is being called."
    ]


def test_a_route_leads_back_for_as_long_as_it_must(agents: LocalAgents) -> None:
    execution = agents.start(ticket, "Hello")
    for answer in ("Hm", "Well", "an invoice"):
        question = execution.wait_for_question()
        assert question is not None
        execution.resume(answer)
    assert execution.wait() == "billing: an invoice"
    assert len(execution.steps()) == 4 + 3 + 1


@pytest.mark.parametrize("agent", [count_words, count_words_on_all_workers], ids=lambda agent: agent.name)
def test_a_fan_out_is_merged(agents: LocalAgents, agent: Agent) -> None:
    execution = agents.start(agent, DOCUMENTS)
    assert execution.wait() == WORDS
    assert len(execution.children) == (0 if agent is count_words else len(DOCUMENTS))


def test_a_supervisor_delegates_and_reports_what_was_found(agents: LocalAgents) -> None:
    execution = agents.start(supervisor, QUESTIONS)
    assert execution.wait() == REPORT
    assert [child.summary().agent_id for child in execution.children] == ["researcher"] * 3 + ["writer"]
    assert [child.state for child in execution.children].count(AgentState.FAILED) == 1
    assert execution.context().memory.conversation_history[-1].content == "Here is the report."


def test_a_supervisor_with_nothing_to_report_says_so(agents: LocalAgents) -> None:
    assert agents.start(supervisor, ["Nonsense"]).wait() == "Nothing could be found out."


def test_an_async_agent_looks_everywhere_at_once(agents: LocalAgents, address: str) -> None:
    unused = unused_address()
    assert agents.start(reachable, [address, unused]).wait() == {address: True, unused: False}


def test_a_small_refund_needs_nobody(agents: LocalAgents) -> None:
    assert agents.start(refund, {"customer": "Ada", "amount": 5}).wait() == "5 to Ada (pay_back)"


@pytest.mark.parametrize("decision", ["approved", "changed", "rejected", "nobody"])
def test_a_large_refund_is_a_persons_to_decide(agents: LocalAgents, decision: str) -> None:
    execution = agents.start(refund, {"customer": "Ada", "amount": 500}).run()
    assert execution.state is AgentState.WAITING_FOR_APPROVAL
    agents.advance(timedelta(days=2))
    if decision == "approved":
        execution.approve(sender="eve")
        assert execution.wait() == "500 to Ada (pay_back)"
    elif decision == "changed":
        execution.approve(sender="eve", arguments={"customer": "Ada", "amount": 250})
        assert execution.wait() == "250 to Ada (pay_back)"
    elif decision == "rejected":
        execution.reject(sender="eve", reason="no receipt")
        assert execution.wait() == "refused: no receipt"
    else:
        agents.advance(timedelta(days=2))
        assert execution.wait() == "nobody has decided in time"


# -- on a real worker --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """One worker for all of them; this is its client."""
    folder = tmp_path_factory.mktemp("patterns")
    env = environment(
        AGENTS_HOME=str(folder / "home"),
        AGENTS_IMPORTS="examples.patterns",
        AGENTS_WATCH_SECONDS="0.2",
        AGENTS_SWEEP_SECONDS="0.5",
    )
    with pytest.MonkeyPatch.context() as patched:
        for name in ("AGENTS_STORE_URL", "AGENTS_BROKER_URL", "AGENTS_RESULT_BACKEND"):
            patched.delenv(name, raising=False)
        patched.setenv("AGENTS_HOME", str(folder / "home"))
        app = make_app()
        runtime = runtime_of(app)
        arguments = "celery -A celery_agents worker -l INFO -P threads -c 4 --without-mingle --without-gossip"
        with Command(arguments, cwd=folder, env=env, log=folder / "worker.log", warm=True).wait_for("ready."):
            yield runtime
        runtime.store.close()
        app.close()


def start(runtime: Runtime, agent: Agent, value: object) -> Execution:
    return enqueue(agent, value, runtime=runtime)


def test_a_pipeline_on_a_worker(on_worker: Runtime) -> None:
    assert start(on_worker, release_notes, LOG).wait(scaled(30)) == NOTES


def test_a_route_on_a_worker(on_worker: Runtime) -> None:
    execution = start(on_worker, ticket, "Hello")
    assert execution.wait_for_question(30) is not None
    execution.resume("an error")
    assert execution.wait(scaled(30)) == "manual: an error"


@pytest.mark.parametrize("agent", [count_words, count_words_on_all_workers], ids=lambda agent: agent.name)
def test_a_fan_out_on_a_worker(on_worker: Runtime, agent: Agent) -> None:
    assert start(on_worker, agent, DOCUMENTS).wait(scaled(30)) == WORDS


def test_a_supervisor_on_a_worker(on_worker: Runtime) -> None:
    assert start(on_worker, supervisor, QUESTIONS).wait(scaled(30)) == REPORT


def test_an_async_agent_on_a_worker(on_worker: Runtime, address: str) -> None:
    assert start(on_worker, reachable, [address]).wait(scaled(30)) == {address: True}


def test_an_approval_on_a_worker(on_worker: Runtime) -> None:
    execution = start(on_worker, refund, {"customer": "Ada", "amount": 500})
    approval = execution.wait_for_approval(30)
    assert approval is not None
    execution.approve(digest=approval.prompt["digest"], arguments={"customer": "Ada", "amount": 200})
    assert execution.wait(scaled(30)) == "200 to Ada (pay_back)"
