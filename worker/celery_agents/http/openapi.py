"""The OpenAPI 3.1 document, made of the table of endpoints."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter

from celery_agents.http.api import API
from celery_agents.http.bodies import LIST, BodyForm
from celery_agents.http.calls import EndpointCall
from celery_agents.http.endpoints.deciding import MOST_DECISIONS
from celery_agents.http.front_ends.routes import FRONT_ENDS
from celery_agents.http.messages import JSON, Reply
from celery_agents.http.problems import PROBLEM_JSON
from celery_agents.http.routes import EXECUTION, Route, RouteTable

_REF: Final = "#/components/schemas/{model}"
# Each endpoint has these, and each that names an execution has 404.
_ALWAYS: Final = (401, 414, 500, 503)
_PROBLEMS: Final[Mapping[int, str]] = {
    400: "Something in the request does not fit.",
    401: "It is not known who sends this.",
    403: "The sender may see it, and not do this.",
    404: "There is no such execution, or the sender may not see it.",
    409: "It does not wait for this, somebody else was first, or another request is in the way.",
    410: "The execution is over.",
    413: "The body is too long, or the execution has no room for it.",
    414: "The query is too long.",
    415: "The body is not declared as JSON.",
    429: "The execution has as many messages in its mailbox as there may be.",
    500: "Something went wrong on this side.",
    503: "The store cannot be reached; try again.",
}
_TYPES: Final[Mapping[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    dict: "object",
    list: "array",
    type(None): "null",
}
PROBLEM: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "A problem as RFC 9457 has it.",
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Which kind of problem; it stays the same."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "problems": {"type": "array", "items": {"type": "string"}, "description": "One sentence for each fault."},
        "keys": {"type": "array", "items": {"type": "string"}, "description": "One of these has to be given."},
    },
}
_DECISION: Final[Mapping[str, Any]] = {
    "type": "array",
    "minItems": 1,
    "maxItems": MOST_DECISIONS,
    "items": {
        "type": "object",
        "required": ["do"],
        "properties": {"do": {"enum": ["answer", "approve", "reject"]}},
        "description": "`do`, and the fields of that endpoint.",
    },
}


def document(call: EndpointCall) -> Reply:
    """Show this document."""
    return Reply(status=200, value=openapi_document(call.request.prefix))


TABLE: Final = RouteTable(
    [
        *API.routes,
        *FRONT_ENDS,
        Route(method="GET", path="/openapi.json", endpoint=document, act=None, replies={200: dict}),
    ]
)


def openapi_document(prefix: str = "") -> dict[str, Any]:
    """Return the OpenAPI document of handlers that are mounted at `prefix`."""
    paths, schemas = _paths_and_schemas(TABLE)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Executions of agents",
            "version": version("celery-agents"),
            "description": "Start durable executions of agents, follow them, answer and decide.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if prefix.rstrip("/"):
        document["servers"] = [{"url": prefix.rstrip("/")}]
    return document


@cache
def _paths_and_schemas(table: RouteTable) -> tuple[dict[str, Any], dict[str, Any]]:
    shapes = {shape for route in table.routes for shape in route.replies.values() if shape not in (None, dict)}
    adapters = [
        (shape, "serialization", TypeAdapter(shape)) for shape in sorted(shapes, key=lambda each: each.__name__)
    ]
    by_shape, definitions = TypeAdapter.json_schemas(adapters, ref_template=_REF)  # type: ignore[arg-type]
    schemas = {shape: schema for (shape, _), schema in by_shape.items()}
    paths: dict[str, Any] = {}
    for route in table.routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return paths, {**definitions.get("$defs", {}), "Problem": dict(PROBLEM)}


def _operation(route: Route, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    told = re.sub(r"\s*\n\s*", " ", (route.endpoint.__doc__ or "").strip().replace("\n\n", "\x00")).replace(
        "\x00", "\n\n"
    )
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": told.partition(".")[0],
        "description": told,
        "parameters": _parameters(route),
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": bool(route.body.required),
            "content": {JSON: {"schema": schema_of_body(route.body)}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", **({"format": "uuid"} if name == EXECUTION else {"maxLength": 190})},
        }
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    in_query = [
        {
            "name": each.name,
            "in": "query",
            "description": each.description,
            "schema": {"type": "array", "items": dict(each.schema)} if each.repeats else dict(each.schema),
        }
        for each in route.query
    ]
    in_headers = [
        {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
        for name, text in route.headers.items()
    ]
    return [*in_path, *in_query, *in_headers]


def _responses(route: Route, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, shape in route.replies.items():
        content: dict[str, Any] = {}
        if shape is not None:
            content[JSON] = {"schema": {"type": "object"} if shape is dict else schemas[shape]}
        if route.streams and status == 200:
            content["text/event-stream"] = {"schema": {"type": "string"}}
        said = "Nothing more comes." if status == 204 else "Done."
        responses[str(status)] = {"description": said, **({"content": content} if content else {})}
    missing = (404,) if f"{{{EXECUTION}}}" in route.path else ()
    for status in sorted({*_ALWAYS, *missing, *route.problems}):
        schema = {"$ref": _REF.format(model="Problem")}
        responses[str(status)] = {"description": _PROBLEMS[status], "content": {PROBLEM_JSON: {"schema": schema}}}
    return responses


def schema_of_body(form: BodyForm) -> dict[str, Any]:
    """Return the JSON Schema of a body."""
    return {
        "type": "object",
        "required": list(form.required),
        "properties": {name: _schema_of(types) for name, types in form.known.items()},
        "additionalProperties": form.is_open,
    }


def _schema_of(types: tuple[type, ...]) -> dict[str, Any]:
    if types == LIST:
        return dict(_DECISION)
    names = [_TYPES[kind] for kind in types if kind is not object]
    if not names:
        return {}
    return {"type": names[0] if len(names) == 1 else names}
