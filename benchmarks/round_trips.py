"""The round trips that a step takes through the engine, counted and not timed."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from agent_statestore import open_store
from benchmarks.executing import Engine, payload
from benchmarks.proxy import CountingProxy

_FEW: Final = 5
_MANY: Final = 45
_ADDRESS: Final = re.compile(r"(?P<host>[\w.-]+):(?P<port>\d+)(?=[/?]|$)")


def round_trips_per_step(url: str) -> float:
    """Return the round trips of each further step to the server at `url`; for a SQLite file, its transactions.

    A long execution is compared with a short one, so that what happens once (connecting, claim, end) does not count.
    """
    with ExitStack() as stack:
        if url.startswith("sqlite"):
            count = _counted_commits(stack)
        else:
            url, count = counted(stack, url)
        engine = Engine(stack.enter_context(open_store(url)), payload(2048))

        def taken(steps: int) -> int:
            before = count()
            engine.take_steps(steps)
            return count() - before

        taken(_MANY)  # loads scripts, prepares statements
        return (taken(_MANY) - taken(_FEW)) / (_MANY - _FEW)


def counted(stack: ExitStack, url: str) -> tuple[str, Callable[[], int]]:
    """Return the URL of a proxy for the server at `url`, and what returns the round trips through it so far."""
    address = _ADDRESS.search(url)
    if address is None:
        raise ValueError(f"no host and port in {url}")
    proxy = stack.enter_context(CountingProxy(address["host"], int(address["port"])))
    return url[: address.start()] + f"127.0.0.1:{proxy.port}" + url[address.end() :], lambda: proxy.turns


def _counted_commits(stack: ExitStack) -> Callable[[], int]:
    """Count the commits of every SQLite connection that any pool opens from now on."""
    commits: list[str] = []
    connect = sqlite3.connect

    def note(statement: str) -> None:
        if statement.upper().startswith("COMMIT"):
            commits.append(statement)

    def watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(note)
        return connection

    stack.callback(setattr, sqlite3, "connect", connect)
    setattr(sqlite3, "connect", watched)  # noqa: B010 - its overloads are none of ours
    return lambda: len(commits)
