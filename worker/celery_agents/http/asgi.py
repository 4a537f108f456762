"""The endpoints as an ASGI application. Their work with the store runs in threads."""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeVar, Unpack

from celery_agents.http.handler import Executions, HandlerOptions, too_large
from celery_agents.http.messages import HEADERS_ASKED, EventStream, Reply, Request
from celery_agents.http.problems import Refused, reply_to

T = TypeVar("T")

# How long a body may take: servers leave that to the application.
_LONGEST_BODY_SECONDS: Final = 60.0

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


class ExecutionsASGI:
    """An ASGI application, served by itself or mounted below any prefix.

    `identify` gets the scope, and returns the name of the sender of the request, which is recorded with the sender's
    decisions. It returns None for an unknown sender: the request is refused with 401, and `challenge` as
    `WWW-Authenticate`. It must verify what it is told. It may be a coroutine function; a plain one is called in a
    thread. For the other parameters see `Executions`.
    """

    def __init__(
        self,
        identify: Callable[[Scope], str | None] | Callable[[Scope], Awaitable[str | None]],
        *,
        challenge: str = "Bearer",
        **options: Unpack[HandlerOptions],
    ) -> None:
        self._identify = identify
        self._challenge = challenge
        self._executions = Executions(**options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            raise ValueError(f"unknown ASGI scope {scope['type']!r}")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._reply(scope, receive)
        except _Gone:
            return
        except Exception as error:  # noqa: BLE001 - whoever asks must see nothing of this process
            reply = reply_to(error)
        headers = reply.all_headers
        if reply.status == HTTPStatus.UNAUTHORIZED:
            headers.append(("WWW-Authenticate", self._challenge))
        await send(
            {
                "type": "http.response.start",
                "status": reply.status,
                "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
            }
        )
        if reply.stream is None or scope["method"] == "HEAD":
            content = b"" if scope["method"] == "HEAD" else reply.body
            await send({"type": "http.response.body", "body": content})
            return
        with contextlib.suppress(_Gone):
            await _unless_gone(_pour(reply.stream, send), receive)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        body = _Body(scope, receive, self._executions.max_body_bytes)
        found = await asyncio.to_thread(self._identify, scope)
        sender = await found if inspect.isawaitable(found) else found
        request = Request(
            method=scope["method"],
            path=_path(scope),
            content_type=_header(scope, "content-type") or "",
            body=await body.read() if sender else b"",
            query=_query(scope),
            headers={name: text for name in HEADERS_ASKED if (text := _header(scope, name)) is not None},
            prefix=scope.get("root_path", ""),
        )
        reply = await asyncio.to_thread(self._executions.begin, request, sender)
        return reply if isinstance(reply, Reply) else await _unless_gone(reply.wait_async(), receive)


async def _pour(stream: EventStream, send: Send) -> None:
    async with contextlib.aclosing(aiter(stream)) as pieces:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Return what the work returns; give it up and raise `_Gone` when the sender of the request goes away."""
    working = asyncio.ensure_future(work)
    going = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait({working, going}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _Gone
        return await working
    finally:
        for task in (working, going):
            task.cancel()
        await asyncio.gather(working, going, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


class _Gone(Exception):
    """The sender of the request does not wait for a reply."""


class _Body:
    """The body of one request."""

    def __init__(self, scope: Scope, receive: Receive, limit_bytes: int) -> None:
        self._announced = _header(scope, "content-length") or ""
        self._receive = receive
        self._limit = limit_bytes

    async def read(self) -> bytes:
        if self._announced.isdecimal() and int(self._announced[:20]) > self._limit:
            raise too_large(self._limit)
        try:
            async with asyncio.timeout(_LONGEST_BODY_SECONDS):
                return await self._whole()
        except TimeoutError as error:
            raise Refused(408, "BodyTooSlow", f"the body took more than {_LONGEST_BODY_SECONDS:g} s") from error

    async def _whole(self) -> bytes:
        body, has_more = bytearray(), True
        while has_more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
            if len(body) > self._limit:
                raise too_large(self._limit)
        return bytes(body)


async def _live(receive: Receive, send: Send) -> None:
    """Answer the server's lifespan messages. There is nothing to set up; servers ask nevertheless."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _path(scope: Scope) -> str:
    """Return the path below the prefix. Servers that know a prefix leave it in, as ASGI says, or take it out."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "").rstrip("/")
    rest = path.removeprefix(prefix)
    return rest if prefix and path != rest and rest.startswith("/") else path


def _query(scope: Scope) -> str:
    query: bytes = scope.get("query_string", b"")
    try:
        return query.decode()
    except UnicodeError as error:
        raise Refused(400, "InvalidQuery", "the query is not UTF-8") from error


def _header(scope: Scope, name: str) -> str | None:
    """Return the value of a header, or of all that have this name, as WSGI does; None for none."""
    wanted = name.encode()
    values = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == wanted]
    return ",".join(values) if values else None
