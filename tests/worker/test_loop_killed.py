"""A loop agent on real workers, the first of which is killed in the middle of a call."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.commands import Command, environment, wait_until
from tests.worker.looping import check_no_call_is_without_result, conversation
from worker import bell
from worker.celery import make_app
from worker.execution import Execution
from worker.runtime import Runtime, runtime_of

AGENTS = """
import time
from pathlib import Path
from worker import Complete, Think, ToolCall, UseTools, loop_agent, tool

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
    (tmp_path / "their_agents.py").write_text(AGENTS)
    monkeypatch.setenv("AGENTS_HOME", str(tmp_path / "home"))
    app = make_app()
    runtime = runtime_of(app)
    yield runtime
    runtime.store.close()
    app.close()


def worker(folder: Path) -> Command:
    env = environment(
        AGENTS_HOME=str(folder / "home"),
        AGENTS_IMPORTS="their_agents",
        AGENTS_WATCH_SECONDS="0.2",
        AGENTS_SWEEP_SECONDS="0.5",
        AGENTS_LEASE_SECONDS="3",
    )
    env["PYTHONPATH"] += f":{folder}"
    arguments = "celery -A worker worker -l INFO -P prefork -c 1 --without-mingle --without-gossip"
    return Command(arguments, cwd=folder, env=env, log=folder / "worker.log").wait_for("ready.")


def test_a_killed_worker_leaves_a_conversation_that_another_one_completes(tmp_path: Path, client: Runtime) -> None:
    execution_id = client.store.create_context("calls", "go").execution_id
    execution = Execution(execution_id, client)
    ledger = tmp_path / "ledger"
    with worker(tmp_path) as first:
        bell.ring(client.app, client.settings, execution_id=execution_id, agent_id="calls", queue=None, priority=None)
        wait_until("both calls", lambda: ledger.exists() and {"slow", "once"} <= set(ledger.read_text().split()))
        wait_until("the quick one's record", lambda: any(step.name == "quick" for step in execution.steps()))
        first.kill()
    assert conversation(execution.context()) == [("user", "go"), ("assistant", "All at once.")]
    first.log.write_text("")
    with worker(tmp_path) as second:
        assert execution.wait(60) == ["quick", "slow", "StepInterrupted"], second.output
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
