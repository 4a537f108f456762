"""Messages that no Celery makes, as an outsider with access to the broker may write them."""

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

Message = dict[str, Any]

_KEEP = object()


def message(task: str = "agents.execute", args: Any = None, *, body: Any = _KEEP, headers: Any = _KEEP) -> Message:
    """A message as kombu's transports carry it; well-shaped unless something else is given."""
    execution_id = str(uuid.uuid4())
    args = [execution_id] if args is None else args
    embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    well: Message = {
        "lang": "py",
        "task": task,
        "id": execution_id,
        "shadow": "an agent",
        "eta": None,
        "expires": None,
        "group": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": execution_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "outside",
        "ignore_result": False,
    }
    return {
        "body": encoded([args, {}, embedded]) if body is _KEEP else body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": well if headers is _KEEP else headers,
        "properties": {
            "correlation_id": execution_id,
            "reply_to": str(uuid.uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def encoded(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def kinds() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each kind of misshapen message."""
    yield from _no_messages()
    for name, change in _CHANGES.items():
        changed = message()
        change(changed)
        yield name, json.dumps(changed).encode()


def _no_messages() -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "not JSON", b"hello"
    yield "half of a message", json.dumps(message()).encode()[:200]
    yield "not UTF-8", b"\xff\xfe\x00\x81"
    yield "not UTF-8 inside", json.dumps(message()).encode().replace(b'"id": "', b'"id": "\xe4\xff')
    yield "NUL bytes", b"\x00" * 64
    yield "deeply nested", b"[" * 100_000
    for shown, value in (
        ("unknown", {"__type__": "x", "__value__": 1}),
        ("wrong", {"__type__": "date", "__value__": 1}),
    ):
        yield f"a marker of a type that is {shown}", json.dumps({**message(), "body": value}).encode()
    for shown, value in (("null", None), ("a number", 1), ("a list", [1]), ("a text", "x"), ("an empty object", {})):
        yield f"a message that is {shown}", json.dumps(value).encode()


def _without(*path: str) -> Callable[[Message], None]:
    def change(changed: Message) -> None:
        *folders, name = path
        for folder in folders:
            changed = changed[folder]
        del changed[name]

    return change


def _with(value: Any, *path: str) -> Callable[[Message], None]:
    def change(changed: Message) -> None:
        *folders, name = path
        for folder in folders:
            changed = changed[folder]
        changed[name] = value

    return change


def _with_body(*parts: Any) -> Callable[[Message], None]:
    return _with(encoded(parts[0] if len(parts) == 1 else list(parts)), "body")


def _protocol_1(changed: Message) -> None:
    body = {"task": "agents.execute", "id": "x", "args": 1, "kwargs": []}
    changed.update(headers={}, body=encoded(body))


_CHANGES: dict[str, Callable[[Message], None]] = {
    "no properties": _without("properties"),
    "properties: null": _with(None, "properties"),
    "properties: a list": _with([], "properties"),
    "properties: empty": _with({}, "properties"),
    "no delivery tag": _without("properties", "delivery_tag"),
    "delivery tag: a list": _with([], "properties", "delivery_tag"),
    "delivery tag: an object": _with({}, "properties", "delivery_tag"),
    "delivery info: a list": _with([1], "properties", "delivery_info"),
    "delivery info: a text": _with("x", "properties", "delivery_info"),
    "correlation id: an object": _with({"a": 1}, "properties", "correlation_id"),
    "reply_to: a list": _with([1], "properties", "reply_to"),
    "unknown body encoding": _with("rot13", "properties", "body_encoding"),
    "body encoding: a list": _with([], "properties", "body_encoding"),
    "no body": _without("body"),
    "body: null": _with(None, "body"),
    "body: empty": _with("", "body"),
    "body: a number": _with(7, "body"),
    "body: an object": _with({}, "body"),
    "body: not base64": _with("%%%", "body"),
    "body: base64 of no JSON": _with(base64.b64encode(b"\xff\xfe").decode(), "body"),
    "body: huge and no JSON": _with("A" * 2_000_000, "body"),
    "body: deeply nested": _with(base64.b64encode(b"[" * 100_000).decode(), "body"),
    "body: decoded null": _with_body(None),
    "body: decoded number": _with_body(5),
    "body: decoded empty list": _with_body([]),
    "body: two parts": _with_body([], {}),
    "body: four parts": _with_body([], {}, {}, {}),
    "body: an object of three": _with_body({"a": 1, "b": 2, "c": 3}),
    "args: null": _with_body(None, {}, {}),
    "args: a number": _with_body(3, {}, {}),
    "args: a text": _with_body("x", {}, {}),
    "args: an object": _with_body({"execution_id": "x"}, {}, {}),
    "args: too many": _with_body(["a", "b"], {}, {}),
    "args: none at all": _with_body([], {}, {}),
    "args: the id of another": _with_body(["another"], {}, {}),
    "args: a list in the list": _with_body([["x"]], {}, {}),
    "kwargs: null": _with_body([], None, {}),
    "kwargs: a list": _with_body([], ["x"], {}),
    "kwargs: a text": _with_body([], "x", {}),
    "kwargs: unknown": _with_body(["x"], {"agent": "y"}, {}),
    "options: a list": _with_body(["x"], {}, [1]),
    "options: a text": _with_body(["x"], {}, "chord"),
    "no content type": _without("content-type"),
    "content type: null": _with(None, "content-type"),
    "content type: unknown": _with("application/x-nothing", "content-type"),
    "content type: pickle": _with("application/x-python-serialize", "content-type"),
    "content type: a list": _with([], "content-type"),
    "content type: a number": _with(1, "content-type"),
    "content encoding: a number": _with(5, "content-encoding"),
    "content encoding: a list": _with([1], "content-encoding"),
    "no headers": _without("headers"),
    "headers: null": _with(None, "headers"),
    "headers: a list": _with([1], "headers"),
    "headers: a text": _with("x", "headers"),
    "headers: empty": _with({}, "headers"),
    "protocol 1, wrong": _protocol_1,
    "no task": _without("headers", "task"),
    "task: null": _with(None, "headers", "task"),
    "task: a list": _with([], "headers", "task"),
    "task: an object": _with({}, "headers", "task"),
    "task: unknown": _with("shop.tasks.pay", "headers", "task"),
    "no id": _without("headers", "id"),
    "id: null": _with(None, "headers", "id"),
    "id: a list": _with([], "headers", "id"),
    "id: an object": _with({"a": 1}, "headers", "id"),
    "id: a number": _with(5, "headers", "id"),
    "shadow: a list": _with(["x"], "headers", "shadow"),
    "timelimit: a text": _with("x", "headers", "timelimit"),
    "timelimit: two texts": _with(["a", "b"], "headers", "timelimit"),
    "timelimit: a number": _with(7, "headers", "timelimit"),
    "timelimit: negative": _with([-1, -1], "headers", "timelimit"),
    "timelimit: endless": _with([float("inf"), float("nan")], "headers", "timelimit"),
    "eta: a number": _with(5, "headers", "eta"),
    "eta: no time": _with("tomorrow", "headers", "eta"),
    "eta: the first year": _with("0001-01-01T00:00:00+14:00", "headers", "eta"),
    "eta: a list": _with([], "headers", "eta"),
    "expires: a list": _with([1], "headers", "expires"),
    "expires: no time": _with("never", "headers", "expires"),
    "retries: a text": _with("many", "headers", "retries"),
    "compression: unknown": _with("lzma9000", "headers", "compression"),
    "compression: a list": _with([1], "headers", "compression"),
    "compression: not compressed": _with("gzip", "headers", "compression"),
    "stamps: a text": _with("x", "headers", "stamps"),
    "stamped headers: a number": _with(5, "headers", "stamped_headers"),
    "group: an object": _with({}, "headers", "group"),
}
