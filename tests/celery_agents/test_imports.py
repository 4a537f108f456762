"""What importing this package costs: every `celery` command of every project in which it is installed imports it."""

import json
import subprocess
import sys
import typing
from typing import Any

import pytest

import celery_agents

PLUG_IN = """
import importlib.metadata, json, sys
find = importlib.metadata.entry_points
(ours,) = [one for one in find(group="celery.commands") if one.name == "agents"]
importlib.metadata.entry_points = lambda **asked: [one for one in find(**asked) if one.dist.name != ours.dist.name]
import celery.bin.celery
before = set(sys.modules)
ours.load()
print(json.dumps(sorted(set(sys.modules) - before)))
"""

# What a web process does that enqueues; and what Celery itself loads for the same broker and result backend.
ENQUEUE = """
import json, sys
from celery import Celery
app = Celery("web", broker=sys.argv[1], backend=sys.argv[1])
if sys.argv[2] == "ours":
    from celery_agents import Run, agent, install, tool
    install(app)
    app.conf.agents_store_url = sys.argv[1]

    @agent
    def greet(run: Run, name: str) -> str:
        return name

    greet.enqueue("Ada")
else:
    app.send_task("greet", ["Ada"])
print(json.dumps(sorted(sys.modules)))
"""
HEAVY = ("celery.worker", "celery.concurrency", "sqlalchemy", "alembic", "flower", "rich", "jsonschema")


def modules(program: str, *arguments: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    loaded: list[str] = json.loads(ran.stdout)
    return loaded


def test_the_plug_in_of_the_command_line_loads_almost_nothing() -> None:
    loaded = modules(PLUG_IN)
    assert "celery_agents.cli" in loaded
    assert len(loaded) <= 30, loaded


def test_who_only_enqueues_loads_no_worker_and_no_database(redis_url: str) -> None:
    own = set(modules(ENQUEUE, redis_url, "ours")) - set(modules(ENQUEUE, redis_url, "bare"))
    assert "celery_agents.current" in own
    heavy = [name for name in own if name in HEAVY or name.startswith(tuple(f"{one}." for one in HEAVY))]
    assert not heavy


@pytest.mark.parametrize("name", celery_agents.__all__)
def test_each_public_name_is_imported_when_it_is_asked_for(name: str) -> None:
    found = getattr(celery_agents, name)
    assert getattr(found, "__name__", name) == name or typing.get_origin(found) is not None
    assert name in dir(celery_agents)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    missing: Any = celery_agents
    with pytest.raises(AttributeError, match="has no attribute 'agnet'"):
        _ = missing.agnet
