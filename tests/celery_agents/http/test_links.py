"""One-time links on real servers: a look changes nothing, one use counts, and nothing else is let in."""

import json
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Literal, NamedTuple
from wsgiref.simple_server import make_server
from wsgiref.validate import validator

import pytest
import uvicorn

from agent_statestore import AgentState
from celery_agents import Agent, Run, agent, enqueue, tool
from celery_agents.client.execution import Execution
from celery_agents.host.owner import this_process
from celery_agents.host.runtime import Runtime
from celery_agents.http.links import LinkPages, LinksASGI, LinksWSGI, answer_link, approval_links
from celery_agents.webhooks import links
from tests.celery_agents.http.serving import Quiet, Threading

OLD, NEW = "o" * 40, "n" * 40


class Page(NamedTuple):
    status: int
    html: str
    headers: Any


def get(url: str, method: str = "GET", body: dict[str, str] | None = None, kind: str | None = None) -> Page:
    data = None if body is None else urllib.parse.urlencode(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    if kind is not None:
        request.add_header("Content-Type", kind)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Page(response.status, response.read().decode(), response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return Page(error.code, error.read().decode(), error.headers)


def post(url: str, **fields: str) -> Page:
    return get(url, "POST", fields)


def over_wsgi(runtime: Runtime) -> Iterator[int]:
    application = validator(LinksWSGI(runtime))
    with make_server("127.0.0.1", 0, application, server_class=Threading, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def over_asgi(runtime: Runtime) -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(LinksASGI(runtime), log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.fixture
def linking(runtime: Runtime) -> Runtime:
    runtime.app.conf.agents_link_secrets = [NEW, OLD]
    return runtime


@pytest.fixture(params=[over_wsgi, over_asgi])
def base(request: pytest.FixtureRequest, linking: Runtime) -> Iterator[str]:
    for port in request.param(linking):
        linking.app.conf.agents_link_url = f"http://127.0.0.1:{port}/answer"
        yield f"http://127.0.0.1:{port}/answer"


def paused(runtime: Runtime, asking: Agent, value: Any = None) -> Execution:
    execution = enqueue(asking, value, runtime=runtime)
    go_on(execution, runtime)
    return execution


def go_on(execution: Execution, runtime: Runtime) -> Execution:
    runtime.executor.execute(execution.id, this_process())
    return execution


def make_asking(runtime: Runtime, schema: Any, name: str = "asking") -> Agent:
    def asking(run: Run, _: None) -> Any:
        return run.ask("Which <b>colour</b>?", schema=schema, name="colour")

    return agent(registry=runtime.registry, name=name)(asking)


def test_a_link_answers_once_and_a_look_changes_nothing(base: str, linking: Runtime) -> None:
    execution = paused(linking, make_asking(linking, Literal["red", "green"]))
    link = answer_link(execution, answer="red", sender="ada@example.com", runtime=linking)
    for method in ("GET", "HEAD", "GET"):
        assert get(link, method).status == 200
    assert execution.state is AgentState.WAITING_FOR_INPUT
    shown = get(link)
    assert "Which &lt;b&gt;colour&lt;/b&gt;?" in shown.html
    assert "ada@example.com" in shown.html
    assert shown.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in shown.headers["Content-Security-Policy"]
    assert shown.headers["Referrer-Policy"] == "no-referrer"
    assert get(link, "PUT").status == 405
    assert get(link, "POST", {}, "application/json").status == 415
    assert post(link, reason="I like it").status == 200
    assert post(link).status == 409
    assert go_on(execution, linking).wait(0) == "red"
    decided = [entry.signal for entry in linking.store.get_audit(execution.id) if entry.signal is not None]
    assert [(one.sender, one.reason, one.channel) for one in decided] == [("ada@example.com", "I like it", "link")]
    again = post(link)
    assert (again.status, "over" in again.html) == (410, True)
    assert get(link).status == 409


def test_of_two_at_once_one_counts(base: str, linking: Runtime) -> None:
    execution = paused(linking, make_asking(linking, str))
    urls = [answer_link(execution, answer=name, sender=name, runtime=linking) for name in ("red", "green")]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(post, urls * 2))
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409]
    won = urls[[reply.status for reply in replies].index(200) % 2]
    assert go_on(execution, linking).wait(0) == ("red" if won == urls[0] else "green")


def test_a_form_takes_what_the_question_allows(base: str, linking: Runtime) -> None:
    cells: list[tuple[Any, str, str, Any]] = [
        (str, "a\r\nb <i>", "textarea", "a\nb <i>"),
        (int, "7", "number", 7),
        (bool, "0", "radio", True),
        (Literal["red", "green"], "1", "radio", "green"),
        (list[int], "[1, 2]", "JSON", [1, 2]),
    ]
    for number, (schema, text, field, expected) in enumerate(cells):
        execution = paused(linking, make_asking(linking, schema, f"asking-{number}"))
        link = answer_link(execution, sender="ada", runtime=linking)
        assert field in get(link).html, schema
        if schema is not str:
            bad = post(link, answer="<script>")
            assert (bad.status, "problem" in bad.html) == (400, True), schema
        assert post(link, answer=text).status == 200, schema
        assert go_on(execution, linking).wait(0) == expected, schema


def test_links_decide_on_a_call(base: str, linking: Runtime) -> None:
    @tool(registry=linking.registry, requires_approval=True)
    def pay(amount: int) -> str:
        """Sends money."""
        return f"paid {amount}"

    paying = agent(registry=linking.registry)(lambda run, _: run.tool(pay, 30))
    execution = paused(linking, paying)
    links = approval_links(execution, sender="ada", runtime=linking)
    assert re.search(r"Sends money\..*&quot;amount&quot;: 30", get(links.approve).html, re.DOTALL)
    assert post(links.approve).status == 200
    assert post(links.reject).status == 409
    assert go_on(execution, linking).wait(0) == "paid 30"


def test_no_other_link_is_let_in(base: str, linking: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    execution = paused(linking, make_asking(linking, str))
    link = answer_link(execution, answer="red", sender="ada", runtime=linking)
    address, _, token = link.rpartition("/")
    payload, _, signature = token.rpartition(".")
    others = answer_link(execution, answer="green", sender="eve", runtime=linking).rpartition("/")[2].rpartition(".")
    bad = ("x", "", "a.b", f"{payload}.{signature[:-2]}xx", f"{others[0]}.{signature}", payload, "é" * 50, "a" * 5000)
    for wrong in bad:
        assert get(f"{address}/{urllib.parse.quote(wrong)}").status == 404, wrong
        assert post(f"{address}/{urllib.parse.quote(wrong)}").status == 404, wrong
    assert execution.state is AgentState.WAITING_FOR_INPUT
    soon = answer_link(execution, answer="red", sender="ada", expires=timedelta(seconds=1), runtime=linking)
    read = links.datetime

    class Later(read):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return read.now(tz) + timedelta(seconds=2)

    monkeypatch.setattr(links, "datetime", Later)
    expired = post(soon)
    assert (expired.status, "expired" in expired.html) == (410, True)
    assert get(link).status == 200


def test_keys_rotate(linking: Runtime) -> None:
    execution = paused(linking, make_asking(linking, str))

    def with_keys(*keys: str) -> LinkPages:
        changed = Runtime(linking.app, linking.registry, linking.drain)
        linking.app.conf.agents_link_secrets = list(keys)
        linking.app.conf.agents_link_url = "https://example.com"
        assert changed.settings.link_secrets
        return LinkPages(changed)

    old = with_keys(OLD)
    link = answer_link(execution, answer="red", sender="ada", runtime=old._runtime).rpartition("/")[2]
    assert [pages.reply("GET", link)[0] for pages in (with_keys(NEW, OLD), with_keys(NEW))] == [200, 404]


def test_a_link_is_refused_where_it_is_made(linking: Runtime) -> None:
    linking.app.conf.agents_link_url = "https://example.com"
    execution = paused(linking, make_asking(linking, int))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"answer": "red", "sender": "ada"}, "colour"),
        ({"answer": 1, "sender": ""}, "sender"),
        ({"sender": "a\u202eda"}, "sender"),
        ({"sender": "ada", "key": "other"}, 'answer to "other"'),
        ({"sender": "ada", "expires": timedelta(0)}, "expires"),
        ({"sender": "a" * 255, "url": f"https://example.com/{'x' * 4000}"}, "characters"),
    ]
    for options, match in wrong:
        with pytest.raises(Exception, match=match):
            answer_link(execution, runtime=linking, **options)
    assert json.dumps(linking.settings.model_dump(mode="json")).count("n" * 40) == 0
