"""The warehouse, as an MCP server over stdio: `python -m examples.support_desk.warehouse`."""

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("warehouse", instructions="Stock is counted in pieces.")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def stock(article: str) -> int:
    """How many pieces of an article are there."""
    return 0 if article == "espresso machine" else 3


if __name__ == "__main__":
    server.run("stdio")
