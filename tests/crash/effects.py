"""Tools with an effect on the outside, one for each crash policy, and the agents that call them.

The outside is a SQLite file of its own. It keeps every effect under the idempotency key that came with it, and honours
none of them: who counts the effects sees each that was made.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pydantic

from celery_agents import AsyncRun, CrashPolicy, Happened, Run, ToolContext, agent, tool
from celery_agents.define.tool import Tool
from tests.crash.effects_dying import Here, Place, Role, come_here, die_at, here
from tests.crash.ledger import FOLDER_VARIABLE, Ledger

LOOKED: Final = "looked whether it happened"


class Shape(StrEnum):
    """How the call is made."""

    TOOL = "a tool"
    STEP = "a plain step"
    ASYNC_TOOL = "an async tool"
    PARALLEL = "parallel tools"
    ASYNC_AGENT = "an async agent's async tool"
    ASYNC_PARALLEL = "an async agent's parallel async tools"

    @property
    def is_parallel(self) -> bool:
        return self in (Shape.PARALLEL, Shape.ASYNC_PARALLEL)

    @property
    def is_async(self) -> bool:
        return self in (Shape.ASYNC_TOOL, Shape.ASYNC_AGENT, Shape.ASYNC_PARALLEL)

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(Role) if self.is_parallel else (Role.STRUCK,)


class Doing(pydantic.BaseModel):
    """The input: how a call is made, its crash policy, and where its process dies, and how often at most."""

    shape: Shape
    policy: CrashPolicy
    place: Place
    deaths: int = 1


class Outside:
    """The other side of the effects."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "outside.db"
        with self._connected() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS effects (key text NOT NULL, token text NOT NULL)")

    @contextmanager
    def effect(self, key: str, token: str) -> Iterator[None]:
        """Takes place when the block ends: in it, it is on its way."""
        with self._connected() as connection, connection:
            connection.execute("INSERT INTO effects VALUES (?, ?)", (key, token))
            yield

    def tokens(self, key: str) -> list[str]:
        """The effects under a key, oldest first."""
        with self._connected() as connection:
            query = "SELECT token FROM effects WHERE key = ? ORDER BY rowid"
            return [token for (token,) in connection.execute(query, (key,))]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=30)) as connection:
            yield connection

    @classmethod
    def of_this_worker(cls) -> "Outside":
        return cls(Path(os.environ[FOLDER_VARIABLE]))


def act(role: Role, this: ToolContext) -> str:
    """The effect. Its result is what it wrote, and differs from call to call."""
    token = _act(role, this.idempotency_key)
    while _stays(role):
        time.sleep(0.01)
    return token


async def act_async(role: Role, this: ToolContext) -> str:
    """The same on the event loop."""
    token = _act(role, this.idempotency_key)
    while _stays(role):
        await asyncio.sleep(0.01)
    return token


def act_plain(role: Role, key: str) -> str:
    """The same as a plain function."""
    return _act(role, key)


def _act(role: Role, key: str) -> str:
    token = uuid4().hex
    with Outside.of_this_worker().effect(key, token):
        if role is Role.STRUCK:
            die_at(Place.INSIDE)
    if role is Role.STRUCK:
        die_at(Place.AFTER_EFFECT)
    return token


def _stays(role: Role) -> bool:
    """The call beside the struck one does not come to its end before the process does."""
    if role is Role.BESIDE and here().attempt == 1:
        here().beside_has_acted.set()
        return True
    return False


def look(role: Role, this: ToolContext) -> Happened | None:
    """The reconcile function."""
    return look_plain(role, this.idempotency_key)


def look_plain(role: Role, key: str) -> Happened | None:
    """The same of the plain function."""
    Ledger.of_this_worker().note(LOOKED, key.partition("/")[0], list(Role).index(role), here().attempt)
    tokens = Outside.of_this_worker().tokens(key)
    return Happened(tokens[0]) if tokens else None


def _made(policy: CrashPolicy, *, is_async: bool) -> Tool[..., Any]:
    name = f"crash.{policy}{'.async' if is_async else ''}"
    function: Callable[..., Any] = act_async if is_async else act
    return tool(name=name, on_crash=look if policy is CrashPolicy.RECONCILE else policy)(function)


TOOLS: Final = {
    (policy, is_async): _made(policy, is_async=is_async) for policy in CrashPolicy for is_async in (False, True)
}


@agent(name="crash.effects", max_attempts=50)
def effects(run: Run, input: Doing) -> dict[Role, str]:
    """Makes the calls; tells what became of each."""
    _come_here(run.execution_id, run.attempt, input)
    results: dict[Role, Any] = {}
    try:
        if input.shape is Shape.STEP:
            on_crash = look_plain if input.policy is CrashPolicy.RECONCILE else input.policy
            key = f"{run.execution_id}/{Role.STRUCK}"
            results[Role.STRUCK] = run.options(on_crash=on_crash).step(Role.STRUCK, act_plain, Role.STRUCK, key)
        elif input.shape.is_parallel:
            results = run.parallel(_calls(input), return_exceptions=True)
        else:
            results[Role.STRUCK] = run.step(Role.STRUCK, TOOLS[input.policy, input.shape.is_async], Role.STRUCK)
    except Exception as error:  # noqa: BLE001 - told as the result
        results[Role.STRUCK] = error
    return _told(results)


@agent(name="crash.async_effects", max_attempts=50)
async def async_effects(run: AsyncRun, input: Doing) -> dict[Role, str]:
    """The same by an async agent."""
    _come_here(run.execution_id, run.attempt, input)
    return _told(await run.parallel(_calls(input), return_exceptions=True))


def _come_here(execution_id: str, attempt: int, doing: Doing) -> None:
    new = Here(
        execution_id=execution_id,
        attempt=attempt,
        place=doing.place,
        deaths=doing.deaths,
        records_intent=doing.policy is not CrashPolicy.RETRY,
    )
    if not doing.shape.is_parallel:
        new.done_is_recorded.set()
        new.beside_has_acted.set()
    come_here(new)


def _calls(doing: Doing) -> dict[Role, Callable[[], Any]]:
    return {role: partial(TOOLS[doing.policy, doing.shape.is_async], role) for role in doing.shape.roles}


def _told(results: dict[Role, Any]) -> dict[Role, str]:
    return {
        name: type(result).__name__ if isinstance(result, Exception) else result for name, result in results.items()
    }


def agent_of(shape: Shape) -> Any:
    """The agent that makes calls in this way."""
    return async_effects if shape in (Shape.ASYNC_AGENT, Shape.ASYNC_PARALLEL) else effects
