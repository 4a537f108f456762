"""A request that has found its endpoint, as the endpoint gets it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from agent_statestore.records import ExecutionSummary
from celery_agents.client.execution import Execution
from celery_agents.http.formats import EventFormat
from celery_agents.http.messages import LaterReply, Reply, Request
from celery_agents.http.permission import Act, Permit, is_permitted
from celery_agents.http.problems import Refused
from celery_agents.lifecycle.decider import HTTP
from celery_agents.lifecycle.services import Services

DEFAULT_HEARTBEAT_SECONDS: Final = 15.0
# Shorter than the ten minutes after which many proxies cut whatever goes on.
DEFAULT_LONGEST_STREAM_SECONDS: Final = 590.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamManner:
    """How events are sent: the formats by name, and two times in seconds."""

    formats: Mapping[str, type[EventFormat]]
    heartbeat_seconds: float = DEFAULT_HEARTBEAT_SECONDS
    longest_seconds: float = DEFAULT_LONGEST_STREAM_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointCall:
    """What the sender wants of the endpoint.

    Attributes:
        sender: who wants it, as `identify` says.
        given: the fields of the body.
        asked: the parameters of the query.
        parts: the variable parts of the path.
        found: the execution that the path names, as it was when the sender was allowed this; None for other paths.
    """

    services: Services
    permit: Permit
    sender: str
    request: Request
    manner: StreamManner
    given: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    found: ExecutionSummary | None = None

    @property
    def summary(self) -> ExecutionSummary:
        """The execution that the path names."""
        if self.found is None:
            raise LookupError(f"{self.request.path:.80} names no execution")
        return self.found

    @property
    def execution(self) -> Execution:
        """The handle of the execution that the path names."""
        return self.handle_of(self.summary.execution_id)

    def handle_of(self, execution_id: str) -> Execution:
        """Return the handle of an execution."""
        return Execution(execution_id, self.services, HTTP)

    def require(self, act: Act, summary: ExecutionSummary) -> None:
        """Raise `Refused` or `ExecutionNotFound` unless the sender may do this."""
        if not is_permitted(self.permit, self.sender, act, summary):
            raise forbidden(self.sender)


Endpoint: TypeAlias = Callable[[EndpointCall], Reply | LaterReply]


def forbidden(sender: str) -> Refused:
    """Return the refusal of what the sender may not do."""
    return Refused(403, "Forbidden", f"{sender!a:.80} may not do this")
