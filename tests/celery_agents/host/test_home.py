"""The folder of the embedded defaults is private, belongs to this user, and is made only where something is written."""

import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from celery import Celery, signals
from click.testing import CliRunner

from agent_statestore import open_store
from celery_agents import install
from celery_agents.celery import make_app
from celery_agents.cli import agents
from celery_agents.errors import ConfigurationError
from celery_agents.host.home import make_private_folder
from celery_agents.host.runtime import runtime_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with no setting of the ready-made app, at the usual umask."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("HOME", "BROKER_URL", "RESULT_BACKEND", "STORE_URL", "IMPORTS"):
        monkeypatch.delenv(f"AGENTS_{name}", raising=False)
    return tmp_path


def write_everywhere(app: Celery) -> None:
    """Writes to the store, to the broker and to the result backend."""
    store = runtime_of(app).store
    store.create_context("agent", None)
    with app.connection_for_write() as connection, connection.SimpleQueue("celery") as queue:
        queue.put("hello")
    app.backend.store_result("id", "secret", "SUCCESS")
    store.close()
    app.close()


def test_nobody_else_can_enter_or_read_it(folder: Path) -> None:
    before = os.umask(0o022)
    try:
        write_everywhere(make_app())
    finally:
        os.umask(before)

    modes = {path.relative_to(folder): stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}
    open_to_others = {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077}
    assert open_to_others == {}
    assert {path.suffix for path in modes} >= {".db", ".msg"}


def test_one_that_others_could_enter_is_closed(folder: Path) -> None:
    (folder / ".agents").mkdir(mode=0o755)
    (folder / ".agents").chmod(0o755)

    write_everywhere(make_app())

    assert stat.S_IMODE((folder / ".agents").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "planted", [".agents", ".agents/broker", ".agents/broker/messages", ".agents/executions.db", ".agents/results.db"]
)
def test_a_planted_link_is_refused(folder: Path, planted: str) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (folder / planted).parent.mkdir(parents=True, exist_ok=True)
    (folder / planted).symlink_to(elsewhere / "x.db" if planted.endswith(".db") else elsewhere)

    with pytest.raises(ConfigurationError, match="is a link"):
        write_everywhere(make_app())

    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    (folder / ".agents").mkdir()
    os.chown(folder / ".agents", 12345, -1)

    with pytest.raises(ConfigurationError, match="belongs to another user"):
        write_everywhere(make_app())


def test_a_folder_that_cannot_be_made_is_one_sentence(folder: Path) -> None:
    (folder / "file").touch()

    with pytest.raises(ConfigurationError, match=r"agents_home: .*cannot be used"):
        make_private_folder(folder / "file" / "home")


def test_the_current_folder_hides_no_installed_module(folder: Path) -> None:
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(folder))]

    make_app().close()

    assert sys.path[-1] == str(folder)


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's result backend
def test_with_servers_nothing_is_written_here(folder: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setenv("AGENTS_BROKER_URL", redis_url)
    monkeypatch.setenv("AGENTS_STORE_URL", redis_url)
    app = make_app()

    write_everywhere(app)

    assert app.conf.result_backend == redis_url
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("broker", "results"),
    [
        ("rediss://h/0", "rediss://h/0"),
        ("sentinel://h:26379", "sentinel://h:26379"),
        ("amqp://h//", "disabled://"),
        ("sqs://", "disabled://"),
    ],
)
def test_results_follow_the_broker(folder: Path, monkeypatch: pytest.MonkeyPatch, broker: str, results: str) -> None:
    monkeypatch.setenv("AGENTS_BROKER_URL", broker)
    app = make_app()
    assert app.conf.result_backend == results
    app.close()


def test_commands_that_read_make_nothing_and_name_the_store(folder: Path) -> None:
    app = make_app()
    for arguments in ("list", "show x", "audit x", "stats", "cancel x", "recover", "purge x", "delete x", "check"):
        result = CliRunner().invoke(agents, arguments.split(), obj=SimpleNamespace(app=app, no_color=True))
        assert result.exit_code == (0 if arguments == "check" else 1), (arguments, result.output)
        assert f"{folder}/.agents/executions.db" in result.output, arguments
        if arguments != "check":
            assert list(folder.iterdir()) == [], arguments
    app.close()


@pytest.mark.parametrize("form", ["archive", "hybrid"])
def test_commands_that_read_make_no_archive_either(folder: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    hot, cold = (f"sqlite:///{folder}/{name}.db" for name in ("hot", "cold"))
    with open_store(hot) as store:
        store.create_context("agent")
    before = sorted(folder.iterdir())
    if form == "archive":
        monkeypatch.setenv("AGENTS_ARCHIVE_URL", cold)
    url = hot if form == "archive" else f"hybrid:///?hot={quote(hot, safe='')}&cold={quote(cold, safe='')}"
    monkeypatch.setenv("AGENTS_STORE_URL", url)
    app = make_app()
    for arguments in ("list", "show x", "purge x", "check"):
        result = CliRunner().invoke(agents, arguments.split(), obj=SimpleNamespace(app=app, no_color=True))
        assert result.exit_code == (0 if arguments == "check" else 1), (arguments, result.output)
        assert f"{folder}/cold.db" in result.output.replace("\n", ""), arguments
        if arguments != "check":
            assert sorted(folder.iterdir()) == before, arguments
    app.close()


@pytest.mark.filterwarnings("ignore:Task name 'agents:")  # Celery warns of the task that replaces the first one's
def test_another_installation_keeps_the_folder(folder: Path) -> None:
    app = make_app()
    install(app)

    write_everywhere(app)

    assert (folder / ".agents" / "executions.db").exists()


def test_the_first_worker_in_a_folder_waits_for_no_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery tries for five seconds to create the tables for results in a folder that is not there."""
    tried_again: list[float] = []
    monkeypatch.setattr("celery.backends.database.session.time.sleep", tried_again.append)
    app = make_app()
    signals.celeryd_init.send("celery@here", instance=SimpleNamespace(app=app))
    assert tried_again == []
    assert app.backend.get_state("unknown") == "PENDING"
    app.close()
