"""Executions over plain HTTP: look at one, answer it, approve, reject, send an event, cancel. For any web framework.

The way of a request: `wsgi` or `asgi` asks who sends it and reads its body -> `handling` finds the endpoint -> its
function in `endpoints` -> `celery_agents.Execution` -> `problems` makes an answer of what went wrong.

    from celery_agents.http import ExecutionsWSGI

    application = ExecutionsWSGI(identify=lambda environ: environ.get("REMOTE_USER"))
"""

from celery_agents.http.asgi import ExecutionsASGI
from celery_agents.http.handler import Executions
from celery_agents.http.messages import Reply, Request
from celery_agents.http.permission import Act, Permit
from celery_agents.http.wsgi import ExecutionsWSGI

__all__ = ["Act", "Executions", "ExecutionsASGI", "ExecutionsWSGI", "Permit", "Reply", "Request"]
