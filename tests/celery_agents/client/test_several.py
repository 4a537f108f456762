"""What a client sees of, and sends to, an execution with several open waits."""

import asyncio
from typing import Any

import pytest

from celery_agents import NoApprovalAsked, Registry, Run, SeveralAsked, agent, waits
from celery_agents.testing import LocalAgents


def test_one_of_several_is_named_by_its_key_or_its_digest() -> None:
    registry = Registry()

    @agent(registry=registry)
    def deciding(run: Run, input: None) -> Any:
        return run.wait_all(
            waits.question("A?", name="a"),
            waits.approval("pay", {"amount": 1}),
            waits.question("B?", name="b"),
            waits.approval("pay", {"amount": 2}),
            waits.event("e"),
        )

    agents = LocalAgents(registry=registry)
    execution = agents.start(deciding).run()
    assert [wait.key for wait in execution.waits] == ["a", "approve pay", "b", "approve pay#2", "e"]
    assert [wait.key for wait in execution.questions] == ["a", "b"]
    assert [wait.key for wait in execution.approvals] == ["approve pay", "approve pay#2"]
    assert execution.question == execution.questions[0]
    assert execution.approval == execution.approvals[0]

    async def seen() -> list[list[str]]:
        found = (await execution.aio.waits(), await execution.aio.questions(), await execution.aio.approvals())
        return [[wait.key for wait in each] for each in found]

    assert [len(each) for each in asyncio.run(seen())] == [5, 2, 2]
    with pytest.raises(SeveralAsked, match='waits for 2 answers; say by its key which one: "a", "b"') as asked:
        execution.resume("x")
    assert asked.value.keys == ["a", "b"]
    for decide in (execution.approve, execution.reject):
        with pytest.raises(SeveralAsked) as decided:
            decide()
        assert decided.value.keys == ["approve pay", "approve pay#2"]
    with pytest.raises(NoApprovalAsked, match="is not what was looked at"):
        execution.approve(digest="0" * 64)
    with pytest.raises(NoApprovalAsked, match='it waits for the answer to "a", "approve pay" to be approved or'):
        execution.approve(key="b")
    execution.approve(digest=execution.approvals[1].prompt["digest"])
    execution.resume("to b", key="b")
    execution.run()
    execution.resume("to a")
    execution.approve()
    execution.send_event("e", 5)
    assert execution.wait() == ["to a", {"amount": 1}, "to b", {"amount": 2}, 5]
