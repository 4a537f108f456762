"""Bad requests, servers in trouble, prefixes."""

import asyncio
import http.client
import io
import json
import socket
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import pytest

from agent_statestore import AgentState, StoreUnavailable
from celery_agents import Agent, Run, agent
from celery_agents.host.runtime import Runtime
from celery_agents.http import Executions, ExecutionsASGI, ExecutionsWSGI, Request
from tests.celery_agents.http.serving import LIMIT, NOBODY, Client, begun, error_of, serve_asgi, type_of

# -- bad requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/executionss",
        "/executions/",
        f"/executions/{NOBODY}/",
        f"/executions/{NOBODY}/events/",
        f"/executions/{NOBODY}/delete",
        f"/executions/{NOBODY}/approve/",
        f"/api/executions/{NOBODY}",
    ],
)
def test_there_is_nothing_at_other_paths(client: Client, path: str) -> None:
    assert error_of(client("GET", path)) == (404, "NotFound")


@pytest.mark.parametrize(
    "execution_id",
    [
        NOBODY,
        "nope",
        "x" * 5000,
        NOBODY.upper(),
        quote("ж"),
        "%00",
        "..%2f..",
        "%7B%7D",
        f"{NOBODY}%0a",
        "*",
        "%ED%A0%80",
    ],
    ids=["none", "word", "long", "capitals", "cyrillic", "nul", "dots", "braces", "newline", "star", "surrogate"],
)
def test_unknown_and_impossible_ids(client: Client, execution_id: str) -> None:
    status, value = client("GET", f"/executions/{execution_id}")
    assert (status, type_of(value)) in ((404, "ExecutionNotFound"), (404, "NotFound"), (400, "InvalidPath"))
    status, value = client("POST", f"/executions/{execution_id}/cancel", {})
    assert status in (400, 404)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not valid JSON"),
        (b'{"payload": NaN}', "NaN is no JSON number"),
        (b'{"payload": 1e999}', "payload: not JSON-serialisable"),
        (b'{"payload": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"payload": "\\ud800"}', "lone surrogate"),
        (b'{"payload": 1, "payload": 2}', "stands twice"),
        (b"[1]", "needs to be a JSON object"),
        (b'"text"', "needs to be a JSON object"),
        (b'{"payload": "\xff"}', "not UTF-8"),
        (b"[" * 15_000, "nested too deeply"),
        (b'{"playload": 1}', "'playload' is no field here; the fields are: payload, event_id"),
        (b'{"event_id": 7}', "event_id: needs a text or null"),
        (b'{"event_id": ""}', "event_id"),
        (b'{"event_id": "\\u0000"}', "event_id"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_a_bad_body_is_refused_and_nothing_is_kept(
    client: Client, runtime: Runtime, waiting: Agent, body: bytes, message: str
) -> None:
    execution = begun(runtime, waiting, "paid")
    status, value = client("POST", f"/executions/{execution.id}/events/paid", body)
    assert status == 400, value
    assert message in value["detail"]
    assert execution.context().signals == ()


@pytest.mark.parametrize(
    "declared",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "application/json; charset=latin-1"],
)
def test_what_a_browser_sends_without_asking_is_refused(
    client: Client, runtime: Runtime, paying: Agent, declared: str
) -> None:
    execution = begun(runtime, paying)
    reply = client("POST", f"/executions/{execution.id}/cancel", b"{}", headers={"Content-Type": declared})
    assert error_of(reply) == (415, "UnsupportedMediaType")
    assert execution.state is AgentState.WAITING_FOR_APPROVAL
    for fine in ("application/json; charset=UTF-8", "Application/JSON"):
        assert client("POST", f"/executions/{execution.id}/cancel", b"{}", headers={"Content-Type": fine})[0] == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 12 * LIMIT])
def test_a_body_that_is_too_long_is_refused_so_that_the_sender_sees_why(
    client: Client, runtime: Runtime, waiting: Agent, size: int
) -> None:
    execution = begun(runtime, waiting, "paid")
    path = f"/executions/{execution.id}/events/paid"
    assert error_of(client("POST", path, b" " * size)) == (413, "BodyTooLarge")
    assert error_of(client("POST", path, b" " * size, sender=None)) == (401, "Unauthenticated")
    fits = {"payload": "x" * (LIMIT - 15)}
    assert len(json.dumps(fits)) == LIMIT
    assert client("POST", path, fits)[0] == 200
    assert len(execution.context().signals) == 1


def test_a_payload_over_the_stores_limit(client: Client, runtime: Runtime, waiting: Agent) -> None:
    execution = begun(runtime, waiting, "paid")
    runtime.store.max_value_bytes = 5000
    reply = client("POST", f"/executions/{execution.id}/events/paid", {"payload": "x" * 6000})
    assert error_of(reply) == (413, "ValueTooLarge")


def test_bounds_of_the_execution(client: Client, runtime: Runtime, waiting: Agent) -> None:
    execution = begun(runtime, waiting, "paid")
    runtime.store.max_mailbox = 1
    path = f"/executions/{execution.id}/events/other"
    assert client("POST", path, {"payload": 1})[0] == 200
    assert error_of(client("POST", path, {"payload": 1})) == (429, "MailboxFull")
    runtime.store.max_mailbox, runtime.store.max_context_bytes = 2, 1
    assert error_of(client("POST", path, {"payload": 1})) == (413, "ContextTooLarge")


def raw(port: int, sent: bytes) -> bytes:
    """What comes back for bytes that no client library sends."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


def test_a_body_that_ends_early_does_nothing(client: Client, runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)
    head = (
        f"POST /executions/{execution.id}/cancel HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret:ada\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    received = raw(client.port, head.encode() + b"{}")
    assert b" 200 " not in received
    assert execution.state is AgentState.WAITING_FOR_APPROVAL


def test_a_chunked_body(runtime: Runtime, waiting: Agent) -> None:
    execution = begun(runtime, waiting, "paid")

    def send(port: int, *sizes: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            headers = {"Authorization": "Bearer secret:ada", "Content-Type": "application/json"}
            chunks = iter([b'{"payload": "', *(b"x" * size for size in sizes), b'"}'])
            connection.request("POST", f"/executions/{execution.id}/events/paid", chunks, headers, encode_chunked=True)
            return connection.getresponse().status
        finally:
            connection.close()

    for port in serve_asgi(runtime):
        assert send(port, 10, 10) == 200
        assert send(port, LIMIT, LIMIT) == 413
    assert [signal.payload for signal in execution.context().signals] == ["x" * 20]


def called(runtime: Runtime, **environ: Any) -> tuple[str, Any]:
    """Status and value of a call as no server at hand makes it."""
    statuses: list[str] = []
    application = ExecutionsWSGI(lambda _: "ada", runtime=runtime, max_body_bytes=LIMIT)
    every = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_TYPE": "application/json", "wsgi.input": None}
    (body,) = application(every | environ, lambda status, _: statuses.append(status))  # type: ignore[arg-type, return-value]
    return statuses[0], json.loads(body)


def test_a_body_without_a_length_over_wsgi(runtime: Runtime, waiting: Agent) -> None:
    execution = begun(runtime, waiting, "paid")
    environ = {"PATH_INFO": f"/executions/{execution.id}/events/paid", "HTTP_TRANSFER_ENCODING": "chunked"}
    status, value = called(runtime, **environ)
    assert (status, type_of(value)) == ("411 Length Required", "LengthRequired")
    # Servers that end it themselves say so.
    for payload, expected in (("x" * 20, "200 OK"), ("x" * LIMIT, f"413 {HTTPStatus(413).phrase}")):
        body = io.BytesIO(json.dumps({"payload": payload}).encode())
        status, _ = called(runtime, **environ, **{"wsgi.input": body, "wsgi.input_terminated": True})
        assert status == expected
    assert [signal.payload for signal in execution.context().signals] == ["x" * 20]


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "²", "9" * 30])
def test_a_content_length_that_is_no_number(runtime: Runtime, length: str) -> None:
    assert called(runtime, CONTENT_LENGTH=length)[0] == "400 Bad Request"


def test_a_store_that_is_away_is_said_so_without_its_address(
    client: Client, runtime: Runtime, paying: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = begun(runtime, paying)

    def away(*_: Any) -> Any:
        raise StoreUnavailable("postgresql://10.0.0.7/agents", "gone")

    monkeypatch.setattr(runtime.store, "get_summary", away)
    status, content, headers = client.whole("GET", f"/executions/{execution.id}")
    assert error_of((status, json.loads(content))) == (503, "StoreUnavailable")
    assert b"10.0.0.7" not in content
    assert headers["retry-after"] == "5"


def test_an_unforeseen_error_is_logged_and_not_told(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("password=hunter2")

    monkeypatch.setattr(runtime.store, "get_summary", broken)
    reply = client("GET", f"/executions/{NOBODY}")
    assert error_of(reply) == (500, "InternalError")
    assert "hunter2" not in str(reply)
    assert "hunter2" in caplog.text


# -- mounting ----------------------------------------------------------------------------------------------------------


def test_wsgi_below_a_prefix(runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)
    path = f"/executions/{execution.id}"
    status, value = called(runtime, REQUEST_METHOD="GET", SCRIPT_NAME="/api/agents", PATH_INFO=path)
    assert (status, value["execution_id"]) == ("200 OK", execution.id)


@pytest.mark.parametrize(
    ("root_path", "prefix", "status"),
    [
        ("/api", "/api", 200),  # as ASGI has it
        ("/api", "", 200),  # a proxy took the prefix away
        ("/api/", "/api", 200),
        ("", "", 200),
        ("/executions", "/executions", 200),
        ("/ap", "/api", 404),
        ("", "/api", 404),
    ],
)
def test_asgi_below_a_prefix(runtime: Runtime, paying: Agent, root_path: str, prefix: str, status: int) -> None:
    execution = begun(runtime, paying)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": f"{prefix}/executions/{execution.id}",
        "root_path": root_path,
        "headers": [],
    }
    asyncio.run(ExecutionsASGI(lambda _: "ada", runtime=runtime)(scope, receive, send))
    assert sent[0]["status"] == status


def test_what_was_spent_is_told_by_step_to_those_who_may_look(runtime: Runtime) -> None:
    def costly(run: Run, _: None) -> Any:
        run.step("free", lambda: 1)
        run.step("think", lambda: run.spend(tokens=1200, cost=0.25))
        run.spend(tokens=3)
        return run.ask("?")

    execution = begun(runtime, agent(registry=runtime.registry)(costly))
    executions = Executions(runtime=runtime)
    asked = Request(method="GET", path=f"/executions/{execution.id}/spent")
    assert executions.handle(asked, "ada").value == {
        "spent": {"tokens": 1203, "cost": 0.25},
        "steps": [{"step_number": 2, "name": "think", "kind": "step", "spent": {"tokens": 1200, "cost": 0.25}}],
    }
    assert executions.handle(asked, "bob").status == 404
    posted = Request(method="POST", path=asked.path)
    assert executions.handle(posted, "ada").status == 405


def test_the_handler_alone_needs_no_server(runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)
    executions = Executions(runtime=runtime, max_body_bytes=10)
    look = Request(method="GET", path=f"/executions/{execution.id}")
    assert executions.handle(look, "ada").value["state"] == "waiting_for_approval"
    assert [executions.handle(look, nobody).status for nobody in (None, "")] == [401, 401]
    assert executions.handle(look, True).status == 500  # type: ignore[arg-type]
    cancel = Request(
        method="POST", path=f"{look.path}/cancel", content_type="application/json", body=b'{"reason": null}'
    )
    assert executions.handle(cancel, "ada").status == 413
    assert executions.handle(cancel, "ada\x00").status == 413


def test_a_body_that_does_not_come_is_given_up(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery_agents.http.asgi._LONGEST_BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/executions", "root_path": "", "headers": []}
    asyncio.run(ExecutionsASGI(lambda _: "ada", runtime=runtime)(scope, receive, send))
    assert (sent[0]["status"], type_of(json.loads(sent[1]["body"]))) == (408, "BodyTooSlow")
