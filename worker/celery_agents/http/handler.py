"""The way from a request to its reply, through any server or framework."""

import re
from dataclasses import dataclass
from typing import Final

from agent_statestore.errors import ExecutionNotFound
from celery_agents.client.execution import Execution
from celery_agents.current import current_runtime
from celery_agents.http import endpoints, saying
from celery_agents.http.endpoints import Endpoint, EndpointCall
from celery_agents.http.messages import DEFAULT_MAX_BODY_BYTES, Reply, Request
from celery_agents.http.permission import Act, Permit, is_own, is_permitted
from celery_agents.http.problems import Refused, reply_to
from celery_agents.lifecycle.decider import HTTP
from celery_agents.lifecycle.services import Services

# The form of every id that a store gives. Nothing else is ever looked up.
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_EVENTS: Final = "events"


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    act: Act
    endpoint: Endpoint

    @property
    def methods(self) -> tuple[str, ...]:
        return ("GET", "HEAD", "OPTIONS") if self.method == "GET" else ("OPTIONS", self.method)


_LOOK: Final = _Route("GET", Act.LOOK, endpoints.look)
_ROUTES: Final = {
    "spent": _Route("GET", Act.LOOK, endpoints.spent),
    "answer": _Route("POST", Act.ANSWER, endpoints.answer),
    "approve": _Route("POST", Act.APPROVE, endpoints.approve),
    "reject": _Route("POST", Act.REJECT, endpoints.reject),
    _EVENTS: _Route("POST", Act.SEND_EVENT, endpoints.send_event),
    "cancel": _Route("POST", Act.CANCEL, endpoints.cancel),
    "say": _Route("POST", Act.SAY, saying.say),
}


class Executions:
    """The endpoints, for frameworks that give neither a WSGI environ nor an ASGI scope. Thread-safe.

    `runtime` defaults to the current app's runtime. `permit` is asked before anything is done; by default a sender may
    do everything with executions whose `user_id` is the sender's name, and nothing with others (`is_own`). The reply to
    a sender who may not even look at an execution is that of an unknown one: 404. A body of more than `max_body_bytes`
    is refused with 413.
    """

    def __init__(
        self,
        *,
        runtime: Services | None = None,
        permit: Permit | None = None,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self._runtime = runtime
        self._permit = permit or is_own

    def handle(self, request: Request, sender: str | None) -> Reply:
        """Return the reply to a request. Refuse it with 401 if `sender` is None or an empty name. Never raise.

        In reply to a HEAD request, a server sends only the headers.
        """
        try:
            return self._handle(request, sender)
        except Exception as error:  # noqa: BLE001 - whoever asks must see nothing of this process
            return reply_to(error)

    def _handle(self, request: Request, sender: str | None) -> Reply:
        if sender is not None and not isinstance(sender, str):
            raise TypeError(f"identify returned {type(sender).__name__}: it has to return a name, or None")
        if not sender:
            raise Refused(401, "Unauthenticated", "it is not known who sends this")
        execution_id, route, name = _find(request.path)
        if request.method == "OPTIONS":
            return Reply(status=204, headers=(_allow(route),))
        if request.method not in route.methods:
            message = f"{request.method:.20} is not done here; {', '.join(route.methods)} is"
            raise Refused(405, "MethodNotAllowed", message, _allow(route))
        if len(request.body) > self.max_body_bytes:
            raise too_large(self.max_body_bytes)
        if not _ID.fullmatch(execution_id):
            raise ExecutionNotFound(execution_id[:80])
        execution = Execution(execution_id, self._runtime or current_runtime(), HTTP)
        if not is_permitted(self._permit, sender, route.act, execution.summary()):
            raise Refused(403, "Forbidden", f"{sender!a:.80} may not do this")
        return route.endpoint(EndpointCall(execution=execution, sender=sender, request=request, name=name))


def _find(path: str) -> tuple[str, _Route, str]:
    """Return the execution's id, the route, and the event's name. The name of an event may contain "/"."""
    match path.split("/", 4):
        case ["", "executions", execution_id] if execution_id:
            return execution_id, _LOOK, ""
        case ["", "executions", execution_id, done] if execution_id and done in _ROUTES and done != _EVENTS:
            return execution_id, _ROUTES[done], ""
        case ["", "executions", execution_id, done, name] if execution_id and done == _EVENTS and name:
            return execution_id, _ROUTES[_EVENTS], name
    raise Refused(404, "NotFound", "there is nothing at this path")


def _allow(route: _Route) -> tuple[str, str]:
    return "Allow", ", ".join(route.methods)


def too_large(limit_bytes: int) -> Refused:
    """Return the refusal of a body that is too long."""
    return Refused(413, "BodyTooLarge", f"the body has more than {limit_bytes} bytes")
