"""What people send to an execution: approvals, refusals, events; and what is refused where it is given."""

import asyncio
import os
import pickle
import pwd
import threading
from datetime import date
from typing import Any

import pydantic
import pytest

from agent_statestore import (
    AgentState,
    AlreadyAnswered,
    AuditEvent,
    ExecutionNotFound,
    ExecutionOver,
    InvalidRecord,
    NotSerialisable,
    QuestionNotAsked,
    Signal,
    SignalKind,
    ValueTooLarge,
    WaitKind,
)
from celery_agents import (
    Agent,
    ApprovalDenied,
    ExecutionFailed,
    InvalidArguments,
    NoApprovalAsked,
    Registry,
    Run,
    agent,
    enqueue,
    tool,
)
from celery_agents.client.execution import Execution
from celery_agents.host.runtime import Runtime
from celery_agents.lifecycle.signals import NoQuestionAsked


class Ledger(list[Any]):
    """What was really done."""


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def paying(runtime: Runtime, ledger: Ledger) -> Agent:
    """Pays as often as its input says, each time with approval, always the same."""

    @tool(registry=runtime.registry, requires_approval=True)
    def pay(to: str, amount: pydantic.PositiveInt, on: date | None = None) -> str:
        """Sends money."""
        ledger.append((to, amount, on))
        return f"paid {amount} to {to}"

    def paying(run: Run, times: int) -> str:
        try:
            return ", ".join(run.tool(pay, "Zoë", 30) for _ in range(times))
        except ApprovalDenied as denied:
            return str(denied)

    return agent(registry=runtime.registry)(paying)


def work(runtime: Runtime, execution: Execution) -> None:
    """Does what a worker does with one bell."""
    runtime.executor.execute(execution.id, "host/1/0")


@pytest.fixture
def asked(runtime: Runtime, paying: Agent) -> Execution:
    """An execution that waits for an approval."""
    execution = enqueue(paying, 1, runtime=runtime)
    work(runtime, execution)
    return execution


def digest_of(execution: Execution) -> str:
    assert execution.approval is not None
    return str(execution.approval.prompt["digest"])


def bells(runtime: Runtime) -> int:
    """How many messages are in the queue, which is emptied."""
    name = runtime.app.conf.task_default_queue
    with runtime.app.connection_for_read() as connection, connection.SimpleQueue(name) as queue:
        number = queue.qsize()
        queue.clear()
    return int(number)


# -- approving ---------------------------------------------------------------------------------------------------------


def test_an_approval_shows_the_exact_call(runtime: Runtime, asked: Execution) -> None:
    assert asked.state is AgentState.WAITING_FOR_APPROVAL
    approval = asked.approval
    assert approval is not None
    assert (approval.kind, approval.key) == (WaitKind.APPROVAL, "approve pay")
    assert approval == asked.wait_for_approval(0)
    assert approval.prompt["tool"] == "pay"
    assert approval.prompt["description"] == "Sends money."
    assert approval.prompt["arguments"] == {"to": "Zoë", "amount": 30, "on": None}
    assert asked.question is None


def test_nothing_is_done_before_it_is_approved_and_then_once(
    runtime: Runtime, asked: Execution, ledger: Ledger
) -> None:
    work(runtime, asked)
    assert ledger == []
    bells(runtime)

    asked.approve(digest=digest_of(asked), sender="ada", reason="as agreed")

    assert bells(runtime) == 1
    work(runtime, asked)
    assert asked.wait(0) == "paid 30 to Zoë"
    assert ledger == [("Zoë", 30, None)]
    step = asked.steps()[0]
    assert step.result is not None
    assert (step.result.output["by"], step.result.output["reason"]) == ("ada", "as agreed")
    decided = [entry for entry in runtime.store.get_audit(asked.id) if entry.event is AuditEvent.DECIDED]
    assert [(entry.by, entry.reason) for entry in decided] == [("ada", "as agreed")]


def test_edited_arguments_are_used_instead(runtime: Runtime, asked: Execution, ledger: Ledger) -> None:
    asked.approve(arguments={"to": "Zoë", "amount": 20, "on": date(2026, 3, 1)}, sender="ada")
    work(runtime, asked)
    assert ledger == [("Zoë", 20, date(2026, 3, 1))]
    assert asked.wait(0) == "paid 20 to Zoë"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"to": "Zoë"}, "'amount' is a required property"),
        ({"to": "Zoë", "amount": "30"}, "amount: '30' is not of type 'integer'"),
        ({"to": "Zoë", "amount": -1}, "amount: -1"),
        ({"to": "Zoë", "amount": 1, "on": "tomorrow"}, "on: "),
        ({"to": "Zoë", "amount": 1, "currency": "EUR"}, "'currency' was unexpected"),
        (["Zoë", 1], "needs all of them by name"),
        ({"to": "Zoë", "amount": object()}, "no JSON form"),
    ],
    ids=["missing", "type", "range", "format", "unknown", "list", "object"],
)
def test_edited_arguments_that_do_not_fit_are_refused_and_may_be_given_again(
    runtime: Runtime, asked: Execution, ledger: Ledger, arguments: Any, fault: str
) -> None:
    with pytest.raises(InvalidArguments) as refused:
        asked.approve(arguments=arguments)
    assert fault in str(refused.value)
    assert "'pay'" in str(refused.value)
    asked.approve()
    work(runtime, asked)
    assert ledger == [("Zoë", 30, None)]


def test_where_the_tool_is_known_its_own_validators_are_asked_too(runtime: Runtime) -> None:
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value

    from typing import Annotated

    @tool(registry=runtime.registry, requires_approval=True)
    def share(amount: Annotated[int, pydantic.AfterValidator(even)]) -> int:
        return amount

    def sharing(run: Run, _: None) -> int:
        return run.tool(share, 2)

    execution = enqueue(agent(registry=runtime.registry)(sharing), runtime=runtime)
    work(runtime, execution)
    with pytest.raises(InvalidArguments, match="must be even"):
        execution.approve(arguments={"amount": 3})
    execution.approve(arguments={"amount": 4})
    work(runtime, execution)
    assert execution.wait(0) == 4


def test_a_refusal_reaches_the_agent_with_who_and_why(runtime: Runtime, asked: Execution, ledger: Ledger) -> None:
    asked.reject(digest=digest_of(asked), sender="ada", reason="too much")
    work(runtime, asked)
    assert asked.wait(0) == "pay was refused by ada: too much"
    assert ledger == []


def test_an_approval_of_another_call_than_the_one_that_was_shown_is_refused(
    runtime: Runtime, asked: Execution, ledger: Ledger
) -> None:
    for decide in (asked.approve, asked.reject):
        with pytest.raises(NoApprovalAsked, match="not what was looked at"):
            decide(digest="0" * 64)
        with pytest.raises(NoApprovalAsked, match='it waits for "approve pay"'):
            decide(key="approve other")
    work(runtime, asked)
    assert asked.state is AgentState.WAITING_FOR_APPROVAL
    assert ledger == []


def test_the_page_of_an_earlier_call_does_not_approve_of_the_same_call_again(
    runtime: Runtime, paying: Agent, ledger: Ledger
) -> None:
    execution = enqueue(paying, 2, runtime=runtime)
    work(runtime, execution)
    first = execution.approval
    assert first is not None
    execution.approve(digest=first.prompt["digest"])
    work(runtime, execution)
    second = execution.approval
    assert second is not None
    assert (first.key, second.key) == ("approve pay", "approve pay#2")
    assert first.prompt["arguments"] == second.prompt["arguments"]
    assert first.prompt["digest"] != second.prompt["digest"]

    # A double click.
    for decide in (execution.approve, execution.reject):
        with pytest.raises(AlreadyAnswered, match="approve pay"):
            decide(digest=first.prompt["digest"])
        with pytest.raises(AlreadyAnswered, match="approve pay"):
            decide(key=first.key, digest=first.prompt["digest"])
        with pytest.raises(NoApprovalAsked, match="not what was looked at"):
            decide(key=second.key, digest=first.prompt["digest"])
    assert len(ledger) == 1
    execution.approve(digest=second.prompt["digest"])
    work(runtime, execution)
    assert len(ledger) == 2
    assert execution.state is AgentState.COMPLETED


def test_the_second_decision_is_told_that_it_came_second(runtime: Runtime, paying: Agent) -> None:
    execution = enqueue(paying, 2, runtime=runtime)
    work(runtime, execution)
    digest = digest_of(execution)
    execution.approve(sender="ada")
    for late in (execution.approve, execution.reject):
        with pytest.raises(AlreadyAnswered):
            late(sender="bob")
    work(runtime, execution)
    # By now it waits for the next one.
    with pytest.raises(AlreadyAnswered):
        execution.reject(key="approve pay", digest=digest)


def test_of_many_decisions_at_once_one_wins(runtime: Runtime, asked: Execution, ledger: Ledger) -> None:
    names, start = [f"approver {number}" for number in range(8)], threading.Barrier(8)
    won: list[str] = []
    lost: list[str] = []

    def decide(name: str) -> None:
        start.wait()
        try:
            asked.approve(arguments={"to": name, "amount": 1}, sender=name)
        except AlreadyAnswered:
            lost.append(name)
        else:
            won.append(name)

    threads = [threading.Thread(target=decide, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert sorted(won + lost) == names
    work(runtime, asked)
    assert ledger == [(won[0], 1, None)]


def test_an_approval_where_none_is_asked_for_says_what_the_execution_does(runtime: Runtime, paying: Agent) -> None:
    idle = enqueue(paying, 1, runtime=runtime)
    with pytest.raises(NoApprovalAsked, match="does not wait for an approval: it is idle"):
        idle.approve()
    with pytest.raises(NoApprovalAsked, match='the approval "approve pay": it is idle'):
        idle.reject(key="approve pay", digest="0" * 64)
    assert idle.approval is None


def test_a_finished_or_unknown_execution_cannot_be_approved(runtime: Runtime, asked: Execution) -> None:
    asked.cancel()
    with pytest.raises(ExecutionOver, match="cancelled"):
        asked.approve()
    with pytest.raises(ExecutionOver):
        asked.send_event("paid")
    ghost = Execution("nowhere", runtime)
    for call in (ghost.approve, ghost.reject, ghost.wait_for_approval, lambda: ghost.send_event("paid")):
        with pytest.raises(ExecutionNotFound):
            call()
    assert asked.wait_for_approval(0) is None


def test_questions_and_approvals_point_to_each_other(runtime: Runtime, asked: Execution) -> None:
    with pytest.raises(QuestionNotAsked, match='"approve pay" to be approved or rejected') as refused:
        asked.resume("yes")
    assert isinstance(refused.value, NoQuestionAsked)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)

    def asks(run: Run, _: None) -> Any:
        return run.ask("Go on?")

    execution = enqueue(agent(registry=runtime.registry)(asks), runtime=runtime)
    work(runtime, execution)
    with pytest.raises(NoApprovalAsked, match='it waits for the answer to "ask"'):
        execution.approve()


def test_a_decision_that_does_not_fit_into_its_step_is_refused(runtime: Runtime, asked: Execution) -> None:
    runtime.store.max_value_bytes = 2000
    with pytest.raises(ValueTooLarge, match="arguments"):
        asked.approve(arguments={"to": "é" * 1500, "amount": 1})
    for decide in (asked.approve, asked.reject):
        with pytest.raises(ValueTooLarge, match="decision"):
            decide(reason="x" * 1000)
    asked.reject(reason="x" * 400, sender="ada")
    work(runtime, asked)
    assert asked.wait(0).startswith("pay was refused by ada: xxx")


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"], ids=["nul", "surrogate"])
def test_who_and_why_are_texts_that_can_be_kept(asked: Execution, text: str) -> None:
    for given in ({"sender": text}, {"reason": text}):
        with pytest.raises(InvalidRecord):
            asked.approve(**given)  # type: ignore[arg-type]
    assert asked.approval is not None


def test_edited_arguments_are_not_held_against_another_tool_of_that_name(runtime: Runtime) -> None:
    @tool(name="share", requires_approval=True, registry=Registry())
    def asked_for(amount: int) -> int:
        return amount

    @tool(name="share", registry=runtime.registry)
    def another(percent: int) -> int:
        return percent

    def work_with(run: Run, input: None) -> int:
        return run.tool(asked_for, 1)

    execution = enqueue(agent(registry=runtime.registry)(work_with), runtime=runtime)
    work(runtime, execution)
    execution.approve(arguments={"amount": 2})
    work(runtime, execution)
    assert execution.wait(0) == 2


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(runtime: Runtime) -> Execution:
    def waits(run: Run, _: None) -> list[Any]:
        return [run.wait_for("paid"), run.wait_for("paid")]

    execution = enqueue(agent(registry=runtime.registry)(waits), runtime=runtime)
    work(runtime, execution)
    bells(runtime)
    return execution


def test_an_event_goes_to_who_waits_for_it(runtime: Runtime, waiting: Execution) -> None:
    waiting.send_event("shipped", 1)
    assert bells(runtime) == 0
    waiting.send_event("paid", {"amount": 30}, sender="the bank")
    assert bells(runtime) == 1
    work(runtime, waiting)
    waiting.send_event("paid", "€")
    work(runtime, waiting)
    assert waiting.wait(0) == [{"amount": 30}, "€"]
    received = [entry for entry in runtime.store.get_audit(waiting.id) if entry.event is AuditEvent.RECEIVED]
    assert [(entry.by, entry.signal and entry.signal.payload) for entry in received] == [("the bank", {"amount": 30})]


def test_an_event_that_is_sent_again_under_its_id_counts_once(runtime: Runtime, waiting: Execution) -> None:
    for _ in range(3):
        waiting.send_event("paid", 1, event_id="charge-7")
    work(runtime, waiting)
    assert waiting.state is AgentState.WAITING
    waiting.send_event("paid", 1, event_id="charge-7")
    work(runtime, waiting)
    assert waiting.state is AgentState.WAITING
    waiting.send_event("paid", 2, event_id="charge-8")
    work(runtime, waiting)
    assert waiting.wait(0) == [1, 2]


def test_an_event_cannot_take_the_place_of_a_childs_end(runtime: Runtime) -> None:
    def child(run: Run, _: None) -> str:
        return run.ask("Done?", schema=str)

    child_agent = agent(registry=runtime.registry)(child)

    def parent(run: Run, _: None) -> Any:
        return run.gather(run.spawn(child_agent))

    execution = enqueue(agent(registry=runtime.registry)(parent), runtime=runtime)
    work(runtime, execution)
    waiting = execution.summary().waiting
    assert waiting is not None
    execution.send_event("mischief", event_id=f"end of {waiting.key}")

    spawned = Execution(waiting.key, runtime)
    work(runtime, spawned)
    spawned.resume("yes")
    work(runtime, spawned)
    bells(runtime)
    runtime.ends.tell(spawned.summary())
    assert bells(runtime) == 1
    work(runtime, execution)
    assert execution.wait(0) == ["yes"]


def test_a_bad_event_is_refused_by_name(runtime: Runtime, waiting: Execution) -> None:
    for name in ("", "x" * 256, "a\x00", "\ud800", 3):
        with pytest.raises(InvalidRecord, match="name"):
            waiting.send_event(name)  # type: ignore[arg-type]
    for event_id in ("", "x" * 250, "a\x00"):
        with pytest.raises(InvalidRecord, match="event_id"):
            waiting.send_event("paid", event_id=event_id)
    with pytest.raises(NotSerialisable, match="payload"):
        waiting.send_event("paid", object())
    runtime.store.max_value_bytes = 2000
    with pytest.raises(ValueTooLarge, match="payload"):
        waiting.send_event("paid", "x" * 1600)
    assert waiting.context().signals == ()
    waiting.send_event("paid", "x" * 1300, event_id="é" * 249)
    work(runtime, waiting)
    assert [step.name for step in waiting.steps()] == ["event paid"]


# -- async -------------------------------------------------------------------------------------------------------------


def test_the_async_facade_does_the_same(runtime: Runtime, paying: Agent, ledger: Ledger) -> None:
    async def main() -> None:
        first, second = (enqueue(paying, 1, runtime=runtime).aio for _ in range(2))
        with pytest.raises(TimeoutError):
            await first.wait_for_approval(0.01)
        for execution in (first, second):
            await asyncio.to_thread(runtime.executor.execute, execution.id, "host/1/0")
        approval = await first.wait_for_approval(5)
        assert approval is not None
        assert approval == await first.approval()
        await first.approve(digest=approval.prompt["digest"], sender="ada")
        await second.reject(reason="no")
        await second.send_event("paid", 1, sender="bob")
        for execution in (first, second):
            await asyncio.to_thread(runtime.executor.execute, execution.id, "host/1/0")
        assert await first.wait(0) == "paid 30 to Zoë"
        assert await second.wait(0) == "pay was refused: no"
        assert await second.wait_for_approval() is None
        assert [(signal.kind, signal.sender) for signal in (await second.context()).signals] == [
            (SignalKind.EVENT, "bob")
        ]

    asyncio.run(main())


def test_a_decision_past_the_client_that_is_malformed_approves_of_nothing(
    runtime: Runtime, asked: Execution, ledger: Ledger
) -> None:
    from agent_statestore import Signal

    signal = Signal(
        signal_id="s",
        kind=SignalKind.APPROVAL,
        key="approve pay",
        payload={"approved": "yes please"},
    )
    runtime.store.send(asked.id, signal)
    work(runtime, asked)
    again = asked.approval
    assert again is not None
    assert (again.round, again.refused) == (2, "round 1, the answer: the decision is malformed")
    assert ledger == []


def test_an_uncaught_refusal_fails_the_execution(runtime: Runtime) -> None:
    @tool(registry=runtime.registry, requires_approval=True)
    def wipe() -> None:
        raise AssertionError("it was not allowed")

    def wiping(run: Run, _: None) -> None:
        run.tool(wipe)

    execution = enqueue(agent(registry=runtime.registry)(wiping), runtime=runtime)
    work(runtime, execution)
    execution.reject(sender="ada")
    work(runtime, execution)
    with pytest.raises(ExecutionFailed, match="wipe was refused by ada") as failure:
        execution.wait(0)
    assert failure.value.type == "celery_agents.errors:ApprovalDenied"


# -- who decides -------------------------------------------------------------------------------------------------------


def test_the_digest_shown_for_one_execution_approves_no_twin(runtime: Runtime, paying: Agent, ledger: Ledger) -> None:
    one, twin = (enqueue(paying, 1, runtime=runtime) for _ in range(2))
    for execution in (one, twin):
        work(runtime, execution)
    shown = one.approval
    assert shown is not None
    with pytest.raises(NoApprovalAsked):
        twin.approve(key=shown.key, digest=shown.prompt["digest"])
    one.approve(digest=shown.prompt["digest"])
    work(runtime, one)
    work(runtime, twin)
    assert len(ledger) == 1
    assert twin.approval is not None


def test_what_the_process_knows_is_recorded_beside_what_the_caller_says(
    runtime: Runtime, asked: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "USERNAME"):
        monkeypatch.setenv(name, "the boss")
    process_user = pwd.getpwuid(os.getuid()).pw_name
    asked.approve(sender="the boss", reason="I am")

    (decided,) = [entry for entry in runtime.store.get_audit(asked.id) if entry.event is AuditEvent.DECIDED]
    assert decided.signal is not None
    told = decided.signal
    assert (decided.by, told.sender, told.channel, told.os_user) == ("the boss", "the boss", "python", process_user)
    work(runtime, asked)
    approval = asked.steps()[0]
    assert approval.result is not None
    assert approval.result.output["channel"] == "python"
    assert approval.result.output["os_user"] == process_user


UNFIT = {
    "empty": "",
    "too long": "a" * 256,
    "a line end": "ann\nbob approved",
    "an escape": "ann\x1b[2K",
    "C1": "ann\x9b2K",
    "bidi": "ann\u202egnp.exe",
    "an invisible space": "a\u200bnn",
    "a soft hyphen": "an\u00adn",
    "a filler": "ann\u3164",
    "a variation selector": "ann\ufe0f",
    "a tag": "ann\U000e0041",
    "a line separator": "ann\u2028bob",
    "unassigned": "ann\U000fffff",
    "a lone surrogate": "ann\ud800",
    "no text": 5,
}


def test_a_sender_reads_as_what_it_is_whatever_is_sent(runtime: Runtime, asked: Execution) -> None:
    ways: dict[str, Any] = {
        "answer": lambda sender: asked.resume(1, key="x", sender=sender),
        "approve": lambda sender: asked.approve(sender=sender),
        "reject": lambda sender: asked.reject(sender=sender),
        "event": lambda sender: asked.send_event("e", sender=sender),
        "cancel": lambda sender: asked.cancel(sender=sender),
        "delete": lambda sender: asked.delete(sender=sender),
        "the store": lambda sender: runtime.store.send(
            asked.id, Signal(signal_id="x", kind=SignalKind.CANCEL, sender=sender)
        ),
    }
    before = asked.context()
    for way, send in ways.items():
        for what, sender in UNFIT.items():
            with pytest.raises(InvalidRecord) as refused:
                send(sender)
            assert "sender" in str(refused.value), (way, what)
    assert asked.context() == before


def test_a_sender_is_kept_in_one_form(runtime: Runtime, asked: Execution) -> None:
    asked.send_event("e", sender="Zoe\u0308")
    (entry,) = [entry for entry in runtime.store.get_audit(asked.id) if entry.event is AuditEvent.RECEIVED]
    assert entry.by == "Zo\u00eb"
