"""`agents approve`, `reject`, `send-event`, and how approvals, events, children and limits are shown."""

import json
import re
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import WorkerTerminate

from agent_statestore import AgentState
from celery_agents import ApprovalDenied, Run, agent, tool
from celery_agents.cli.invocation import os_user
from celery_agents.cli.output.approval_text import deciding_lines
from celery_agents.cli.output.rendering import note_of
from celery_agents.lifecycle.decider import process_user
from tests.celery_agents.cli.cli_driving import CLI, in_background, refused
from tests.services.machine import scaled


@pytest.fixture(autouse=True)
def deciding_agents(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that need people, events and children; and a terminal on which nothing is cut."""
    monkeypatch.setenv("COLUMNS", "200")
    registry = cli.runtime.registry

    @tool(registry=registry, requires_approval=True)
    def pay(to: str, amount: int) -> str:
        """Sends \x1b[31mmoney."""
        return f"paid {amount} to {to}"

    @agent(registry=registry)
    def paying(run: Run, amount: int) -> str:
        try:
            return run.tool(pay, "Zoë", amount)
        except ApprovalDenied as denied:
            return str(denied)

    @agent(registry=registry)
    def waiting(run: Run, _: None) -> Any:
        return [run.wait_for("paid"), run.wait_for("shipped", timeout=timedelta(0), default=None)]

    @agent(registry=registry)
    def parent(run: Run, n: int) -> Any:
        return run.gather(*[run.spawn("greet") for _ in range(n)], return_exceptions=True)

    @agent(registry=registry, max_steps=1, on_limit="ask")
    def bounded(run: Run, _: None) -> None:
        for number in range(3):
            run.step("tick", int, number)

    @tool(registry=registry, on_crash="ask")
    def launch() -> None:
        raise WorkerTerminate  # as in a cold shutdown of solo

    @agent(registry=registry)
    def launching(run: Run, _: None) -> None:
        run.tool(launch)

    assert all(registry.find(each.name) for each in (paying, waiting, parent, bounded, launching))


def begun(cli: CLI, *arguments: str) -> str:
    execution_id = cli.enqueue(*arguments)
    cli.execute(execution_id)
    cli.bells()
    return execution_id


def digest_of(cli: CLI, execution_id: str) -> str:
    return str(cli.json("show", execution_id)["waits"][0]["prompt"]["digest"])


# -- approve and reject ------------------------------------------------------------------------------------------------


def test_approve_sends_who_and_why_and_rings(cli: CLI) -> None:
    paying = begun(cli, "paying", "30")

    result = cli("approve", paying, "--digest", digest_of(cli, paying), "--sender", "ann", "--reason", "as agreed")

    assert result.exit_code == 0, result.output
    assert result.stdout == f'Approved pay {{"to": "Zoë", "amount": 30}} of execution {paying}; it goes on.\n'
    assert cli.bells() == 1
    refused(cli("approve", paying), "already has an answer")
    refused(cli("reject", paying), "already has an answer")
    cli.execute(paying)
    assert cli.json("show", paying)["output"] == "paid 30 to Zoë"
    by = f"ann (command line, {process_user()})"
    assert f"approved by {by}: as agreed" in cli("show", paying).stdout
    audit = cli("audit", paying).stdout
    assert "approved pay" in audit
    assert "as agreed" in audit
    refused(cli("approve", paying), "is over (completed)")


def test_approve_with_other_arguments(cli: CLI) -> None:
    paying = begun(cli, "paying", "30")

    refused(cli("approve", paying, "--arguments", "{"), "not valid JSON", code=2)
    refused(cli("approve", paying, "--arguments", "[1]"), "JSON object", code=2)
    refused(cli("approve", paying, "--arguments", '{"to": "Zoë"}'), "invalid arguments", "'amount' is a required")
    assert cli("approve", paying, "--arguments", '{"to": "Zoë", "amount": 20}').exit_code == 0
    cli.execute(paying)

    assert cli.json("show", paying)["output"] == "paid 20 to Zoë"
    assert f'approved by {os_user()}, with {{"to": "Zoë", "amount": 20}}' in cli("show", paying).stdout
    (decided,) = [entry for entry in cli.json("audit", paying) if entry["event"] == "decided"]
    assert decided["signal"]["payload"]["arguments"] == {"to": "Zoë", "amount": 20}


def test_reject(cli: CLI) -> None:
    paying = begun(cli, "paying", "30")

    result = cli("reject", paying, "--reason", "too much", "--sender", "ann")

    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Rejected pay {")
    cli.execute(paying)
    assert cli.json("show", paying)["output"] == "pay was refused by ann: too much"
    assert "ApprovalDenied: pay was refused by ann: too much" in cli("show", paying).stdout
    assert "rejected pay" in cli("audit", paying).stdout


@pytest.mark.parametrize("command", ["approve", "reject"])
def test_what_is_not_asked_for_is_refused(cli: CLI, command: str) -> None:
    idle, asking = cli.enqueue("paying", "30"), begun(cli, "refund", "1")

    refused(cli(command, idle), "does not wait for an approval: it is idle")
    refused(cli(command, asking), 'the answer to "pay"', f"celery -A celery_agents agents resume {asking} ANSWER")
    refused(cli(command, "nope"), "there is no execution 'nope' (looked at ")
    cli.execute(idle)
    refused(cli(command, idle, "--digest", "0" * 64), "is not what was looked at")
    refused(cli(command, idle, "--key", "approve other"), '"approve other"')
    refused(cli("resume", idle, "yes"), '"approve pay"', f"celery -A celery_agents agents approve {idle}")


def test_approve_asks_where_there_is_a_terminal(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    paying = begun(cli, "paying", "30")
    monkeypatch.setattr(
        "celery_agents.cli.commands.approve.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    )

    declined = cli("approve", paying, stdin="n\n")
    assert declined.exit_code == 1
    assert '"amount": 30' in declined.stdout
    assert cli.json("show", paying)["signals"] == []

    accepted = cli("approve", paying, "--arguments", '{"to": "Zoë", "amount": 20}', stdin="y\n")
    assert accepted.exit_code == 0
    assert 'with these arguments instead: {"to": "Zoë", "amount": 20}' in accepted.stdout


# -- say ---------------------------------------------------------------------------------------------------------------


def test_say(cli: CLI) -> None:
    waiting = begun(cli, "waiting")
    for _ in range(2):
        said = cli("say", waiting, "use the EU index", "--message-id", "m-7", "--sender", "ada")
        assert said.stdout == f"Said to execution {waiting}, which is waiting. It is read when that is over.\n"
    cli("say", waiting, "stop", "--mode", "interrupt")
    assert cli.bells() == 0
    shown = cli("show", waiting).stdout
    assert re.search(r"unread \(2\)\n  ada, .* \(next_boundary\): use the EU index\n  .* \(interrupt\): stop\n", shown)
    refused(cli("say", waiting, "stop", "--mode", "louder"), "next_turn", code=2)
    refused(cli("say", waiting, ""), "text")


# -- send-event --------------------------------------------------------------------------------------------------------


def test_send_event(cli: CLI) -> None:
    waiting = begun(cli, "waiting")

    kept = cli("send-event", waiting, "other")
    assert kept.exit_code == 0, kept.output
    assert "it does not wait for it now, so it is kept" in kept.stdout
    assert cli.bells() == 0
    for _ in range(2):
        sent = cli("send-event", waiting, "paid", '{"amount": 30}', "--event-id", "charge-7", "--sender", "bank")
        assert sent.stdout == f'Sent "paid" to execution {waiting}; it waits for it and goes on.\n'
    assert cli.bells() == 1
    assert [(each["key"], each["sender"]) for each in cli.json("show", waiting)["signals"]] == [
        ("other", os_user()),
        ("paid", "bank"),
    ]
    received = [entry for entry in cli.json("audit", waiting) if entry["event"] == "received"]
    assert [entry["by"] for entry in received] == [os_user(), "bank"]
    assert 'event paid: {"amount": 30}' in cli("audit", waiting).stdout
    cli.execute(waiting)

    shown = cli("show", waiting).stdout
    assert '{"amount": 30}\n' in shown
    assert "did not come in time" in shown
    refused(cli("send-event", waiting, "paid"), "is over (completed)")


def test_send_event_takes_json_or_text(cli: CLI) -> None:
    waiting = begun(cli, "waiting")
    cli("send-event", waiting, "paid", "42", "--text")
    cli("send-event", waiting, "paid", "forty-two")
    cli("send-event", waiting, "paid", "42")
    cli("send-event", waiting, "paid")
    assert [each["payload"] for each in cli.json("show", waiting)["signals"]] == ["42", "forty-two", 42, None]


def test_what_begins_like_a_json_object_and_is_none_is_not_sent_as_text(cli: CLI) -> None:
    waiting, asking = begun(cli, "waiting"), begun(cli, "refund", "1")
    refused(cli("send-event", waiting, "paid", "{amount: 30}"), "is not valid JSON", "--text", code=2)
    refused(cli("resume", asking, "{amount: 30}"), "is not valid JSON", "--text", code=2)
    assert cli.json("show", waiting)["signals"] == []
    cli("send-event", waiting, "paid", "{amount: 30}", "--text")
    assert [each["payload"] for each in cli.json("show", waiting)["signals"]] == ["{amount: 30}"]
    refused(cli("send-event", waiting, ""), "name")
    refused(cli("send-event", waiting, "paid", "--event-id", "x" * 250), "event_id")
    refused(cli("send-event", "nope", "paid"), "there is no execution 'nope' (looked at ")


# -- looking -----------------------------------------------------------------------------------------------------------


def test_show_an_approval_tells_how_to_decide(cli: CLI) -> None:
    paying = begun(cli, "paying", "30")
    digest = digest_of(cli, paying)

    shown = cli("show", paying).stdout

    options = f"{paying} --key 'approve pay' --digest {digest}\n"
    assert f"\n    celery -A celery_agents agents approve {options}" in shown
    assert f"\n    celery -A celery_agents agents reject {options}" in shown
    for part in ("waiting_for_approval", 'approval "approve pay":', '"amount": 30', "Sends \\x1b[31mmoney."):
        assert part in shown
    assert "\x1b" not in shown
    assert 'approval of pay {"to": "Zoë", "amount": 30}' in cli("list").stdout


def test_show_a_parent_and_its_children(cli: CLI) -> None:
    parent = begun(cli, "parent", "3")
    first, second, third = (step["result"]["output"]["execution_id"] for step in cli.json("show", parent)["steps"])
    cli.execute(first)
    cli("resume", first, "Ann", "--text")
    cli.execute(first)
    cli("cancel", second)
    for ended in (first, second):
        summary = cli.store.get_summary(ended)
        assert summary is not None
        cli.runtime.ends.tell(summary)
    cli.execute(parent)

    shown = cli("show", parent).stdout.partition("\nchildren\n")

    assert f"waits for        child {third}" in shown[0]
    rows = {line.split()[0]: line for line in shown[2].splitlines() if line.strip()}
    assert '"hello Ann"' in rows[first]
    assert "ChildFailed" in rows[second]
    assert rows[third].endswith("idle")
    assert f"parent           {parent}" in cli("show", first).stdout
    last = cli("show", parent, "--steps-limit", "1").stdout
    assert "and 2 started before" in last
    assert first not in last.partition("\nchildren\n")[2]


def test_show_a_step_in_flight_and_a_limit_that_was_raised(cli: CLI) -> None:
    launching = cli.enqueue("launching")
    with pytest.raises(WorkerTerminate):
        cli.execute(launching)
    assert "in flight, no result yet" in cli("show", launching).stdout

    bounded = begun(cli, "bounded")
    assert cli.json("show", bounded)["state"] == AgentState.WAITING_FOR_INPUT
    summary = cli.store.get_summary(bounded)
    assert summary is not None
    assert note_of(summary).startswith("the execution has taken 1 steps")
    assert cli("resume", bounded, "5").exit_code == 0
    cli.execute(bounded)
    assert "5 more steps" in cli("show", bounded).stdout


@pytest.mark.parametrize("command", ["watch", "wait"])
def test_who_follows_an_execution_is_shown_how_to_approve(
    cli: CLI, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shown = threading.Event()

    def lines(*given: Any) -> list[str]:
        shown.set()
        return deciding_lines(*given)

    for module in ("output.progress", "commands.enqueue"):
        monkeypatch.setattr(f"celery_agents.cli.{module}.deciding_lines", lines)

    def decide(execution_id: str) -> None:
        assert shown.wait(scaled(20))
        assert cli("approve", execution_id).exit_code == 0
        cli.execute(execution_id)

    worker = in_background(cli, decide)
    if command == "watch":
        result = cli("enqueue", "paying", "30", "--follow")
        told, output = result.stdout, result.stdout.splitlines()[-1]
    else:
        result = cli("enqueue", "paying", "30", "--wait")
        told, output = result.stderr, json.loads(result.stdout)
    worker.join()

    assert result.exit_code == 0, result.output
    assert output == "paid 30 to Zoë"
    for part in (
        "celery -A celery_agents agents approve",
        "celery -A celery_agents agents reject",
        "--digest",
        '"amount": 30',
    ):
        assert part in told


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_enqueue_with_a_deadline(cli: CLI) -> None:
    before = datetime.now(UTC)
    soon = cli.enqueue("count", "1", "--deadline", "2h")
    late = cli.enqueue("count", "1", "--deadline", "2090-01-01T09:00+02:00", "--metadata", "a=b")

    deadline = datetime.fromisoformat(cli.json("show", soon)["metadata"]["agents.deadline"])
    assert timedelta(hours=2) <= deadline - before < timedelta(hours=2, minutes=1)
    shown = cli("show", late).stdout
    assert "metadata         a=b\n" in shown
    assert "\ndeadline         2090-01-01 " in shown or "\ndeadline         2089-12-31 " in shown
    refused(cli("enqueue", "count", "1", "--deadline", "soon"), "'soon' is no moment", code=2)
    refused(cli("enqueue", "count", "1", "--deadline", "2030-01-01T09:00"), "time zone", code=2)
    refused(cli("enqueue", "count", "1", "--deadline", "999999w"), "any calendar", code=2)


def test_a_deadline_that_has_passed_fails_the_execution(cli: CLI) -> None:
    late = begun(cli, "count", "1", "--deadline", "2020-01-01T00:00Z")
    assert cli.json("show", late)["error"]["type"] == "celery_agents.errors:DeadlineExceeded"
