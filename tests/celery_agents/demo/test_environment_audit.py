"""The agent, executed in this process on the in-memory store."""

from pathlib import Path

import pytest

from agent_statestore import AgentContext, MemoryStore, NewExecution, Signal, SignalKind
from celery_agents.define.registry import default_registry
from celery_agents.demo.environment_audit import inspection
from celery_agents.demo.environment_audit.agent import AuditRequest, environment_audit
from celery_agents.demo.environment_audit.ledger import calls
from celery_agents.demo.environment_audit.report import render, write_once_complete
from celery_agents.engine.lease import LeaseKeeper
from celery_agents.engine.outcome import Ending
from celery_agents.lifecycle.assembly import make_executor
from tests.celery_agents.demo.made_up import make_distribution


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An environment of three distributions, one of which is not intact."""
    folder = tmp_path / "site"
    make_distribution(folder, "alpha", files={"alpha.py": "a\n"}, headers=["License: MIT", "Requires-Dist: beta"])
    make_distribution(folder, "beta", files={"beta.py": "b\n"}, headers=["License: a|b"])
    make_distribution(folder, "gamma", files={"gamma.py": "c\n"})
    (folder / "gamma.py").write_text("changed\n")
    return folder


def audit(site: Path, report: Path, answer: str) -> AgentContext:
    """Executes the agent up to its question, answers, and executes it to its end."""
    store = MemoryStore()
    executor = make_executor(store=store, registry=default_registry, keeper=LeaseKeeper(store))
    request = AuditRequest(report=report, ledger=report.with_suffix(".calls"), search_path=[str(site)])
    new = NewExecution(agent_id=environment_audit.name, input=environment_audit.encode_input(request))
    execution_id = store.create(new).execution_id
    paused = executor.execute(execution_id, "host/1/1")
    assert paused is not None
    assert paused.ending is Ending.PAUSED
    assert paused.waiting is not None
    store.send(
        execution_id,
        Signal(
            signal_id="1",
            kind=SignalKind.ANSWER,
            key=paused.waiting.key,
            payload=answer,
        ),
    )
    ended = executor.execute(execution_id, "host/1/1")
    assert ended is not None
    assert ended.ending is Ending.COMPLETED, ended.error
    context = store.get_context(execution_id)
    assert context is not None
    return context


def test_each_step_is_called_and_recorded_once(site: Path, tmp_path: Path) -> None:
    context = audit(site, tmp_path / "report.md", "yes")
    called = calls(tmp_path / "report.calls")
    assert called == [
        "list distributions",
        "map dependents",
        "audit alpha",
        "audit beta",
        "audit gamma",
        "write_report",
    ]
    assert [step.name for step in context.steps] == [*called[:-1], "ask", "write_report"]
    assert [message.content for message in context.memory.conversation_history] == ["gamma: 1 modified"]
    totals = context.memory.working_memory["totals"]
    assert totals == context.output["totals"]
    assert (totals["distributions"], totals["not_intact"]) == (3, 1)


def test_no_means_no_report(site: Path, tmp_path: Path) -> None:
    context = audit(site, tmp_path / "report.md", "no")
    assert context.output["written"] is None
    assert not (tmp_path / "report.md").exists()
    assert "write_report" not in calls(tmp_path / "report.calls")


def test_two_executions_write_the_same_report(site: Path, tmp_path: Path) -> None:
    outputs = [audit(site, tmp_path / name, "yes").output for name in ("one.md", "two.md")]
    texts = [(tmp_path / name).read_bytes() for name in ("one.md", "two.md")]
    assert texts[0] == texts[1]
    assert outputs[0]["report_sha256"] == outputs[1]["report_sha256"]
    assert str(tmp_path).encode() not in texts[0]


def test_the_report_names_faults_and_stays_a_table(site: Path) -> None:
    path = [str(site)]
    installed = inspection.find_installed(path)
    dependents = inspection.find_dependents(path)
    findings = [inspection.inspect_distribution(name, dependents.get(name, []), path) for name in installed.names]
    lines = render(installed, findings).splitlines()
    assert "- gamma: 1 modified" in lines
    assert "  - modified: `gamma.py`" in lines
    (beta,) = (line for line in lines if line.startswith("| beta "))
    assert "License field: a\\|b" in beta
    assert beta.endswith("|  | alpha |")
    assert "| unknown | 2 |" in lines


def test_the_report_replaces_an_older_one_as_a_whole(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    report.write_text("older")
    write_once_complete(report, "newer ß\n")
    assert report.read_text(encoding="utf-8") == "newer ß\n"
    assert list(tmp_path.iterdir()) == [report]
