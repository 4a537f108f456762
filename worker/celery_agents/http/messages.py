"""A request and its reply, independent of the server that hands them over."""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent_statestore.records import JSONValue

DEFAULT_MAX_BODY_BYTES: Final = 1024 * 1024

JSON: Final = "application/json"

# No cache may keep a reply, and no browser may take it for anything but what it is.
ALWAYS: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


class EventStream(Protocol):
    """A body that comes piece by piece. It is read once, in one of the two ways; giving it up early frees what it
    holds.
    """

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces, in the thread that asks for them."""
        ...

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Yield the pieces. No thread waits for them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request. `path` is decoded, and begins below the prefix at which the handlers are mounted.

    `query` is what follows the `?`, as it was sent. `headers` are those of `HEADERS_ASKED`,
    by their names in small letters. `prefix` is where the handlers are mounted, as far as the server knows.
    """

    method: str
    path: str
    content_type: str = ""
    body: bytes = b""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""


# All headers that any endpoint looks at, beside the type of the body.
HEADERS_ASKED: Final = ("idempotency-key", "last-event-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A status and a JSON value; no value means an empty body. `headers` come on top of those that every reply has.

    With a `stream`, that is the body, and its length is unknown.
    """

    status: int
    value: JSONValue = None
    headers: tuple[tuple[str, str], ...] = field(default=())
    content_type: str = JSON
    stream: EventStream | None = None

    @property
    def body(self) -> bytes:
        """The value as JSON, pure ASCII."""
        return b"" if self.value is None else json.dumps(self.value).encode()

    @property
    def all_headers(self) -> list[tuple[str, str]]:
        """Every header to send, in order."""
        if self.stream is not None:
            return [("Content-Type", self.content_type), *ALWAYS, *self.headers]
        kind = () if self.value is None else (("Content-Type", self.content_type),)
        length = () if self.status == 204 else (("Content-Length", str(len(self.body))),)
        return [*kind, *ALWAYS, *length, *self.headers]


class LaterReply(Protocol):
    """A reply that has to be waited for."""

    def wait(self) -> Reply:
        """Return the reply, in the thread that asks for it."""
        ...

    async def wait_async(self) -> Reply:
        """Return the reply. No thread waits for it."""
        ...
