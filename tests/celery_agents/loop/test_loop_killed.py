"""A loop agent on real workers, the first of which is killed in the middle of a call."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_agents.client.execution import Execution
from celery_agents.host import bell
from celery_agents.host.runtime import Runtime
from tests.celery_agents.loop.looping import check_no_call_is_without_result, conversation
from tests.celery_agents.their_workers import client_of, worker
from tests.services.commands import wait_until
from tests.services.machine import scaled

AGENTS = """
import time
from pathlib import Path
from celery_agents import Complete, Think, ToolCall, UseTools, loop_agent, tool

def note(line):
    with Path("ledger").open("a") as ledger:
        ledger.write(line + "\\n")
    return Path("ledger").read_text().splitlines().count(line)

@tool
def quick() -> str:
    note("quick")
    return "quick"

@tool
def slow() -> str:
    if note("slow") == 1:
        time.sleep(600)
    return "slow"

@tool(on_crash="fail")
def once() -> str:
    if note("once") == 1:
        time.sleep(600)
    return "once"

@loop_agent(tools=[quick, slow, once])
def calls(context):
    note(f"turn {context.turn}")
    if context.turn == 1:
        return Think(thought="All at once.")
    if context.turn == 2:
        return UseTools(calls=[ToolCall(tool=name) for name in ("quick", "slow", "once")])
    return Complete(output=[result.output or result.error_type for result in context.results])
"""

pytestmark = pytest.mark.crash


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


def test_a_killed_worker_leaves_a_conversation_that_another_one_completes(tmp_path: Path, client: Runtime) -> None:
    execution_id = client.store.create_context("calls", "go").execution_id
    execution = Execution(execution_id, client)
    ledger = tmp_path / "ledger"
    with worker(tmp_path, "-P prefork -c 1", AGENTS_LEASE_SECONDS="3") as first:
        bell.ring(client.app, client.settings, execution_id=execution_id, agent_id="calls", queue=None, priority=None)
        wait_until("both calls", lambda: ledger.exists() and {"slow", "once"} <= set(ledger.read_text().split()))
        wait_until("the quick one's record", lambda: any(step.name == "quick" for step in execution.steps()))
        first.kill()
    assert conversation(execution.context()) == [("user", "go"), ("assistant", "All at once.")]
    first.log.write_text("")
    with worker(tmp_path, "-P prefork -c 1", AGENTS_LEASE_SECONDS="3") as second:
        assert execution.wait(scaled(60)) == ["quick", "slow", "StepInterrupted"], second.output
        second.send(signal.SIGTERM)
        second.wait()
    context = execution.context()
    check_no_call_is_without_result(context)
    assert [role for role, _ in conversation(context)] == ["user", "assistant", "assistant", "tool", "tool", "tool"]
    assert Counter(ledger.read_text().splitlines()) == {
        "turn 1": 1,
        "turn 2": 1,
        "turn 3": 1,
        "quick": 1,
        "slow": 2,
        "once": 1,
    }
