"""An MCP server of the tests, which notes what is asked of it: `python mcp_server.py LEDGER` over stdio, and HTTP."""

import os
import socket
import sys
import threading
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations


def shop(ledger: Path) -> MCPServer:
    """The server."""
    server = MCPServer("shop", log_level="CRITICAL")

    def note(what: str) -> None:
        with ledger.open("a") as lines:
            lines.write(f"{what}\n")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def price(article: str) -> int:
        """What an article costs."""
        note(f"price {article}")
        return len(article)

    @server.tool(annotations=ToolAnnotations(destructive_hint=True))
    def buy(article: str) -> str:
        """Buys an article."""
        note(f"buy {article}")
        return f"bought {article}"

    @server.tool()
    def die() -> str:
        """Ends the server in the middle of a call."""
        note("die")
        os._exit(1)

    note("started")
    return server


class OverHTTP:
    """The server on a port of this host, in a thread of this process, until it is stopped."""

    def __init__(self, ledger: Path, port: int) -> None:
        app = shop(ledger).streamable_http_app(json_response=True)
        config = uvicorn.Config(app, port=port, log_level="critical", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="mcp-server")
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


if __name__ == "__main__":
    shop(Path(sys.argv[1])).run("stdio")
