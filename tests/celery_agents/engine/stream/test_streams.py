"""What the stream of an execution tells, from its first claim to its end."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, MemoryStore, NotSerialisable
from agent_statestore.errors import StoreUnavailable
from agent_statestore.store import Store
from agent_statestore.streams.records import StreamEvent, StreamKind
from celery_agents import (
    AsyncRun,
    Registry,
    Retry,
    Run,
    ToolContext,
    agent,
    current_stream,
    tool,
)
from celery_agents.engine.executor import Defaults, Executor
from celery_agents.engine.stream.writer import StreamWriter
from celery_agents.lifecycle.assembly import make_executor
from celery_agents.testing import LocalAgents, When

SOON = Retry(retries=2, first_delay=timedelta(milliseconds=1))


@pytest.fixture
def agents() -> Iterator[LocalAgents]:
    with LocalAgents(registry=Registry()) as local:
        yield local


def events_of(store: Store, execution_id: str) -> list[StreamEvent]:
    page = store.read_events(execution_id, 0, 1000)
    assert page is not None
    return [*page.events]


def told(store: Store, execution_id: str) -> list[str]:
    """Return the events in short: the kind, and what was said or which step."""
    return [
        " ".join(
            part
            for part in (
                event.kind,
                str(event.data.get("value", event.data.get("delta", ""))) or event.step,
            )
            if part
        )
        for event in events_of(store, execution_id)
    ]


def test_a_pause_and_what_came_of_it(agents: LocalAgents) -> None:
    registry = Registry()

    @tool(registry=registry)
    def search(query: str, context: ToolContext) -> str:
        context.emit({"query": query})
        context.stream.text("found ")
        context.stream.text("it")
        return query

    @agent(registry=registry)
    def asker(run: Run, input: str) -> Any:
        run.emit("one")
        run.tool(search, query=input)
        run.emit("two")
        return [run.ask("how?", choices=["so", "thus"]), run.emit("three")]

    execution = agents.start(asker, "x")
    agents.run()
    before = told(agents.store, execution.id)
    assert before == [
        "started",
        "emitted one",
        "emitted {'query': 'x'}",
        "text found it",
        "step_recorded search",
        "emitted two",
        "asked",
        "paused",
    ]
    execution.resume("so", sender="ada")
    agents.run()
    assert told(agents.store, execution.id) == [
        *before,
        "answered so",
        "resumed",
        "step_recorded ask",
        "emitted three",
        "ended",
    ]
    asked, paused = events_of(agents.store, execution.id)[6:8]
    assert asked.data["wait"] == "input"
    assert (asked.data["prompt"], asked.data["schema"]) == ("how?", {"enum": ["so", "thus"]})
    assert paused.data["waits"] == [{"wait": "input", "key": "ask", "round": 1}]
    ended = events_of(agents.store, execution.id)[-1]
    assert ended.data == {"state": "completed", "output": ["so", None]}


def test_every_event_says_to_which_try_of_which_step_it_belongs(agents: LocalAgents) -> None:
    tries = iter(range(1, 4))

    def flaky() -> int:
        number = next(tries)
        current_stream().text(f"try {number}")
        if number < 3:
            raise ConnectionError(f"number {number}")
        return number

    @agent(registry=Registry())
    def trying(run: Run, input: str) -> int:
        return run.options(retry=Retry(retries=2, first_delay=timedelta(0))).step("flaky", flaky)

    execution = agents.start(trying, "x")
    agents.run()
    found = events_of(agents.store, execution.id)
    assert [event.seq for event in found if event.attempt == 1] == [*range(1, sum(e.attempt == 1 for e in found) + 1)]
    texts = [(event.kind, event.tried) for event in found if event.step == "flaky"]
    assert texts == [
        ("text", 1),
        ("try_failed", 1),
        ("text", 2),
        ("try_failed", 2),
        ("text", 3),
        ("step_recorded", 3),
    ]
    failed = next(event for event in found if event.kind == StreamKind.TRY_FAILED)
    assert failed.data["type"] == "builtins:ConnectionError"
    assert failed.data["message"] == "number 1"
    assert "next_in" in failed.data


def test_a_failed_end_says_why(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def failing(run: Run, input: str) -> None:
        run.step("fails", lambda: 1 / 0)

    execution = agents.start(failing, "x")
    agents.run()
    *_, failed, recorded, ended = events_of(agents.store, execution.id)
    assert (failed.kind, "next_in" in failed.data) == ("try_failed", False)
    assert recorded.data["success"] is False
    assert failed.data["type"] == "builtins:ZeroDivisionError"
    assert (ended.data["state"], ended.data["error"]["type"]) == ("failed", "builtins:ZeroDivisionError")


def test_a_claim_after_a_death_says_so_and_what_was_said_between_steps_is_said_once(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def dying(run: Run, input: str) -> str:
        run.emit("one")
        run.step("first", lambda: current_stream().text("a"))
        run.emit("two")
        run.step("second", lambda: current_stream().text("b"))
        return input

    execution = agents.start(dying, "x")
    agents.crash_at("first", When.AFTER_CHECKPOINT)
    agents.run()
    agents.run()
    assert told(agents.store, execution.id) == [
        "started",
        "emitted one",
        "text a",
        "step_recorded first",
        "recovered",
        "emitted two",
        "text b",
        "step_recorded second",
        "ended",
    ]
    recovered = events_of(agents.store, execution.id)[4]
    assert (recovered.attempt, recovered.data["from_attempt"]) == (2, 1)


def test_steps_beside_each_other_keep_their_texts_apart(agents: LocalAgents) -> None:
    def say(word: str) -> str:
        for letter in word:
            current_stream().text(letter)
        return word

    @agent(registry=Registry())
    def parallel(run: Run, input: str) -> Any:
        return run.parallel({"one": lambda: say("uno"), "two": lambda: say("due")})

    @agent(registry=Registry())
    async def gathering(run: AsyncRun, input: str) -> Any:
        async def speak(word: str) -> str:
            for letter in word:
                run.stream.text(letter)
                await asyncio.sleep(0)
            return word

        return await asyncio.gather(run.step("one", speak, "uno"), run.step("two", speak, "due"))

    for each in (parallel, gathering):
        execution = agents.start(each, "x")
        agents.run()
        texts: dict[str, str] = {}
        for event in events_of(agents.store, execution.id):
            if event.kind == StreamKind.TEXT:
                texts[event.step] = texts.get(event.step, "") + event.data["delta"]
        assert texts == {"one": "uno", "two": "due"}, each.name


def test_an_end_that_no_attempt_comes_to_is_told(agents: LocalAgents) -> None:
    @agent(registry=Registry())
    def asker(run: Run, input: str) -> Any:
        return run.ask("how?")

    execution = agents.start(asker, "x")
    agents.run()
    execution.cancel(sender="ada", reason="enough")
    assert told(agents.store, execution.id)[-2:] == ["cancel_requested", "ended"]
    requested, ended = events_of(agents.store, execution.id)[-2:]
    assert (requested.data["sender"], requested.data["reason"]) == ("ada", "enough")
    assert ended.data == {"state": "cancelled"}


def test_what_json_cannot_carry_is_refused_where_it_is_said(agents: LocalAgents) -> None:
    refused = []

    @agent(registry=Registry())
    def emitting(run: Run, input: str) -> None:
        for value in (object(), {1, 2}, float("nan"), "\ud800"):
            try:
                run.emit(value)
            except NotSerialisable:
                refused.append(value)
        run.stream.text("half \ud83d")
        mutable = {"n": 1}
        run.emit(mutable)
        mutable["n"] = 2

    execution = agents.start(emitting, "x")
    agents.run()
    assert execution.state is AgentState.COMPLETED
    assert len(refused) == 4
    assert told(agents.store, execution.id) == ["started", "text half ?", "emitted {'n': 1}", "ended"]


def test_outside_of_agents_nobody_is_told() -> None:
    current_stream().text("x")
    current_stream().emit({"x": 1})


# -- beside the checkpoints ------------------------------------------------------------------------------------------


def executor(store: Store, registry: Registry, **options: Any) -> Executor:
    return make_executor(
        store=store,
        registry=registry,
        limits=Defaults(lease=timedelta(seconds=10)),
        streams=StreamWriter(store),
        **options,
    )


def until(condition: Any, seconds: float = 20) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_a_step_is_followed_while_it_is_under_way() -> None:
    registry, go_on = Registry(), threading.Event()

    def slow() -> None:
        current_stream().text("early")
        go_on.wait(20)

    @agent(registry=registry)
    def waiting(run: Run, input: str) -> None:
        run.step("slow", slow)

    with MemoryStore() as store:
        execution_id = store.create_context("waiting", "x").execution_id
        worker = threading.Thread(target=executor(store, registry).execute, args=(execution_id, "w"))
        worker.start()
        until(lambda: "step_started slow" in told(store, execution_id))
        assert told(store, execution_id) == ["started", "text early", "step_started slow"]
        go_on.set()
        worker.join(20)
        assert told(store, execution_id)[3:] == ["step_recorded slow", "ended"]


def test_a_store_that_takes_no_events_holds_up_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()

    def talk() -> None:
        for _ in range(5):
            current_stream().text("x")
            time.sleep(0.06)

    @agent(registry=registry)
    def talking(run: Run, input: str) -> None:
        run.step("talk", talk)

    def away(*_: object) -> Any:
        raise StoreUnavailable("memory://", "away")

    with MemoryStore() as store:
        monkeypatch.setattr(store, "append_streams", away)
        execution_id = store.create_context("talking", "x").execution_id
        executor(store, registry).execute(execution_id, "w")
        # The checkpoint has brought all of it.
        events = events_of(store, execution_id)
        assert "".join(event.data["delta"] for event in events if event.kind == StreamKind.TEXT) == "xxxxx"
        assert [event.kind for event in events][-2:] == ["step_recorded", "ended"]


def test_the_words_of_an_attempt_whose_lease_is_lost_are_refused() -> None:
    registry, claimed_anew = Registry(), threading.Event()

    def zombie() -> None:
        current_stream().text("early")
        claimed_anew.wait(20)
        for _ in range(4):
            current_stream().text("late")
            time.sleep(0.06)

    @agent(registry=registry)
    def frozen(run: Run, input: str) -> None:
        run.step("zombie", zombie)

    with MemoryStore() as store:
        execution_id = store.create_context("frozen", "x").execution_id
        first = executor(store, registry)
        worker = threading.Thread(target=first.execute, args=(execution_id, "w"))
        worker.start()
        until(lambda: "text early" in told(store, execution_id))
        header = store._executions[execution_id].header
        header["token"] += 1  # somebody else has claimed it
        claimed_anew.set()
        worker.join(20)
        assert "late" not in " ".join(told(store, execution_id))


def test_a_drain_is_told_and_the_next_claim_is_no_recovery() -> None:
    registry, draining = Registry(), threading.Event()

    @agent(registry=registry)
    def drained(run: Run, input: str) -> None:
        run.step("one", lambda: None)
        draining.set() if run.attempt == 1 else draining.clear()
        run.step("two", lambda: None)

    with MemoryStore() as store:
        execution_id = store.create_context("drained", "x").execution_id
        working = executor(store, registry, is_draining=draining.is_set)
        working.execute(execution_id, "w")
        draining.clear()
        working.execute(execution_id, "w")
        assert told(store, execution_id) == [
            "started",
            "step_recorded one",
            "drained",
            "resumed",
            "step_recorded two",
            "ended",
        ]


@pytest.mark.parametrize("with_steps", [False, True])
def test_the_stream_of_a_long_execution_is_trimmed(with_steps: bool) -> None:
    registry = Registry()

    @agent(registry=registry)
    def long(run: Run, input: str) -> None:
        for number in range(30):
            if with_steps:
                run.step("step", lambda: None)
            else:
                run.emit(number)
            time.sleep(0.055)

    with MemoryStore() as store:
        execution_id = store.create_context("long", "x").execution_id
        make_executor(store=store, registry=registry, streams=StreamWriter(store, most_events=8)).execute(
            execution_id, "w"
        )
        page = store.read_events(execution_id, 0, 1000)
        assert page is not None
        assert page.trimmed_to
        assert len(page.events) < 20
        assert page.events[-1].kind == StreamKind.ENDED


def test_without_streams_nothing_is_said() -> None:
    registry = Registry()

    @agent(registry=registry)
    def mute(run: Run, input: str) -> None:
        run.emit("x")
        run.step("one", lambda: current_stream().text("y"))

    with MemoryStore() as store:
        execution_id = store.create_context("mute", "x").execution_id
        make_executor(store=store, registry=registry).execute(execution_id, "w")
        assert events_of(store, execution_id) == []
        assert store.get_summary(execution_id).state is AgentState.COMPLETED  # type: ignore[union-attr]
