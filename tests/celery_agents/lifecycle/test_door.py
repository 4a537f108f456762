"""The door and the room judge an answer alike; and what only the room can judge is asked anew, never a dead end."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_statestore import AgentState, AlreadyAnswered, AuditEvent, QuestionNotAsked, WaitKind
from celery_agents import InvalidAnswer, InvalidArguments, InvalidEvent, Registry, Run, agent, enqueue, tool
from celery_agents.client.execution import Execution
from celery_agents.define import json_schema, types
from celery_agents.define.answers import Expected, expected_by, name_of_type, names_of
from celery_agents.host.runtime import Runtime
from celery_agents.http import Executions, Request
from celery_agents.lifecycle.services import Services
from tests.celery_agents.cli.cli_driving import CLI


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Refund(pydantic.BaseModel):
    amount: pydantic.PositiveInt
    on: date | None = None

    @pydantic.model_validator(mode="after")
    def check(self) -> "Refund":
        if self.amount == 13:
            raise ValueError("no unlucky amounts")
        return self


@dataclass
class Point:
    x: int
    y: float = 0


def even(value: int) -> int:
    if value % 2:
        raise ValueError("needs an even number")
    return value


def broken(value: str) -> str:
    return {"yes": "y"}[value]


Even = Annotated[int, pydantic.AfterValidator(even)]
Broken = Annotated[str, pydantic.AfterValidator(broken)]
Strict = Annotated[int, pydantic.Strict()]
StrictDate = Annotated[date, pydantic.Strict()]
Email = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z]+@[a-z]+$", max_length=20)]
Money = Annotated[Decimal, pydantic.Field(max_digits=5, decimal_places=2)]
Refunds = list[Refund]

# Each type, an answer that it takes, and others: most of them look right to a JSON Schema, or did.
KINDS: dict[str, tuple[Any, Any, list[Any]]] = {
    "datetime": (datetime, "2026-03-01T09:00:00Z", ["tomorrow", "", 5, "2026-02-30T00:00:00Z", "1e3"]),
    "date": (date, "2026-03-01", ["tomorrow", "2026-13-01", "20260301", "2026-W09-7", None]),
    "time": (time, "09:00", ["noon", "25:00", "9"]),
    "duration": (timedelta, "PT1H", ["an hour", "P", "PT", True]),
    "uuid": (UUID, "6b0f2c5e-8d1c-4a2e-9f0a-1b2c3d4e5f60", ["6b0f2c5e", "", "zz"]),
    "decimal": (Decimal, "1.5", ["NaN", "Infinity", "one", "", "sNaN", "1.5.5"]),
    "money": (Money, "1.50", ["1.555", "123456", "NaN", 1.555]),
    "strict int": (Strict, 3, [3.0, "3", True, None]),
    "int": (int, 3, ["three", 3.5, None, [3]]),
    "float": (float, 3.5, ["x", None, {}]),
    "bool": (bool, True, ["perhaps", 2, None]),
    "strict date": (StrictDate, "2026-03-01", ["2026-03-01T09:00:00", "x"]),
    "even": (Even, 4, [3, 5, "x", 4.5]),
    "broken validator": (Broken, "yes", ["no", "", 5]),
    "text": (Email, "a@b", ["a@", "@", "a@b\n", "aaaaaaaaaaaaaaaaaaaaa@b", 5]),
    "enum": (Colour, "red", ["green", "RED", 0, None]),
    "literal": (Literal["a", 1], 1, ["b", 1.5, True, None]),
    "model": (Refund, {"amount": 3}, [{"amount": 13}, {"amount": 0}, {"amount": 3, "on": "soon"}, {}, []]),
    "dataclass": (Point, {"x": 1}, [{"x": 1.5}, {"y": 1}, {"x": "one"}]),
    "list of models": (list[Refund], [{"amount": 3}], [[{"amount": 13}], [3], {"amount": 3}]),
    "named list": (Refunds, [], [[{"amount": 13}]]),
    "optional": (Refund | None, None, [{"amount": 13}, 3]),
    "pair": (tuple[int, date], [1, "2026-03-01"], [[1], [1, "x"], [1, "2026-03-01", 2]]),
    "set": (set[int], [1, 2], [["x"], [[]]]),
    "dict": (dict[str, Even], {"a": 2}, [{"a": 3}, []]),
}
SCHEMA_CANNOT_SAY = {"even", "broken validator", "decimal", "money", "model", "list of models", "named list"}
SCHEMA_CANNOT_SAY |= {"optional", "dict"}


def asking(runtime: Runtime) -> Any:
    @agent(registry=runtime.registry)
    def asks(run: Run, input: str) -> str:
        run.ask("What is it?", schema=KINDS[input][0], name="it")
        return "thanks"

    return asks


def work(runtime: Runtime, execution: Execution) -> None:
    runtime.executor.execute(execution.id, "host/1/0")


def asked(runtime: Runtime, agent: Any, kind: Any) -> Execution:
    execution = enqueue(agent, kind, runtime=runtime)
    work(runtime, execution)
    return execution


def elsewhere(runtime: Runtime, execution: Execution) -> Execution:
    """The same execution in a process that lacks the agent's code."""
    services = SimpleNamespace(
        store=runtime.store, registry=Registry(), settings=runtime.settings, ends=runtime.ends, ring=runtime.ring
    )
    services.load_agents = lambda: None
    return Execution(execution.id, cast(Services, services))


def test_where_the_agent_is_known_no_answer_that_the_door_takes_is_refused_inside(
    runtime: Runtime, record_property: Callable[[str, object], None]
) -> None:
    asks, refused = asking(runtime), 0
    for kind, (_, good, others) in KINDS.items():
        execution = asked(runtime, asks, kind)
        for answer in others:
            try:
                execution.resume(answer)
            except InvalidAnswer:
                refused += 1
                continue
            work(runtime, execution)
            assert execution.state is AgentState.COMPLETED, f"{kind}: {answer!r} was accepted"
            execution = asked(runtime, asks, kind)  # it will do: a timestamp for a datetime, say
        execution.resume(good)
        work(runtime, execution)
        assert execution.state is AgentState.COMPLETED, kind
    assert refused >= 68
    record_property("attacked", ("answers", sum(len(others) for _, _, others in KINDS.values())))


def test_where_it_is_not_a_wrong_answer_is_asked_for_anew(
    runtime: Runtime, record_property: Callable[[str, object], None]
) -> None:
    asks = asking(runtime)
    accepted_wrongly = set()
    for kind, (_, good, others) in KINDS.items():
        execution = elsewhere(runtime, asked(runtime, asks, kind))
        rounds = 1
        for answer in others:
            try:
                execution.resume(answer, sender="ann")
            except InvalidAnswer:
                continue
            accepted_wrongly.add(kind)
            work(runtime, execution)
            rounds += 1
            question = execution.question
            assert question is not None, f"{kind}: {answer!r} ended it: {execution.summary().error}"
            assert question.round == rounds, kind
            assert question.refused is not None
            assert question.refused.startswith(f"round {rounds - 1}, the answer of ann: "), question.refused
        execution.resume(good)
        work(runtime, execution)
        assert execution.state is AgentState.COMPLETED, kind
        (step,) = execution.steps()
        assert step.round == rounds
    assert accepted_wrongly <= SCHEMA_CANNOT_SAY
    record_property("attacked", ("answers", sum(len(others) for _, _, others in KINDS.values())))


def waiting(runtime: Runtime) -> Any:
    @agent(registry=runtime.registry)
    def waits(run: Run, input: str) -> str:
        run.wait_for("it", schema=KINDS[input][0])
        return "thanks"

    return waits


def test_an_event_is_judged_at_the_door_too(runtime: Runtime, record_property: Callable[[str, object], None]) -> None:
    """And where the door has no code, or nobody waits yet, it is passed over inside: it never ends the execution."""
    waits, refused, passed_over = waiting(runtime), 0, set()
    for kind, (_, good, others) in KINDS.items():
        execution = asked(runtime, waits, kind)
        for payload in others:
            try:
                execution.send_event("it", payload)
            except InvalidEvent:
                refused += 1
                continue
            work(runtime, execution)
            assert execution.state is AgentState.COMPLETED, f"{kind}: {payload!r} was accepted"
            execution = asked(runtime, waits, kind)  # it will do: a timestamp for a datetime, say
        far = elsewhere(runtime, execution)
        for payload in others:
            try:
                far.send_event("it", payload, sender="ann")
            except InvalidEvent:
                continue
            passed_over.add(kind)
            work(runtime, execution)
            if execution.state is AgentState.COMPLETED:
                execution = asked(runtime, waits, kind)
                far = elsewhere(runtime, execution)
                continue
            (awaited,) = execution.summary().waits
            assert awaited.refused is not None, (kind, payload)
            assert awaited.refused.startswith("an event of ann: "), awaited.refused
        execution.send_event("it", good)
        work(runtime, execution)
        assert execution.state is AgentState.COMPLETED, kind
    assert refused >= 68
    assert passed_over >= {"even", "broken validator"}
    record_property("attacked", ("events", sum(len(others) for _, _, others in KINDS.values())))


def test_every_door_names_the_field_of_an_event_that_does_not_fit(runtime: Runtime) -> None:
    execution = asked(runtime, waiting(runtime), "model")
    wrong = {"amount": 0}
    with pytest.raises(InvalidEvent) as python:
        execution.send_event("it", wrong)
    with pytest.raises(InvalidEvent) as facade:
        asyncio.run(execution.aio.send_event("it", wrong))
    request = Request(
        method="POST",
        path=f"/executions/{execution.id}/events/it",
        content_type="application/json",
        body=json.dumps({"payload": wrong}).encode(),
    )
    reply = Executions(runtime=runtime, permit=lambda *_: True).handle(request, "ann")
    result = CLI(runtime.app)("send-event", execution.id, "it", json.dumps(wrong))
    said = "amount: Input should be greater than 0"
    assert python.value.problems == facade.value.problems == [said]
    assert (reply.status, reply.value["detail"], reply.value["problems"]) == (
        400,
        f"invalid payload of event 'it': {said}",
        [said],
    )
    assert (result.exit_code, result.stderr.strip()) == (1, f"Error: invalid payload of event 'it': {said}")
    assert execution.context().signals == ()
    # Another event, and one for which nobody waits yet, is nobody's fault at this door.
    execution.send_event("other", wrong)
    early = enqueue("waits", "model", runtime=runtime)
    early.send_event("it", wrong, sender="ann")
    work(runtime, early)
    shown = CLI(runtime.app)("show", early.id).stdout
    assert f"an event of ann: {said}" in " ".join(shown.split())
    reply = Executions(runtime=runtime, permit=lambda *_: True).handle(
        Request(method="GET", path=f"/executions/{early.id}"), "ann"
    )
    assert reply.value["waits_for"]["refused"] == f"an event of ann: {said}"
    *_, entry = runtime.store.get_audit(early.id)
    assert entry.reason == f"an event of ann: {said}"


def test_an_event_that_comes_again_under_its_id_is_no_fault_whatever_is_waited_for_now(runtime: Runtime) -> None:
    @agent(registry=runtime.registry)
    def twice(run: Run, input: None) -> list[Any]:
        return [run.wait_for("it", schema=str), run.wait_for("it", schema=int)]

    execution = asked(runtime, twice, None)
    execution.send_event("it", "text", event_id="7")
    work(runtime, execution)
    execution.send_event("it", "text", event_id="7")
    with pytest.raises(InvalidEvent):
        execution.send_event("it", "text", event_id="8")
    execution.send_event("it", 3, event_id="8")
    work(runtime, execution)
    assert execution.wait(0) == ["text", 3]


def test_where_its_modules_cannot_be_imported_the_schema_decides(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a web server that has the app's settings, and not the agents' code."""
    execution = elsewhere(runtime, asked(runtime, asking(runtime), "model"))

    def load_agents() -> None:
        raise ModuleNotFoundError("No module named 'their_agents'")

    execution._services.load_agents = load_agents  # type: ignore[method-assign]
    with pytest.raises(InvalidAnswer):
        execution.resume({"amount": "three"})
    execution.resume({"amount": 3})
    assert "by its JSON Schema alone" in caplog.text
    assert "No module named 'their_agents'" in caplog.text
    work(runtime, execution)
    assert execution.state is AgentState.COMPLETED


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["NaN", "1.0", "2026-03-01", "2026-03-01T09:00:00", "09:00", "PT1H", "P1D", "red", "a@b", "13"])
    | st.datetimes().map(str)
    | st.times().map(str)
    | st.decimals(allow_nan=False).map(str)
    | st.uuids().map(str),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["amount", "on", "x", "y"]), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(kind=st.sampled_from(sorted(KINDS)), value=VALUES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_accepted_at_the_door_means_accepted_inside(kind: str, value: Any) -> None:
    annotation = KINDS[kind][0]
    inside = Expected(adapter=types.adapter_for(annotation, kind))
    schema = inside.json_schema()
    assert schema is not None
    door = expected_by(name_of_type(annotation, NAMES), schema, NAMES)
    assert door is not None, f"{kind} is not found by its name"
    refused = inside.problems(value, "answer")
    assert door.problems(value, "answer") == refused
    if kind not in SCHEMA_CANNOT_SAY and not json_schema.problems(schema, value, "answer"):
        assert not refused, f"{kind}: {value!r}"


NAMES = names_of(asking)


def test_a_stored_name_finds_types_alone_and_only_those_that_the_agent_can_name() -> None:
    for stored in ("even", "broken", "os:system", "subprocess", "pydantic", "print", "Missing", {"list": ["even"]}):
        assert expected_by(stored, {"type": "integer"}, NAMES) is None, stored
    for misshapen in (None, 5, [], {}, {"list": 5}, {"any of": []}, {"a": [], "b": []}, {"literal": [[]]}, {"x": [1]}):
        assert expected_by(misshapen, {"type": "integer"}, NAMES) is None, misshapen
    changed = {**NAMES, "Refund": Point}
    schema = types.adapter_for(Refund, "x").json_schema()
    assert expected_by("Refund", schema, NAMES) is not None
    assert expected_by("Refund", schema, changed) is None  # another version of the code


def test_choices_hold_beside_a_type(runtime: Runtime) -> None:
    @agent(registry=runtime.registry)
    def choosing(run: Run, input: None) -> Any:
        return run.ask("Which?", schema=Even, choices=[2, 3, 4])

    execution = asked(runtime, choosing, None)
    for answer in (3, 6, True, 2.0):
        with pytest.raises(InvalidAnswer):
            execution.resume(answer)
    execution.resume(4)
    work(runtime, execution)
    assert execution.wait(0) == 4


def paying(runtime: Runtime, *, check: Callable[[int], int] = even) -> Any:
    @tool(registry=runtime.registry, requires_approval=True)
    def pay(amount: Annotated[int, pydantic.AfterValidator(check)], on: date | None = None) -> int:
        return amount

    @agent(registry=runtime.registry)
    def pays(run: Run, input: None) -> int:
        paid: int = run.tool(pay, 2)
        return paid

    return pays


@pytest.mark.parametrize("check", [even, lambda value: {2: 2, 4: 4}[value]], ids=["refuses", "is broken"])
def test_edited_arguments_that_the_tool_refuses_are_asked_for_anew(
    runtime: Runtime, check: Callable[[int], int]
) -> None:
    execution = asked(runtime, paying(runtime, check=check), None)
    with pytest.raises(InvalidArguments):
        execution.approve(arguments={"amount": 3})
    first = execution.approval
    assert first is not None
    away = elsewhere(runtime, execution)
    away.approve(arguments={"amount": 3}, sender="ann", reason="less")
    work(runtime, execution)

    again = execution.approval
    assert again is not None
    assert (again.kind, again.key, again.round) == (WaitKind.APPROVAL, first.key, 2)
    assert again.refused is not None
    assert again.prompt["arguments"] == {"amount": 2, "on": None}
    assert again.prompt["digest"] != first.prompt["digest"]
    with pytest.raises(AlreadyAnswered):
        execution.approve(digest=first.prompt["digest"])  # by a page that shows the first round
    execution.approve(digest=again.prompt["digest"], arguments={"amount": 4})
    work(runtime, execution)
    assert execution.wait(0) == 4


def test_the_refusal_is_told_over_http_in_the_trail_and_after_the_end(runtime: Runtime) -> None:
    execution = asked(runtime, asking(runtime), "even")
    elsewhere(runtime, execution).resume(3, sender="ann")
    work(runtime, execution)

    told = "round 1, the answer of ann: value: Value error, needs an even number"
    http = Executions(runtime=runtime, permit=lambda *_: True)
    question = cast(Any, http.handle(Request(method="GET", path=f"/executions/{execution.id}"), "bob").value)[
        "question"
    ]
    assert (question["key"], question["round"], question["refused"]) == ("it", 2, told)
    trail = runtime.store.get_audit(execution.id)
    assert [entry.reason for entry in trail if entry.event is AuditEvent.MOVED][-1] == told
    with pytest.raises(AlreadyAnswered):
        execution.resume(4, key="it", round=1)
    with pytest.raises(QuestionNotAsked):
        execution.resume(4, key="it", round=3)
    execution.resume(4, key="it", round=2)
    work(runtime, execution)
    (step,) = execution.steps()
    assert (step.round, step.refused) == (2, told)


def test_a_deadline_does_not_begin_anew_with_a_round(runtime: Runtime) -> None:
    @agent(registry=runtime.registry)
    def hurried(run: Run, input: None) -> Any:
        return run.ask("?", schema=Even, timeout=timedelta(days=1), default=0)

    execution = asked(runtime, hurried, None)
    first = execution.question
    elsewhere(runtime, execution).resume(3)
    work(runtime, execution)
    again = execution.question
    assert first is not None
    assert again is not None
    assert (again.round, again.asked_at, again.wake_at) == (2, first.asked_at, first.wake_at)


def test_the_question_about_a_limit_is_asked_anew_too(runtime: Runtime) -> None:
    @agent(registry=runtime.registry, max_steps=1, on_limit="ask")
    def stepping(run: Run, input: None) -> int:
        for number in range(2):
            run.step("count", int, number)
        return 2

    execution = asked(runtime, stepping, None)
    question = execution.question
    assert question is not None
    runtime.store.send(execution.id, _raw(question.key, "lots"))
    work(runtime, execution)
    again = execution.question
    assert again is not None
    assert (again.key, again.round) == (question.key, 2)
    execution.resume(1)
    work(runtime, execution)
    assert execution.wait(0) == 2


def _raw(key: str, payload: Any) -> Any:
    from agent_statestore import Signal, SignalKind

    return Signal(signal_id="raw", kind=SignalKind.ANSWER, key=key, payload=payload)
