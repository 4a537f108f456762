"""`install(app, subscribers=...)`: what users' own metrics and logs are told."""

import json
import logging
import uuid
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from celery_agents import Event, EventKind, Registry, Run, agent, enqueue, install, tool
from celery_agents.errors import ConfigurationError
from celery_agents.host.owner import this_process
from celery_agents.host.runtime import Runtime, runtime_of
from tests.celery_agents.their_workers import client_of, start, worker

AGENTS = """
import json
from pathlib import Path
from celery_agents import Event, agent, install
from celery_agents.celery import app

def note(event: Event) -> None:
    step = None if event.step is None else [event.step.name, event.step.duration.total_seconds() >= 0]
    with Path("told.jsonl").open("a") as told:
        print(json.dumps([event.kind, event.agent_id, event.steps, step, event.ending]), file=told)

install(app, subscribers=[note])

@agent
def twice(run, value: int) -> int:
    return run.step("double", lambda: 2 * value)
"""


def installed(folder: Path, *subscribers: Any) -> Runtime:
    app = Celery("theirs", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = f"queue-{uuid.uuid4().hex}"
    app.conf.agents_store_url = f"sqlite:///{folder}/executions.db"
    return runtime_of(install(app, registry=Registry(), subscribers=subscribers))


def execute(runtime: Runtime, function: Any, value: Any = None) -> None:
    made = agent(registry=runtime.registry)(function)
    execution = enqueue(made, value, runtime=runtime)
    runtime.executor.execute(execution.id, this_process())


def test_a_subscriber_is_told_of_each_step_and_of_the_end(tmp_path: Path) -> None:
    told: list[Event] = []
    runtime = installed(tmp_path, told.append)

    @tool(registry=runtime.registry)
    def look(where: str) -> str:
        return where.upper()

    def looks(run: Run, input: str) -> str:
        return run.tool(look, where=run.step("choose", lambda: input))

    execute(runtime, looks, "here")
    kinds = [event.kind for event in told]
    assert kinds == ["claimed", "state", "step_recorded", "state", "step_recorded", "ended"]
    assert [event.step.name for event in told if event.step is not None] == ["choose", "look"]
    assert [event.tool for event in told if event.kind is EventKind.STATE] == [None, "look"]
    assert [event.steps for event in told] == [0, 0, 1, 1, 2, 2]
    assert {event.attempt for event in told} == {1}
    assert told[-1].ending == "completed"


def test_a_pause_is_told_with_what_is_waited_for(tmp_path: Path) -> None:
    told: list[Event] = []

    def asks(run: Run, input: None) -> object:
        return run.ask("Go on?")

    execute(installed(tmp_path, told.append), asks)
    assert (told[-1].kind, told[-1].ending) == ("ended", "paused")
    assert told[-1].waiting is not None
    assert told[-1].waiting.prompt == "Go on?"


def test_a_subscriber_that_fails_is_logged_and_keeps_nobody_from_being_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Event] = []

    def fails(event: Event) -> None:
        raise RuntimeError(f"no room for {event.kind}")

    def nothing(run: Run, input: None) -> None:
        return None

    runtime = installed(tmp_path, fails, told.append)
    with caplog.at_level(logging.WARNING):
        execute(runtime, nothing)
    assert "no room for ended" in caplog.text
    assert [event.kind for event in told] == ["claimed", "ended"]
    assert told[-1].ending == "completed"


@pytest.mark.parametrize("wrong", ["print", None, 3])
def test_a_subscriber_that_cannot_be_called_is_refused_at_once(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="subscribers"):
        installed(tmp_path, wrong)


def test_an_async_subscriber_is_refused_as_nobody_would_await_it(tmp_path: Path) -> None:
    async def note(event: Event) -> None: ...

    with pytest.raises(ConfigurationError, match="plain functions"):
        installed(tmp_path, note)


@pytest.mark.crash
def test_the_children_of_a_pool_tell_the_subscribers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(tmp_path, AGENTS, monkeypatch) as client, worker(tmp_path, "-P prefork -c 1"):
        assert start(client, "twice", 21).wait(60) == 42
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert told == [
        ["claimed", "twice", 0, None, None],
        ["state", "twice", 0, None, None],
        ["step_recorded", "twice", 1, ["double", True], None],
        ["ended", "twice", 1, None, "completed"],
    ]
