"""A request and its reply, independent of the server that hands them over."""

import json
from dataclasses import dataclass, field
from typing import Final

from agent_statestore.records import JSONValue

DEFAULT_MAX_BODY_BYTES: Final = 1024 * 1024

# No cache may keep a reply, and no browser may take it for anything but JSON.
_ALWAYS: Final = (
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request. `path` is decoded, and begins below the prefix at which the handlers are mounted."""

    method: str
    path: str
    content_type: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A status and a JSON value; no value means an empty body. `headers` come on top of those that every reply has."""

    status: int
    value: JSONValue = None
    headers: tuple[tuple[str, str], ...] = field(default=())

    @property
    def body(self) -> bytes:
        """The value as JSON, pure ASCII."""
        return b"" if self.value is None else json.dumps(self.value).encode()

    @property
    def all_headers(self) -> list[tuple[str, str]]:
        """Every header to send, in order."""
        always = _ALWAYS if self.value is not None else _ALWAYS[1:]
        length = () if self.status == 204 else (("Content-Length", str(len(self.body))),)
        return [*always, *length, *self.headers]
