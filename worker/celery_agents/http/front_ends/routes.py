"""The endpoints for front ends, as lines of the table."""

from typing import Final

from celery_agents.http.front_ends import agui, chat
from celery_agents.http.routes import Route

_PROBLEMS: Final = (400, 403, 404, 409, 413, 415)

FRONT_ENDS: Final = (
    Route(
        method="POST",
        path="/agui/{agent}",
        endpoint=agui.run_agui,
        act=None,  # it starts an execution, or finds it by what is answered, and asks then
        body=agui.RUN,
        replies={200: None},
        streams=True,
        problems=_PROBLEMS,
    ),
    Route(
        method="POST",
        path="/chat/{agent}",
        endpoint=chat.chat,
        act=None,
        body=chat.CHAT,
        replies={200: None},
        streams=True,
        problems=_PROBLEMS,
    ),
    Route(
        method="GET",
        path="/chat/{agent}/{chat_id}/stream",
        endpoint=chat.resume_chat,
        act=None,
        replies={200: None, 204: None},
        streams=True,
        problems=(400, 403, 404),
    ),
)
