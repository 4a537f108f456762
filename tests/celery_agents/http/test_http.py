"""Executions over real HTTP: wsgiref serves the WSGI application, uvicorn the ASGI one."""

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from agent_statestore import AgentState, AuditEvent, ExecutionSummary
from celery_agents import Agent, enqueue
from celery_agents.host.runtime import Runtime
from celery_agents.http import Act, ExecutionsASGI, ExecutionsWSGI, is_own
from tests.celery_agents.http.serving import NOBODY, SERVERS, Client, begun, error_of, type_of, work

# -- looking -----------------------------------------------------------------------------------------------------------


def test_an_execution_is_shown_with_its_question_and_without_its_contents(
    client: Client, runtime: Runtime, asking: Agent
) -> None:
    execution = begun(runtime, asking, "my-secret")

    status, content, headers = client.whole("GET", f"/executions/{execution.id}?x=1")

    assert status == 200
    assert b"my-secret" not in content
    seen = json.loads(content)
    assert (seen["execution_id"], seen["agent_id"], seen["state"]) == (execution.id, "asking", "waiting_for_input")
    assert (seen["step_count"], seen["is_over"], seen["error"], seen["approval"]) == (1, False, None, None)
    assert seen["question"] == {
        "key": "ask",
        "round": 1,
        "refused": None,
        "prompt": "Wie viel €?",
        "schema": {"type": "integer"},
    }
    assert seen["waits_for"].keys() == {"kind", "key", "since", "until", "refused"}
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"


def test_a_damaged_execution_is_said_to_be(client: Client, runtime: Runtime, asking: Agent) -> None:
    """What is shown of it is what can be read, so a page must not take its state for the truth."""
    execution = begun(runtime, asking, "x")
    assert json.loads(client.whole("GET", f"/executions/{execution.id}")[1])["unreadable"] is None
    runtime.store._database.change(  # type: ignore[attr-defined]
        "UPDATE agent_contexts SET waits = '{' WHERE execution_id = :id", {"id": execution.id}
    )
    status, content, _ = client.whole("GET", f"/executions/{execution.id}")
    assert (status, json.loads(content)["unreadable"][:8]) == (200, "no JSON:")


def test_an_approval_is_shown_with_its_digest_and_schema(client: Client, runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)

    _, seen = client("GET", f"/executions/{execution.id}")

    wait = execution.approval
    assert wait is not None
    assert seen["approval"] == {
        "key": "approve pay",
        "round": 1,
        "refused": None,
        "tool": "pay",
        "description": "Sends money.",
        "arguments": {"to": "Zoë", "amount": 30},
        "digest": wait.prompt["digest"],
        "schema": wait.schema,
    }
    assert seen["question"] is None


def test_head_is_get_without_a_body_and_options_tells_what_is_done(
    client: Client, runtime: Runtime, paying: Agent
) -> None:
    path = f"/executions/{begun(runtime, paying).id}"
    _, content, got = client.whole("GET", path)
    status, nothing, headers = client.whole("HEAD", path)
    assert (status, nothing) == (200, b"")
    assert headers["content-length"] == got["content-length"] == str(len(content))
    status, nothing, headers = client.whole("OPTIONS", path)
    assert (status, nothing, headers["allow"]) == (204, b"", "GET, HEAD, OPTIONS")
    assert client.whole("OPTIONS", f"{path}/approve")[2]["allow"] == "OPTIONS, POST"
    for method, below, allowed in (
        ("POST", "", "GET, HEAD, OPTIONS"),
        ("DELETE", "", "GET, HEAD, OPTIONS"),
        ("GET", "/approve", "OPTIONS, POST"),
        ("GET", "/events/paid", "OPTIONS, POST"),
    ):
        status, content, headers = client.whole(method, path + below)
        assert error_of((status, json.loads(content))) == (405, "MethodNotAllowed")
        assert headers["allow"] == allowed


# -- deciding ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_recorded_with_its_sender(client: Client, runtime: Runtime, asking: Agent) -> None:
    execution = begun(runtime, asking, "x")
    path = f"/executions/{execution.id}/answer"

    status, value = client("POST", path, {"answer": "viel"})
    assert error_of((status, value)) == (400, "InvalidAnswer")
    assert value["problems"] == ["value: Input should be a valid integer, unable to parse string as an integer"]
    assert error_of(client("POST", path, {"answer": 1, "key": "other"})) == (409, "NoQuestionAsked")
    answered = client("POST", path, {"answer": 42, "key": "ask", "reason": "gezählt"})
    assert answered == (200, {"execution_id": execution.id, "result": "answered"})
    assert error_of(client("POST", path, {"answer": 43})) == (409, "AlreadyAnswered")

    (signal,) = execution.context().signals
    assert (signal.payload, signal.sender, signal.reason) == (42, "ada", "gezählt")
    work(runtime, execution)
    assert execution.wait(0) == 42
    assert error_of(client("POST", path, {"answer": 43})) == (410, "ExecutionOver")


def test_an_approval_with_other_arguments(client: Client, runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)
    path = f"/executions/{execution.id}"
    digest = client("GET", path)[1]["approval"]["digest"]

    assert error_of(client("POST", f"{path}/answer", {"answer": "yes"})) == (409, "NoQuestionAsked")
    assert error_of(client("POST", f"{path}/approve", {})) == (400, "InvalidBody")
    assert error_of(client("POST", f"{path}/approve", {"digest": "0" * 64})) == (409, "NoApprovalAsked")
    wrong = {"digest": digest, "arguments": {"to": "Zoë", "amount": "alles"}}
    assert error_of(client("POST", f"{path}/approve", wrong)) == (400, "InvalidArguments")
    # What is misspelt must not be left out silently: it would approve of the arguments as they are.
    misspelt = {"digest": digest, "argument": {"to": "Zoë", "amount": 20}}
    assert error_of(client("POST", f"{path}/approve", misspelt)) == (400, "InvalidBody")
    # Who sends it is known from the request alone.
    assert error_of(client("POST", f"{path}/approve", {"digest": digest, "sender": "eve"})) == (400, "InvalidBody")

    given = {"digest": digest, "key": "approve pay", "arguments": {"to": "Łukasz", "amount": 20}, "reason": "ok"}
    assert client("POST", f"{path}/approve", given) == (200, {"execution_id": execution.id, "result": "approved"})
    work(runtime, execution)
    assert execution.wait(0) == "paid 20 to Łukasz"
    result = execution.steps()[0].result
    assert result is not None
    assert (result.output["by"], result.output["reason"]) == ("ada", "ok")


def test_a_rejection(client: Client, runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)
    path = f"/executions/{execution.id}"
    digest = client("GET", path)[1]["approval"]["digest"]
    assert client("POST", f"{path}/reject", {"digest": digest, "reason": "nein"})[0] == 200
    work(runtime, execution)

    _, seen = client("GET", path)
    assert seen["state"] == "failed"
    assert seen["error"] == {"type": "celery_agents.errors:ApprovalDenied", "message": "pay was refused by ada: nein"}
    assert error_of(client("POST", f"{path}/reject", {"digest": digest})) == (410, "ExecutionOver")


def test_of_two_approvers_at_once_one_wins_and_the_other_is_told(
    open_client: Client, runtime: Runtime, paying: Agent
) -> None:
    client = open_client
    for _ in range(5):
        execution = begun(runtime, paying)
        path = f"/executions/{execution.id}"
        digest = client("GET", path)[1]["approval"]["digest"]
        together = threading.Barrier(2)

        def approve(sender: str, path: str = path, digest: str = digest, together: Any = together) -> tuple[int, Any]:
            together.wait()
            return client("POST", f"{path}/approve", {"digest": digest}, sender=sender)

        with ThreadPoolExecutor(2) as pool:
            replies = dict(zip(("ada", "bob"), pool.map(approve, ("ada", "bob")), strict=True))

        assert sorted(status for status, _ in replies.values()) == [200, 409]
        winner = next(sender for sender, (status, _) in replies.items() if status == 200)
        loser = next(value for status, value in replies.values() if status == 409)
        assert type_of(loser) == "AlreadyAnswered"
        work(runtime, execution)
        assert execution.wait(0) == "paid 30 to Zoë"
        result = execution.steps()[0].result
        assert result is not None
        assert result.output["by"] == winner


@pytest.mark.parametrize("name", ["paid", "bezahlt €", "a/b", "50%", "..", "x" * 190])
def test_an_event_of_any_name(client: Client, runtime: Runtime, waiting: Agent, name: str) -> None:
    execution = begun(runtime, waiting, name)
    path = f"/executions/{execution.id}/events/{quote(name)}"

    for _ in range(2):
        assert client("POST", path, {"payload": [1, "ü"], "event_id": "7"})[0] == 200

    assert [signal.sender for signal in execution.context().signals] == ["ada"]
    received = [entry for entry in runtime.store.get_audit(execution.id) if entry.event is AuditEvent.RECEIVED]
    assert [entry.by for entry in received] == ["ada"]
    work(runtime, execution)
    assert execution.wait(0) == [1, "ü"]


def test_an_event_without_a_body_carries_null(client: Client, runtime: Runtime, waiting: Agent) -> None:
    execution = begun(runtime, waiting, "paid")
    assert client("POST", f"/executions/{execution.id}/events/paid")[0] == 200
    work(runtime, execution)
    assert execution.wait(0) is None


def test_a_cancel_may_be_repeated(client: Client, runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)
    path = f"/executions/{execution.id}/cancel"
    for _ in range(2):
        assert client("POST", path, {"reason": "no"}) == (200, {"execution_id": execution.id, "result": "cancelled"})
    assert execution.state is AgentState.CANCELLED

    running = enqueue(paying, runtime=runtime, user_id="ada")
    claim = runtime.store.claim(running.id, "host/1/0", timedelta(minutes=1))
    assert claim is not None
    path = f"/executions/{running.id}/cancel"
    assert client("POST", path) == (200, {"execution_id": running.id, "result": "cancelling"})
    assert client("GET", f"/executions/{running.id}")[1]["cancel_requested"] is True
    assert error_of(client("POST", path, {"now": "yes"}))[0] == 400
    assert client("POST", path, {"now": True}) == (200, {"execution_id": running.id, "result": "cancelled"})


def test_what_has_ended_otherwise_cannot_be_cancelled(client: Client, runtime: Runtime, asking: Agent) -> None:
    execution = begun(runtime, asking, "x")
    execution.resume(1)
    work(runtime, execution)
    assert error_of(client("POST", f"/executions/{execution.id}/cancel", {})) == (410, "ExecutionOver")


# -- who may -----------------------------------------------------------------------------------------------------------


def test_nothing_is_done_or_told_without_knowing_for_whom(client: Client, runtime: Runtime, paying: Agent) -> None:
    execution = begun(runtime, paying)
    path = f"/executions/{execution.id}"
    for method, below in (
        ("GET", ""),
        ("HEAD", ""),
        ("OPTIONS", ""),
        ("POST", "/cancel"),
        ("POST", "/events/paid"),
        ("GET", "/nowhere"),
        ("DELETE", ""),
    ):
        for headers in ({}, {"Authorization": "Basic eve"}, {"Authorization": "Bearer secret:"}):
            status, content, received = client.whole(method, path + below, b"{}", sender=None, headers=headers)
            assert status == 401
            assert received["www-authenticate"] == "Bearer"
            assert method == "HEAD" or error_of((status, json.loads(content))) == (401, "Unauthenticated")
    assert execution.context().signals == ()
    assert execution.state is AgentState.WAITING_FOR_APPROVAL


def test_an_application_has_to_say_how_senders_are_identified() -> None:
    for kind in (ExecutionsWSGI, ExecutionsASGI):
        with pytest.raises(TypeError, match="identify"):
            kind()  # type: ignore[call-arg]


def test_a_fault_in_identifying_refuses_and_tells_nothing_of_it(
    client: Client, runtime: Runtime, paying: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    execution = begun(runtime, paying)
    with caplog.at_level(logging.ERROR, "celery_agents.http"):
        reply = client(
            "POST", f"/executions/{execution.id}/cancel", {}, sender=None, headers={"Authorization": "Bearer broken"}
        )
    assert error_of(reply) == (500, "InternalError")
    assert "10.0.0.7" not in str(reply)
    assert "10.0.0.7" in caplog.text
    assert execution.state is AgentState.WAITING_FOR_APPROVAL


EVERYTHING = {
    ("GET", ""): None,
    ("HEAD", ""): None,
    ("POST", "/cancel"): {},
    ("POST", "/approve"): {"digest": "0"},
    ("POST", "/reject"): {"digest": "0"},
    ("POST", "/answer"): {"answer": 1},
    ("POST", "/events/paid"): {},
    ("GET", "/contents"): None,
    ("GET", "/steps"): None,
    ("GET", "/events"): None,
    ("GET", "/events?wait=0"): None,
    ("POST", "/decisions"): {"decisions": [{"do": "answer", "answer": 1}]},
    ("POST", "/say"): {"text": "hello"},
    ("POST", "/fork"): {"at_step": 0},
    ("POST", "/rewind"): {"to_step": 0},
}


def replies(client: Client, execution_id: str, sender: str) -> list[tuple[int, bytes, dict[str, str]]]:
    """What somebody sees of an execution at each endpoint: status, body and headers, with the id and the time gone."""
    seen = []
    for (method, below), body in EVERYTHING.items():
        status, content, headers = client.whole(method, f"/executions/{execution_id}{below}", body, sender=sender)
        headers.pop("date", None)
        seen.append((status, content.replace(execution_id.encode(), b"ID"), headers))
    return seen


def test_without_a_rule_an_execution_is_its_users_own_and_nobody_elses(
    client: Client, runtime: Runtime, paying: Agent
) -> None:
    mine = enqueue(paying, runtime=runtime, user_id="ada")
    nobodys = enqueue(paying, runtime=runtime)
    for execution in (mine, nobodys):
        work(runtime, execution)
    unknown = replies(client, NOBODY, "eve")

    assert {status for status, _, _ in unknown} == {404}
    for execution, sender in ((mine, "eve"), (mine, "Ada"), (mine, "adam"), (nobodys, "ada"), (nobodys, "None")):
        assert replies(client, execution.id, sender) == unknown, sender
        assert execution.context().signals == ()
    assert client("GET", f"/executions/{mine.id}")[0] == 200
    assert client("POST", f"/executions/{mine.id}/cancel", {})[0] == 200


@pytest.mark.parametrize("kind", SERVERS)
def test_a_rule_of_the_applications_own_replaces_that(runtime: Runtime, paying: Agent, kind: str) -> None:
    seen, hidden = begun(runtime, paying), enqueue(paying, runtime=runtime, user_id="eve")
    asked: list[tuple[str, Act, str]] = []

    def permit(sender: str, act: Act, summary: ExecutionSummary) -> bool:
        asked.append((sender, act, summary.execution_id))
        return act is Act.LOOK and summary.execution_id == seen.id

    for port in SERVERS[kind](runtime, permit=permit):
        client, path = Client(port), f"/executions/{seen.id}"
        assert client("GET", path, sender="eve")[0] == 200
        # Who may look at it learns nothing from a 403.
        for below in ("/cancel", "/approve", "/reject", "/answer", "/events/paid", "/fork", "/rewind", "/say"):
            assert error_of(client("POST", path + below, {}, sender="eve")) == (403, "Forbidden")
        for below in ("/contents", "/steps", "/events"):
            assert error_of(client("GET", path + below, sender="eve")) == (403, "Forbidden")
        several = [{"do": "answer", "answer": 1}, {"do": "approve", "digest": "0"}, {"do": "reject", "digest": "0"}]
        _, told = client("POST", f"{path}/decisions", {"decisions": several}, sender="eve")
        assert [error_of((403, each["problem"])) for each in told["results"]] == [(403, "Forbidden")] * 3
        assert error_of(client("POST", "/executions", {"agent": "paying"}, sender="eve")) == (403, "Forbidden")
        assert {each for _, each, _ in asked} == set(Act)
        assert {(sender, execution_id) for sender, _, execution_id in asked} == {("eve", seen.id), ("eve", "")}
        assert replies(client, hidden.id, "eve") == replies(client, NOBODY, "eve")
    assert seen.context().signals == hidden.context().signals == ()


def test_a_rule_may_begin_with_the_default(runtime: Runtime, paying: Agent) -> None:
    def permit(sender: str, act: Act, summary: ExecutionSummary) -> bool:
        return is_own(sender, act, summary) or sender == "support"

    mine = begun(runtime, paying)
    for port in SERVERS["wsgi"](runtime, permit=permit):
        statuses = {
            who: Client(port)("GET", f"/executions/{mine.id}", sender=who)[0] for who in ("ada", "support", "eve")
        }
    assert statuses == {"ada": 200, "support": 200, "eve": 404}
