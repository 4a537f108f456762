"""Workers on RabbitMQ: quorum queues, confirms, results by `rpc://`; a broker and a worker that are killed."""

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import amqp
import pytest
from celery.result import AsyncResult

from agent_statestore import AgentState
from celery_agents import Execution
from celery_agents.host.runtime import Runtime, runtime_of
from tests.celery_agents.their_workers import start
from tests.services.commands import Command, environment, wait_until
from tests.services.machine import scaled
from tests.services.rabbitmq import RabbitMQServer

# RabbitMQ takes many seconds of a processor to start.
pytestmark = pytest.mark.full

APP = """
import os
from celery import Celery
from celery_agents import install

app = install(Celery("theirs"))
app.conf.update(
    broker_url=os.environ["THEIR_BROKER"],
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    task_default_queue="agents",
    task_default_queue_type="quorum",
    worker_detect_quorum_queues=True,
    result_backend="rpc://",
    agents_store_url=os.environ["THEIR_STORE"],
    agents_lease_seconds=5.0,
    agents_sweep_seconds=0.5,
    agents_watch_seconds=0.2,
    agents_ring_seconds=2.0,
    imports=("their_agents",),
)
"""
AGENTS = """
import time
from celery_agents import agent

@agent
def counts(run, input: int) -> list[int]:
    def short(number: int) -> int:
        time.sleep(0.2)
        return number
    return [run.step("short", short, number) for number in range(input)]

@agent
def asks(run, input: None) -> str:
    return "Hello " + run.ask("Name?", schema=str)

@agent
def parent(run, input: int) -> list:
    return run.gather(*(run.spawn(counts, 2) for _ in range(input)))
"""


@pytest.fixture
def folder(tmp_path: Path, rabbitmq_server: RabbitMQServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "their_agents.py").write_text(AGENTS)
    (tmp_path / "their_app.py").write_text(APP)
    monkeypatch.setenv("THEIR_BROKER", rabbitmq_server.url)
    monkeypatch.setenv("THEIR_STORE", f"sqlite:///{tmp_path}/executions.db")
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[Runtime]:
    spec = importlib.util.spec_from_file_location("their_app", folder / "their_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    runtime = runtime_of(module.app)
    yield runtime
    runtime.store.close()
    module.app.close()


def worker(folder: Path, name: str) -> Command:
    env = environment(**{key: os.environ[key] for key in ("THEIR_BROKER", "THEIR_STORE")})
    env["PYTHONPATH"] += f":{folder}"
    command = f"celery -A their_app worker -l INFO -P prefork -c 2 -n {name}@%h"
    return Command(command, cwd=folder, env=env, log=folder / f"{name}.log").wait_for("ready.")


def waiting_messages(server: RabbitMQServer) -> int:
    """How many bells are in the queue, which must be a quorum queue."""
    with amqp.Connection(f"127.0.0.1:{server.port}", "guest", "guest") as connection:
        with connection.channel() as channel:
            declared = channel.queue_declare("agents", passive=True)
        with pytest.raises(amqp.exceptions.PreconditionFailed, match="quorum"), connection.channel() as channel:
            channel.queue_declare("agents", durable=True, auto_delete=False, arguments={"x-queue-type": "classic"})
        return int(declared.message_count)


def completed(executions: list[Execution], output: object, *workers: Command) -> None:
    for execution in executions:
        assert execution.wait(scaled(60)) == output, [one.output for one in workers]


def test_executions_live_on_quorum_queues_with_confirms_and_rpc_results(
    folder: Path, client: Runtime, rabbitmq_server: RabbitMQServer
) -> None:
    with worker(folder, "first") as running:
        executions = [start(client, "counts", 3) for _ in range(8)]
        completed(executions, [0, 1, 2], running)
        # The reply goes to the process that has rung.
        assert AsyncResult(executions[0].id, app=client.app).get(timeout=scaled(30)) == [0, 1, 2]
        asking, family = start(client, "asks", None), start(client, "parent", 3)
        asking.wait_for_question(scaled(30))
        asking.resume("Ada")
        completed([asking], "Hello Ada", running)
        completed([family], [[0, 1]] * 3, running)
        wait_until("the queue is empty", lambda: waiting_messages(rabbitmq_server) == 0)
        assert "Traceback" not in running.output

        # The broker is killed in the middle, and comes back with what it had confirmed.
        executions = [start(client, "counts", 8) for _ in range(6)]
        wait_until("some are under way", lambda: any(one.state is not AgentState.IDLE for one in executions))
        rabbitmq_server.kill()
        time.sleep(1)
        rabbitmq_server.start()
        completed(executions, list(range(8)), running)
        assert {step.attempt for one in executions for step in one.steps()} == {1}

        # The worker is killed in the middle, with all its children; another one goes on.
        executions = [start(client, "counts", 8) for _ in range(6)]
        wait_until("some have steps", lambda: any(len(one.steps()) > 2 for one in executions))
        running.kill()
    with worker(folder, "second") as second:
        completed(executions, list(range(8)), second)
