"""`agents archive`, `purge`, `copy`, `audit`, and `migrate` of an archive."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent_statestore import (
    AgentState,
    FormatTooNew,
    InvalidRecord,
    NewExecution,
    Signal,
    SignalKind,
    Store,
    StoreUnavailable,
    Wait,
    WaitKind,
    open_store,
)
from agent_statestore.clock import from_us
from agent_statestore.hybrid import HybridStore
from agent_statestore.query import Query
from celery_agents.cli.commands import copy as copying_command
from celery_agents.cli.commands import purge as purging_command
from celery_agents.cli.output import terminal
from celery_agents.host.owner import this_process, worker_text
from celery_agents.lifecycle.decider import process_user
from tests.celery_agents.cli.cli_driving import CLI, make_app, refused
from tests.services.commands import Command
from tests.services.machine import scaled

HOSTILE = "\x1b[31mred\u202e"


def ended(store: Store, state: AgentState = AgentState.COMPLETED) -> str:
    execution_id = store.create_context("agent").execution_id
    store.update_state(execution_id, state)
    return execution_id


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[CLI]:
    """The commands of an app with an archive that is filled an hour after the ends."""
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("hot", "cold")]
    cli = CLI(make_app(urls[0], "memory://", agents_archive_url=urls[1], agents_archive_after_seconds=3600))
    yield cli
    cli.store.close()
    cli.app.close()


def parts(cli: CLI) -> tuple[Store, Store]:
    assert isinstance(cli.store, HybridStore)
    return cli.store.hot, cli.store.cold


# -- archive -----------------------------------------------------------------------------------------------------------


def test_archive_catches_up(hybrid: CLI) -> None:
    hot, cold = parts(hybrid)
    made = [ended(hybrid.store) for _ in range(3)]
    active = hybrid.store.create_context("agent").execution_id
    assert hybrid("archive").stdout == f"Archived 0 executions in {cold.url}.\n"
    assert hybrid("archive", "--older-than", "1d").stdout.startswith("Archived 0 ")
    result = hybrid("archive", "--older-than", "0s")
    assert (result.exit_code, result.stdout) == (0, f"Archived 3 executions in {cold.url}.\n")
    assert sorted(item.execution_id for item in cold.find().items) == sorted(made)
    assert [item.execution_id for item in hot.find().items] == [active]
    assert len(hybrid.json("list")["items"]) == 4


def test_archive_says_what_it_could_not_move(hybrid: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cold = parts(hybrid)
    bad, restore = ended(hybrid.store), cold.restore
    ended(hybrid.store)

    def refusing(exported: Any) -> bool:
        if exported.execution_id == bad:
            raise FormatTooNew("execution", 2, 1)
        return restore(exported)

    monkeypatch.setattr(cold, "restore", refusing)
    result = hybrid("archive", "--older-than", "0s")
    assert result.exit_code == 1
    assert "Archived 1 execution " in result.stdout
    assert "Not archived, for the reasons above: 1 execution." in result.stderr


def test_archive_without_the_archives_server_is_refused(hybrid: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cold = parts(hybrid)
    ended(hybrid.store)

    def away(*_: Any) -> Any:
        raise StoreUnavailable("cold://", "gone")

    for name in ("restore", "check"):
        monkeypatch.setattr(cold, name, away)
    refused(hybrid("archive", "--older-than", "0s"), "cold://", "gone")


def test_archive_without_an_archive_says_what_to_set(cli: CLI) -> None:
    refused(cli("archive"), "AGENTS_ARCHIVE_URL", cli.store.url)


def test_migrate_brings_both_stores_up_to_date(hybrid: CLI, tmp_path: Path) -> None:
    said = hybrid("migrate").stdout.splitlines()
    for name, line in zip(("hot", "cold"), said, strict=True):
        assert f"sqlite:///{tmp_path}/{name}.db" in line
    assert all("went from revision none" in line for line in said)
    assert all("already" in line for line in hybrid("migrate").stdout.splitlines())
    assert hybrid("migrate", "--sql").stdout.count("CREATE TABLE agent_alembic_version") == 2
    ended(hybrid.store)
    refused(hybrid("migrate", "--downgrade"), "--yes", code=2)
    assert hybrid("migrate", "--downgrade", "--yes").stdout.count("to none") == 2


def test_check_looks_at_both_stores(hybrid: CLI, tmp_path: Path) -> None:
    found = hybrid.json("check")["store"]
    assert found["ok"]
    assert f"over sqlite:///{tmp_path}/cold.db" in found["url"]


# -- purge -------------------------------------------------------------------------------------------------------------


def test_delete_hides_what_is_over_and_says_who_and_why(cli: CLI) -> None:
    over, active = ended(cli.store), cli.enqueue("count", "1")
    result = cli("delete", over, over, active, "nope", "--reason", "дубль", "--sender", "ada")
    assert result.exit_code == 1
    assert result.stdout.startswith("Deleted 1 execution; ")
    assert result.stderr.splitlines() == [
        f"Error: execution {active} is idle: cancel it first",
        f"Error: there is no execution 'nope' (looked at {cli.store.url})",
    ]
    assert [item["execution_id"] for item in cli.json("list")["items"]] == [active]
    *_, last = cli.store.get_audit(over)
    assert (last.event.value, last.by, last.reason) == ("deleted", "ada", "дубль")
    assert cli("purge", over, "--yes").exit_code == 0


@pytest.mark.parametrize("command", ["delete", "purge"])
def test_a_parent_is_told_of_the_end_of_a_child_before_that_goes(cli: CLI, command: str) -> None:
    """As after a worker that died between the child's end and the telling of it."""
    parent = cli.store.create_context("agent").execution_id
    child = cli.store.create_context("agent", parent_execution_id=parent).execution_id
    cli.store.update_state(child, AgentState.FAILED)
    waits = Wait(kind=WaitKind.CHILD, key=child, asked_at=from_us(1_000_000))
    cli.store.update_state(parent, AgentState.WAITING, waits=(waits,))
    assert cli.bells() == 0

    assert cli(command, child, "--yes").exit_code == 0

    assert cli.bells() == 1
    context = cli.store.get_context(parent)
    assert context is not None
    assert [(signal.kind, signal.key) for signal in context.signals] == [(SignalKind.CHILD, child)]


def test_delete_asks_where_nothing_is_kept(tmp_path: Path) -> None:
    cli = CLI(make_app(f"sqlite:///{tmp_path}/a.db?soft_delete=off", "memory://"))
    over = ended(cli.store)
    refused(cli("delete", over), "keeps nothing of deleted executions", "--yes", code=2)
    assert cli("delete", over, "--yes").stdout == "Deleted 1 execution.\n"
    assert cli.store.get_audit(over) == ()
    cli.store.close()
    cli.app.close()


def test_purge_removes_what_is_named(cli: CLI) -> None:
    gone, kept = ended(cli.store), ended(cli.store)
    deleted = ended(cli.store)
    cli.store.delete_context(deleted)
    result = cli("purge", gone, f" {deleted} ", "--yes")
    assert (result.exit_code, result.stdout) == (0, "Purged 2 executions.\n")
    assert cli.store.get_audit(gone) == cli.store.get_audit(deleted) == ()
    assert [item["execution_id"] for item in cli.json("list")["items"]] == [kept]


def test_purge_removes_nothing_that_is_active_or_unknown(cli: CLI) -> None:
    active, over = cli.enqueue("count", "1"), ended(cli.store)
    result = cli("purge", active, "nope", over, "--yes")
    assert (result.exit_code, result.stdout) == (1, "Purged 1 execution.\n")
    assert result.stderr.splitlines() == [
        f"Error: execution {active} is idle: cancel it first",
        f"Error: there is no execution 'nope' (looked at {cli.store.url})",
    ]
    assert cli.store.get_summary(active) is not None


def test_purge_by_age_and_state(cli: CLI) -> None:
    made = {state: ended(cli.store, state) for state in (AgentState.COMPLETED, AgentState.FAILED, AgentState.CANCELLED)}
    active = cli.enqueue("count", "1")
    assert cli("purge", "--older-than", "1d", "--state", "completed", "--yes").stderr.startswith(
        "No execution matches (looked at "
    )
    assert cli("purge", "--older-than", "0s", "--state", "completed", "--yes").stdout == "Purged 1 execution.\n"
    assert cli.store.get_summary(made[AgentState.FAILED]) is not None
    both = ("--state", "failed", "--state", "cancelled")
    assert cli("purge", "--older-than", "0s", *both, "--yes").stdout == "Purged 2 executions.\n"
    assert [item["execution_id"] for item in cli.json("list")["items"]] == [active]


def test_a_time_before_all_times_is_refused(cli: CLI) -> None:
    refused(cli("purge", "--older-than", "999999w", "--state", "failed", "--yes"), "--older-than", "999999w", code=2)


def test_purge_of_deleted_ones(cli: CLI) -> None:
    deleted, kept = ended(cli.store), ended(cli.store)
    cli.store.delete_context(deleted)
    assert cli("purge", "--older-than", "1h", "--deleted", "--yes").stderr.startswith(
        "No execution matches (looked at "
    )
    assert cli("purge", "--older-than", "0s", "--deleted", "--yes").stdout == "Purged 1 execution.\n"
    assert cli.store.get_audit(deleted) == ()
    assert cli.store.get_summary(kept) is not None


def test_purge_goes_on_until_nothing_is_left(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging_command, "_BATCH", 2)
    monkeypatch.setattr(purging_command, "_MOST_COUNTED", 3)
    for number in range(5):
        execution_id = ended(cli.store)
        if number % 2:
            cli.store.delete_context(execution_id)
    options = ("--older-than", "0s", "--state", "completed", "--deleted")
    result = cli("purge", *options)
    assert result.exit_code == 2
    assert "more than 3 executions, completed or deleted before" in re.sub(r"\s+", " ", result.stderr)
    assert cli("purge", *options, "--yes").stdout == "Purged 5 executions.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to purge"),
        (("--older-than", "1d"), "say what to purge"),
        (("--state", "completed"), "say what to purge"),
        (("--deleted",), "say what to purge"),
        (("an-id", "--older-than", "1d"), "either ids"),
        (("an-id", "--deleted"), "either ids"),
        (("--older-than", "1d", "--state", "idle"), "completed"),
    ],
)
def test_purge_must_be_told_what(cli: CLI, arguments: tuple[str, ...], said: str) -> None:
    refused(cli("purge", *arguments), said, code=2)


def test_purge_asks_first(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = ended(cli.store)
    refused(cli("purge", execution_id), "--yes", code=2)
    monkeypatch.setattr(purging_command, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    assert cli("purge", execution_id, stdin="n\n").exit_code == 1
    assert cli.store.get_summary(execution_id) is not None
    result = cli("purge", execution_id, stdin="y\n")
    assert "Remove 1 execution for good?" in result.stdout
    assert cli.store.get_summary(execution_id) is None


# -- audit -------------------------------------------------------------------------------------------------------------


def test_audit_shows_who_and_why(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = cli.enqueue("refund", "30")
    cli.execute(execution_id)
    assert cli("resume", execution_id, "yes", "--sender", "ada", "--reason", "as agreed").exit_code == 0
    cli.execute(execution_id)
    lines = cli("audit", execution_id).stdout.splitlines()
    assert lines[0].split() == ["when", "what", "state", "attempt", "who", "why"]
    assert max(map(len, lines)) <= 80
    words = [line.split()[2:] for line in lines[1:]]
    assert [word[0] for word in words] == ["created", "claimed", "moved", "answer", "claimed", "moved"]
    assert words[2][1:4] == ["->", "waiting_for_input", "1"]
    assert words[3][:2] == ["answer", "pay:"]
    assert "ada" in words[3]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", lines[1][:19])
    monkeypatch.setenv("COLUMNS", "200")
    wide = cli("audit", execution_id).stdout.splitlines()
    assert wide[0].split()[-1] == "worker"
    assert "thinking -> waiting_for_input" in wide[3]
    assert 'answer pay: "yes"' in wide[4]
    assert f"ada (command line, {process_user()})  as agreed" in wide[4]
    assert wide[3].endswith(worker_text(this_process()))
    entries = cli.json("audit", execution_id)
    assert [entry["position"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert (entries[3]["event"], entries[3]["by"], entries[3]["signal"]["payload"]) == ("decided", "ada", "yes")


def test_audit_of_a_deleted_execution_says_who_deleted_it(cli: CLI) -> None:
    execution_id = ended(cli.store)
    cli.store.delete_context(execution_id, by="ada", reason="because")
    last = cli("audit", execution_id).stdout.splitlines()[-1]
    assert last.split()[2:] == ["deleted", "completed", "0", "ada", "because"]
    cli.store.purge(execution_id)
    refused(cli("audit", execution_id), "there is no execution")


def test_audit_of_an_archived_execution(hybrid: CLI) -> None:
    execution_id = ended(hybrid.store)
    hybrid("archive", "--older-than", "0s")
    assert len(hybrid.json("audit", execution_id)) == 2


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_audit_shows_hostile_text_as_text(cli: CLI, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    execution_id = cli.store.create_context("agent").execution_id
    sent = Signal(signal_id="s", kind=SignalKind.CANCEL, payload=HOSTILE, sender="ada", reason=HOSTILE)
    cli.store.send(execution_id, sent)
    with pytest.raises(InvalidRecord, match="sender"):
        replace(sent, sender=HOSTILE)
    cli.store.claim(execution_id, HOSTILE, cli.runtime.settings.lease)
    result = cli("audit", execution_id)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "\u202e" not in result.stdout
    assert len(result.stdout.splitlines()) == 4


# -- copy --------------------------------------------------------------------------------------------------------------


def test_copy_from_the_configured_store_to_another(cli: CLI, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.db"
    made = [ended(cli.store), cli.enqueue("count", "1")]
    result = cli("copy", "--to", target)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 executions: copied 2.\n", "")
    assert cli("copy", "--to", target).stdout == "2 executions: there already 2.\n"
    assert cli("copy", "--to", target, "--verify-only").stdout == "2 executions: there already 2.\n"
    with open_store(target) as store:
        assert sorted(item.execution_id for item in store.find().items) == sorted(made)
    back = f"sqlite:///{tmp_path}/back.db"
    assert cli("copy", "--from", target, "--to", back, "--state", "idle").stdout == "1 execution: copied 1.\n"


def test_copy_from_a_file_that_is_not_there_is_refused_and_makes_none(cli: CLI, tmp_path: Path) -> None:
    missing = tmp_path / "execution.db"
    refused(cli("copy", "--from", f"sqlite:///{missing}"), "there is no file", str(missing), code=2)
    refused(cli("copy", "--from", f"sqlite:///{missing}", "--verify-only"), "there is no file", code=2)
    assert not missing.exists()


def test_copy_from_another_store_to_the_configured_one(cli: CLI, tmp_path: Path) -> None:
    refused(cli("copy"), "--from URL", code=2)
    with open_store(f"sqlite:///{tmp_path}/old.db") as old:
        execution_id = ended(old)
        result = cli("copy", "--from", f"sqlite:///{tmp_path}/old.db")
        assert (result.exit_code, result.stdout) == (0, "1 execution: copied 1.\n")
        there, before = cli.store.export(execution_id), old.export(execution_id)
    assert there is not None
    assert before is not None
    assert there.digest == before.digest


def test_copy_tells_of_what_is_missing(cli: CLI, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.db"
    held, free, deleted = (cli.enqueue("count", "1") for _ in range(3))
    cli.store.claim(held, "host:1", cli.runtime.settings.lease)
    cli.store.delete_context(deleted)
    result = cli("copy", "--to", target)
    assert (result.exit_code, result.stdout) == (1, "2 executions: copied 1, held by workers 1.\n")
    assert result.stderr.splitlines() == [
        f"held by workers: {held}: a worker holds it",
        "Executions that are deleted in the source were left out.",
        "The target does not have all of them; the command may be repeated.",
    ]
    cli.store.add_message(free, "user", "more")
    result = cli("copy", "--to", target, "--verify-only")
    assert (result.exit_code, result.stdout) == (1, "2 executions: held by workers 1, different 1.\n")
    assert f"different: {free}: the target's copy is older" in result.stderr


def test_copy_shows_no_password_and_refuses_what_cannot_work(cli: CLI, tmp_path: Path) -> None:
    result = cli("copy", "--to", "redis://:hunter2@127.0.0.1:1/0")
    refused(result, "redis://:***@127.0.0.1:1/0")
    refused(cli("copy", "--to", "mongodb://h"), "mongodb")
    refused(cli("copy", "--to", cli.store.url), "the store to copy from")
    refused(cli("copy"), "--to", code=2)
    refused(cli("copy", "--to", f"sqlite:///{tmp_path}/no/folder/t.db"), "not available")


def test_copy_reports_plain_lines_where_there_is_no_terminal(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying_command, "_LINE_EVERY_SECONDS", 0.0)
    ended(cli.store)
    result = cli("copy", "--to", f"sqlite:///{tmp_path}/target.db")
    assert re.fullmatch(r"\d\d:\d\d:\d\d  1 execution: copied 1\n", result.stderr)


def test_copy_draws_a_bar_on_a_terminal(cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        ended(cli.store)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(terminal, "is_live", lambda _: True)
    result = cli("copy", "--to", f"sqlite:///{tmp_path}/target.db")
    assert result.exit_code == 0
    assert "3/3" in result.stdout
    assert result.stdout.endswith("3 executions: copied 3.\n")


PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
from agent_statestore.moving import copying
copying._PAGE = 1
handle = copying._copy_one
def slow(*args):
    done = handle(*args)
    print("copied one", file=sys.stderr, flush=True)
    time.sleep(0.2)
    return done
copying._copy_one = slow
from celery.__main__ import main
sys.argv = ["celery", "-A", "celery_agents", "agents", "copy", "--to", sys.argv[1]]
main()
"""


@pytest.mark.crash
def test_ctrl_c_leaves_nothing_half_copied(tmp_path: Path) -> None:
    source, target = f"sqlite:///{tmp_path}/source.db", f"sqlite:///{tmp_path}/target.db"
    with open_store(source) as store:
        for _ in range(100):
            execution_id = store.create(NewExecution(agent_id="agent")).execution_id
            store.add_message(execution_id, "user", "hello")
    environment = {**os.environ, "AGENTS_STORE_URL": source, "AGENTS_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, target],
        cwd=Path(__file__).parents[3],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for _ in range(5):
        assert process.stderr.readline() == "copied one\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=scaled(60))
    assert process.returncode == 130, said
    assert "Nothing is half copied; repeat the command to go on." in said
    with open_store(source) as store, open_store(target) as copies:
        there = copies.find(Query(limit=1000)).items
        assert 5 <= len(there) < 100
        for item in there:
            one, other = store.export(item.execution_id), copies.export(item.execution_id)
            assert one is not None
            assert one == other
    again = Command(
        ["celery", "-A", "celery_agents", "agents", "copy", "--to", target],
        cwd=Path(__file__).parents[3],
        env=environment,
        log=tmp_path / "again",
        warm=True,
    )
    assert again.wait(100) == 0, again.output
    assert again.output == f"100 executions: copied {100 - len(there)}, there already {len(there)}.\n"
