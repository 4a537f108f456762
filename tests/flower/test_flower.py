"""What Flower shows of executions, from the first bell to the end, across pauses and crashes."""

import contextlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.flower.watched_agents import fail, research
from tests.flower.watching import SECRET, Watched, open_gate, reached
from tests.services.commands import wait_until
from tests.services.machine import scaled
from tests.services.redis import RedisServer

pytestmark = pytest.mark.crash


def cells(*every_commit: tuple[str, ...]) -> list[Any]:
    """Brokers and pools: these run on every commit, and so each broker and each pool; all in `make test-all`."""
    everything = itertools.product(("embedded", "redis"), ("prefork", "threads"))
    return [pytest.param(*cell, marks=[] if cell in every_commit else [pytest.mark.full]) for cell in everything]


@pytest.mark.parametrize(
    ("watched", "pool"), cells(("embedded", "prefork"), ("redis", "threads")), indirect=["watched"]
)
def test_live_states_from_the_first_bell_to_the_result(watched: Watched, tmp_path: Path, pool: str) -> None:
    flower, gates = watched.flower, tmp_path / "gates"
    wait_until("Flower up", flower.is_up)
    watched.start_worker("one", pool)
    execution = watched.enqueue(research, gates)

    reached(gates, "think")
    task = flower.wait_for(execution.id, "THINKING")
    assert task["name"] == "watched-researcher"
    assert task["worker"] == "one@here"
    assert (task["args"], task["kwargs"]) == (f"('{execution.id}',)", "{}")

    open_gate(gates, "think")
    reached(gates, "tool")
    flower.wait_for(execution.id, "USING_TOOL")

    open_gate(gates, "tool")
    flower.wait_for(execution.id, "WAITING_FOR_INPUT")
    assert 'id="task-revoke"' in flower.text(f"/task/{execution.id}")
    # A paused execution holds no slot, and stays what it is while others come and go.
    other = watched.enqueue(fail, tmp_path / "other")
    open_gate(tmp_path / "other", "think")
    failed = flower.wait_for(other.id, "FAILURE")
    assert failed["name"] == "watched-failure"
    assert "no such source" in failed["exception"]
    assert flower.task(execution.id)["state"] == "WAITING_FOR_INPUT"

    execution.resume("yes")
    flower.wait_for(execution.id, "WAITING_FOR_APPROVAL")
    wait_until("the result backend knows", lambda: watched.result_state(execution) == "WAITING_FOR_APPROVAL")
    assert 'id="task-revoke"' in flower.text(f"/task/{execution.id}")
    execution.approve(sender="ada")
    reached(gates, "write")
    flower.wait_for(execution.id, "THINKING")
    open_gate(gates, "write")
    done = flower.wait_for(execution.id, "SUCCESS")
    assert "published: yes" in done["result"]

    listed = flower.json("/api/tasks")
    assert {uuid: task["name"] for uuid, task in listed.items()} == {
        execution.id: "watched-researcher",
        other.id: "watched-failure",
    }
    assert flower.json("/api/tasks?taskname=watched-failure").keys() == {other.id}
    # A worker that answers later than Flower waits is not in the list.
    wait_until("the worker is listed", lambda: "one@here" in flower.json("/api/workers?refresh=true"))
    metrics = watched.metrics
    assert 'task="watched-researcher"' in metrics
    assert execution.id not in metrics
    assert "agents.execute" not in metrics
    assert 'id="task-revoke"' not in flower.text(f"/task/{execution.id}")
    _assert_no_secret(watched, execution.id)


@pytest.mark.parametrize("watched", [pytest.param("embedded", marks=pytest.mark.full), "redis"], indirect=True)
def test_a_crash_and_the_next_worker(watched: Watched, tmp_path: Path) -> None:
    flower, gates = watched.flower, tmp_path / "gates"
    first = watched.start_worker("one")
    execution = watched.enqueue(research, gates)
    reached(gates, "think")
    open_gate(gates, "think")
    reached(gates, "tool")
    flower.wait_for(execution.id, "USING_TOOL", worker="one@here")
    first.kill()
    (gates / "tool.reached").unlink()
    watched.start_worker("two")
    reached(gates, "tool")
    flower.wait_for(execution.id, "USING_TOOL", worker="two@here")
    open_gate(gates, "tool")
    flower.wait_for(execution.id, "WAITING_FOR_INPUT", worker="two@here")
    execution.cancel()
    flower.wait_for(execution.id, "REVOKED", worker="two@here")
    wait_until("the result backend knows", lambda: watched.result_state(execution) == "REVOKED")


@pytest.mark.parametrize(
    ("watched", "pool"), cells(("embedded", "prefork"), ("redis", "threads")), indirect=["watched"]
)
def test_a_terminating_revoke_in_flower_cancels(watched: Watched, tmp_path: Path, pool: str) -> None:
    check_revoke(watched, tmp_path, pool, terminate=True)


@pytest.mark.parametrize(("watched", "pool"), cells(("redis", "prefork")), indirect=["watched"])
def test_revoke_in_flower_cancels(watched: Watched, tmp_path: Path, pool: str) -> None:
    check_revoke(watched, tmp_path, pool, terminate=False)


def check_revoke(watched: Watched, tmp_path: Path, pool: str, *, terminate: bool) -> None:
    flower = watched.flower
    worker = watched.start_worker("one", pool, concurrency=1)
    paused = watched.enqueue(research, tmp_path / "paused")
    for gate in ("think", "tool"):
        open_gate(tmp_path / "paused", gate)
    flower.wait_for(paused.id, "WAITING_FOR_INPUT")
    running = watched.enqueue(research, tmp_path / "running")
    reached(tmp_path / "running", "think")
    flower.wait_for(running.id, "THINKING")
    received = watched.enqueue(research, tmp_path / "received")
    flower.wait_for(received.id, "RECEIVED")
    queued = watched.enqueue(research, tmp_path / "queued")
    flower.wait_for(queued.id, "PENDING", name="watched-researcher")

    # The only slot is taken: what waits is cancelled nevertheless.
    for execution in (paused, received, queued):
        flower.revoke(execution.id, terminate=terminate)
        wait_until("the execution is cancelled", lambda one=execution: one.state == "cancelled")
        flower.wait_for(execution.id, "REVOKED")
        wait_until("the result backend knows", lambda one=execution: watched.result_state(one) == "REVOKED")

    flower.revoke(running.id, terminate=terminate)
    if not (terminate and pool == "prefork"):
        # Only a process can be stopped in the middle of a step. The others end at the step's boundary.
        wait_until("the cancel is in the mailbox", lambda: running.summary().cancel_requested)
        open_gate(tmp_path / "running", "think")
    wait_until("the execution is cancelled", lambda: running.state == "cancelled")
    flower.wait_for(running.id, "REVOKED")
    wait_until("the result backend knows", lambda: watched.result_state(running) == "REVOKED")

    # The worker goes on, and everybody has been told: nothing is due any more.
    after = watched.enqueue(fail, tmp_path / "after")
    open_gate(tmp_path / "after", "think")
    flower.wait_for(after.id, "FAILURE")
    for execution in (paused, received, queued, running):
        wait_until("its end is settled", lambda one=execution: one.context().due_at is None)
        assert flower.task(execution.id)["state"] == "REVOKED"
        assert watched.result_state(execution) == "REVOKED"
    assert not (tmp_path / "queued" / "think.reached").exists()
    assert worker.process.poll() is None


def test_no_input_in_the_broker(watched: Watched, tmp_path: Path) -> None:
    """Without a worker everything stays where it was sent to: the message, and the event for Flower or its queue."""
    wait_until("Flower up", watched.flower.is_up)
    execution = watched.enqueue(research, tmp_path / "gates")
    with watched.app.connection() as connection:
        queue = connection.SimpleQueue("celery")
        message = queue.get(timeout=scaled(10))
        said = f"{message.body!r} {message.headers} {message.properties}"
        message.reject()
        queue.close()
    assert execution.id in said
    assert "watched-researcher" in said
    assert SECRET not in said
    assert str(tmp_path / "gates") not in said
    assert not [content for content in watched.broker_files() if SECRET in content]


def _assert_no_secret(watched: Watched, execution_id: str) -> None:
    assert SECRET in str(watched.runtime.store.get_context(execution_id))  # it was there to be found
    for path in ("/api/tasks", f"/api/task/info/{execution_id}", f"/task/{execution_id}", "/tasks", "/metrics"):
        assert SECRET not in watched.flower.text(path), path
    assert SECRET not in watched.flower.text("/worker/one@here")


def test_neither_flower_nor_celery_shows_a_password(redis_server: RedisServer, tmp_path: Path) -> None:
    with Redis.from_url(redis_server.url) as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">hunter#@rosebud", "~*", "&*", "+@all")
    url = redis_server.url.replace("redis://", "redis://ann:hunter%23%40rosebud@")
    settings = {"AGENTS_BROKER_URL": url, "AGENTS_STORE_URL": url, "AGENTS_RESULT_BACKEND": url}
    with contextlib.ExitStack() as stack:
        watched = Watched(tmp_path, stack, settings)
        wait_until("Flower up", watched.flower.is_up)
        worker = watched.start_worker("one", "solo")
        inspect = watched.app.control.inspect(timeout=scaled(30), limit=1)  # the only worker's answer ends the wait
        said = {
            "inspect": json.dumps([inspect.conf(), inspect.stats(), inspect.report()]),
            "report": watched.app.bugreport(),
            "worker": worker.output,
        }
        said |= {
            page: watched.flower.text(page)
            for page in ("/api/workers?refresh=true", "/worker/one@here", "/broker", "/")
        }
        said["flower"] = "".join(log.read_text() for log in tmp_path.glob("flower-*.log"))

    assert [what for what, text in said.items() if "hunter" in text or "rosebud" in text] == []
    assert "agents_store_url" in said["/worker/one@here"]
    assert "redis://ann:***@" in said["/worker/one@here"]
