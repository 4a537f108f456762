"""Server-sent events as bytes, as the HTML standard has them."""

from typing import Final

CONTENT_TYPE: Final = "text/event-stream"
# A comment. It keeps the connection open, and nobody is told of it.
HEARTBEAT: Final = b":\n\n"


def message(data: str, *, event: str | None = None, id: int | None = None) -> bytes:  # noqa: A002 - the field's name
    """Return one message. `data` may have several lines; `event` is one line."""
    lines = [] if id is None else [f"id: {id}"]
    if event is not None:
        lines.append(f"event: {''.join(event.splitlines())}")
    # A reader ends a line at CR, LF or CRLF, and at nothing else that Python calls the end of one.
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


def retry(milliseconds: int) -> bytes:
    """Return how long a viewer waits before it comes back after the end of a response."""
    return f"retry: {milliseconds}\n\n".encode()
