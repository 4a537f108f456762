"""Commands on an execution that waits for several people, and for more."""

import asyncio
import shlex
from datetime import timedelta
from typing import Any

import pytest

from celery_agents import AsyncRun, Run, agent, waits
from celery_agents.cli.output.rendering import note_of
from tests.celery_agents.cli.cli_driving import CLI, refused

HOSTILE = "--key 'b' $(rm) \N{RIGHT-TO-LEFT OVERRIDE}x"


@pytest.fixture(autouse=True)
def several(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that ask several things at once; and a terminal on which nothing is cut."""
    monkeypatch.setenv("COLUMNS", "200")
    registry = cli.runtime.registry

    @agent(registry=registry)
    async def deciding(run: AsyncRun, _: None) -> Any:
        return await asyncio.gather(
            *(run.approve("pay", {"amount": amount}) for amount in (1, 2)),
            run.ask("Which account?", name="account", schema=str),
            run.ask("Why?", name=HOSTILE),
            run.sleep(timedelta(hours=1)),
        )

    @agent(registry=registry)
    def racing(run: Run, _: None) -> Any:
        return run.wait_any(waits.question("Go?", name="go"), waits.approval("pay", {}), waits.event("e"))[1]

    assert registry.find("deciding")
    assert registry.find("racing")


def begun(cli: CLI, name: str) -> str:
    execution_id = cli.enqueue(name)
    cli.execute(execution_id)
    return execution_id


def test_all_that_is_waited_for_is_shown_with_its_keys(cli: CLI) -> None:
    execution_id = begun(cli, "deciding")
    shown = cli("show", execution_id).stdout
    assert "waits for        the first of 5" in shown
    for part in (
        '1              approval of pay {"amount": 1}',
        '3              input "account"',
        '5              timer "sleep", goes on 20',
        'approval "approve pay":',
        'approval "approve pay#2":',
        "--key 'approve pay#2' --digest ",
        f"agents resume {execution_id} ANSWER --key=account\n",
    ):
        assert part in shown, shown
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in shown
    summary = cli.store.get_summary(execution_id)
    assert summary is not None
    assert note_of(summary) == 'approval of pay {"amount": 1} (and 4 more)'
    assert [wait["key"] for wait in cli.json("show", execution_id)["waits"]][:3] == [
        "approve pay",
        "approve pay#2",
        "account",
    ]


def test_without_a_key_the_keys_are_listed(cli: CLI) -> None:
    execution_id = begun(cli, "deciding")
    for command, known in (
        (("resume", execution_id, "x"), ["account", HOSTILE]),
        (("approve", execution_id), ["approve pay", "approve pay#2"]),
        (("reject", execution_id), ["approve pay", "approve pay#2"]),
    ):
        result = cli(*command)
        assert result.exit_code == 2, result.output
        listed = [line for line in result.output.splitlines() if "--key=" in line]
        assert len(listed) == 2, result.output
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in result.output
        assert all(line.startswith(f"  celery -A celery_agents agents {command[0]} {execution_id}") for line in listed)
        assert shlex.split(listed[0])[-1] == f"--key={known[0]}", "ready to be copied"
    assert cli.json("show", execution_id)["signals"] == []


def test_each_is_answered_by_its_key_in_any_order(cli: CLI) -> None:
    execution_id = begun(cli, "deciding")
    assert cli("resume", execution_id, "because", f"--key={HOSTILE}").exit_code == 0
    refused(cli("resume", execution_id, "because", f"--key={HOSTILE}"), "already has an answer")
    cli.execute(execution_id)
    assert cli("approve", execution_id, "--key", "approve pay#2").exit_code == 0
    cli.execute(execution_id)
    assert cli("resume", execution_id, "joint").exit_code == 0, "it is the only question"
    assert cli("approve", execution_id, "--arguments", '{"amount": 11}').exit_code == 0, "and the only approval"
    cli.execute(execution_id)
    context = cli.store.get_context(execution_id)
    assert context is not None
    assert [wait.key for wait in context.waits] == ["sleep"]
    outputs = {step.name: step.result.output for step in context.steps if step.result is not None}
    assert (outputs["account"], outputs[HOSTILE]) == ("joint", "because")
    assert outputs["approve pay"]["arguments"] == {"amount": 11}


def test_who_comes_too_late_in_a_race_is_refused(cli: CLI) -> None:
    execution_id = begun(cli, "racing")
    assert cli("resume", execution_id, "yes").exit_code == 0
    assert cli("approve", execution_id).exit_code == 0, "it may still be the first to be seen"
    cli.execute(execution_id)
    assert cli.json("show", execution_id)["output"] == "yes"
    refused(cli("approve", execution_id), "is over")
    again = begun(cli, "racing")
    cli("send-event", again, "e", "1")
    cli.execute(again)
    refused(cli("resume", again, "yes"), "is over")
