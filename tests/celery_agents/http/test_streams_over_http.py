"""Events over HTTP: server-sent events and long poll, from real servers, cut and gone on with."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agent_statestore.streams import StreamKind
from celery_agents import Agent, Run, agent, enqueue
from celery_agents.client.execution import Execution
from celery_agents.client.stream_hub import hub_of
from celery_agents.host.runtime import Runtime
from tests.celery_agents.http.serving import NOBODY, SERVERS, Client, error_of, type_of, work

HEARTBEAT_SECONDS = 0.15
LONGEST_SECONDS = 1.0


@pytest.fixture
def gates() -> dict[str, threading.Event]:
    return {"go": threading.Event()}


@pytest.fixture
def telling(runtime: Runtime, gates: dict[str, threading.Event]) -> Agent:
    def telling(run: Run, count: int) -> str:
        run.emit("before")
        gates["go"].wait(20)
        for number in range(count):
            run.emit({"n": number, "text": "ä\n\r\u2028"})
            run.step("one", lambda number=number: number)  # type: ignore[misc]
        return "done"

    return agent(registry=runtime.registry)(telling)


@pytest.fixture(params=SERVERS)
def viewer(request: pytest.FixtureRequest, runtime: Runtime) -> Iterator[Client]:
    options = {"heartbeat_seconds": HEARTBEAT_SECONDS, "longest_stream_seconds": LONGEST_SECONDS}
    for port in SERVERS[request.param](runtime, **options):
        yield Client(port)


class Viewing:
    """One response of server-sent events, read as it comes."""

    def __init__(self, client: Client, path: str, last_id: str | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        headers = {"Authorization": "Bearer secret:ada"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status
        self.heartbeats = 0
        self.retries = 0

    def __iter__(self) -> Iterator[tuple[int | None, str, Any]]:
        """The events: id, kind, data."""
        fields: dict[str, str] = {}
        for line in self.response:
            text = line.decode().rstrip("\n")
            if text == ":":
                self.heartbeats += 1
            elif text.startswith("retry: "):
                self.retries += 1
            elif text:
                name, _, value = text.partition(": ")
                fields[name] = value
            elif fields:
                number = int(fields["id"]) if "id" in fields else None
                yield number, fields["event"], json.loads(fields["data"])
                fields = {}
        self.close()

    def close(self) -> None:
        # Reading goes through a file of its own, which keeps the socket open.
        self.response.close()
        self.connection.close()


def stored(runtime: Runtime, execution: Execution) -> list[tuple[int | None, str]]:
    page = runtime.store.read_events(execution.id, 0, 1000)
    assert page is not None
    return [(event.number, event.kind) for event in page.events]


def test_a_viewer_that_is_cut_again_and_again_sees_each_event_once(
    viewer: Client, runtime: Runtime, telling: Agent, gates: dict[str, threading.Event]
) -> None:
    execution = enqueue(telling, 4, runtime=runtime, user_id="ada")
    path = f"/executions/{execution.id}/events"
    seen: list[tuple[int | None, str]] = []
    last_id, responses, heartbeats = None, 0, 0
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, runtime, execution)
        while True:
            viewing = Viewing(viewer, path, last_id)
            if viewing.status == 204:
                viewing.close()
                break
            assert viewing.status == 200
            assert viewing.response.getheader("Content-Type") == "text/event-stream"
            assert viewing.response.getheader("Cache-Control") == "no-store"
            responses += 1
            for number, kind, data in viewing:
                assert (data["number"], data["kind"]) == (number, kind)
                seen.append((number, kind))
                assert len(seen) < 100, "events come again and again"
                last_id = str(number)
                if kind == "emitted" and data["data"]["value"] != "before" and responses > 1:
                    viewing.close()  # the network cuts it
                    break
            if responses == 1:
                # The server has ended it, after a while with heartbeats.
                assert viewing.heartbeats > 2
                assert viewing.retries == 1
                assert seen[-1][1] == "emitted"
                gates["go"].set()
            heartbeats += viewing.heartbeats
            viewing.close()
        working.result(20)
    assert seen == stored(runtime, execution)
    assert seen[-1][1] == "ended"
    assert responses >= 5
    _forgets(runtime)


def _forgets(runtime: Runtime) -> None:
    """Nobody follows any more: the server has noticed that its viewers went away."""
    give_up_at = time.monotonic() + 20
    while hub_of(runtime.store)._tails:
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


@pytest.mark.parametrize("kind", SERVERS)
def test_viewers_who_go_away_are_forgotten(runtime: Runtime, telling: Agent, kind: str) -> None:
    execution = enqueue(telling, 1, runtime=runtime, user_id="ada")
    path = f"/executions/{execution.id}/events"
    count = 40 if kind == "asgi" else 5
    for port in SERVERS[kind](runtime, heartbeat_seconds=HEARTBEAT_SECONDS, longest_stream_seconds=600):
        assert Client(port)("GET", f"{path}?wait=0")[0] == 200
        threads = threading.active_count()
        viewings = [Viewing(Client(port), path) for _ in range(count)]
        for viewing in viewings:
            assert viewing.response.readline() == b"retry: 1000\n"
            assert viewing.response.readline() == b"\n"
            assert viewing.response.readline() == b":\n", "the first heartbeat"
        assert len(hub_of(runtime.store)._tails[execution.id].notified) == count
        if kind == "asgi":
            # Asyncio's few, those that read for viewers who are behind, and the hub.
            assert threading.active_count() - threads < count / 2
        for viewing in viewings:
            viewing.close()
        _forgets(runtime)


def test_long_poll_goes_on_by_its_cursor(
    viewer: Client, runtime: Runtime, telling: Agent, gates: dict[str, threading.Event]
) -> None:
    gates["go"].set()
    execution = enqueue(telling, 3, runtime=runtime, user_id="ada")
    path = f"/executions/{execution.id}/events"
    status, page = viewer("GET", f"{path}?wait=0")
    assert (status, page) == (200, {"items": [], "cursor": 0, "is_over": False})
    seen, cursor = [], 0
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, runtime, execution)
        while not page["is_over"]:
            status, page = viewer("GET", f"{path}?wait=10&after={cursor}")
            assert status == 200
            seen += [(event["number"], event["kind"]) for event in page["items"]]
            cursor = page["cursor"]
        working.result(20)
    assert seen == stored(runtime, execution)
    assert cursor == seen[-1][0]
    assert viewer("GET", f"{path}?wait=10&after={cursor}") == (
        200,
        {"items": [], "cursor": cursor, "is_over": True},
    )
    status, content, _ = viewer.whole("HEAD", f"{path}?wait=60&after={cursor}")
    assert (status, content) == (200, b"")
    _forgets(runtime)


def test_what_is_asked_of_the_stream_is_checked(viewer: Client, runtime: Runtime, telling: Agent) -> None:
    execution = enqueue(telling, 1, runtime=runtime, user_id="ada")
    path = f"/executions/{execution.id}/events"
    for query in (
        "after=-1",
        "after=x",
        "after=99999999999999999999",
        "after=1&after=2",
        "format=xml",
        "format=",
        "wait=-1",
        "wait=61",
        "wait=nan",
        "wait=inf",
        "wait=",
        "wait=1..2",
        "after=%ff",
    ):
        reply = viewer("GET", f"{path}?{query}")
        assert error_of(reply) == (400, "InvalidQuery"), query
    for last_id in ("x", "-1", "1e3", "9" * 30, "\u00b2"):
        reply = viewer("GET", path, headers={"Last-Event-ID": last_id})
        assert error_of(reply) == (400, "InvalidQuery"), last_id
    for sender, where in (("eve", path), ("ada", f"/executions/{NOBODY}/events")):
        for query in ("", "?wait=5"):
            assert error_of(viewer("GET", where + query, sender=sender)) == (404, "ExecutionNotFound")
    status, content, headers = viewer.whole("HEAD", path)
    assert (status, content, headers["content-type"]) == (200, b"", "text/event-stream")
    assert viewer.whole("OPTIONS", path)[2]["allow"] == "GET, HEAD, OPTIONS"
    # A token in the query is for `identify`.
    assert viewer("GET", f"{path}?wait=0&token=x")[0] == 200


def test_a_reader_behind_the_trim_is_told_and_a_deleted_execution_ends_it(
    viewer: Client, runtime: Runtime, telling: Agent, gates: dict[str, threading.Event]
) -> None:
    gates["go"].set()
    execution = enqueue(telling, 2, runtime=runtime, user_id="ada")
    work(runtime, execution)
    every = stored(runtime, execution)
    runtime.store.trim_stream(execution.id, 3)
    path = f"/executions/{execution.id}/events"
    (first, kind, data), *rest = Viewing(viewer, path, str(every[0][0]))
    assert (first, kind, data["data"]) == (every[-4][0], StreamKind.TRIMMED, {"up_to": every[-4][0]})
    assert [(number, kind) for number, kind, _ in rest] == every[-3:]
    # A stream that is gone: the last word comes nevertheless.
    runtime.store.trim_stream(execution.id, 0)
    *_, (number, kind, data) = Viewing(viewer, path)
    assert (number, kind, data["data"]) == (None, "ended", {"state": "completed"})

    waiting = enqueue(telling, 2, runtime=runtime, user_id="ada")
    viewing = Viewing(viewer, f"/executions/{waiting.id}/events")
    assert viewing.response.readline() == b"retry: 1000\n"
    waiting.delete()
    assert list(viewing) == []
    assert viewer("GET", f"/executions/{waiting.id}/events")[0] == 404


@pytest.mark.parametrize("kind", SERVERS)
def test_a_rule_that_fails_tells_nothing(runtime: Runtime, telling: Agent, kind: str) -> None:
    def permit(*_: Any) -> bool:
        raise LookupError("the users at 10.0.0.7 are away")

    execution = enqueue(telling, 1, runtime=runtime, user_id="ada")
    for port in SERVERS[kind](runtime, permit=permit):
        for query in ("", "?wait=5"):
            status, value = Client(port)("GET", f"/executions/{execution.id}/events{query}")
            assert (status, type_of(value)) == (500, "InternalError")
            assert "10.0.0.7" not in str(value)
