"""The commands, on a real SQLite store. Executions are executed by this process, so nothing waits for a worker."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner, Result

from statestore import Action, AgentState, Checkpoint, SignalKind
from statestore import Result as StepResult
from worker import Registry, Run, agent, install
from worker.cli import agents, overview
from worker.cli.group import _COMMANDS
from worker.execution import Execution
from worker.owner import owner_of, this_process
from worker.runtime import Runtime, runtime_of

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class CLI:
    """Calls commands of one app, and executes what they enqueue."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.runtime: Runtime = runtime_of(app)
        self.store = self.runtime.store

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        runner = CliRunner()
        obj = SimpleNamespace(app=self.app, no_color=False)
        return runner.invoke(agents, arguments, obj=obj, input=stdin)

    def enqueue(self, *arguments: str) -> str:
        result = self("enqueue", *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    def execute(self, execution_id: str) -> None:
        self.runtime.executor.execute(execution_id, this_process())

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def bells(self) -> int:
        """How many messages are in the queue, which is emptied."""
        with self.app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
            number = queue.qsize()
            queue.clear()
        return int(number)


def make_registry() -> Registry:
    registry = Registry()

    @agent(registry=registry)
    def count(run: Run, n: int) -> dict[str, int]:
        for _ in range(n):
            run.step("tick", lambda: "tück \x1b[31m")
        return {"n": n}

    @agent(registry=registry)
    def boom(run: Run, n: int) -> None:
        run.step("one", lambda: n)
        raise ValueError(f"bad {n}")

    @agent(registry=registry)
    def refund(run: Run, amount: int) -> str:
        run.say("assistant", "Let me ask.")
        run.remember("a fact")
        run.memory["amount"] = amount
        answer = run.ask(f"Pay {amount} €?", choices=["yes", "no"], name="pay")
        return f"paid: {answer}"

    @agent(registry=registry)
    def greet(run: Run, _: None) -> str:
        return f"hello {run.ask('Name?', schema=str)}"

    assert [each.name for each in registry.agents] == ["boom", "count", "greet", "refund"]
    return registry


def make_app(store_url: str, broker_url: str, **configuration: Any) -> Celery:
    app = Celery("test", broker=broker_url, set_as_current=False)
    app.conf.update(agents_store_url=store_url, accept_content=["json"], **configuration)
    return install(app, registry=make_registry())


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("AGENTS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[CLI]:
    app = make_app(f"sqlite:///{tmp_path}/s.db", "memory://")
    cli = CLI(app)
    cli.bells()
    yield cli
    cli.bells()
    cli.store.close()
    app.close()


def refused(result: Result, *parts: str, code: int = 1) -> None:
    """The command failed with one line that contains all parts, and nothing else was printed."""
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert code == 2 or len(lines) == 1
    for part in parts:
        assert part in lines[-1]
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)


# -- enqueue -----------------------------------------------------------------------------------------------------------


def test_enqueue_stores_everything_and_prints_the_id_alone(cli: CLI) -> None:
    execution_id = cli.enqueue(
        *("count", "3", "--session", "s", "--user", "u", "--metadata", "a=b=c", "--metadata", '{"n": [1]}'),
        *("--idempotency-key", "k", "--queue", "celery", "--priority", "5"),
    )

    assert UUID.fullmatch(execution_id)
    context = cli.json("show", execution_id)
    assert context["input"] == 3
    assert context["metadata"] == {"a": "b=c", "n": [1]}
    fields = ("agent_id", "session_id", "user_id", "idempotency_key", "queue", "priority", "state")
    assert [context[name] for name in fields] == ["count", "s", "u", "k", "celery", 5, "idle"]
    assert cli.bells() == 1
    assert cli.enqueue("count", "4", "--idempotency-key", "k") == execution_id


def test_enqueue_reads_the_input_from_stdin_and_from_a_file(cli: CLI, tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_bytes(b"\xef\xbb\xbf 7")

    from_stdin = cli("enqueue", "count", "-", stdin="5").stdout.strip()
    from_option = cli("enqueue", "count", "--input-file", "-", stdin="6").stdout.strip()
    from_file = cli.enqueue("count", "--input-file", str(file))

    assert [cli.json("show", each)["input"] for each in (from_stdin, from_option, from_file)] == [5, 6, 7]
    refused(cli("enqueue", "count", "1", "--input-file", str(file)), "either", code=2)
    refused(cli("enqueue", "count", "-", stdin=b"\xff"), "not UTF-8", code=2)


@pytest.mark.parametrize("text", ['{"n":', "hello", "NaN", "[" * 100_000, "9" * 5000])
def test_enqueue_says_that_the_input_is_no_json(cli: CLI, text: str) -> None:
    refused(cli("enqueue", "count", text), "the input is not", code=2)
    assert cli.json("list")["items"] == []


def test_enqueue_refuses_what_does_not_fit(cli: CLI) -> None:
    refused(cli("enqueue", "nobody"), "unknown agent 'nobody'", "count")
    refused(cli("enqueue", "count", '"x"'), "invalid input for agent 'count'", "integer")
    refused(cli("enqueue", "count", "1", "--session", "x" * 300), "session_id")
    refused(cli("enqueue", "count", "1", "--start-at", "2030-01-01T09:00"), "time zone", code=2)
    refused(cli("enqueue", "count", "1", "--start-at", "soon"), "'soon' is no moment", code=2)
    refused(cli("enqueue", "count", "1", "--metadata", "novalue"), "key=value", code=2)
    refused(cli("enqueue", "count", "1", "--follow", "--wait"), "exclude", code=2)
    assert cli.json("list")["items"] == []


def test_enqueue_start_at_rings_no_bell(cli: CLI) -> None:
    execution_id = cli.enqueue("count", "1", "--start-at", "2090-01-01T09:00+02:00")

    assert cli.json("show", execution_id)["due_at"] == "2090-01-01T07:00:00+00:00"
    assert cli.bells() == 0


def test_enqueue_names_a_missing_module(tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/s.db", "memory://", imports=("no_such_module.agents",))

    refused(CLI(app)("enqueue", "count", "1"), "agents_imports", "no_such_module")

    runtime_of(app).store.close()


def in_background(cli: CLI, *steps: Any) -> threading.Thread:
    """Executes the next execution that appears, then calls the steps with its id."""

    def work() -> None:
        while not (found := cli.store.find(limit=1).items):
            threading.Event().wait(0.01)
        execution_id = found[0].execution_id
        cli.execute(execution_id)
        for step in steps:
            step(execution_id)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_wait_prints_the_output_as_json_and_nothing_else(cli: CLI) -> None:
    worker = in_background(cli)
    result = cli("enqueue", "count", "2", "--wait")
    worker.join()

    assert (result.exit_code, json.loads(result.stdout)) == (0, {"n": 2})
    assert UUID.search(result.stderr)


def test_wait_for_a_failure_exits_with_1(cli: CLI) -> None:
    worker = in_background(cli)
    result = cli("enqueue", "boom", "2", "--wait")
    worker.join()

    assert (result.exit_code, result.stdout) == (1, "")
    assert "failed with builtins:ValueError: bad 2" in result.stderr


def test_wait_shows_the_question(cli: CLI) -> None:
    worker = in_background(cli, lambda each: cli("resume", each, "yes"), cli.execute)
    asked = cli("enqueue", "refund", "30", "--wait")
    worker.join()

    assert json.loads(asked.stdout) == "paid: yes"


def test_follow_prints_each_step_and_the_output(cli: CLI) -> None:
    worker = in_background(cli)
    result = cli("enqueue", "count", "2", "--follow")
    worker.join()

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert UUID.search(lines[0])
    assert [line.split()[:2] for line in lines if "tick" in line] == [["1", "tick"], ["2", "tick#2"]]
    assert "\x1b" not in result.stdout
    assert any(line.startswith("completed after 2 steps, 1 attempt, ") for line in lines)
    assert json.loads("".join(lines[-3:])) == {"n": 2}


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
    assert cli("list", "--state", "idle").stderr == "No execution matches.\n"


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_a_question_tells_how_to_answer_it(cli: CLI) -> None:
    asking = cli.enqueue("refund", "30", "--metadata", "order=7")
    cli.execute(asking)

    shown = cli("show", asking).stdout

    assert f"\n    celery -A worker agents resume {asking} ANSWER\n" in shown
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
    refused(cli("show", "nope"), "there is no execution 'nope'")
    refused(cli("watch", "nope"), "there is no execution 'nope'")


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
    from worker.cli.following import follow

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


# -- resume ------------------------------------------------------------------------------------------------------------


def test_resume_answers_and_rings(cli: CLI) -> None:
    asking = cli.enqueue("refund", "30")
    cli.execute(asking)
    cli.bells()

    answered = cli("resume", asking, "yes", "--sender", "ann", "--reason", "as agreed")

    assert answered.exit_code == 0, answered.output
    assert 'Answered "pay"' in answered.stdout
    assert cli.bells() == 1
    (signal,) = cli.json("show", asking)["signals"]
    assert (signal["kind"], signal["sender"], signal["reason"]) == (SignalKind.ANSWER, "ann", "as agreed")
    refused(cli("resume", asking, "no"), "already has an answer")
    cli.execute(asking)
    assert cli.json("show", asking)["output"] == "paid: yes"
    refused(cli("resume", asking, "no"), "is over (completed)")


def test_resume_takes_json_or_text(cli: CLI) -> None:
    asking = cli.enqueue("greet")
    cli.execute(asking)

    refused(cli("resume", asking, "42"), "--text")
    refused(cli("resume", asking, '{"a": 1}'), "--text")
    refused(cli("resume", asking), "no terminal", code=2)
    assert cli("resume", asking, "42", "--text").exit_code == 0
    cli.execute(asking)
    assert cli.json("show", asking)["output"] == "hello 42"


def test_resume_refuses_what_is_not_asked(cli: CLI) -> None:
    idle = cli.enqueue("refund", "30")

    refused(cli("resume", idle, "yes"), "does not wait for an answer", "it is idle")
    cli.execute(idle)
    refused(cli("resume", idle, "yes", "--key", "other"), '"other"', 'waits for the answer to "pay"')
    refused(cli("resume", idle, "maybe"), "invalid answer", "'maybe' is not one of")
    refused(cli("resume", "nope", "yes"), "there is no execution 'nope'")


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_cancel(cli: CLI) -> None:
    asking, running = cli.enqueue("refund", "30"), cli.enqueue("count", "1")
    cli.execute(asking)
    claim = cli.store.claim(running, this_process(), timedelta(minutes=1))
    assert claim is not None

    assert "is cancelled." in cli("cancel", asking, "--reason", "asked twice").stdout
    assert "was cancelled already" in cli("cancel", asking).stdout
    assert "next step boundary" in cli("cancel", running).stdout
    assert "cancel asked for" in cli("show", running).stdout
    cli.store.release(claim.lease)
    cli.execute(running)
    done = cli.enqueue("count", "1")
    cli.execute(done)
    refused(cli("cancel", done), "is over (completed)")
    refused(cli("cancel", "nope"), "there is no execution 'nope'")


# -- recover -----------------------------------------------------------------------------------------------------------


def dead_owner() -> str:
    """An owner on this host whose process is gone."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    owner = owner_of(child.pid)
    child.communicate()
    return owner


def test_recover_rings_everything_due_and_frees_what_the_dead_held(cli: CLI) -> None:
    for _ in range(3):
        cli.store.create_context("count", 1, first_ring=timedelta(0))
    held = cli.store.create_context("count", 1)
    assert cli.store.claim(held.execution_id, dead_owner(), timedelta(hours=1))

    result = cli("recover")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == ["leases of dead processes given back: 1", "bells rung: 4"]
    assert cli.bells() == 4
    assert "bells rung: 0" in cli("recover").stdout


def test_recover_takes_more_than_one_batch(tmp_path: Path) -> None:
    cli = CLI(make_app(f"sqlite:///{tmp_path}/s.db", "memory://", agents_sweep_batch=2))
    for _ in range(5):
        cli.store.create_context("count", 1, first_ring=timedelta(0))

    assert "bells rung: 5" in cli("recover").stdout

    cli.bells()
    cli.store.close()


def test_recover_releases_a_failed_execution(cli: CLI) -> None:
    failed = cli.enqueue("boom", "3")
    cli.execute(failed)
    cli.bells()

    result = cli("recover", failed)

    assert result.exit_code == 0, result.output
    assert "is released with 1 step recorded; its bell is rung." in result.stdout
    assert cli.json("show", failed)["state"] == "idle"
    assert cli.bells() == 1


def test_recover_rings_what_nobody_claims_and_leaves_its_start_time(cli: CLI) -> None:
    idle = cli.enqueue("count", "1")
    scheduled = cli.enqueue("count", "1", "--start-at", "2090-01-01T09:00Z")
    held = cli.enqueue("count", "1")
    assert cli.store.claim(held, dead_owner(), timedelta(hours=1))
    cli.bells()

    result = cli("recover", idle, scheduled, held)

    assert result.exit_code == 0, result.output
    assert cli.bells() == 3
    assert cli.json("show", scheduled)["due_at"] == "2090-01-01T09:00:00+00:00"
    assert cli.json("show", held)["owner"] is None


def test_recover_says_why_not(cli: CLI) -> None:
    done, asking, held, cancelled = (cli.enqueue(*each) for each in (("count", "1"), ("refund", "1")) * 2)
    cli.execute(done)
    cli.execute(asking)
    assert cli.store.claim(held, this_process(), timedelta(minutes=1))
    cli("cancel", cancelled)
    cli.bells()

    result = cli("recover", done, asking, held, cancelled, "nope")

    assert result.exit_code == 1
    reasons = result.stderr.splitlines()
    expected = ("is over (completed)", "waits for input 'pay'", "is claimed by", "is over (cancelled)", "no execution")
    assert len(reasons) == 5
    for reason, part in zip(reasons, expected, strict=True):
        assert part in reason
    assert cli.bells() == 0


# -- migrate, settings, check ------------------------------------------------------------------------------------------


def test_migrate_up_and_down(cli: CLI) -> None:
    assert "went from revision none to" in cli("migrate").stdout
    assert "already" in cli("migrate").stdout
    cli.enqueue("count", "1")
    refused(cli("migrate", "base"), "--downgrade", code=2)
    refused(cli("migrate", "--downgrade"), "--yes", code=2)
    assert len(cli.json("list")["items"]) == 1
    assert "to none" in cli("migrate", "--downgrade", "--yes").stdout
    refused(cli("migrate", "nope"), "no such schema revision 'nope'")
    assert "CREATE TABLE" in cli("migrate", "--sql").stdout
    assert "DROP TABLE" in cli("migrate", "--sql", "--downgrade").stdout


def test_migrate_a_store_without_a_schema() -> None:
    result = CLI(make_app("memory://", "memory://"))("migrate")

    assert (result.exit_code, result.stdout) == (
        0,
        "The store memory:// has no schema: there is nothing to migrate.\n",
    )


def test_settings_shows_all_and_masks_passwords(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTS_LEASE_SECONDS", "7")
    cli = CLI(make_app(f"sqlite:///{tmp_path}/s.db", "memory://"))
    monkeypatch.setenv("AGENTS_STORE_URL", "postgresql+psycopg://ann:hunter2@host/db?sslpassword=hunter3")
    cli.runtime = Runtime(cli.app, make_registry(), cli.runtime.drain)
    from worker.runtime import bind

    bind(cli.app, cli.runtime)

    rows = {row["name"]: row for row in cli.json("settings")}
    assert rows["agents_lease_seconds"]["value"] == 7.0
    assert rows["agents_lease_seconds"]["default"] == 15.0
    assert rows["agents_lease_seconds"]["source"] == "environment"
    assert rows["agents_max_steps"]["source"] == "default"
    assert all(row["description"] for row in rows.values())
    shown = cli("settings").stdout
    assert "hunter" not in shown + json.dumps(rows)
    assert "postgresql+psycopg://ann:***@host/db" in shown


def test_an_unknown_setting_is_refused_by_every_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/s.db", "memory://", agents_leese_seconds=3)
    runner = CliRunner()

    for arguments in (["list"], ["show", "x"], ["recover"], ["migrate"], ["settings"]):
        result = runner.invoke(agents, arguments, obj=SimpleNamespace(app=app))
        refused(result, "agents_leese_seconds: no such setting")


def test_check(cli: CLI, tmp_path: Path) -> None:
    found = cli.json("check")
    assert (found["store"]["ok"], found["broker"]["ok"]) == (True, True)

    unreachable = "redis://:hunter2@127.0.0.1:1/0"
    result = CLI(make_app(f"sqlite:///{tmp_path}/s.db", unreachable))("check")
    assert result.exit_code == 1
    assert "broker  FAILED  redis://:***@127.0.0.1:1/0" in result.stdout
    assert "hunter2" not in result.output

    missing = make_app(f"sqlite:///{tmp_path}/no/such/folder/s.db", "memory://")
    result = CLI(missing)("check")
    assert result.exit_code == 1
    assert "store   FAILED" in result.stdout


def test_a_store_of_one_process_is_refused_where_it_makes_no_sense() -> None:
    cli = CLI(make_app("memory://", "memory://"))

    for arguments in (("enqueue", "count", "1"), ("list",), ("show", "x"), ("watch",), ("recover",)):
        refused(cli(*arguments), "memory://", "one process")


def test_an_app_without_agents_is_refused() -> None:
    app = Celery("bare", set_as_current=False)

    refused(CliRunner().invoke(agents, ["list"], obj=SimpleNamespace(app=app)), "worker.install(app)", "-A worker")


# -- the plug-in -------------------------------------------------------------------------------------------------------


def test_every_command_has_a_first_sentence_and_an_example() -> None:
    for name in _COMMANDS:
        result = CliRunner().invoke(agents, [name, "--help"])
        assert result.exit_code == 0
        assert f"celery -A worker agents {name}" in result.stdout


def test_importing_the_plug_in_imports_no_command_and_no_rich() -> None:
    program = "import sys, worker.cli; print([m for m in sys.modules if m == 'rich' or m.startswith('worker.cli.')])"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert "rich" not in loaded
    assert "worker.cli.show" not in loaded


def test_the_plug_in_on_the_embedded_defaults(tmp_path: Path) -> None:
    (tmp_path / "my_agents.py").write_text(
        "from worker import agent\n@agent\ndef héllo(run, input):\n    return input\n", encoding="utf-8"
    )
    environment = {**os.environ, "AGENTS_IMPORTS": "my_agents", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "celery", "-A", "worker", "agents", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    execution_id = call("enqueue", "héllo", '"ü"').stdout.strip()
    assert UUID.fullmatch(execution_id)
    listed = call("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert execution_id in listed.stdout
    assert json.loads(call("show", execution_id, "--json").stdout)["input"] == "ü"
    assert call("show", execution_id).returncode == 0
    unknown = call("show", "nope")
    assert (unknown.returncode, unknown.stderr) == (1, "Error: there is no execution 'nope'\n")
    assert datetime.fromisoformat(json.loads(call("list", "--json").stdout)["items"][0]["created_at"]).tzinfo == UTC
