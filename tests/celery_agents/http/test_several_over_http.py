"""Several approvals and a question open at once, answered out of order over HTTP."""

import asyncio
from typing import Any

import pytest

from celery_agents import Agent, AsyncRun, agent
from celery_agents.host.runtime import Runtime
from tests.celery_agents.http.serving import Client, begun, error_of, type_of, work

# Keys as frameworks make them, and as nobody should.
HOSTILE = "pay?key=a&\"b\" 'c' <i> \N{RIGHT-TO-LEFT OVERRIDE}%2F"


@pytest.fixture
def deciding(runtime: Runtime) -> Agent:
    async def deciding(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(
            run.approve("pay", {"amount": 1}),
            run.ask("Which account?", name="account", schema=str),
            run.approve("pay", {"amount": 2}),
            run.approve("pay", {"amount": 3}, name=HOSTILE),
        )

    return agent(registry=runtime.registry)(deciding)


def test_several_are_shown_together_and_answered_out_of_order(
    open_client: Client, runtime: Runtime, deciding: Agent
) -> None:
    client = open_client
    execution = begun(runtime, deciding)
    path = f"/executions/{execution.id}"
    _, seen = client("GET", path)
    keys = ["approve pay", "account", "approve pay#2", HOSTILE]
    assert [wait["key"] for wait in seen["waits"]] == keys
    assert [wait["kind"] for wait in seen["waits"]] == ["approval", "input", "approval", "approval"]
    assert [asked["key"] for asked in seen["questions"]] == ["account"]
    assert [asked["arguments"] for asked in seen["approvals"]] == [{"amount": n} for n in (1, 2, 3)]
    assert (seen["question"], seen["approval"]) == (seen["questions"][0], seen["approvals"][0])
    digests = {asked["key"]: asked["digest"] for asked in seen["approvals"]}
    assert len(set(digests.values())) == 3

    wrong = client("POST", f"{path}/approve", {"key": HOSTILE, "digest": digests["approve pay"]})
    assert error_of(wrong) == (409, "NoApprovalAsked")
    body = {"digest": digests[HOSTILE], "arguments": {"amount": 33}}
    assert client("POST", f"{path}/approve", body)[0] == 200, "the digest tells which"
    assert error_of(client("POST", f"{path}/approve", body)) == (409, "AlreadyAnswered")
    assert client("POST", f"{path}/answer", {"answer": "joint"})[0] == 200, "the only question needs no key"
    work(runtime, execution)
    _, seen = client("GET", path)
    assert [wait["key"] for wait in seen["waits"]] == ["approve pay", "approve pay#2"]
    assert client("POST", f"{path}/reject", {"digest": digests["approve pay#2"]})[0] == 200
    work(runtime, execution)
    assert error_of(client("POST", f"{path}/approve", {"digest": digests["approve pay"]})) in (
        (410, "ExecutionOver"),
        (409, "NoApprovalAsked"),
    ), "the refusal has ended it"


def test_of_several_questions_one_is_to_be_named(open_client: Client, runtime: Runtime) -> None:
    async def asking(run: AsyncRun, input: None) -> Any:
        return await asyncio.gather(run.ask("A?", name=HOSTILE), run.ask("B?", name="b"))

    execution = begun(runtime, agent(registry=runtime.registry)(asking))
    path = f"/executions/{execution.id}/answer"
    status, value = open_client("POST", path, {"answer": 1})
    assert (status, type_of(value)) == (409, "SeveralAsked")
    assert value["keys"] == [HOSTILE, "b"]
    assert error_of(open_client("POST", path, {"answer": 1, "key": "c"})) == (409, "NoQuestionAsked")
    assert open_client("POST", path, {"answer": 1, "key": HOSTILE})[0] == 200
    work(runtime, execution)
    assert open_client("POST", path, {"answer": 2})[0] == 200
    work(runtime, execution)
    assert execution.wait(0) == [1, 2]
