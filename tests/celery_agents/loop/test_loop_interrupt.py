"""Somebody interrupts: the model's call in flight ends, and what it had said by then is kept."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
import requests

from agent_statestore import SignalKind
from agent_statestore.records import SayMode
from celery_agents import (
    AsyncRun,
    CalledAs,
    CallInterrupted,
    Complete,
    LoopContext,
    Respond,
    Run,
    UseTool,
    current_stream,
    tool,
)
from celery_agents.engine import lease
from celery_agents.testing.llm import ModelServer, Says
from tests.celery_agents.driving import Calls, Crash, Engine
from tests.celery_agents.loop.looping import Model, conversation, done, start

WORDS = " ".join(f"word{number}" for number in range(200))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer({"m": [Says(WORDS), Says("Done.")]}, pace_seconds=0.02) as server:
        yield server


@pytest.fixture(autouse=True)
def keeper_hears_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_HEAR_SECONDS", 0.1)


class Person:
    """Says one thing when the model has said three pieces."""

    def __init__(self, engine: Engine, mode: SayMode = SayMode.INTERRUPT) -> None:
        self.engine = engine
        self.mode = mode
        self.execution_id = ""
        self.heard = 0

    def hears(self) -> None:
        self.heard += 1
        if self.heard == 3:
            self.engine.send(self.execution_id, SignalKind.SAY, self.mode, "stop")


def _piece(line: bytes) -> str | None:
    text = line.decode().strip().removeprefix("data: ")
    if not text or text == "[DONE]":
        return None
    return json.loads(text)["choices"][0]["delta"].get("content") or None


def _asked(context: LoopContext) -> dict[str, Any]:
    return {"model": "m", "stream": True, "messages": list(context.messages)}


def decides_async(server: ModelServer, person: Person) -> Callable[[LoopContext], Any]:
    async def decide(context: LoopContext) -> Any:
        pieces: list[str] = []
        try:
            async with (
                aiohttp.ClientSession() as client,
                client.post(f"{server.openai_url}/chat/completions", json=_asked(context)) as answer,
            ):
                async for line in answer.content:
                    piece = _piece(line)
                    if piece is not None:
                        pieces.append(piece)
                        person.hears()
        except asyncio.CancelledError as error:
            raise CallInterrupted(text="".join(pieces)) from error
        return Respond(message="".join(pieces))

    return decide


def decides(server: ModelServer, person: Person) -> Callable[[LoopContext], Any]:
    def decide(context: LoopContext) -> Any:
        pieces: list[str] = []
        try:
            url = f"{server.openai_url}/chat/completions"
            with requests.post(url, json=_asked(context), stream=True, timeout=30) as answer:
                for line in answer.iter_lines(chunk_size=1):
                    piece = _piece(line)
                    if piece is not None:
                        pieces.append(piece)
                        person.hears()
        except Exception:
            raise
        except BaseException as error:
            raise CallInterrupted(text="".join(pieces)) from error
        return Respond(message="".join(pieces))

    return decide


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (decides_async, {}),
        (decides, {}),
        (decides, {"timeout": timedelta(seconds=60)}),
        (decides_async, {"timeout": timedelta(seconds=60)}),
    ],
    ids=["async", "in place", "in a thread", "async with a timeout"],
)
def test_the_call_in_flight_ends_and_what_it_has_said_is_kept(
    engine: Engine, server: ModelServer, make: Callable[..., Any], options: dict[str, Any]
) -> None:
    person = Person(engine)
    decide = make(server, person)
    dies = [True]

    def decide_or_die(context: LoopContext) -> Any:
        if len(context.messages) > 2 and dies:
            dies.pop()
            raise Crash
        return decide(context)

    person.execution_id = execution_id = start(engine, decide_or_die, "go", **options)
    began = time.monotonic()
    engine.crash(execution_id)
    assert time.monotonic() - began < 3, "all of it takes longer than four seconds"
    assert done(engine.execute(execution_id)) == "Done."
    context = engine.context(execution_id)
    (_, cut, *_) = told = conversation(context)
    assert told == [("user", "go"), cut, ("user", "stop"), ("assistant", "Done.")]
    assert cut[0] == "assistant"
    assert WORDS.startswith(cut[1])
    assert 3 <= len(cut[1].split()) < 150
    assert [step.name for step in context.steps] == ["decide", "#said#2", "decide#2"]
    result = context.steps[0].result
    assert result is not None
    assert result.error is not None
    assert result.error.type == "celery_agents.define.saying:CallInterrupted"
    assert len(server.requests) == 2
    assert context.signals == ()


def test_only_interrupt_ends_a_call_and_only_once(engine: Engine) -> None:
    """A call goes on through any other message, and a message that nobody reads ends one call, not all that follow."""
    ended: list[str] = []

    def calls(run: Run, input: Any) -> Any:
        model = run.options(called_as=CalledAs(kind="model", name="m"))

        async def slow() -> str:
            await asyncio.sleep(0.4)
            return "whole"

        def say(mode: SayMode) -> None:
            engine.send(run.execution_id, SignalKind.SAY, mode, "hello")

        run.step("said", say, SayMode.NEXT_BOUNDARY)
        ended.append(model.step("first", slow))
        run.step("said", say, SayMode.INTERRUPT)
        for _ in range(2):
            try:
                ended.append(model.step("second", slow))
            except CallInterrupted as error:
                ended.append(f"{error.key} cut")
        run.step("said", say, SayMode.INTERRUPT)
        ended.append(run.step("a tool", time.sleep, 0.4) or "tool")
        return [saying.text for saying in run.said()]

    assert done(engine.execute(engine.start(engine.agent(calls)))) == ["hello"] * 3
    assert ended == ["whole", "second cut", "whole", "tool"]


def test_an_async_agent_is_interrupted_on_the_event_loop(engine: Engine) -> None:
    async def asks(run: AsyncRun, input: Any) -> Any:
        model = run.options(interruptible=True)

        async def slow() -> str:
            engine.send(run.execution_id, SignalKind.SAY, SayMode.INTERRUPT, "stop")
            await asyncio.sleep(20)
            return "whole"

        try:
            return await model.step("model", slow)
        except CallInterrupted as error:
            return [error.key, *[saying.text for saying in await run.said()]]

    assert done(engine.execute(engine.start(engine.agent(asks)))) == ["model", "stop"]


def test_what_a_call_says_live_is_its_text(engine: Engine) -> None:
    """The stream of an execution tells the engine what a step has said."""

    def asks(run: Run, input: Any) -> Any:
        async def slow() -> None:
            current_stream().text("Well, ")
            current_stream().text("I")
            current_stream().thinking("?")
            engine.send(run.execution_id, SignalKind.SAY, SayMode.INTERRUPT, "stop")
            await asyncio.sleep(20)

        try:
            run.options(interruptible=True).step("model", slow)
        except CallInterrupted as error:
            return error.text
        return None

    assert done(engine.execute(engine.start(engine.agent(asks)))) == "Well, I"


def test_a_tool_is_not_interrupted_and_the_message_is_told_after_it(engine: Engine, calls: Calls) -> None:
    model = Model(UseTool(tool="pay", arguments={"to": "a"}, id="a"), Complete(output="done"))

    @tool(registry=engine.registry)
    async def pay(to: str) -> str:
        """Pays."""
        engine.send(execution_id, SignalKind.SAY, SayMode.INTERRUPT, "stop")
        await asyncio.sleep(0.4)
        return str(calls(to))

    execution_id = start(engine, model, tools=[pay])
    assert done(engine.execute(execution_id)) == "done"
    assert [role for role, _ in conversation(engine.context(execution_id))] == ["assistant", "tool", "user"]
    assert calls.made == ["a"]


def test_a_plain_call_that_waits_in_the_kernel_is_left_if_it_has_a_timeout(engine: Engine) -> None:
    release = threading.Event()

    def asks(run: Run, input: Any) -> Any:
        def stuck() -> None:
            engine.send(run.execution_id, SignalKind.SAY, SayMode.INTERRUPT, "stop")
            release.wait(30)

        try:
            run.options(interruptible=True, timeout=timedelta(seconds=30)).step("model", stuck)
        except CallInterrupted:
            return "left"
        finally:
            release.set()

    began = time.monotonic()
    assert done(engine.execute(engine.start(engine.agent(asks)))) == "left"
    assert time.monotonic() - began < 10
