"""Approvals that several people decide: who may, how many have to, and what is shown meanwhile."""

from typing import Any

import pytest

from agent_statestore import AgentState, Signal, SignalKind, open_store
from agent_statestore.errors import AlreadyAnswered, InvalidRecord
from agent_statestore.records import vote_key
from celery_agents import Run, agent, enqueue, tool, waits
from celery_agents.client.execution import Execution
from celery_agents.errors import ApprovalDenied, InvalidArguments
from celery_agents.host.owner import this_process
from celery_agents.host.runtime import Runtime
from celery_agents.http.views import view
from celery_agents.lifecycle.voting import NotAnApprover
from tests.celery_agents.cli.cli_driving import CLI
from tests.celery_agents.driving import Calls, Crash, Engine

PEOPLE = ("ann", "bob", "eve")


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def voting(request: pytest.FixtureRequest, runtime: Runtime) -> Runtime:
    """An installation on each kind of store."""
    if request.param != "sqlite":
        name = "redis_url" if request.param == "redis" else "postgresql_migrated_url"
        url = request.getfixturevalue(name)
        if request.param == "redis":
            url = f"{url}?key_prefix={request.getfixturevalue('redis_prefix')}"
        runtime._store = open_store(url)
    return runtime


def begin(runtime: Runtime, calls: Calls, **options: Any) -> Execution:
    @tool(registry=runtime.registry, requires_approval=True, approvers=PEOPLE, **options)
    def pay(amount: int) -> int:
        """Sends money."""
        return int(calls(amount))

    paying = agent(registry=runtime.registry, name="paying")(lambda run, _: run.tool(pay, 30))
    return go_on(enqueue(paying, None, runtime=runtime), runtime)


def go_on(execution: Execution, runtime: Runtime) -> Execution:
    runtime.executor.execute(execution.id, this_process())
    return execution


def test_the_second_of_three_completes_it(voting: Runtime, calls: Calls) -> None:
    execution = begin(voting, calls, quorum=2)
    execution.approve(sender="ann", reason="fine")
    with pytest.raises(AlreadyAnswered):  # no worker has come to it yet
        execution.approve(sender="ann")
    go_on(execution, voting)
    assert execution.state is AgentState.WAITING_FOR_APPROVAL
    assert calls.made == []
    (asked,) = execution.approvals
    assert asked.voters == ("bob", "eve")
    shown: Any = view(execution.summary())["approval"]
    assert (shown["approvers"], shown["quorum"]) == ([*PEOPLE], 2)
    assert [(vote["by"], vote["approved"], vote["reason"]) for vote in shown["votes"]] == [("ann", True, "fine")]
    with pytest.raises(AlreadyAnswered, match="'approve pay'"):
        execution.reject(sender="ann")
    for stranger in ("mallory", None, "Ann"):
        with pytest.raises(NotAnApprover, match="ann, bob, eve"):
            execution.approve(sender=stranger)
    with pytest.raises(InvalidArguments, match="nobody changes"):
        execution.approve(sender="eve", arguments={"amount": 1})
    execution.approve(sender="eve", digest=asked.prompt["digest"])
    assert go_on(execution, voting).wait(0) == 30
    assert calls.made == [30]
    with pytest.raises(Exception, match="over"):
        execution.approve(sender="bob")
    approval = execution.steps()[0].result
    assert approval is not None
    assert approval.output["by"] == "ann, eve"
    assert [vote["by"] for vote in approval.output["votes"]] == ["ann", "eve"]
    assert execution.context().signals == ()


def test_votes_that_come_together_are_counted_together(voting: Runtime, calls: Calls) -> None:
    execution = begin(voting, calls, quorum=2)
    for name in PEOPLE:
        execution.approve(sender=name)
    assert go_on(execution, voting).wait(0) == 30
    assert calls.made == [30]


def test_who_may_decide_and_how_many_have_to(engine: Engine) -> None:
    cells: list[tuple[dict[str, int], list[str], str | None]] = [
        ({"quorum": 2}, ["-ann"], "denied by ann"),
        ({"quorum": 2, "rejections": 2}, ["-ann"], None),
        ({"quorum": 2, "rejections": 2}, ["-ann", "bob", "-eve"], "denied by ann, eve"),
        ({"quorum": 2, "rejections": 2}, ["-ann", "bob", "eve"], "approved"),
        ({"quorum": 3, "rejections": 3}, ["ann", "-bob"], "denied by bob"),  # three cannot approve any more
        ({"quorum": 1}, ["bob"], "approved"),
        ({"quorum": 2}, ["ann", "bob", "-eve"], "approved"),
        ({"quorum": 3}, ["ann", "bob"], None),
    ]
    for number, (options, cast, expected) in enumerate(cells):

        def deciding(run: Run, _: None, options: dict[str, int] = options) -> str:
            try:
                run.approve("pay", {"amount": 30}, approvers=PEOPLE, **options)
            except ApprovalDenied as denied:
                return f"denied by {denied.by}"
            return "approved"

        execution_id = engine.start(engine.agent(two(deciding), name=f"deciding-{number}"))
        engine.execute(execution_id)
        for vote in cast:
            send_vote(engine, execution_id, vote.removeprefix("-"), approved=not vote.startswith("-"))
        engine.execute(execution_id)
        found = engine.context(execution_id)
        assert found.output == expected, (options, cast, found.error)
        assert found.state is (AgentState.COMPLETED if expected else AgentState.WAITING_FOR_APPROVAL), (options, cast)


def two(function: Any) -> Any:
    """A function of two parameters, as agents are."""
    return lambda run, _: function(run, None)


def send_vote(engine: Engine, execution_id: str, name: str, *, approved: bool = True, **fields: Any) -> None:
    (asked,) = engine.context(execution_id).waits
    payload = {"approved": approved, "digest": asked.prompt["digest"], "arguments": None} | fields
    signal = Signal(
        signal_id=f"{name} {asked.round}",
        kind=SignalKind.APPROVAL,
        key=vote_key(asked.key, name),
        payload=payload,
        sender=fields.get("sender", name),
        round=asked.round,
    )
    engine.store.send(execution_id, signal)


def test_a_vote_that_came_past_the_door_decides_nothing(engine: Engine) -> None:
    def deciding(run: Run, _: None) -> Any:
        return run.approve("pay", {"amount": 30}, approvers=PEOPLE, quorum=2)

    execution_id = engine.start(engine.agent(deciding))
    engine.execute(execution_id)
    for fields, said in (
        ({"sender": "mallory"}, "another's name"),
        ({"digest": "0" * 64}, "another call"),
        ({"arguments": {"amount": 1}}, "nobody changes"),
    ):
        send_vote(engine, execution_id, "bob")
        send_vote(engine, execution_id, "ann", **fields)
        engine.execute(execution_id)
        (asked,) = engine.context(execution_id).waits
        assert asked.refused is not None
        assert said in asked.refused
        assert asked.voters == PEOPLE, "all of them vote anew"
        assert asked.prompt["votes"] == []
    for name in ("ann", "bob"):
        send_vote(engine, execution_id, name)
    engine.execute(execution_id)
    assert engine.context(execution_id).output == {"amount": 30}
    assert engine.context(execution_id).signals == ()


def test_votes_survive_a_crash_and_count_once(engine: Engine) -> None:
    crashes = [False]

    def deciding(run: Run, _: None) -> Any:
        approved = run.approve("pay", {"amount": 30}, approvers=PEOPLE, quorum=2)
        if crashes.pop():
            raise Crash
        return approved

    execution_id = engine.start(engine.agent(deciding))
    engine.execute(execution_id)
    send_vote(engine, execution_id, "ann")
    crashes[:] = [False, True]
    engine.store.checkpoint, write = _dying(engine), engine.store.checkpoint  # type: ignore[method-assign]
    engine.crash(execution_id)  # before it has paused anew
    engine.store.checkpoint = write  # type: ignore[method-assign]
    engine.execute(execution_id)
    assert [vote["by"] for vote in engine.context(execution_id).waits[0].prompt["votes"]] == ["ann"]
    send_vote(engine, execution_id, "eve")
    engine.crash(execution_id)
    engine.execute(execution_id)
    assert engine.context(execution_id).output == {"amount": 30}


def _dying(engine: Engine) -> Any:
    def dies(*_: Any, **__: Any) -> None:
        raise Crash

    return dies


def test_the_vote_that_decides_ends_a_wait_beside_others(engine: Engine) -> None:
    def waiting(run: Run, _: None) -> Any:
        deciding = waits.approval("pay", {"amount": 30}, approvers=PEOPLE, quorum=2)
        return run.wait_any(deciding, waits.question("Else?", name="else"))[1]

    execution_id = engine.start(engine.agent(waiting))
    engine.execute(execution_id)
    first = engine.context(execution_id)
    assert len(first.waits) == 2
    for name in ("ann", "bob"):
        asked = next(one for one in engine.context(execution_id).waits if one.voters)
        engine.store.send(
            execution_id,
            Signal(
                signal_id=name,
                kind=SignalKind.APPROVAL,
                key=vote_key(asked.key, name),
                payload={"approved": True, "digest": asked.prompt["digest"]},
                sender=name,
            ),
        )
        engine.execute(execution_id)
    assert engine.context(execution_id).output == {"amount": 30}


def test_wrong_approvers_are_refused_where_they_are_given() -> None:
    for approvers, options in (
        ("ann", {}),
        ((), {"quorum": 2}),
        (("ann", "ann"), {}),
        (("ann", ""), {}),
        (("a\u202eb",), {}),
        (("ann", "bob"), {"quorum": 3}),
        (("ann",), {"quorum": 0}),
        (("ann",), {"rejections": True}),
    ):
        with pytest.raises(InvalidRecord):
            waits.approval("pay", {}, approvers=approvers, **options)  # type: ignore[arg-type]


def test_the_command_line_tells_who_has_voted(cli: CLI, calls: Calls) -> None:
    execution = begin(cli.runtime, calls, quorum=2)
    said = cli("approve", execution.id, "--sender", "ann", "--reason", "fine").output
    assert "the decision takes 2 of 3" in said
    cli.execute(execution.id)
    shown = cli("show", execution.id).output
    assert "needs 2 of ann, bob, eve" in shown
    assert "approved by ann: fine" in shown
    assert (
        "for ann, bob, eve to decide, not for 'mallory'" in cli("approve", execution.id, "--sender", "mallory").output
    )
    audit = cli("audit", execution.id).output
    assert "approved pay" in audit
    assert "\x1e" not in audit
