"""Connections to MCP servers: opened by the first step that needs one, shared in the process, closed after the last.

A connection belongs to the task that opened it (anyio's cancel scopes), and steps are tasks of their own: so each has a
task that keeps it.
"""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

from agents.mcp import MCPServer

from agent_statestore.plain_text import line_logger

log = line_logger(__name__)


class ServerUnreachable(ConnectionError):
    """No connection to the MCP server could be made. Nothing was asked of it."""


class ServerConnection:
    """The connection to one server. Used on one event loop.

    Executions join it and leave it; those of one process share it, as requests of one application do.
    """

    def __init__(self, server: MCPServer) -> None:
        self.loop = asyncio.get_running_loop()
        self._server = server
        self._users = 0
        self._in_use = 0
        self._opened: asyncio.Future[None] | None = None
        self._left = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def join(self) -> None:
        """One more needs it from time to time."""
        self._users += 1

    def leave(self) -> None:
        """One less does. The last one closes it; nobody waits for that."""
        self._users -= 1
        if self._users == 0:
            self._drop()

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """The server is connected in this block. Raises `ServerUnreachable`.

        After an error the next block connects anew, unless others are still using the connection: it may be broken.
        """
        await self._open()
        self._in_use += 1
        try:
            yield
        except Exception:
            if self._in_use == 1:
                self._drop()
            raise
        finally:
            self._in_use -= 1

    async def _open(self) -> None:
        if self._opened is None:
            self._opened, self._left = self.loop.create_future(), asyncio.Event()
            self._opened.add_done_callback(lambda one: one.cancelled() or one.exception())  # somebody may not look
            keeping = self._keep(self._opened, self._left, self._keeper)
            # A context of its own: it outlives the execution that happens to need it first.
            self._keeper = self.loop.create_task(keeping, context=contextvars.Context())
        opened = self._opened
        try:
            await asyncio.shield(opened)
        except Exception as error:
            raise ServerUnreachable(f"MCP server {self._server.name}: {type(error).__name__}: {error}") from error

    def _drop(self) -> None:
        self._left.set()
        self._opened = None

    async def _keep(
        self, opened: "asyncio.Future[None]", left: asyncio.Event, before: "asyncio.Task[None] | None"
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            await self._server.connect()  # type: ignore[no-untyped-call]
        except BaseException as error:  # noqa: BLE001 - told to those who wait for it
            if self._opened is opened:
                self._opened = None
            opened.set_exception(error if isinstance(error, Exception) else ConnectionError(repr(error)))
            return
        opened.set_result(None)
        await left.wait()
        try:
            await self._server.cleanup()  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            log.warning(
                "MCP server %s: its connection ended with %s: %s", self._server.name, type(error).__name__, error
            )


_connections: Final[WeakKeyDictionary[MCPServer, ServerConnection]] = WeakKeyDictionary()


def connection_of(server: MCPServer) -> ServerConnection:
    """Return the connection to a server; a new one on a new event loop, as in a forked process."""
    connection = _connections.get(server)
    if connection is None or connection.loop is not asyncio.get_running_loop():
        connection = _connections[server] = ServerConnection(server)
    return connection
