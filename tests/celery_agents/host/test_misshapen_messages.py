"""Misshapen messages end no worker, on any broker: each is dropped, once, with one line in the log."""

import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from celery_agents.celery import make_app
from celery_agents.host.runtime import runtime_of
from tests.celery_agents.host.misshapen import kinds
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import Command, environment, wait_until
from tests.services.machine import scaled
from tests.services.redis import RedisServer

AGENTS = """
from celery_agents import agent

@agent
def doubles(run, input: int) -> int:
    return 2 * input
"""

THEIR_APP = """
import os

from celery import Celery
from celery_agents import agent, install

app = install(Celery("theirs", broker=os.environ["BROKER"], backend=os.environ["BROKER"]))
app.conf.agents_store_url = f"sqlite:///{os.environ['FOLDER']}/s.db"
if os.environ.get("SIGNED"):
    signed = {name: os.environ["FOLDER"] + "/" + name for name in ("key", "certificate")}
    app.conf.update(
        security_key=signed["key"], security_certificate=signed["certificate"],
        security_cert_store=signed["certificate"], task_serializer="auth", event_serializer="auth",
        accept_content=["auth"], result_accept_content=["json"],
    )
    app.setup_security()

@agent
def doubles(run, input: int) -> int:
    return 2 * input

@app.task
def add(x, y):
    return x + y
"""

DROPPED = "a misshapen message was dropped"


def dropped(running: Command) -> int:
    return running.output.count(DROPPED)


def into_files(folder: Path) -> Callable[[bytes], None]:
    messages = folder / "home/broker/messages"
    messages.mkdir(parents=True, exist_ok=True)  # nobody has sent anything yet

    def put(raw: bytes) -> None:
        name = f"{time.monotonic_ns() // 1_000_000:020d}_{uuid.uuid4()}"
        (messages / f"{name}.part").write_bytes(raw)
        (messages / f"{name}.part").rename(messages / f"{name}.celery.msg")

    return put


def send_all(put: Callable[[bytes], None]) -> list[str]:
    names = []
    for name, raw in kinds():
        put(raw)
        names.append(name)
    return names


@pytest.mark.parametrize("broker", ["files", "redis"])
def test_misshapen_messages_end_no_worker(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broker: str,
    redis_server: RedisServer,
    record_property: Callable[[str, object], None],
) -> None:
    settings = {} if broker == "files" else {"AGENTS_BROKER_URL": redis_server.url}
    with client_of(tmp_path, AGENTS, monkeypatch) as plain:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        app = make_app() if settings else plain.app
        client = runtime_of(app)
        with redis.Redis.from_url(redis_server.url) as server:
            put = into_files(tmp_path) if broker == "files" else lambda raw: server.lpush("celery", raw)
            names = send_all(put)
            execution = start(client, "doubles", 21)
            pool = "-c 1" if broker == "files" else "-P solo"
            with worker(tmp_path, pool, **settings) as running:
                wait_until(
                    "all are dropped",
                    lambda: running.process.poll() is not None or dropped(running) >= len(names),
                    seconds=20,
                )
                assert running.process.poll() is None, running.output
                assert execution.wait(scaled(30)) == 42
                assert start(client, "doubles", 4).wait(scaled(30)) == 8
                # Nothing is kept back, to be put back for the next worker.
                wait_until("all are acknowledged", lambda: server.hlen("unacked") == 0)
            assert dropped(running) == len(names), running.output
            assert "Traceback" not in running.output
            record_property("attacked", ("messages", len(names)))
        if settings:
            client.store.close()
            app.close()


def make_identity(folder: Path) -> None:
    """A key and a certificate that it has signed itself."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "theirs")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (folder / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain))
    (folder / "certificate").write_bytes(certificate.public_bytes(pem))


@pytest.mark.full
@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
def test_misshapen_messages_end_no_worker_of_the_users_own_app(
    tmp_path: Path, redis_server: RedisServer, signed: bool
) -> None:
    make_identity(tmp_path)
    (tmp_path / "their_app.py").write_text(THEIR_APP)
    env = environment(BROKER=redis_server.url, FOLDER=str(tmp_path), **({"SIGNED": "1"} if signed else {}))
    with redis.Redis.from_url(redis_server.url) as server:
        names = send_all(lambda raw: server.lpush("celery", raw))
        script = (
            "import their_app as t; from celery_agents import enqueue; "
            "print(enqueue(t.doubles, 21).wait(60), t.add.delay(1, 2).get(timeout=60))"
        )
        arguments = "celery -A their_app worker -l INFO -P threads -c 2 --without-mingle --without-gossip"
        with Command(arguments, cwd=tmp_path, env=env, log=tmp_path / "worker.log").wait_for("ready.") as running:
            client = subprocess.run(
                [sys.executable, "-c", script],
                cwd=tmp_path, env=env, capture_output=True, text=True, timeout=scaled(120), check=False,
            )  # fmt: skip
            assert client.stdout.split() == ["42", "3"], client.stderr + running.output
            wait_until("all are gone", lambda: not server.llen("celery"))
            assert running.process.poll() is None, running.output
            assert dropped(running) <= len(names)
            wait_until("all are acknowledged", lambda: server.hlen("unacked") == 0)
