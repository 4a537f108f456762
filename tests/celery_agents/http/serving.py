"""Real servers on this host, and a client for them."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator

import uvicorn

from celery_agents import Agent, enqueue
from celery_agents.client.execution import Execution
from celery_agents.host.runtime import Runtime
from celery_agents.http import ExecutionsASGI, ExecutionsWSGI
from celery_agents.http.openapi import PROBLEM
from celery_agents.http.problems import TYPES

LIMIT = 300_000
NOBODY = "0197f3c5-0000-7000-8000-000000000000"


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def named(token: str | None) -> str | None:
    """Who sends a request; the secret is the same for everybody."""
    if token == "Bearer broken":
        raise LookupError("the user database at 10.0.0.7 is away")
    scheme, _, name = (token or "").partition(" secret:")
    return name if scheme == "Bearer" else None


def of_environ(environ: Any) -> str | None:
    return named(environ.get("HTTP_AUTHORIZATION"))


async def of_scope(scope: Any) -> str | None:
    return named(dict(scope["headers"]).get(b"authorization", b"").decode())


def serve_wsgi(runtime: Runtime, **options: Any) -> Iterator[int]:
    return served_by_wsgiref(validator(ExecutionsWSGI(of_environ, runtime=runtime, max_body_bytes=LIMIT, **options)))


def served_by_wsgiref(application: Any) -> Iterator[int]:
    with make_server("127.0.0.1", 0, application, server_class=Threading, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def serve_asgi(runtime: Runtime, **options: Any) -> Iterator[int]:
    return served_by_uvicorn(ExecutionsASGI(of_scope, runtime=runtime, max_body_bytes=LIMIT, **options))


def served_by_uvicorn(application: Any) -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


SERVERS: dict[str, Callable[..., Iterator[int]]] = {"wsgi": serve_wsgi, "asgi": serve_asgi}


@dataclass
class Client:
    """Sends requests to a server, as ada unless told otherwise."""

    port: int

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        sender: str | None = "ada",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        status, content, _ = self.whole(method, path, body, sender=sender, headers=headers)
        return status, json.loads(content) if content else None

    def whole(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        sender: str | None = "ada",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers, whose names are in small letters."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        every = {"Authorization": f"Bearer secret:{sender}"} if sender is not None else {}
        if method == "POST":
            every["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, every | (headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, response.read(), found
        finally:
            connection.close()


def begun(runtime: Runtime, agent: Agent, value: Any = None) -> Execution:
    """An execution of ada's that a worker has brought to its first pause."""
    execution = enqueue(agent, value, runtime=runtime, user_id="ada", metadata={"token": "my-secret"})
    work(runtime, execution)
    return execution


def work(runtime: Runtime, execution: Execution) -> None:
    runtime.executor.execute(execution.id, "host/1/0")


def error_of(reply: tuple[int, Any]) -> tuple[int, str]:
    status, value = reply
    assert {"type", "title", "status", "detail"} <= value.keys() <= {*PROBLEM["properties"]}
    assert value["status"] == status
    assert "Traceback" not in str(value)
    return status, type_of(value)


def type_of(value: Any) -> str:
    """The short name of a problem."""
    told: str = value["type"]
    assert told.startswith(TYPES)
    return told.removeprefix(TYPES)
