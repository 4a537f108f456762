"""`agents list`, `show`, `watch`: what looks at executions."""

import json
import os
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import click
import pytest

from agent_statestore import Action, AgentState, Checkpoint
from agent_statestore import Result as StepResult
from agent_statestore.checkpoint import STATE_OF_WAIT
from agent_statestore.records import Wait, WaitKind
from celery_agents import Run, agent
from celery_agents.cli import agents
from celery_agents.cli.output import overview
from celery_agents.client.execution import Execution
from celery_agents.host.owner import this_process
from tests.celery_agents.cli.cli_driving import CLI, in_background, refused

# -- list --------------------------------------------------------------------------------------------------------------


def test_list_filters(cli: CLI) -> None:
    done = cli.enqueue("count", "1", "--session", "s1")
    cli.execute(done)
    asking = cli.enqueue("refund", "1", "--user", "u1")
    cli.execute(asking)
    idle = cli.enqueue("count", "2")

    def found(*arguments: str) -> list[str]:
        return [item["execution_id"] for item in cli.json("list", *arguments)["items"]]

    assert found() == [idle, asking, done]
    assert found("--state", "idle", "--state", "completed") == [idle, done]
    assert found("--agent", "refund") == [asking]
    assert found("--session", "s1") == [done]
    assert found("--user", "u1") == [asking]
    assert found("--since", "1h") == [idle, asking, done]
    assert found("--since", "2090-01-01T00:00Z") == []
    refused(cli("list", "--since", "yesterday"), "no moment", code=2)
    refused(cli("list", "--state", "running"), "waiting_for_input", code=2)
    refused(cli("list", "--cursor", "x"), "cursor")


def test_list_pages(cli: CLI) -> None:
    ids = [cli.enqueue("count", "1") for _ in range(5)]

    seen: list[str] = []
    cursor: list[str] = []
    while True:
        page = cli.json("list", "--limit", "2", *cursor)
        seen += [item["execution_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = ["--cursor", page["next_cursor"]]

    assert seen == ids[::-1]
    assert "--cursor" in cli("list", "--limit", "2").stderr


@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_list_keeps_ids_whole_and_lines_short(cli: CLI, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    asking = cli.enqueue("refund", "1")
    cli.execute(asking)

    lines = cli("list").stdout.splitlines()

    assert lines[0].split()[:2] == ["execution", "agent"]
    assert lines[1].startswith(f"{asking}  refund")
    assert "waiting_for_input" in lines[1]
    assert all(line == line.rstrip() for line in lines)
    if columns != "40":
        assert max(map(len, lines)) <= int(columns)
    assert ("Pay 1 €?" in lines[1]) == (columns == "120")


def test_list_says_that_there_is_nothing(cli: CLI) -> None:
    assert "agents enqueue" in cli("list").stderr
    assert cli("list", "--state", "idle").stderr.startswith("No execution matches")


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_a_question_tells_how_to_answer_it(cli: CLI) -> None:
    asking = cli.enqueue("refund", "30", "--metadata", "order=7")
    cli.execute(asking)

    shown = cli("show", asking).stdout

    assert f"\n    celery -A celery_agents agents resume {asking} ANSWER\n" in shown
    for part in ("waiting_for_input", "Pay 30 €?", 'one of: "yes", "no"', "order=7", "amount = 30", "- a fact"):
        assert part in shown
    assert "assistant: Let me ask." in shown


def test_show_a_failure_with_its_traceback(cli: CLI) -> None:
    failed = cli.enqueue("boom", "3")
    cli.execute(failed)

    shown = cli("show", failed).stdout

    assert "  ValueError: bad 3\n" in shown
    assert "Traceback (most recent call last)" in shown
    assert cli.json("show", failed)["error"]["type"] == "builtins:ValueError"


def test_show_limits_steps_and_makes_control_characters_visible(cli: CLI) -> None:
    done = cli.enqueue("count", "60")
    cli.execute(done)

    shown = cli("show", done).stdout
    assert "steps (the last 50 of 60)" in shown
    assert "\x1b" not in shown
    assert "tück" in shown
    assert "steps (the last 2 of 60)" in cli("show", done, "--steps-limit", "2").stdout
    assert len(cli.json("show", done)["steps"]) == 60
    assert [step["step_number"] for step in cli.json("show", done, "--steps-limit", "2")["steps"]] == [59, 60]
    assert cli.json("show", done, "--steps-limit", "0")["steps"] == []


def test_show_an_unknown_execution(cli: CLI) -> None:
    refused(cli("show", "nope"), "there is no execution 'nope' (looked at ")
    refused(cli("watch", "nope"), "there is no execution 'nope' (looked at ")


def test_every_command_names_the_store_in_which_an_execution_is_not(cli: CLI) -> None:
    more = {
        "resume": ["yes"],
        "send-event": ["paid"],
        "say": ["hello"],
        "fork": ["--at-step", "0"],
        "rewind": ["--to-step", "0"],
        "diff": ["nope"],
        "purge": ["--yes"],
    }
    silent = []
    for name in agents.list_commands(click.Context(agents)):
        command = agents.get_command(click.Context(agents), name)
        assert command is not None
        if any(one.name in ("execution_id", "execution_ids", "a") for one in command.params):
            result = cli(name, "nope", *more.get(name, []))
            if result.exit_code != 1 or f"no execution 'nope' (looked at {cli.store.url})" not in result.stderr:
                silent.append((name, result.output))
    assert silent == []


def test_show_says_who_has_it_and_how_many_died(cli: CLI) -> None:
    ttl = timedelta(hours=1)
    running = cli.enqueue("count", "1")
    for deaths in range(3):
        claim = cli.store.claim(running, this_process("celery@web/1"), ttl)
        assert claim is not None
        said = cli("show", running).stdout
        assert re.search(rf"claimed by +celery@web/1 \(process {os.getpid()}\)\n", said), said
        words = "" if deaths == 0 else f", {deaths} death{'s' * (deaths > 1)} in a row without a recorded step"
        assert re.search(rf"steps +0, {deaths + 1} attempts?{words}\n", said), said
        cli.store.release(claim.lease, crashed=True)
    for _ in range(2):
        claim = cli.store.claim(running, "host/1/0", ttl)
        assert claim is not None
        cli.store.release(claim.lease, crashed=True)
    cli.runtime.registry.agent("count").max_attempts = 3  # it was more until now
    cli.execute(running)
    said = cli("show", running).stdout
    assert "6 attempts, 5 deaths in a row without a recorded step" in said
    assert "given up as a dead letter: 5 attempts in a row died" in said


def test_show_tells_a_moment_from_a_look(cli: CLI) -> None:
    moment = datetime.now(UTC) + timedelta(minutes=57)
    for kind, key, prompt, label in (
        (WaitKind.CHILD, "some child", None, "looked at again"),
        (WaitKind.EVENT, "agents.turn", None, "looked at again"),
        (WaitKind.TIMER, "job", {"job": "job"}, "looked at again"),
        (WaitKind.TIMER, "sleep", None, "goes on"),
        (WaitKind.EVENT, "paid", None, "waits until"),
        (WaitKind.INPUT, "ask", {"job": "?"}, "waits until"),
    ):
        paused = cli.enqueue("count", "1")
        wait = Wait(kind=kind, key=key, prompt=prompt, asked_at=datetime.now(UTC), wake_at=moment)
        cli.store.checkpoint(paused, Checkpoint(state=STATE_OF_WAIT[kind], waits=(wait,)))
        said = cli("show", paused).stdout
        found = [each for each in ("looked at again", "goes on", "waits until") if f"\n{each} " in said]
        assert found == [label], (kind, key)
        assert ("until" in cli("recover", paused).output) == (label != "looked at again"), (kind, key)


# -- watch -------------------------------------------------------------------------------------------------------------


def test_watch_json_has_each_step_once_and_an_end(cli: CLI) -> None:
    execution_id = cli.enqueue("count", "3")
    worker = in_background(cli)
    result = cli("watch", execution_id, "--json")
    worker.join()

    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["step"]["step_number"] for event in events if event["event"] == "step"] == [1, 2, 3]
    assert events[-1] == {"event": "end", "state": "completed", "output": {"n": 3}, "error": None}
    assert {event["event"] for event in events} == {"execution", "step", "end"}


def test_watch_shows_a_step_once_its_result_is_there_whatever_the_order(cli: CLI) -> None:
    execution_id = cli.enqueue("count", "3")
    call = Action(kind="tool", tool="t")
    first = cli.store.add_step(execution_id, "first", call)
    cli.store.add_step(execution_id, "second", call, StepResult(success=True, output=2))
    from celery_agents.cli.output.following import follow

    looks = follow(Execution(execution_id, cli.runtime))
    look = next(looks)
    assert [step.name for step in look.recorded] == ["second"]
    assert [step.name for step in look.intents] == ["first"]

    done = StepResult(success=True, output=1)
    cli.store.checkpoint(
        execution_id,
        Checkpoint(
            steps=(type(first)(step_number=1, name="first", action=call, result=done, timestamp=first.timestamp),)
        ),
    )
    assert [step.name for step in next(looks).recorded] == ["first"]
    cli.store.update_state(execution_id, AgentState.CANCELLED)
    assert next(looks).recorded == ()
    assert list(looks) == []


def test_watch_exits_with_1_for_a_failure(cli: CLI) -> None:
    failed = cli.enqueue("boom", "3")
    cli.execute(failed)

    result = cli("watch", failed)

    assert result.exit_code == 1
    assert "failed after 1 step, 1 attempt" in result.stdout
    assert result.stdout.endswith("ValueError: bad 3\n")


@pytest.mark.parametrize("mode", [(), ("--json",)])
def test_watch_ends_cleanly_on_ctrl_c(cli: CLI, monkeypatch: pytest.MonkeyPatch, mode: tuple[str, ...]) -> None:
    asking = cli.enqueue("refund", "30")
    cli.execute(asking)

    def press_ctrl_c(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", press_ctrl_c)
    one, all_active = cli("watch", asking, *mode), cli("watch", *mode)

    assert (one.exit_code, all_active.exit_code) == (130, 0)
    assert asking in one.stderr
    assert asking in all_active.stdout
    if not mode:
        assert "Pay 30 €?" in one.stdout


def test_watch_all_shows_changes_and_ends(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = cli.enqueue("count", "1"), cli.enqueue("refund", "1")
    rounds = iter([lambda: cli.execute(first), lambda: cli.execute(second), lambda: None])

    def act(seconds: float) -> None:
        del seconds
        step = next(rounds, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(overview, "time", SimpleNamespace(sleep=act))
    result = cli("watch", "--json")

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["execution_id"], line["state"]) for line in lines] == [
        (first, "idle"),
        (second, "idle"),
        (first, "completed"),
        (second, "waiting_for_input"),
    ]


def test_show_what_was_spent_in_all_and_by_step(cli: CLI) -> None:
    @agent(registry=cli.runtime.registry)
    def costly(run: Run, _: None) -> None:
        run.step("free", lambda: 1)
        run.spend(tokens=3)
        run.step("think", lambda: run.spend(tokens=1200, cost=0.0042))

    execution_id = cli.enqueue("costly")
    cli.execute(execution_id)
    shown = cli("show", execution_id).stdout
    assert "spent            1203 tokens, 0.0042 cost" in shown
    assert "1200 tokens, 0.0042 cost" in next(line for line in shown.splitlines() if " think " in line)
    told = cli.json("show", execution_id)
    assert told["spent"] == {"tokens": 1203, "cost": 0.0042}
    assert [step["spent"] for step in told["steps"]] == [{}, {"tokens": 1200, "cost": 0.0042}]
    free = cli.enqueue("count", "2")
    cli.execute(free)
    assert "spent" not in cli("show", free).stdout
