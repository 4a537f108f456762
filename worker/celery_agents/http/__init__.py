"""Executions over plain HTTP, for any web framework: look at one, answer it, approve, reject, send an event, cancel.

The way of a request: `wsgi` or `asgi` asks who sends it and reads its body -> `handler` finds the endpoint -> its
function in `endpoints` -> `celery_agents.Execution` -> `problems` turns an error into an answer.

    from celery_agents.http import ExecutionsWSGI

    application = ExecutionsWSGI(identify=lambda environ: environ.get("REMOTE_USER"))
"""

from celery_agents.http.asgi import ExecutionsASGI
from celery_agents.http.handler import Executions
from celery_agents.http.messages import Reply, Request
from celery_agents.http.permission import Act, Permit, is_own
from celery_agents.http.wsgi import ExecutionsWSGI

__all__ = ["Act", "Executions", "ExecutionsASGI", "ExecutionsWSGI", "Permit", "Reply", "Request", "is_own"]
