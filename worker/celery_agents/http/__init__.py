"""Executions over plain HTTP, for any web framework: start and list them, follow one, answer it, decide, cancel.

The way of a request: `wsgi`, `asgi` or `django` asks who sends it and reads its body -> `handler` finds the endpoint in
the table of `api`, asks `permission`, and reads `queries` and `bodies` -> the endpoint's function in
`endpoints` -> `celery_agents.Execution` -> `views` in the `shapes` that `openapi`
documents; `problems` turns an error into an answer.

    from celery_agents.http import ExecutionsWSGI

    application = ExecutionsWSGI(identify=lambda environ: environ.get("REMOTE_USER"))
"""

from celery_agents.http.asgi import ExecutionsASGI
from celery_agents.http.handler import Executions
from celery_agents.http.messages import Reply, Request
from celery_agents.http.openapi import openapi_document
from celery_agents.http.permission import Act, Permit, is_own
from celery_agents.http.wsgi import ExecutionsWSGI

__all__ = [
    "Act",
    "Executions",
    "ExecutionsASGI",
    "ExecutionsWSGI",
    "Permit",
    "Reply",
    "Request",
    "is_own",
    "openapi_document",
]
