"""An MCP server of the tests: `python mcp_server.py LEDGER`, over stdio; it notes what is asked of it in a file."""

import os
import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

LEDGER = Path(sys.argv[1])
server = MCPServer("shop", instructions="Prices are in euros.")


def note(what: str) -> None:
    """Write a line."""
    with LEDGER.open("a") as ledger:
        ledger.write(f"{what}\n")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def price(article: str) -> int:
    """What an article costs."""
    note(f"price {article}")
    return len(article)


@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def buy(article: str) -> str:
    """Buys an article."""
    note(f"buy {article}")
    if os.environ.get("DIE_IN_BUY") and LEDGER.read_text().count("buy") == 1:
        os.kill(int(os.environ["DIE_IN_BUY"]), 9)
    return f"bought {article}"


if __name__ == "__main__":
    note("started")
    server.run("stdio")
