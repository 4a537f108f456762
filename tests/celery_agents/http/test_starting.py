"""Executions that are started, forked and rewound over HTTP, and lists of them."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from agent_statestore import AgentState, ExecutionSummary
from celery_agents import Agent, Run, agent, enqueue, enqueue_many, get_execution
from celery_agents.host.runtime import Runtime
from celery_agents.http import Act, Executions, Request, is_own
from celery_agents.http.endpoints.listing import MOST_LOOKED_AT
from tests.celery_agents.http.serving import NOBODY, SERVERS, Client, begun, error_of, type_of, work

KEY = "Idempotency-Key"


@pytest.fixture
def client(runtime: Runtime) -> Iterator[Client]:
    """Over WSGI alone: how servers hand requests over is the matter of other tests."""
    for port in SERVERS["wsgi"](runtime):
        yield Client(port)


@pytest.fixture
def adding(runtime: Runtime) -> Agent:
    def adding(run: Run, numbers: list[int]) -> int:
        total = 0
        for number in numbers:
            total = run.step("add", lambda total=total, number=number: total + number)  # type: ignore[misc]
        return total

    return agent(registry=runtime.registry)(adding)


def handled(executions: Executions, method: str, path: str, body: Any = None, sender: str = "ada", **more: Any) -> Any:
    """Status and value of a request that goes through no server."""
    path, _, query = path.partition("?")
    content = b"" if body is None else json.dumps(body).encode()
    request = Request(method=method, path=path, query=query, content_type="application/json", body=content, **more)
    reply = executions.handle(request, sender)
    return reply.status, reply.value


def test_an_execution_is_started_read_forked_and_rewound(client: Client, runtime: Runtime, adding: Agent) -> None:
    body = {"agent": "adding", "input": [1, 2, 3], "session_id": "s", "metadata": {"from": "ü"}}
    status, content, headers = client.whole("POST", "/executions", body)
    made = json.loads(content)
    assert (status, made["agent_id"], made["user_id"], made["session_id"]) == (201, "adding", "ada", "s")
    path = f"/executions/{made['execution_id']}"
    assert headers["location"] == path
    work(runtime, execution := runtime_execution(runtime, made))
    assert execution.wait(0) == 6
    assert client("GET", f"{path}/contents")[1] == {
        "execution_id": execution.id,
        "state": "completed",
        "is_over": True,
        "input": [1, 2, 3],
        "output": 6,
        "error": None,
        "metadata": {"from": "ü"},
    }
    _, page = client("GET", f"{path}/steps?limit=2")
    assert [(step["step_number"], step["result"]["output"]) for step in page["items"]] == [(1, 1), (2, 3)]
    assert page["next_after"] == 2
    _, page = client("GET", f"{path}/steps?limit=2&after=2")
    assert ([step["name"] for step in page["items"]], page["next_after"]) == (["add#3"], None)

    status, other = client("POST", f"{path}/fork", {"at_step": 1, "reason": "again", "session_id": None})
    assert (status, other["step_count"], other["user_id"], other["session_id"]) == (201, 1, "ada", None)
    status, other = client("POST", f"{path}/rewind", {"to_step": 0, "input": [5]})
    assert status == 201
    work(runtime, again := runtime_execution(runtime, other))
    assert again.wait(0) == 5
    assert error_of(client("POST", f"{path}/fork", {"at_step": 99})) == (400, "InvalidRecord")
    assert error_of(client("POST", f"{path}/fork", {"at_step": True})) == (400, "InvalidBody")
    assert error_of(client("POST", f"{path}/rewind", {"to_step": 0, "input": "x"})) == (400, "InvalidInput")


def runtime_execution(runtime: Runtime, made: dict[str, Any]) -> Any:
    return get_execution(made["execution_id"], runtime=runtime)


def test_a_rewind_of_what_is_being_executed_is_to_be_repeated(client: Client, runtime: Runtime, adding: Agent) -> None:
    execution = enqueue(adding, [1], runtime=runtime, user_id="ada")
    lease = runtime.store.claim(execution.id, "host/1/0", timedelta(minutes=1))
    assert lease is not None
    path = f"/executions/{execution.id}/rewind"
    assert error_of(client("POST", path, {"to_step": 0, "wait": 0})) == (409, "StillExecuting")
    assert execution.summary().cancel_requested
    assert error_of(client("POST", path, {"to_step": 0, "wait": 3600})) == (400, "InvalidBody")


def test_what_cannot_be_started(client: Client, runtime: Runtime, adding: Agent) -> None:
    cases = {
        "no agent": ({}, (400, "InvalidBody")),
        "unknown agent": ({"agent": "other"}, (400, "UnknownAgent")),
        "bad input": ({"agent": "adding", "input": ["x"]}, (400, "InvalidInput")),
        "agent of another type": ({"agent": 1}, (400, "InvalidBody")),
        "NUL": ({"agent": "adding", "input": [], "session_id": "\x00"}, (400, "InvalidRecord")),
        "long session": ({"agent": "adding", "input": [], "session_id": "x" * 256}, (400, "InvalidRecord")),
        "empty key": ({"agent": "adding", "input": [], "idempotency_key": ""}, (400, "InvalidRecord")),
        "engine's metadata": ({"agent": "adding", "input": [], "metadata": {"agents.x": 1}}, (400, "InvalidRecord")),
        "another's": ({"agent": "adding", "input": [], "user_id": "eve"}, (403, "Forbidden")),
        "nobody's": ({"agent": "adding", "input": [], "user_id": None}, (403, "Forbidden")),
        "the engine's id": ({"agent": "adding", "execution_id": NOBODY}, (400, "InvalidBody")),
    }
    wrong = {
        name: reply
        for name, (body, expected) in cases.items()
        if error_of(reply := client("POST", "/executions", body)) != expected
    }
    assert wrong == {}
    assert runtime.store.find().items == ()
    _, told = client("POST", "/executions", {"agent": "other"})
    assert "adding" not in told["detail"], "which agents there are is nobody's business"


def test_a_key_counts_for_its_sender(client: Client, runtime: Runtime, adding: Agent) -> None:
    def start(sender: str = "ada", key: str | None = "k1", **body: Any) -> tuple[int, str]:
        headers = {} if key is None else {KEY: key}
        status, value = client(
            "POST", "/executions", {"agent": "adding", "input": [1]} | body, sender=sender, headers=headers
        )
        return status, value.get("execution_id") or type_of(value)

    status, first = start()
    assert status == 201
    assert start() == start(key=None, idempotency_key="k1") == start(idempotency_key="k1") == (200, first)
    assert start(input=[2]) == start(session_id="s") == (409, "IdempotencyConflict")
    assert start(idempotency_key="k2") == (400, "InvalidBody")
    status, others = start("eve")
    assert (status, others != first) == (201, True), "another's key is another key"
    assert start(key="x" * 256) == (400, "InvalidRecord")


def test_nobody_gets_into_anothers_session(client: Client, runtime: Runtime, adding: Agent) -> None:
    enqueue(adding, [1], runtime=runtime, user_id="eve", session_id="of eve")
    mine = enqueue(adding, [1], runtime=runtime, user_id="ada")
    body = {"agent": "adding", "input": [1], "session_id": "of eve"}
    assert error_of(client("POST", "/executions", body)) == (403, "Forbidden")
    for way, step in (("fork", "at_step"), ("rewind", "to_step")):
        reply = client("POST", f"/executions/{mine.id}/{way}", {step: 0, "session_id": "of eve"})
        assert error_of(reply) == (403, "Forbidden")
    assert mine.state is AgentState.IDLE
    assert client("POST", "/executions", body, sender="eve")[0] == 201


# -- lists -------------------------------------------------------------------------------------------------------------


def ids(value: Any) -> list[str]:
    return [item["execution_id"] for item in value["items"]]


def test_a_list_shows_what_is_the_senders_and_fits(
    client: Client, runtime: Runtime, adding: Agent, asking: Agent
) -> None:
    mine = [enqueue(adding, [n], runtime=runtime, user_id="ada", session_id=f"s{n % 2}").id for n in range(5)]
    asked = begun(runtime, asking, "x")
    enqueue(adding, [1], runtime=runtime, user_id="eve", session_id="s1")
    enqueue(adding, [1], runtime=runtime)

    def listed(**query: Any) -> list[str]:
        status, value = client("GET", f"/executions?{urlencode(query, doseq=True)}")
        assert status == 200, value
        return ids(value)

    assert listed() == [asked.id, *reversed(mine)]
    assert listed(order="oldest", agent="adding") == mine
    assert listed(session="s1") == [mine[3], mine[1]]
    assert listed(state="waiting_for_input") == listed(waiting="me") == [asked.id]
    assert len(listed(state=["waiting_for_input", "idle"])) == 6
    assert listed(user="ada") == listed()
    assert listed(user="eve") == []
    seen: list[str] = []
    path = "/executions?limit=2&order=oldest"
    while path:
        _, page = client("GET", path)
        seen += ids(page)
        path = page["next_cursor"] and f"/executions?limit=2&order=oldest&cursor={quote(page['next_cursor'])}"
    assert seen == [*mine, asked.id]
    assert b"my-secret" not in client.whole("GET", "/executions")[1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("agnet=x", "InvalidQuery"),
        ("limit=0", "InvalidQuery"),
        ("limit=201", "InvalidQuery"),
        ("limit=1e2", "InvalidQuery"),
        ("limit=%2B5", "InvalidQuery"),
        ("limit=" + quote("\N{ARABIC-INDIC DIGIT FIVE}"), "InvalidQuery"),
        ("limit=" + "9" * 5000, "InvalidQuery"),
        ("limit=5&limit=5", "InvalidQuery"),
        ("user=ada&user=eve", "InvalidQuery"),
        ("state=busy", "InvalidQuery"),
        ("waiting=you", "InvalidQuery"),
        ("waiting=me&state=completed", "InvalidQuery"),
        ("agent=", "InvalidQuery"),
        ("agent=%00", "InvalidQuery"),
        ("agent=%FF", "InvalidQuery"),
        ("agent=" + "x" * 256, "InvalidQuery"),
        ("cursor=x", "InvalidRecord"),
        ("cursor=" + "x" * 256, "InvalidQuery"),
        ("cursor=W10", "InvalidRecord"),
        ("cursor=WzFlOTk5LCAieCJd", "InvalidRecord"),
        ("&".join(["state=idle"] * 65), "InvalidQuery"),
        ("agent=" + "x" * 9000, "QueryTooLong"),
    ],
    ids=lambda value: value[:30],
)
def test_a_bad_query_is_refused(runtime: Runtime, query: str, expected: str) -> None:
    status, value = handled(Executions(runtime=runtime), "GET", f"/executions?{query}")
    assert (status in (400, 414), type_of(value)) == (True, expected), value


def test_an_inbox_has_what_the_sender_may_decide(runtime: Runtime, asking: Agent, paying: Agent) -> None:
    def permit(sender: str, act: Act, summary: ExecutionSummary) -> bool:
        """Support looks at everything; only the treasurer approves payments."""
        if sender == "treasurer":
            return summary.agent_id == "paying"
        return is_own(sender, act, summary) or (sender == "support" and act is Act.LOOK)

    executions = Executions(runtime=runtime, permit=permit)
    asked, paid = begun(runtime, asking, "x"), begun(runtime, paying)
    enqueue(paying, runtime=runtime, user_id="ada")
    shown = {
        (sender, query): ids(handled(executions, "GET", f"/executions?{query}", sender=sender)[1])
        for sender in ("ada", "support", "treasurer", "eve")
        for query in ("waiting=me", "waiting=me&state=waiting_for_approval")
    }
    assert shown == {
        ("ada", "waiting=me"): [paid.id, asked.id],
        ("ada", "waiting=me&state=waiting_for_approval"): [paid.id],
        ("support", "waiting=me"): [],
        ("support", "waiting=me&state=waiting_for_approval"): [],
        ("treasurer", "waiting=me"): [paid.id],
        ("treasurer", "waiting=me&state=waiting_for_approval"): [paid.id],
        ("eve", "waiting=me"): [],
        ("eve", "waiting=me&state=waiting_for_approval"): [],
    }
    assert len(ids(handled(executions, "GET", "/executions", sender="support")[1])) == 3


def test_a_list_looks_at_no_more_than_it_should_and_goes_on_where_it_stopped(runtime: Runtime, adding: Agent) -> None:
    first = enqueue(adding, [1], runtime=runtime, user_id="ada")
    enqueue_many(adding, [[1]] * (MOST_LOOKED_AT + 50), runtime=runtime, user_id="eve")
    last = enqueue(adding, [1], runtime=runtime, user_id="ada")
    executions = Executions(runtime=runtime, permit=lambda *asked: is_own(*asked))
    _, page = handled(executions, "GET", "/executions")
    assert (ids(page), page["next_cursor"] is None) == ([last.id], False)
    _, page = handled(executions, "GET", f"/executions?cursor={page['next_cursor']}")
    assert page == {"items": page["items"], "next_cursor": None}
    assert ids(page) == [first.id]


def test_several_decisions_at_once(client: Client, runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)
    path = f"/executions/{execution.id}"
    digest = client("GET", path)[1]["approval"]["digest"]
    for bad in (
        [],
        [1],
        [{}],
        [{"do": "cancel"}],
        [{"do": ["answer"]}],
        [{"do": "approve"}],
        [{"do": "approve", "digest": digest}, {"do": "answer", "answr": 1}],
        [{"do": "answer", "answer": 1}] * 101,
        "answer",
    ):
        assert error_of(client("POST", f"{path}/decisions", {"decisions": bad})) == (400, "InvalidBody"), bad
    assert execution.context().signals == (), "a fault of form in one keeps all from being sent"
    several = [{"do": "answer", "answer": 1}, {"do": "approve", "digest": digest}, {"do": "reject", "digest": digest}]
    status, told = client("POST", f"{path}/decisions", {"decisions": several})
    assert status == 200
    assert [each["result"] for each in told["results"]] == [None, "approved", None]
    problems = [type_of(each["problem"]) for each in told["results"] if each["problem"]]
    assert problems == ["NoQuestionAsked", "AlreadyAnswered"]


def test_a_page_of_large_steps_ends_early(runtime: Runtime) -> None:
    def large(run: Run, _: None) -> None:
        for _number in range(6):
            run.step("large", lambda: "x" * 900_000)

    execution = begun(runtime, agent(registry=runtime.registry)(large))
    executions, seen, after = Executions(runtime=runtime), [], 0
    pages = 0
    while after is not None:
        _, page = handled(executions, "GET", f"/executions/{execution.id}/steps?after={after}")
        pages += 1
        seen += [step["step_number"] for step in page["items"]]
        after = page["next_after"]
    assert (seen, pages) == ([1, 2, 3, 4, 5, 6], 2)
