"""`agents fork`, `rewind`, `diff`; and what `show --json` exports is what `celery_agents.testing.replay` reads."""

import json

import pytest

from agent_statestore import AgentState
from celery_agents.client.execution import Execution
from celery_agents.testing import replay
from tests.celery_agents.cli.cli_driving import CLI, UUID, refused


def counted(cli: CLI, n: int = 3) -> str:
    """A finished execution of `n` steps."""
    execution_id = cli.enqueue("count", str(n))
    cli.execute(execution_id)
    return execution_id


def asking(cli: CLI) -> str:
    """An execution that waits for an answer."""
    execution_id = cli.enqueue("refund", "1")
    cli.execute(execution_id)
    return execution_id


def test_fork_starts_an_execution_that_shares_the_steps(cli: CLI) -> None:
    source = counted(cli)
    cli.bells()
    result = cli("fork", source, "--at-step", "2", "--metadata", "why=größer", "--reason", "try", "--sender", "ada")
    assert result.exit_code == 0
    assert UUID.fullmatch(result.stdout.strip())
    fork = Execution(result.stdout.strip(), cli.runtime)
    assert f"agents diff {source} {fork.id}" in result.stderr
    assert fork.context().metadata == {"why": "größer", "agents.forked_from": source, "agents.at_step": 2}
    assert [step.attempt for step in fork.steps()] == [0, 0]
    assert cli.bells() == 1
    cli.execute(fork.id)
    assert fork.wait() == {"n": 3}
    audit = cli("audit", fork.id).stdout
    assert "ada" in audit
    assert "forked" in audit


def test_fork_takes_another_input_and_prints_json(cli: CLI) -> None:
    source = counted(cli, 2)
    shown = cli.json("fork", source, "--at-step", "1", "--input", "4", "--deadline", "2h")
    assert (shown["agent_id"], shown["state"], shown["step_count"]) == ("count", "idle", 1)
    assert set(shown["metadata"]) == {"agents.forked_from", "agents.at_step", "agents.deadline"}
    cli.execute(shown["execution_id"])
    assert Execution(shown["execution_id"], cli.runtime).wait() == {"n": 4}


def test_fork_and_rewind_refuse_what_they_cannot_do(cli: CLI) -> None:
    source = counted(cli)
    for command, option in (("fork", "--at-step"), ("rewind", "--to-step")):
        refused(cli(command, source, option, "4"), "has 3 steps", "not 4")
        refused(cli(command, source, option, "-1"), "-1", code=2)
        refused(cli(command, source), option, code=2)
        refused(cli(command, "nobody", option, "0"), "'nobody'")
        refused(cli(command, source, option, "0", "--input", "{"), "not valid JSON", code=2)
        refused(cli(command, source, option, "0", "--input", '"x"'), "input")
        refused(cli(command, source, option, "0", "--metadata", "agents.deadline=1"), "deadline")
    assert len(cli.json("list")["items"]) == 1


def test_rewind_cancels_what_waits(cli: CLI) -> None:
    source = asking(cli)
    shown = cli.json("rewind", source, "--to-step", "0", "--reason", "wrong")
    assert Execution(source, cli.runtime).state is AgentState.CANCELLED
    cli.execute(shown["execution_id"])
    assert Execution(shown["execution_id"], cli.runtime).state is AgentState.WAITING_FOR_INPUT


def test_rewind_says_when_the_worker_does_not_stop_in_time(cli: CLI) -> None:
    source = cli.enqueue("count", "1")
    claim = cli.store.claim(source, "other-host/1/0", cli.runtime.settings.lease)
    assert claim is not None
    refused(cli("rewind", source, "--to-step", "0", "--timeout", "0.01"), "cancel is asked for", "repeat")
    cli.store.release(claim.lease)
    assert cli("rewind", source, "--to-step", "0").exit_code == 0


@pytest.mark.parametrize("columns", ["40", "120"])
def test_diff_shows_both_sides_of_each_difference(cli: CLI, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    a, b = counted(cli, 2), asking(cli)
    Execution(b, cli.runtime).resume("yes")
    cli.execute(b)
    result = cli("diff", a, b)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:3] == [f"a  {a}", f"b  {b}", "0 steps alike, 3 steps not."]
    assert lines[lines.index("step 1, tick") + 1] == '- "tück \\u001b[31m"'
    assert lines[lines.index("step 1, pay") + 1] == '+ "yes"'
    assert lines[lines.index("output") + 1 :][:2] == ['- {"n": 2}', '+ "paid: yes"']
    assert "\x1b" not in result.stdout

    assert "They do not differ: 2 steps." in cli("diff", a, a).stdout


def test_diff_prints_json(cli: CLI) -> None:
    a, b = counted(cli, 1), counted(cli, 2)
    found = cli.json("diff", a, b)
    assert (found["a"], found["b"], found["alike"]) == (a, b, 1)
    (step,) = found["steps"]
    assert (step["key"], step["change"], step["a"], step["b"]["step_number"]) == ("tick#2", "only_in_b", None, 2)
    assert [field["field"] for field in found["fields"]] == ["input", "output"]
    refused(cli("diff", a, "nobody"), "'nobody'")


def test_what_show_exports_is_replayed(cli: CLI) -> None:
    source = asking(cli)
    exported = cli("show", source, "--json").stdout
    refund = cli.runtime.registry.agent("refund")
    assert replay(refund, exported).stopped_at == "pay"
    Execution(source, cli.runtime).resume("yes")
    cli.execute(source)
    exported = cli("show", source, "--json").stdout
    assert replay(refund, json.loads(exported)).output == "paid: yes"
