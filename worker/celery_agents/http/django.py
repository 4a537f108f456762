"""The endpoints as views of Django, under WSGI and under ASGI.

from django.urls import include, path
from celery_agents.http.django import agents_urls

urlpatterns = [path("agents/", include(agents_urls()))]
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Unpack

from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.http.request import UnreadablePostError
from django.urls import URLPattern, re_path
from django.views.decorators.csrf import csrf_exempt

from celery_agents.http.handler import Executions, HandlerOptions, too_large
from celery_agents.http.messages import ALWAYS, HEADERS_ASKED, JSON, LaterReply, Reply, Request
from celery_agents.http.problems import Refused, reply_to
from celery_agents.http.wsgi import of_bytes


def signed_in(request: HttpRequest) -> str | None:
    """Return the name of the user whom Django's authentication has found; None for nobody."""
    user: Any = getattr(request, "user", None)
    if user is None or not user.is_authenticated or not user.is_active:
        return None
    name: str = user.get_username()
    return name


def agents_urls(
    identify: Callable[[HttpRequest], str | None] = signed_in,
    *,
    challenge: str = "Session",
    **options: Unpack[HandlerOptions],
) -> list[URLPattern]:
    """Return the patterns of all endpoints, for `include`.

    `identify` gets the request, and returns the name of its sender, or None; by default the name of the user who is
    signed in. `challenge` is the `WWW-Authenticate` of a 401. For the other parameters see `Executions`.

    The view is exempt from the CSRF check: bodies must be declared as `application/json`, which neither a form nor a
    script of another site can send with a user's cookies, unless your CORS headers allow it. Under ASGI, no thread
    waits for a stream of events or for a long poll.
    """
    executions = Executions(**options)

    def agents(request: HttpRequest, rest: str) -> HttpResponseBase:
        try:
            reply = _begun(request, rest)
        except Exception as error:  # noqa: BLE001 - whoever asks must see nothing of this process
            reply = reply_to(error)
        response = _response(request, reply)
        for name, value in reply.all_headers if isinstance(reply, Reply) else ():
            response.headers[name] = value
        if response.status_code == 401:
            response.headers["WWW-Authenticate"] = challenge
        return response

    def _begun(request: HttpRequest, rest: str) -> Reply | LaterReply:
        sender = identify(request)
        body = _body(request, executions.max_body_bytes) if sender else b""
        reply = executions.begin(_asked(request, rest, body), sender)
        return reply if isinstance(reply, Reply) or isinstance(request, ASGIRequest) else reply.wait()

    # A 401 says what a redirect to a page for people would not.
    agents.login_required = False  # type: ignore[attr-defined]
    return [re_path(r"^(?P<rest>(?s:.*))\Z", csrf_exempt(agents), name="celery_agents")]


def _asked(request: HttpRequest, rest: str, body: bytes) -> Request:
    query = request.META.get("QUERY_STRING", "")
    return Request(
        method=request.method or "",
        path=f"/{rest}",
        content_type=request.META.get("CONTENT_TYPE", ""),
        body=body,
        query=query if isinstance(request, ASGIRequest) else of_bytes(query, "InvalidQuery", "the query"),
        headers={name: value for name in HEADERS_ASKED if (value := request.headers.get(name)) is not None},
        prefix=request.path.removesuffix(rest),
    )


def _body(request: HttpRequest, limit_bytes: int) -> bytes:
    announced = request.META.get("CONTENT_LENGTH") or "0"
    if announced.isdecimal() and int(announced[:20]) > limit_bytes:
        raise too_large(limit_bytes)
    try:
        body: bytes = request.body
    except RequestDataTooBig as error:
        raise too_large(limit_bytes) from error
    except UnreadablePostError as error:
        raise Refused(400, "InvalidBody", "the body ended early") from error
    return body


def _response(request: HttpRequest, reply: Reply | LaterReply) -> HttpResponseBase:
    if not isinstance(reply, Reply):
        return StreamingHttpResponse(_later(reply), content_type=JSON, headers=dict(ALWAYS))
    if reply.stream is None or request.method == "HEAD":
        return HttpResponse(reply.body if reply.stream is None else b"", status=reply.status)
    stream = aiter(reply.stream) if isinstance(request, ASGIRequest) else iter(reply.stream)
    return StreamingHttpResponse(stream, status=reply.status)


async def _later(reply: LaterReply) -> AsyncGenerator[bytes, None]:
    """Yield the body of a long poll's reply, a 200. If its execution is deleted meanwhile, the body is cut."""
    yield (await reply.wait_async()).body
