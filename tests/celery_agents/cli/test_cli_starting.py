"""`agents enqueue`, `resume`, `cancel`, `recover`: what changes an execution."""

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from agent_statestore import Checkpoint, SignalKind
from agent_statestore.errors import LeaseLost
from celery_agents.cli.invocation import os_user
from celery_agents.host.owner import owner_of, this_process
from celery_agents.host.runtime import runtime_of
from tests.celery_agents.cli.cli_driving import CLI, in_background, make_app, refused

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

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
    assert cli.enqueue("count", "3", "--idempotency-key", "k") == execution_id


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
    refused(cli("resume", "nope", "yes"), "there is no execution 'nope' (looked at ")


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_cancel(cli: CLI) -> None:
    asking, running = cli.enqueue("refund", "30"), cli.enqueue("count", "1")
    cli.execute(asking)
    claim = cli.store.claim(running, this_process(), timedelta(minutes=1))
    assert claim is not None

    assert "is cancelled." in cli("cancel", asking, "--reason", "asked twice").stdout
    assert "was cancelled already" in cli("cancel", asking).stdout
    said = cli("cancel", running).stdout
    assert "next step boundary" in said
    assert f"(process {os.getpid()}) has it, and recorded something for the last time " in said
    assert f"If its step hangs: celery -A celery_agents agents cancel {running} --now" in said
    assert "cancel asked for" in cli("show", running).stdout
    cli.store.release(claim.lease)
    cli.execute(running)
    done = cli.enqueue("count", "1")
    cli.execute(done)
    refused(cli("cancel", done), "is over (completed)")
    refused(cli("cancel", "nope"), "there is no execution 'nope' (looked at ")


def test_cancel_at_once(cli: CLI) -> None:
    asking, running = cli.enqueue("refund", "30"), cli.enqueue("count", "1")
    claim = cli.store.claim(running, this_process("celery@web-1"), timedelta(minutes=1))
    assert claim is not None
    assert cli("cancel", asking, "--now").stdout == f"Execution {asking} is cancelled.\n"
    said = cli("cancel", running, "--now", "--sender", "ada", "--reason", "it hangs").stdout
    assert f"Execution {running} is cancelled." in said
    assert f"It was executed by celery@web-1 (process {os.getpid()})." in said
    with pytest.raises(LeaseLost):
        cli.store.checkpoint(running, Checkpoint(), claim.lease)
    *_, last = cli.store.get_audit(running)
    assert (last.by, last.reason) == ("ada", "it hangs")


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

    result = cli("recover", failed, "--reason", "the model is back")

    assert result.exit_code == 0, result.output
    *_, last = cli.store.get_audit(failed)
    assert (last.by, last.reason) == (os_user(), "the model is back")
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
