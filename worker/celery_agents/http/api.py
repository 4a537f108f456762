"""The table of the endpoints: what is answered, and what the OpenAPI document says of it."""

from typing import Final

from celery_agents.http.endpoints import contents, deciding, following, listing, saying, starting
from celery_agents.http.permission import Act
from celery_agents.http.routes import Route, RouteTable
from celery_agents.http.shapes import (
    ContentsView,
    DecisionsView,
    DoneView,
    EventsPage,
    ExecutionsPage,
    ExecutionView,
    SpentView,
    StepsPage,
)

_ONE: Final = "/executions/{execution_id}"
_DONE: Final = {200: DoneView}
_DECIDING: Final = (400, 403, 409, 410, 413, 415, 429)

API: Final = RouteTable(
    [
        Route(
            method="POST",
            path="/executions",
            endpoint=starting.start,
            act=None,  # there is no execution yet; it asks for `Act.START`
            body=starting.START,
            headers={"Idempotency-Key": "With the same key, the request may be repeated."},
            replies={201: ExecutionView, 200: ExecutionView},
            problems=(400, 403, 409, 413, 415),
        ),
        Route(
            method="GET",
            path="/executions",
            endpoint=listing.list_executions,
            act=None,  # each is asked about
            query=listing.LIST_QUERY,
            strict=True,
            replies={200: ExecutionsPage},
            problems=(400,),
        ),
        Route(method="GET", path=_ONE, endpoint=contents.look, act=Act.LOOK, replies={200: ExecutionView}),
        Route(
            method="GET",
            path=f"{_ONE}/contents",
            endpoint=contents.contents,
            act=Act.READ,
            replies={200: ContentsView},
            problems=(403,),
        ),
        Route(
            method="GET",
            path=f"{_ONE}/steps",
            endpoint=contents.steps,
            act=Act.READ,
            query=contents.STEPS_QUERY,
            replies={200: StepsPage},
            problems=(400, 403),
        ),
        Route(
            method="GET",
            path=f"{_ONE}/events",
            endpoint=following.events,
            act=Act.READ,
            query=following.EVENTS_QUERY,
            headers={"Last-Event-ID": "The number of the last event that was got; it goes before `after`."},
            replies={200: EventsPage, 204: None},
            streams=True,
            problems=(400, 403),
        ),
        Route(method="GET", path=f"{_ONE}/spent", endpoint=contents.spent, act=Act.LOOK, replies={200: SpentView}),
        Route(
            method="POST",
            path=f"{_ONE}/answer",
            endpoint=deciding.answer,
            act=Act.ANSWER,
            body=deciding.ANSWER,
            replies=_DONE,
            problems=_DECIDING,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/approve",
            endpoint=deciding.approve,
            act=Act.APPROVE,
            body=deciding.APPROVE,
            replies=_DONE,
            problems=_DECIDING,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/reject",
            endpoint=deciding.reject,
            act=Act.REJECT,
            body=deciding.REJECT,
            replies=_DONE,
            problems=_DECIDING,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/decisions",
            endpoint=deciding.decide,
            act=Act.LOOK,  # each decision is asked about by itself
            body=deciding.DECIDE,
            replies={200: DecisionsView},
            problems=(400, 413, 415),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/events/{{name}}",
            endpoint=deciding.send_event,
            act=Act.SEND_EVENT,
            body=deciding.SEND_EVENT,
            replies=_DONE,
            problems=(400, 403, 410, 413, 415, 429),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/say",
            endpoint=saying.say,
            act=Act.SAY,
            body=saying.SAY,
            replies=_DONE,
            problems=_DECIDING,
        ),
        Route(
            method="POST",
            path=f"{_ONE}/cancel",
            endpoint=deciding.cancel,
            act=Act.CANCEL,
            body=deciding.CANCEL,
            replies=_DONE,
            problems=(400, 403, 410, 413, 415),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/fork",
            endpoint=starting.fork,
            act=Act.FORK,
            body=starting.FORK,
            replies={201: ExecutionView},
            problems=(400, 403, 409, 413, 415),
        ),
        Route(
            method="POST",
            path=f"{_ONE}/rewind",
            endpoint=starting.rewind,
            act=Act.REWIND,
            body=starting.REWIND,
            replies={201: ExecutionView},
            problems=(400, 403, 409, 413, 415),
        ),
    ]
)
