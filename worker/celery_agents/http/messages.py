"""A request and its reply, apart from how a server hands them over."""

import json
from dataclasses import dataclass, field
from typing import Final

from agent_statestore.records import JSONValue

DEFAULT_MAX_BODY_BYTES: Final = 1024 * 1024

# Nothing of this may be kept by a cache, or be taken for something else than JSON by a browser.
_ALWAYS: Final = (
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`path` is decoded, and begins below the prefix that the handlers are mounted at."""

    method: str
    path: str
    content_type: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A status and a JSON value; no value means an empty body. `headers` are those besides what every reply has."""

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
