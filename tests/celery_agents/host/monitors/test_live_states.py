"""What monitors are told while executions run, and what that costs the executions."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.trace import build_tracer

from celery_agents import Registry, Run, agent, enqueue, install, tool
from celery_agents.celery import make_app
from celery_agents.host.bell import TASK_NAME
from celery_agents.host.runtime import runtime_of
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import wait_until
from tests.services.machine import scaled

TOOLS = 40
AGENTS = """
import time

from celery import current_app
from celery_agents import agent, tool

current_app.conf.worker_send_task_events = False

@tool
def look(number: int) -> int:
    return number

@agent
def looks(run, input: int) -> int:
    time.sleep(0.2)  # of what changes at once again, monitors are not told
    return sum(run.tool(look, number) for number in range(input))
"""


@tool
def look(number: int) -> int:
    return number


def looks(run: Run, input: int) -> int:
    return sum(run.tool(look, number) for number in range(input))


@contextmanager
def heard(app: Celery) -> Iterator[list[dict[str, Any]]]:
    """Collects the events of tasks that workers send."""
    events: list[dict[str, Any]] = []
    ready, over = threading.Event(), threading.Event()

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": events.append})
            with receiver.consumer_context() as (listening, _, _):
                ready.set()
                while not over.is_set():
                    try:
                        listening.drain_events(timeout=0.1)
                    except TimeoutError:
                        continue

    thread = threading.Thread(target=listen)
    thread.start()
    assert ready.wait(scaled(10))
    try:
        yield events
    finally:
        over.set()
        thread.join()


def test_many_changes_leave_in_few_messages_and_the_last_is_told(redis_url: str) -> None:
    app = Celery("theirs", broker=redis_url, set_as_current=False)
    app.conf.agents_store_url = "memory://"
    runtime = runtime_of(install(app, registry=Registry()))
    agent(registry=runtime.registry)(looks)

    @agent(registry=runtime.registry)
    def asks(run: Run, input: int) -> Any:
        looks(run, input)
        return run.ask("go on?")

    with redis.Redis.from_url(redis_url) as raw, heard(app) as events:
        execution = enqueue(runtime.registry.agent("asks"), TOOLS, runtime=runtime)
        before = raw.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]
        task = app.tasks[TASK_NAME]
        tracer = build_tracer(task.name, task, app=app, hostname="w@host")
        request = {"id": execution.id, "args": (execution.id,), "kwargs": {}, "hostname": "w@host"}
        tracer(execution.id, (execution.id,), {}, request)
        assert len(execution.steps()) == TOOLS
        last = "task-waiting_for_input"
        wait_until("the pause is told", lambda: any(event["type"] == last for event in events))
        messages = raw.info("commandstats")["cmdstat_publish"]["calls"] - before
    told = [event for event in events if event["type"] != "task-sent"]
    assert len(told) <= messages <= TOOLS // 2
    assert [event["type"] for event in told][-1] == last
    assert {(event["uuid"], event["hostname"], event["attempt"]) for event in told} == {(execution.id, "w@host", 1)}
    assert told == sorted(told, key=lambda event: event["timestamp"])
    runtime.store.close()
    app.close()


@pytest.mark.crash
def test_a_worker_without_events_tells_of_states_as_soon_as_a_monitor_enables_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    with client_of(tmp_path, AGENTS, monkeypatch):
        monkeypatch.setenv("AGENTS_BROKER_URL", redis_url)
        app = make_app()
        client = runtime_of(app)
        with worker(tmp_path, "-P prefork -c 1", AGENTS_BROKER_URL=redis_url) as running, heard(app) as events:

            def told_of_next() -> set[str]:
                execution = start(client, "looks", 3)
                assert execution.wait(scaled(30)) == 3
                time.sleep(scaled(0.2))  # what is sent arrives by then
                return {event["type"] for event in events if event.get("uuid") == execution.id}

            assert [told_of_next() for _ in range(3)] == [set()] * 3
            app.control.enable_events()
            running.wait_for("Events of group {task} enabled by remote.")
            wait_until("the children know", lambda: "task-thinking" in told_of_next())
            app.control.disable_events()
            running.wait_for("Events of group {task} disabled by remote.")
            wait_until("the children know", lambda: [told_of_next() for _ in range(3)] == [set()] * 3)
        client.store.close()
        app.close()
