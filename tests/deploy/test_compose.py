"""docker-compose.yml: its shape, and each service's own command, run here without Docker."""

import base64
import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import _postgres_server, _redis_binary
from tests.deploy.composing import Service, load
from tests.flower.watched_agents import research
from tests.services.commands import ROOT, Command, environment, wait_until
from tests.services.machine import scaled
from tests.services.postgresql import PostgresServer, driver_url
from tests.services.process import free_port
from tests.services.redis import RedisServer

# One Redis and one PostgreSQL for all of them.
pytestmark = [pytest.mark.crash, pytest.mark.xdist_group("compose")]

PASSWORD = "of-this-test"
VARIABLES = {
    "POSTGRES_PASSWORD": PASSWORD,
    "AGENTS_IMPORTS": "tests.flower.watched_agents",
    "FLOWER_BASIC_AUTH": "reader:of-flower",
}


class ComposedRedis(RedisServer):
    """The test's Redis with the options of the compose file."""

    def __init__(self, words: list[str]) -> None:
        super().__init__(_redis_binary())
        assert words[0] == "redis-server"
        self._options = words[1:]

    def command(self, port: int) -> list[str]:
        return [self.binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(self.folder), *self._options]


class ComposedPostgres(PostgresServer):
    """The test's PostgreSQL with the options of the compose file."""

    def __init__(self, binaries: Path, words: list[str]) -> None:
        super().__init__(binaries, durable=True)
        assert words[0] == "postgres"
        self._options = words[1:]

    def command(self, port: int) -> list[str]:
        return [*super().command(port), *self._options]


class Composed:
    """All services as local processes, started in the order of their dependencies."""

    def __init__(self, redis: ComposedRedis, postgres: ComposedPostgres, folder: Path) -> None:
        self.redis, self.postgres, self.folder = redis, postgres, folder
        self.flower_port = free_port()
        self._definitions = load(VARIABLES)["services"]
        self._addresses = {
            "redis://redis:6379": f"redis://127.0.0.1:{redis.port}",
            "@postgres:5432": f"@127.0.0.1:{postgres.port}",
            "--address=0.0.0.0": "--address=127.0.0.1",
            "5555": str(self.flower_port),
            "/data/": f"{folder}/",
        }

    def service(self, name: str) -> Service:
        """One service, with the addresses of this machine."""
        return Service(self._definitions[name], self._addresses)

    def env(self, name: str) -> dict[str, str]:
        """The environment of one service."""
        return environment(**self.service(name).environment, HOSTNAME=socket.gethostname())

    def start(self, name: str) -> Command:
        """Runs the service's command."""
        return Command(self.service(name).command, cwd=self.folder, env=self.env(name), log=self.folder / f"{name}.log")

    def check_health(self, name: str) -> bool:
        """Runs the service's health check."""
        words = self.service(name).healthcheck
        return subprocess.run(words, cwd=self.folder, env=self.env(name), capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    services = load(VARIABLES)["services"]
    with (
        _postgres_server(durable=True) as found,
        ComposedRedis(Service(services["redis"], {}).command) as redis,
        ComposedPostgres(found.binaries, Service(services["postgres"], {}).command) as postgres,
    ):
        redis.start()
        postgres.start()
        with psycopg.connect(driver_url(postgres.url), autocommit=True) as connection:
            # What the image does with POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB.
            connection.execute(f"CREATE ROLE agents SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("CREATE DATABASE agents OWNER agents")
        yield Composed(redis, postgres, tmp_path_factory.mktemp("composed"))


@pytest.fixture(scope="module")
def migrated(composed: Composed) -> Composed:
    """Migrated, twice: each `docker compose up` does it again."""
    for _ in range(2):
        with composed.start("migrate") as command:
            assert command.wait() == 0, command.output
    return composed


def test_redis_keeps_an_append_only_file(composed: Composed) -> None:
    def configured(name: str) -> str:
        with socket.create_connection(("127.0.0.1", composed.redis.port or 0), timeout=5) as connection:
            connection.sendall(f"CONFIG GET {name}\r\n".encode())
            return connection.recv(1024).decode().split("\r\n")[-2]

    assert configured("appendonly") == "yes"
    assert configured("appendfsync") == "everysec"


def test_postgresql_accepts_the_service_s_url(composed: Composed) -> None:
    url = driver_url(composed.env("worker")["AGENTS_STORE_URL"])
    with psycopg.connect(url) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_migrate_makes_the_tables(migrated: Composed) -> None:
    with psycopg.connect(driver_url(migrated.env("migrate")["AGENTS_STORE_URL"])) as connection:
        assert connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")


def test_worker_and_flower_do_their_work(migrated: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with migrated.start("worker") as worker, migrated.start("flower") as flower:
        worker.wait_for("ready.")
        wait_until("the worker's health check", lambda: migrated.check_health("worker"))
        wait_until("Flower's health check", lambda: migrated.check_health("flower"))
        for name, value in migrated.env("worker").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AGENTS_HOME", str(tmp_path))
        from celery_agents.celery import make_app
        from celery_agents.current import enqueue
        from celery_agents.host.runtime import runtime_of

        for gate in ("think", "tool", "write"):
            (tmp_path / gate).touch()
        app = make_app()
        runtime = runtime_of(app)
        execution = enqueue(research, {"folder": str(tmp_path), "api_key": "x"}, runtime=runtime)
        wait_until("a question", lambda: execution.question)
        execution.resume("yes")
        execution.wait_for_approval(timeout=scaled(30))
        execution.approve()
        assert execution.wait(timeout=scaled(30)) == "published: yes"

        assert ask_flower(migrated, "/api/tasks", "reader:of-flower") is not None
        for wrong in ("", "agents:agents"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                ask_flower(migrated, "/api/tasks", wrong)
        runtime.store.close()
        app.close()
        assert flower.process.poll() is None


def ask_flower(composed: Composed, path: str, login: str) -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{composed.flower_port}{path}")
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=scaled(10)) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise


# -- its shape ---------------------------------------------------------------------------------------------------------


def test_the_order_of_the_start() -> None:
    services = load({})["services"]
    assert set(services) == {"redis", "postgres", "migrate", "worker", "flower"}
    assert services["worker"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services)
        assert "restart" in service
        assert ("healthcheck" in service) == (name != "migrate"), name


def test_state_outlives_containers_and_every_volume_is_declared() -> None:
    loaded = load({})
    used = {
        volume.partition(":")[0] for service in loaded["services"].values() for volume in service.get("volumes", ())
    }
    assert used == set(loaded["volumes"]) == {"redis", "postgres", "flower"}


def test_nothing_is_open_to_the_network_and_flower_asks_for_a_login() -> None:
    services = load({})["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:5555:5555"]
    assert services["flower"]["environment"]["FLOWER_BASIC_AUTH"]
    assert "UNAUTHENTICATED" not in (ROOT / "docker-compose.yml").read_text()


def test_passwords_come_from_the_environment() -> None:
    services = load({"POSTGRES_PASSWORD": "another", "FLOWER_BASIC_AUTH": "me:secret"})["services"]
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"] == "another"
    for name in ("migrate", "worker", "flower"):
        assert ":another@postgres:" in services[name]["environment"]["AGENTS_STORE_URL"]
    assert services["flower"]["environment"]["FLOWER_BASIC_AUTH"] == "me:secret"


def test_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    if docker is None or subprocess.run([docker, "compose", "version"], env=env, capture_output=True).returncode:
        pytest.skip("no docker CLI with the compose plugin")
    command = [docker, "compose", "--file", ROOT / "docker-compose.yml", "config", "--quiet"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
