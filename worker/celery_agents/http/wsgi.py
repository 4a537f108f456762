"""The endpoints as a WSGI application."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Unpack

from celery_agents.http.handler import Executions, HandlerOptions, too_large
from celery_agents.http.messages import HEADERS_ASKED, Reply, Request
from celery_agents.http.problems import Refused, reply_to

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_CHUNK_BYTES: Final = 64 * 1024
# A refused body is read and thrown away up to this many times the limit: a server that closes a connection with unread
# data resets it, and the sender never sees why.
_THROWN_AWAY: Final = 16


class ExecutionsWSGI:
    """A WSGI application, served by itself or mounted below any prefix.

    `identify` gets the environ, and returns the name of the sender of the request, which is recorded with the sender's
    decisions. It returns None for an unknown sender: the request is refused with 401, and `challenge` as
    `WWW-Authenticate`. It must verify what it is told. For the other parameters see `Executions`.
    """

    def __init__(
        self,
        identify: "Callable[[WSGIEnvironment], str | None]",
        *,
        challenge: str = "Bearer",
        **options: Unpack[HandlerOptions],
    ) -> None:
        self._identify = identify
        self._challenge = challenge
        self._executions = Executions(**options)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            reply = self._reply(environ)
        except Exception as error:  # noqa: BLE001 - whoever asks must see nothing of this process
            reply = reply_to(error)
        headers = reply.all_headers
        if reply.status == HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", self._challenge))
        start_response(f"{reply.status} {HTTPStatus(reply.status).phrase}", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return [reply.body] if reply.stream is None else iter(reply.stream)

    def _reply(self, environ: "WSGIEnvironment") -> Reply:
        body = _Body(environ, self._executions.max_body_bytes)
        try:
            sender = self._identify(environ)
            request = Request(
                method=environ["REQUEST_METHOD"],
                path=of_bytes(environ.get("PATH_INFO", ""), "InvalidPath", "the path"),
                content_type=environ.get("CONTENT_TYPE") or "",
                body=body.read() if sender else b"",
                query=of_bytes(environ.get("QUERY_STRING", ""), "InvalidQuery", "the query"),
                headers={
                    name: environ[key]
                    for name in HEADERS_ASKED
                    if (key := f"HTTP_{name.upper().replace('-', '_')}") in environ
                },
                prefix=of_bytes(environ.get("SCRIPT_NAME", ""), "InvalidPath", "the path"),
            )
            return self._executions.handle(request, sender)
        finally:
            body.throw_away()


def of_bytes(text: str, type: str, what: str) -> str:  # noqa: A002 - as in `Refused`
    """Return what was sent as bytes: WSGI passes bytes as if they were Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError as error:
        raise Refused(400, type, f"{what} is not UTF-8") from error


class _Body:
    """The body of one request. Servers need not end it by themselves, so no more is read than was announced."""

    def __init__(self, environ: "WSGIEnvironment", limit_bytes: int) -> None:
        self._input: Any = environ["wsgi.input"]
        self._limit = limit_bytes
        self._announced: int | None = None
        self._unread = 0
        announced = environ.get("CONTENT_LENGTH") or ""
        if announced:
            if not (announced.isascii() and announced.isdecimal() and len(announced) < 20):
                raise Refused(400, "InvalidLength", "the Content-Length is no number")
            self._announced = self._unread = int(announced)
        elif environ.get("wsgi.input_terminated"):
            self._unread = limit_bytes * _THROWN_AWAY
        elif environ.get("HTTP_TRANSFER_ENCODING"):
            raise Refused(411, "LengthRequired", "a body needs a Content-Length here")

    def read(self) -> bytes:
        if (self._announced or 0) > self._limit:
            raise too_large(self._limit)
        body = bytearray()
        while taken := self._take(_CHUNK_BYTES):
            body += taken
            if len(body) > self._limit:
                raise too_large(self._limit)
        if self._announced is not None and len(body) < self._announced:
            raise Refused(400, "InvalidBody", "the body ended early")
        return bytes(body)

    def throw_away(self) -> None:
        self._unread = min(self._unread, self._limit * _THROWN_AWAY)
        while self._take(_CHUNK_BYTES):
            continue

    def _take(self, most: int) -> bytes:
        wanted = min(self._unread, most)
        taken: bytes = self._input.read(wanted) if wanted else b""
        self._unread = self._unread - len(taken) if taken else 0
        return taken
