"""Runs the plug-in's commands in this process, on real SQLite stores."""

import json
import re
import threading
from types import SimpleNamespace
from typing import Any

from celery import Celery
from click.testing import CliRunner, Result

from agent_statestore.query import Query
from celery_agents import Registry, Run, agent, install
from celery_agents.cli import agents
from celery_agents.host.owner import this_process
from celery_agents.host.runtime import Runtime, runtime_of

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class CLI:
    """Calls commands of one app, and executes what they enqueue."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.runtime: Runtime = runtime_of(app)
        self.store = self.runtime.store

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Result:
        runner = CliRunner()
        obj = SimpleNamespace(app=self.app, no_color=False)
        return runner.invoke(agents, arguments, obj=obj, input=stdin)

    def enqueue(self, *arguments: str) -> str:
        result = self("enqueue", *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    def execute(self, execution_id: str) -> None:
        self.runtime.executor.execute(execution_id, this_process())

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def bells(self) -> int:
        """How many messages are in the queue, which is emptied."""
        with self.app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
            number = queue.qsize()
            queue.clear()
        return int(number)


def make_registry() -> Registry:
    registry = Registry()

    @agent(registry=registry)
    def count(run: Run, n: int) -> dict[str, int]:
        for _ in range(n):
            run.step("tick", lambda: "tück \x1b[31m")
        return {"n": n}

    @agent(registry=registry)
    def boom(run: Run, n: int) -> None:
        run.step("one", lambda: n)
        raise ValueError(f"bad {n}")

    @agent(registry=registry)
    def refund(run: Run, amount: int) -> str:
        run.say("assistant", "Let me ask.")
        run.remember("a fact")
        run.memory["amount"] = amount
        answer = run.ask(f"Pay {amount} €?", choices=["yes", "no"], name="pay")
        return f"paid: {answer}"

    @agent(registry=registry)
    def greet(run: Run, _: None) -> str:
        return f"hello {run.ask('Name?', schema=str)}"

    assert [each.name for each in registry.agents] == ["boom", "count", "greet", "refund"]
    return registry


def make_app(store_url: str, broker_url: str, **configuration: Any) -> Celery:
    app = Celery("test", broker=broker_url, set_as_current=False)
    app.conf.update(agents_store_url=store_url, accept_content=["json"], **configuration)
    return install(app, registry=make_registry())


def refused(result: Result, *parts: str, code: int = 1) -> None:
    """The command failed with one line that contains all parts, and nothing else was printed."""
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert code == 2 or len(lines) == 1
    for part in parts:
        assert part in lines[-1]
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)


def in_background(cli: CLI, *steps: Any) -> threading.Thread:
    """Executes the next execution that appears, then calls the steps with its id."""

    def work() -> None:
        while not (found := cli.store.find(Query(limit=1)).items):
            threading.Event().wait(0.01)
        execution_id = found[0].execution_id
        cli.execute(execution_id)
        for step in steps:
            step(execution_id)

    thread = threading.Thread(target=work)
    thread.start()
    return thread
