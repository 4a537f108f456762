"""A value held against a stored schema: nothing is fetched, and nothing takes long."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from celery_agents.define.json_schema import problems

BILLION: dict[str, Any] = {
    "$ref": "#/$defs/a0",
    "$defs": {
        **{f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 10} for n in range(9)},
        "a9": {"type": "string"},
    },
}

HOSTILE: dict[str, tuple[dict[str, Any], Any, bool]] = {
    "a pattern": ({"type": "string", "pattern": r"^(\w+\s?)*$"}, "a" * 34 + "!", False),
    "a pattern of names": ({"patternProperties": {r"^(\w+\s?)*$": {"type": "integer"}}}, {"a" * 34 + "!": 1}, True),
    "other names than a pattern's": (
        {"patternProperties": {r"^(\w+\s?)*$": {}}, "additionalProperties": False},
        {"a" * 34 + "!": 1},
        False,
    ),
    "unevaluated names": (
        {"patternProperties": {r"^(\w+\s?)*$": {}}, "unevaluatedProperties": False},
        {"a" * 34 + "!": 1},
        True,
    ),
    "a pattern of what names may be": ({"propertyNames": {"pattern": r"^(\w+\s?)*$"}}, {"a" * 34 + "!": 1}, False),
    "a pattern that only Python has": ({"pattern": r"(?=a)b"}, "b", True),
    "a pattern that is none": ({"pattern": "["}, "b", True),
    "a huge pattern": ({"pattern": "(a{1000}){1000}"}, "b", True),
    "a schema in itself": ({"$ref": "#"}, 1, False),
    "ten to the ninth references": (BILLION, "x", False),
    "unique objects": (
        {"type": "array", "uniqueItems": True},
        [{"n": n} for n in range(20_000)],
        True,
    ),
    "many wrong items": ({"type": "array", "items": {"type": "string"}}, list(range(50_000)), False),
    "more items than are checked": ({"type": "array", "items": {"minimum": 0}}, list(range(60_000)), False),
    "a value as deep as it goes": ({"type": "array", "items": {"$ref": "#"}}, [[[]]], True),
    "a huge number and a fraction": ({"multipleOf": 0.1}, 10**400, False),
    "a schema that is none": ({"type": "no such type", "minimum": "x"}, 1, True),
    "patterns that are no texts": ({"pattern": 5}, "x", True),
}


@pytest.mark.timeout(30)
def test_no_schema_and_no_value_keep_the_door_busy() -> None:
    for name, (schema, value, fits) in HOSTILE.items():
        began = time.process_time()
        found = problems(schema, value, "answer")
        took = time.process_time() - began
        assert (not found) is fits, f"{name}: {found}"
        assert len(found) <= 20, name
        assert all(len(problem) <= 500 for problem in found), name
        assert took < 5, f"{name}: {took} s"


def test_what_is_checked_is_told() -> None:
    schema = {
        "type": "object",
        "properties": {"amount": {"type": "integer", "minimum": 1}, "to": {"pattern": "^[a-z]+$"}},
        "required": ["amount"],
        "additionalProperties": False,
    }
    assert problems(schema, {"amount": 1, "to": "ann"}, "answer") == []
    assert problems(schema, {"amount": 0, "to": "Ann", "x": 1}, "answer") == [
        "answer: Additional properties are not allowed ('x' was unexpected)",
        "amount: 0 is less than the minimum of 1",
        "to: 'Ann' does not match '^[a-z]+$'",
    ]
    assert problems(schema, {}, "answer") == ["answer: 'amount' is a required property"]


class Trap(BaseHTTPRequestHandler):
    """Notes that somebody came."""

    came: list[str]

    def do_GET(self) -> None:
        self.came.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"type": "string"}')

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_no_reference_leaves_the_schema() -> None:
    came: list[str] = []
    trap = type("Counting", (Trap,), {"came": came})
    with HTTPServer(("127.0.0.1", 0), trap) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        schemas: list[dict[str, Any]] = [
            {"$ref": f"{address}/ref"},
            {"$dynamicRef": f"{address}/dynamic"},
            {"$id": f"{address}/base/", "$ref": "other"},
            {"properties": {"a": {"$ref": f"{address}/inner"}}},
            {"$schema": f"{address}/meta"},
            {"$ref": "file:///etc/passwd"},
            {"$ref": "#/$defs/missing"},
            {"$ref": "#missing"},
        ]
        try:
            for schema in schemas:
                assert problems(schema, {"a": 1}, "answer") == [], schema
        finally:
            server.shutdown()
            thread.join()
    assert came == []


def test_a_reference_inside_the_schema_holds() -> None:
    schema = {"$defs": {"name": {"type": "string"}}, "items": {"$ref": "#/$defs/name"}}
    assert problems(schema, ["a"], "answer") == []
    (problem,) = problems(schema, ["a", 2], "answer")
    assert re.match(r"1: 2 is not of type 'string'", problem)
