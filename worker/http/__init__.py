"""Executions over plain HTTP: look at one, answer it, approve, reject, send an event, cancel. For any web framework.

The way of a request: `wsgi` or `asgi` asks who sends it and reads its body -> `handling` finds the endpoint -> its
function in `endpoints` -> `worker.Execution` -> `problems` makes an answer of what went wrong.

    from worker.http import ExecutionsWSGI

    application = ExecutionsWSGI(identify=lambda environ: environ.get("REMOTE_USER"))
"""

from worker.http.asgi import ExecutionsASGI
from worker.http.handling import Executions
from worker.http.messages import Reply, Request
from worker.http.permitting import Act, Permit
from worker.http.wsgi import ExecutionsWSGI

__all__ = ["Act", "Executions", "ExecutionsASGI", "ExecutionsWSGI", "Permit", "Reply", "Request"]
