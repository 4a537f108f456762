"""What is shown of one execution: how it stands, what it was given and made, its steps, what it has spent."""

import json
from typing import Final

from celery_agents.http.calls import EndpointCall
from celery_agents.http.messages import Reply
from celery_agents.http.queries import Parameter
from celery_agents.http.shapes import StepsPage, StepView
from celery_agents.http.views import view, view_of_contents, view_of_spent, view_of_step

# A page ends early where it gets larger than this.
MOST_PAGE_BYTES: Final = 4 * 1024 * 1024
MOST_STEPS: Final = 1000
_DEFAULT_STEPS: Final = 100
# The largest number that every reader of JSON keeps exactly.
LARGEST_NUMBER: Final = 2**53 - 1

STEPS_QUERY: Final = (
    Parameter(
        name="after",
        description="Only steps behind this number.",
        schema={"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "default": 0},
    ),
    Parameter(
        name="limit",
        description="At most so many steps. A page of large steps has fewer.",
        schema={"type": "integer", "minimum": 1, "maximum": MOST_STEPS, "default": _DEFAULT_STEPS},
    ),
)


def look(call: EndpointCall) -> Reply:
    """Show the state of an execution and what it waits for, and none of its contents."""
    return Reply(status=200, value=view(call.summary))


def contents(call: EndpointCall) -> Reply:
    """Show what an execution was given, and what came of it."""
    return Reply(status=200, value=view_of_contents(call.execution.context()))


def steps(call: EndpointCall) -> Reply:
    """Show steps with their inputs and outputs, in order, by page."""
    after, limit = call.asked.get("after", 0), call.asked.get("limit", _DEFAULT_STEPS)
    found = call.services.store.get_steps(call.summary.execution_id, after, limit + 1)
    items: list[StepView] = []
    size = 0
    for step in found[:limit]:
        shown = view_of_step(step)
        size += len(json.dumps(shown))
        if items and size > MOST_PAGE_BYTES:
            break
        items.append(shown)
    has_more = len(items) < len(found)
    value: StepsPage = {"items": items, "next_after": items[-1]["step_number"] if has_more else None}
    return Reply(status=200, value=value)


def spent(call: EndpointCall) -> Reply:
    """Show what an execution has spent, in all and by those steps that have spent anything."""
    return Reply(status=200, value=view_of_spent(call.execution.context()))
