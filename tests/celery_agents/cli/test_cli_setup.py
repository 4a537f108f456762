"""`agents migrate`, `settings`, `check`, and the plug-in as such."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from click.testing import CliRunner

from celery_agents.cli import agents
from celery_agents.cli.group import _COMMANDS
from celery_agents.host.runtime import Runtime
from tests.celery_agents.cli.cli_driving import CLI, make_app, make_registry, refused
from tests.services.commands import Command

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# -- migrate, settings, check ------------------------------------------------------------------------------------------


def test_migrate_up_and_down(tmp_path: Path) -> None:
    cli = CLI(make_app(f"sqlite:///{tmp_path}/fresh.db", "memory://"))
    assert "went from revision none to" in cli("migrate").stdout
    assert "already" in cli("migrate").stdout
    cli.enqueue("count", "1")
    refused(cli("migrate", "base"), "--downgrade", code=2)
    refused(cli("migrate", "--downgrade"), "--yes", code=2)
    refused(cli("migrate", "0001"), "add --downgrade", code=2)
    refused(cli("migrate", "0001", "--downgrade"), "add --yes", code=2)
    refused(cli("migrate", "0007", "--downgrade"), "not below", code=2)
    assert len(cli.json("list")["items"]) == 1
    assert "from revision 0007 to 0001" in cli("migrate", "0001", "--downgrade", "--yes").stdout
    assert "from revision 0001 to 0007" in cli("migrate").stdout
    assert "to none" in cli("migrate", "--downgrade", "--yes").stdout
    refused(cli("migrate", "nope"), "no such schema revision 'nope'")
    assert "CREATE TABLE" in cli("migrate", "--sql").stdout
    assert "DROP TABLE" in cli("migrate", "--sql", "--downgrade").stdout


def test_migrate_prints_the_way_that_was_asked_for(cli: CLI) -> None:
    down = cli("migrate", "0001", "--downgrade", "--sql").stdout
    assert "DROP TABLE agent_audit" in down
    assert "DROP TABLE agent_contexts" not in down
    assert "CREATE TABLE" not in down
    up = cli("migrate", "0001:0007", "--sql").stdout
    assert "CREATE TABLE agent_audit" in up
    assert "CREATE TABLE agent_contexts" not in up
    assert cli("migrate", "0007:0001", "--sql").stdout == down
    refused(cli("migrate", "0001:0007"), "0001:0007 needs --sql", code=2)
    refused(cli("migrate", "0001:0007", "--sql", "--downgrade"), "leave --downgrade out", code=2)
    refused(cli("migrate", "0007", "--sql", "--downgrade"), "no such schema revision 'head:0007': it leads nowhere")


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
    from celery_agents.host.runtime import bind

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

    for wrong in ("foo://:hunter2@host", "redis://:hunter2@127.0.0.1:notaport/0"):
        result = CLI(make_app(f"sqlite:///{tmp_path}/s.db", wrong))("check")
        assert result.exit_code == 1
        assert "broker  FAILED" in result.stdout
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

    refused(
        CliRunner().invoke(agents, ["list"], obj=SimpleNamespace(app=app)),
        "celery_agents.install(app)",
        "-A celery_agents",
    )


# -- the plug-in -------------------------------------------------------------------------------------------------------


def test_every_command_has_a_first_sentence_and_an_example() -> None:
    for name in _COMMANDS:
        result = CliRunner().invoke(agents, [name, "--help"])
        assert result.exit_code == 0
        assert f"celery -A celery_agents agents {name}" in result.stdout


def test_importing_the_plug_in_imports_no_command_and_no_rich() -> None:
    program = (
        "import sys, celery_agents.cli; "
        "print([m for m in sys.modules if m == 'rich' or m.startswith('celery_agents.cli.')])"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert "rich" not in loaded
    assert "celery_agents.cli.commands.show" not in loaded


def test_the_plug_in_on_the_embedded_defaults(tmp_path: Path) -> None:
    (tmp_path / "my_agents.py").write_text(
        "from celery_agents import agent\n@agent\ndef héllo(run, input):\n    return input\n", encoding="utf-8"
    )
    environment = {**os.environ, "AGENTS_IMPORTS": "my_agents", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "celery", "-A", "celery_agents", "agents", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    execution_id = call("enqueue", "héllo", '"ü"').stdout.strip()
    assert UUID.fullmatch(execution_id)
    listed = call("list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert execution_id in listed.stdout
    assert call("show", execution_id).returncode == 0
    log = tmp_path / "shown"
    shown = Command(
        f"celery -A celery_agents agents show {execution_id} --json", cwd=tmp_path, env=environment, log=log, warm=True
    )
    assert shown.wait() == 0
    assert json.loads(shown.output)["input"] == "ü"
    assert datetime.fromisoformat(json.loads(shown.output)["created_at"]).tzinfo == UTC
    log = tmp_path / "unknown"
    unknown = Command("celery -A celery_agents agents show nope", cwd=tmp_path, env=environment, log=log, warm=True)
    assert (unknown.wait(), unknown.output) == (
        1,
        f"Error: there is no execution 'nope' (looked at sqlite:///{tmp_path}/.agents/executions.db)\n",
    )
