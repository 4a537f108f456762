"""The front door in real applications: Django under WSGI and ASGI, FastAPI, Flask."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from celery_agents import get_execution
from celery_agents.host.runtime import Runtime
from celery_agents.http import ExecutionsWSGI
from tests.celery_agents.http.apps import django_shop, fastapi_shop
from tests.celery_agents.http.serving import served_by_uvicorn, served_by_wsgiref, type_of, work


@dataclass
class Browser:
    """A user's requests to an application, with a token or with cookies."""

    port: int
    token: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        every = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            every.setdefault("Content-Type", "application/json")
        if self.token:
            every["Authorization"] = self.token
        if self.cookies:
            every["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, content, every)
            response = connection.getresponse()
            for name, value in response.getheaders():
                if name.lower() == "set-cookie":
                    key, _, rest = value.partition("=")
                    self.cookies[key] = rest.partition(";")[0]
            found = {name.lower(): value for name, value in response.getheaders()}
            content = response.read()
            is_json = content and "json" in found.get("content-type", "")
            return response.status, json.loads(content) if is_json else content, found
        finally:
            connection.close()


def kinds_of(content: bytes) -> list[str]:
    """The kinds of the events in a response."""
    return [line.removeprefix("event: ") for line in content.decode().split("\n") if line.startswith("event: ")]


def refund(ada: Browser, eve: Browser, runtime: Runtime, below: str, body: Any = None) -> None:
    """The life of a refund, as its user's and another's browser see it."""
    status, made, headers = ada("POST", f"{below}/executions", {"agent": "refunding", "input": "order 7"})
    assert (status, made["user_id"]) == (201, "ada"), made
    path = headers["location"]
    assert path == f"{below}/executions/{made['execution_id']}"
    execution = get_execution(made["execution_id"], runtime=runtime)
    work(runtime, execution)

    status, page, _ = ada("GET", f"{below}/executions?waiting=me")
    assert (status, [each["execution_id"] for each in page["items"]]) == (200, [execution.id])
    assert eve("GET", f"{below}/executions?waiting=me")[1] == {"items": [], "next_cursor": None}
    for method, where in (("GET", path), ("GET", f"{path}/events"), ("POST", f"{path}/cancel")):
        status, problem, headers = eve(method, where, {} if method == "POST" else None)
        assert (status, type_of(problem)) == (404, "ExecutionNotFound")
        assert headers["content-type"] == "application/problem+json"

    digest = page["items"][0]["approval"]["digest"]
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(ada, "GET", f"{path}/events")
        status, polled, _ = ada("GET", f"{path}/events?wait=5")
        assert (status, polled["is_over"]) == (200, False)
        assert ada("POST", f"{path}/approve", {"digest": digest})[0] == 200
        work(runtime, execution)
        status, content, headers = following.result(20)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    kinds = kinds_of(content)
    assert (kinds[0], kinds[-1]) == ("started", "ended")
    assert {"emitted", "asked", "answered"} <= {*kinds}
    assert ada("GET", f"{path}/contents")[1]["output"] == "paid 30 to order 7"
    assert ada("GET", f"{path}/events", Last_Event_ID=str(execution_end(runtime, execution.id)))[0] == 204

    # What no form of another site can send.
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert ada("POST", f"{path}/cancel", b"{}", Content_Type=kind)[0] == 415
    assert type_of(ada("POST", f"{path}/cancel", b" " * 400_000)[1]) == "BodyTooLarge"
    assert ada("HEAD", path)[:2] == (200, b"")
    assert type_of(ada("GET", f"{below}/nothing")[1]) == "NotFound"
    assert ada("GET", f"{below}/openapi.json")[1]["servers"] == [{"url": below}]


def execution_end(runtime: Runtime, execution_id: str) -> int:
    page = runtime.store.read_events(execution_id, 0, 1)
    assert page is not None
    return page.last


@pytest.fixture
def shop_runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = django_shop.installed(tmp_path)
    yield runtime
    runtime.store.close()


def test_django(shop_runtime: Runtime, tmp_path: Path) -> None:
    program = [sys.executable, "-m", django_shop.__name__, str(tmp_path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ports = [int(port) for port in server.stdout.readline().split()]
            assert len(ports) == 2
            for port in ports:
                ada, eve, nobody = Browser(port), Browser(port), Browser(port)
                status, problem, headers = nobody("GET", "/api/agents/executions")
                assert (status, type_of(problem), headers["www-authenticate"]) == (401, "Unauthenticated", "Session")
                for browser, name in ((ada, "ada"), (eve, "eve")):
                    signing = {"username": name, "password": django_shop.PASSWORD}
                    assert browser("POST", "/login", signing)[0] == 204
                    assert browser("GET", "/whoami")[1] == {"name": name}
                refund(ada, eve, shop_runtime, "/api/agents")
                status, problem, _ = ada("GET", "/api/agents/executions?agent=%FF")
                assert (status, type_of(problem)) == (400, "InvalidQuery")
        finally:
            server.terminate()


def test_fastapi(shop_runtime: Runtime) -> None:
    application = fastapi_shop.shop(shop_runtime, heartbeat_seconds=0.2, max_body_bytes=300_000)
    for port in served_by_uvicorn(application):
        ada, eve = Browser(port, "Bearer ada's"), Browser(port, "Bearer eve's")
        assert Browser(port)("GET", "/api/agents/executions")[0] == 401
        refund(ada, eve, shop_runtime, "/api/agents")
        status, made, _ = eve("POST", "/orders/8/refund")
        assert status == 202
        assert eve("GET", f"/api/agents/executions/{made['id']}")[1]["state"] == "idle"
        assert ada("GET", f"/api/agents/executions/{made['id']}")[0] == 404
        assert "/executions" in Browser(port)("GET", "/agents-openapi.json")[1]["paths"]


def test_flask(shop_runtime: Runtime) -> None:
    shop = Flask(__name__)
    shop.secret_key = "of a test"

    @shop.post("/login/<name>")
    def sign_in(name: str) -> str:
        session["user"] = name
        return name

    def signed_in(environ: Any) -> str | None:
        with shop.request_context(environ):
            name: str | None = session.get("user")
            return name

    handlers = ExecutionsWSGI(signed_in, runtime=shop_runtime, heartbeat_seconds=0.2, max_body_bytes=300_000)
    shop.wsgi_app = DispatcherMiddleware(shop.wsgi_app, {"/api/agents": handlers})  # type: ignore[method-assign]
    for port in served_by_wsgiref(shop):
        ada, eve = Browser(port), Browser(port)
        assert ada("GET", "/api/agents/executions")[0] == 401
        for browser, name in ((ada, "ada"), (eve, "eve")):
            assert browser("POST", f"/login/{name}")[0] == 200
        refund(ada, eve, shop_runtime, "/api/agents")
