"""Agents for workers that are watched: each step waits for a file, so that a test can look at every state in peace."""

import os
import time
from pathlib import Path

import pydantic

from celery_agents import Run, agent, tool


class Work(pydantic.BaseModel):
    """`folder` is where the gates are; `api_key` is what nobody but the agent may see."""

    folder: Path
    api_key: str


def pass_gate(folder: Path, name: str) -> int:
    """Says that it is there, and waits to be let through. Returns the process that it was in."""
    (folder / f"{name}.reached").write_text(str(os.getpid()))
    while not (folder / name).exists():
        time.sleep(0.01)
    return os.getpid()


@tool
def look_up(folder: Path, api_key: str) -> int:
    """Looks something up, with a secret."""
    assert api_key
    return pass_gate(folder, "tool")


@tool(requires_approval=True)
def publish(api_key: str) -> str:
    """Publishes, with a secret, if a person allows it."""
    assert api_key
    return "published"


@agent(name="watched-researcher")
def research(run: Run, work: Work) -> str:
    """Thinks, uses a tool, asks, needs an approval, thinks."""
    run.step("think", pass_gate, work.folder, "think")
    run.tool(look_up, work.folder, work.api_key)
    answer = run.ask("Publish?", choices=["yes", "no"])
    published = run.tool(publish, work.api_key)
    run.step("write", pass_gate, work.folder, "write")
    return f"{published}: {answer}"


@agent(name="watched-failure")
def fail(run: Run, work: Work) -> str:
    """Fails in its first step."""
    run.step("think", pass_gate, work.folder, "think")
    raise LookupError("no such source")
