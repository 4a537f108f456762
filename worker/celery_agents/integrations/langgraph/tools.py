"""The tools of a graph: what their arguments have to be."""

from collections.abc import Iterator
from typing import Any

import pydantic
from langchain_core.tools import BaseTool
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode


def schema_of(tool: BaseTool) -> dict[str, Any]:
    """Return the JSON schema of a tool's arguments, as a model gives them."""
    schema = tool.tool_call_schema
    if isinstance(schema, dict):
        return schema
    # What is left is a model of pydantic's first version.
    return schema.model_json_schema() if issubclass(schema, pydantic.BaseModel) else schema.schema()


def schemas_of_tools(graph: CompiledStateGraph[Any, Any, Any, Any]) -> dict[str, dict[str, Any]]:
    """Return the schemas of all tools of a graph and its subgraphs, by name; none for a name that two tools have."""
    found: dict[str, dict[str, Any]] = {}
    several: set[str] = set()
    for tool in _tools(graph):
        schema = schema_of(tool)
        if found.setdefault(tool.name, schema) != schema:
            several.add(tool.name)
    return {name: schema for name, schema in found.items() if name not in several}


def _tools(graph: CompiledStateGraph[Any, Any, Any, Any]) -> Iterator[BaseTool]:
    for node in graph.nodes.values():
        if isinstance(node.bound, ToolNode):
            yield from node.bound.tools_by_name.values()
        elif isinstance(node.bound, CompiledStateGraph):
            yield from _tools(node.bound)
