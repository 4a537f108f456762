"""The way from a request to its reply, through any server or framework."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypedDict

from agent_statestore.errors import ExecutionNotFound
from celery_agents.client.execution import Execution
from celery_agents.current import current_runtime
from celery_agents.http.calls import (
    DEFAULT_HEARTBEAT_SECONDS,
    DEFAULT_LONGEST_STREAM_SECONDS,
    EndpointCall,
    StreamManner,
)
from celery_agents.http.formats import FORMATS, EventFormat
from celery_agents.http.messages import DEFAULT_MAX_BODY_BYTES, LaterReply, Reply, Request
from celery_agents.http.openapi import TABLE
from celery_agents.http.permission import Permit, is_own
from celery_agents.http.problems import Refused, reply_to
from celery_agents.http.queries import read_query
from celery_agents.http.routes import EXECUTION, allow
from celery_agents.lifecycle.services import Services

# The form of every id that a store gives. Nothing else is ever looked up.
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class HandlerOptions(TypedDict, total=False):
    """The parameters of `Executions`, for those that pass them on."""

    runtime: Services | None
    permit: Permit | None
    max_body_bytes: int
    formats: Mapping[str, type[EventFormat]]
    heartbeat_seconds: float
    longest_stream_seconds: float


class Executions:
    """The endpoints, for frameworks that give neither a WSGI environ nor an ASGI scope. Thread-safe.

    `runtime` defaults to the current app's runtime. `permit` is asked before anything is done; by default a sender may
    do everything with executions whose `user_id` is the sender's name, and nothing with others (`is_own`). The reply to
    a sender who may not even look at an execution is that of an unknown one: 404. A body of more than `max_body_bytes`
    is refused with 413.

    `formats` are those of events (`celery_agents.http.formats.FORMATS`), by the names that requests give. While nothing
    happens, a stream of events sends a comment every `heartbeat_seconds`, and after `longest_stream_seconds` it ends,
    so that its reader goes on with a new one.
    """

    def __init__(
        self,
        *,
        runtime: Services | None = None,
        permit: Permit | None = None,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        formats: Mapping[str, type[EventFormat]] = FORMATS,
        heartbeat_seconds: float = DEFAULT_HEARTBEAT_SECONDS,
        longest_stream_seconds: float = DEFAULT_LONGEST_STREAM_SECONDS,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self._runtime = runtime
        self._permit = permit or is_own
        self._manner = StreamManner(
            formats=formats, heartbeat_seconds=heartbeat_seconds, longest_seconds=longest_stream_seconds
        )

    def handle(self, request: Request, sender: str | None) -> Reply:
        """Return the reply to a request. Refuse it with 401 if `sender` is None or an empty name. Never raise.

        A reply that has to be waited for is waited for here. The body of a reply with a `stream` is that. In reply to a
        HEAD request, a server sends only the headers.
        """
        reply = self.begin(request, sender)
        try:
            return reply if isinstance(reply, Reply) else reply.wait()
        except Exception as error:  # noqa: BLE001 - whoever asks must see nothing of this process
            return reply_to(error)

    def begin(self, request: Request, sender: str | None) -> Reply | LaterReply:
        """Return the reply to a request, or a later one that the caller waits for. Never raise."""
        try:
            return self._handle(request, sender)
        except Exception as error:  # noqa: BLE001 - whoever asks must see nothing of this process
            return reply_to(error)

    def _handle(self, request: Request, sender: str | None) -> Reply | LaterReply:
        if sender is not None and not isinstance(sender, str):
            raise TypeError(f"identify returned {type(sender).__name__}: it has to return a name, or None")
        if not sender:
            raise Refused(401, "Unauthenticated", "it is not known who sends this")
        route, methods, parts = TABLE.find(request.method, request.path)
        if route is None:
            return Reply(status=204, headers=(allow(methods),))
        if len(request.body) > self.max_body_bytes:
            raise too_large(self.max_body_bytes)
        asked = read_query(request.query, route.query, strict=route.strict)
        services, found = self._runtime or current_runtime(), None
        execution_id = parts.get(EXECUTION)
        if execution_id is not None:
            if not _ID.fullmatch(execution_id):
                raise ExecutionNotFound(execution_id[:80])
            found = Execution(execution_id, services).summary()
        call = EndpointCall(
            services=services,
            permit=self._permit,
            sender=sender,
            request=request,
            manner=self._manner,
            asked=asked,
            parts=parts,
            found=found,
        )
        if found is not None and route.act is not None:
            call.require(route.act, found)
        if route.body is not None:
            call = replace(call, given=route.body.read(request))
        return route.endpoint(call)


def too_large(limit_bytes: int) -> Refused:
    """Return the refusal of a body that is too long."""
    return Refused(413, "BodyTooLarge", f"the body has more than {limit_bytes} bytes")
