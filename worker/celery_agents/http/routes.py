"""What an endpoint is: a method and a path, who may, what it takes, what it replies; and how a path finds it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from celery_agents.http.bodies import BodyForm
from celery_agents.http.calls import Endpoint
from celery_agents.http.permission import Act
from celery_agents.http.problems import Refused
from celery_agents.http.queries import Parameter

EXECUTION: Final = "execution_id"


@dataclass(frozen=True, kw_only=True)
class Route:
    """One endpoint.

    Attributes:
        path: with variable parts in braces. A part at the end may contain "/".
        act: what `permit` is asked before the endpoint is called; None where the endpoint asks by itself, because the
            path names no execution.
        replies: the shapes of its JSON replies by status; None for a reply without a body.
        streams: whether it may reply with server-sent events.
        strict: whether a parameter of the query that it does not know is refused.
        headers: the headers that it looks at, with a description.
        problems: the statuses of its problems, beside those that each endpoint has.
    """

    method: str
    path: str
    endpoint: Endpoint
    act: Act | None
    replies: Mapping[int, Any]
    query: tuple[Parameter, ...] = ()
    body: BodyForm | None = None
    streams: bool = False
    strict: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name of the endpoint's function."""
        return self.endpoint.__name__

    @property
    def methods(self) -> tuple[str, ...]:
        """The method, and HEAD with GET."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The form of its paths."""
        # An id has no "/"; the name of an event may.
        return re.compile(re.sub(r"\\{(\w+)\\}", _part, re.escape(self.path)), re.DOTALL)


def _part(match: re.Match[str]) -> str:
    form = "[^/]+" if match[1] == EXECUTION else ".+"
    return f"(?P<{match[1]}>{form})"


class RouteTable:
    """All endpoints."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)

    def find(self, method: str, path: str) -> tuple[Route | None, tuple[str, ...], dict[str, str]]:
        """Return the route, the methods that are done at this path, and the variable parts of the path.

        There is no route for OPTIONS. Raise `Refused`: 404 for a path at which nothing is, 405 for another method.
        """
        fitting = [(route, match) for route in self.routes if (match := route.pattern.fullmatch(path))]
        if not fitting:
            raise Refused(404, "NotFound", "there is nothing at this path")
        methods = tuple(sorted({"OPTIONS", *(name for route, _ in fitting for name in route.methods)}))
        for route, match in fitting:
            if method in route.methods:
                return route, methods, match.groupdict()
        if method == "OPTIONS":
            return None, methods, {}
        message = f"{method!a:.20} is not done here; {', '.join(methods)} is"
        raise Refused(405, "MethodNotAllowed", message, allow(methods))


def allow(methods: Sequence[str]) -> tuple[str, str]:
    """Return the header that names these methods."""
    return "Allow", ", ".join(methods)
