"""The conversation of a session: it lasts across executions, and whatever crashes, each message is in it once."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, AgentStep, InvalidRecord, StoreUnavailable, ValueTooLarge
from agent_statestore.documents import Written
from agent_statestore.documents.codec import EncodedOperation
from agent_statestore.documents.errors import NamespaceHeld
from agent_statestore.memory import MemoryStore
from celery_agents import AsyncRun, Run
from celery_agents.engine.journal.recorder import Recorder
from celery_agents.engine.outcome import Ending
from celery_agents.errors import SessionBusy
from tests.celery_agents.driving import LEASE, Calls, Crash, Engine


def start(engine: Engine, agent: Any, value: Any = None, session_id: str | None = "s") -> str:
    return engine.store.create_context(agent.name, agent.encode_input(value), session_id=session_id).execution_id


def said(engine: Engine, session_id: str = "s") -> list[Any]:
    return [message.content for message in engine.store.session(session_id).messages()]


def texts(messages: Sequence[Any]) -> list[Any]:
    return [message.content for message in messages]


def chat(run: Run, question: str) -> list[str]:
    """Answer with what was said before."""
    session = run.session
    session.say("user", question, {"lang": "en"})
    answer = run.step("model", lambda: f"{question}!")
    session.say("assistant", answer)
    run.step("after", lambda: None)
    session.say("assistant", f"bye {question}")
    return texts(session.messages)


async def async_chat(run: AsyncRun, question: str) -> list[str]:
    session = await run.session
    session.say("user", question, {"lang": "en"})

    async def model() -> str:
        return f"{question}!"

    answer = await run.step("model", model)
    assert await run.session is session
    session.say("assistant", answer)

    async def after() -> None:
        return None

    await run.step("after", after)
    session.say("assistant", f"bye {question}")
    return texts(session.messages)


@pytest.mark.parametrize("function", [chat, async_chat])
def test_the_next_execution_knows_what_was_said(engine: Engine, function: Callable[..., Any]) -> None:
    agent = engine.agent(function)
    first, other = start(engine, agent, "a"), start(engine, agent, "x", "other")
    for execution_id in (first, other):
        engine.execute(execution_id)
    second = start(engine, agent, "b")
    engine.execute(second)
    everything = ["a", "a!", "bye a", "b", "b!", "bye b"]
    assert engine.context(second).output == said(engine) == everything
    assert said(engine, "other") == ["x", "x!", "bye x"]
    messages = list(engine.store.session("s").messages())
    assert [message.number for message in messages] == [1, 2, 3, 4, 5, 6]
    assert [message.execution_id for message in messages] == [first] * 3 + [second] * 3
    assert (messages[0].role, dict(messages[0].metadata)) == ("user", {"lang": "en"})
    # What the engine needs for it is gone at the end, and the execution has its own messages.
    context = engine.context(second)
    assert context.memory.working_memory == {}
    assert texts(context.memory.conversation_history) == ["b", "b!", "bye b"]


class Dying(MemoryStore):
    """Dies at one of its writes, before or after it is stored."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock=clock)
        self.writes = 0
        self.dies_at: tuple[int, bool] | None = None
        writing = self.documents.apply

        def apply(operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
            return self._dying(lambda: writing(operations, write_id))

        self.documents.apply = apply  # type: ignore[method-assign]

    def checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        return self._dying(lambda: super(Dying, self).checkpoint(*args, **kwargs))

    def checkpoint_each(self, writes: Any) -> Any:
        return [self.checkpoint(write.lease.execution_id, write.checkpoint, write.lease) for write in writes]

    def _dying(self, write: Callable[[], Any]) -> Any:
        self.writes += 1
        if self.dies_at == (self.writes, False):
            raise Crash
        written = write()
        if self.dies_at == (self.writes, True):
            raise Crash
        return written


def test_a_death_at_any_write_leaves_each_message_once(engine: Engine) -> None:
    def interrupted_chat(run: Run, question: str) -> list[str]:
        run.session.say("user", question)
        run.session.say("assistant", run.step("model", lambda: f"{question}!"))
        run.session.summarise(f"before {question}")
        run.sleep(timedelta(hours=1))
        run.session.say("assistant", f"bye {question}")
        return texts(run.session.messages)

    agent = engine.agent(interrupted_chat)

    def have_conversations(dies_at: tuple[int, bool] | None) -> int:
        engine.store = store = Dying(engine.clock)
        for question in ("a", "b"):
            execution_id = start(engine, agent, question)
            store.writes, store.dies_at = 0, dies_at if question == "b" else None
            for _ in range(6):
                if engine.context(execution_id).state.is_over:
                    break
                try:
                    engine.execute(execution_id)
                except Crash:
                    store.dies_at = None
                engine.clock.advance(max(LEASE, timedelta(hours=1)))
            assert engine.context(execution_id).state is AgentState.COMPLETED, dies_at
        history = ["a", "a!", "bye a", "b", "b!", "bye b"]
        assert (said(engine), engine.context(execution_id).output) == (history, history), dies_at
        summary = store.session("s").summary()
        assert summary is not None
        assert (summary.up_to, summary.content) == (3, "before b")
        assert engine.context(execution_id).memory.working_memory == {}, dies_at
        return store.writes

    writes = have_conversations(None)
    assert writes >= 7
    for number in range(1, writes + 1):
        for is_stored in (False, True):
            have_conversations((number, is_stored))


def test_a_death_between_record_and_document_is_made_up_for(engine: Engine, calls: Calls) -> None:
    """The same at the one place that the outbox is for; without it the message would be lost, or said twice."""

    def work(run: Run, input: None) -> None:
        run.session.say("user", "hello")
        run.step("one", calls, 1)
        if run.attempt == 1:
            raise Crash

    engine.store = store = Dying(engine.clock)
    agent = engine.agent(work)
    for number in range(1, 9):
        store.dies_at, store.writes = (number, False), 0
        execution_id = start(engine, agent, session_id=f"s-{number}")
        for _ in range(3):
            try:
                engine.execute(execution_id)
            except Crash:
                store.dies_at = None
            engine.clock.advance(LEASE)
        assert said(engine, f"s-{number}") == ["hello"], number


def test_a_second_execution_is_told_that_the_session_is_busy_before_anything_is_done(
    engine: Engine, calls: Calls
) -> None:
    def work(run: Run, input: str) -> str:
        run.session.say("user", input)
        run.step("model", calls, input)
        run.ask("?")
        return "done"

    agent = engine.agent(work)
    first, second = start(engine, agent, "first"), start(engine, agent, "second")
    engine.execute(first)
    outcome = engine.execute(second)
    assert outcome is not None
    assert isinstance(outcome.error, SessionBusy)
    assert (outcome.error.session_id, outcome.error.execution_id) == ("s", first)
    assert calls.made == ["first"]
    assert engine.context(second).state is AgentState.FAILED
    engine.answer(first, "yes")
    engine.execute(first)
    third = start(engine, agent, "third")
    engine.execute(third)
    assert calls.made == ["first", "third"]
    assert said(engine) == ["first", "third"]
    with pytest.raises(NamespaceHeld):
        engine.store.session("s").rewind(0)


def test_executions_that_take_turns_share_the_session(engine: Engine) -> None:
    def work(run: Run, input: str) -> list[str]:
        run.session.say("user", input)
        run.ask("?")
        run.session.say("user", f"{input} again")
        return texts(run.session.messages)

    agent = engine.agent(work, session_policy="queue")
    first = start(engine, agent, "first")
    engine.execute(first)
    # Another agent of the session, which waits for nobody: the first one is paused.
    other = engine.agent(chat, session_policy="queue", name="other")
    second = start(engine, other, "second")
    engine.execute(second)
    engine.answer(first, "yes")
    engine.execute(first)
    assert engine.context(first).output == ["first", "first again"], "what it saw does not change meanwhile"
    assert said(engine) == ["first", "second", "second!", "bye second", "first again"]


def test_a_zombie_says_nothing(engine: Engine) -> None:
    def work(run: Run, input: None) -> str:
        run.session.say("user", f"attempt {run.attempt}")
        if run.attempt == 1:
            engine.clock.advance(LEASE)
            successor = engine.execute(run.execution_id)
            assert successor is not None
            assert successor.ending is Ending.COMPLETED
        run.step("one", lambda: None)
        return "done"

    execution_id = start(engine, engine.agent(work))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.ending is Ending.LOST
    assert said(engine) == ["attempt 2"]


def test_a_summary_stands_for_what_came_before(engine: Engine) -> None:
    def work(run: Run, input: str) -> dict[str, Any]:
        session = run.session
        if len(session.history) >= 2:
            session.summarise(run.step("sum up", lambda: f"sum of {len(session.history)}"))
        session.say("user", input)
        return {
            "summary": session.summary and session.summary.content,
            "messages": [[message.number, message.content] for message in session.messages],
        }

    agent = engine.agent(work)
    outputs = []
    for text in "abcde":
        execution_id = start(engine, agent, text)
        engine.execute(execution_id)
        outputs.append(engine.context(execution_id).output)
    assert outputs == [
        {"summary": None, "messages": [[1, "a"]]},
        {"summary": None, "messages": [[1, "a"], [2, "b"]]},
        {"summary": None, "messages": [[1, "a"], [2, "b"], [3, "c"]]},
        {"summary": "sum of 2", "messages": [[3, "c"], [4, "d"]]},
        {"summary": "sum of 2", "messages": [[3, "c"], [4, "d"], [5, "e"]]},
    ]
    assert said(engine) == list("abcde")


def test_a_store_that_is_away_is_waited_for(engine: Engine) -> None:
    store = engine.store
    writing, failures = store.documents.apply, [StoreUnavailable("memory://", "away")] * 3

    def apply(operations: Sequence[EncodedOperation], write_id: str | None) -> Written:
        if failures:
            raise failures.pop()
        return writing(operations, write_id)

    store.documents.apply = apply  # type: ignore[method-assign]
    execution_id = start(engine, engine.agent(chat), "a")
    engine.execute(execution_id)
    assert engine.context(execution_id).state is AgentState.COMPLETED
    assert said(engine) == ["a", "a!", "bye a"]


def test_what_is_no_message_is_refused_where_it_is_said(engine: Engine) -> None:
    refused = []

    def work(run: Run, input: None) -> None:
        for say in (
            lambda: run.session.say("", "x"),
            lambda: run.session.say("user", "x" * 5_000_000),
            lambda: run.session.say("user", "x", {"agents.session": True}),
            lambda: run.memory.update({"agents.outbox": []}),
        ):
            try:
                say()
            except InvalidRecord as error:
                refused.append(type(error))

    engine.execute(start(engine, engine.agent(work)))
    assert refused == [InvalidRecord, ValueTooLarge, InvalidRecord, InvalidRecord]
    assert said(engine) == []
    alone = start(engine, engine.agent(chat), "a", None)
    outcome = engine.execute(alone)
    assert outcome is not None
    assert isinstance(outcome.error, InvalidRecord)


def test_a_step_that_comes_to_the_session_is_refused(engine: Engine) -> None:
    def work(run: Run, input: None) -> str:
        try:
            run.step("one", lambda: run.session.session_id)
        except Exception as error:  # noqa: BLE001 - named by the test
            return type(error).__name__
        return "no error"

    execution_id = start(engine, engine.agent(work))
    engine.execute(execution_id)
    assert engine.context(execution_id).output == "NestedStep"


def test_what_is_said_while_a_step_is_being_written_with_others_is_stored(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop goes on while another thread writes: what it says may ride in that write."""
    saying: list[Callable[[], None]] = []
    start_writing = Recorder.start_writing

    def begin(recorder: Recorder, step: AgentStep) -> Any:
        while saying:
            saying.pop()()
        return start_writing(recorder, step)

    monkeypatch.setattr(Recorder, "start_writing", begin)

    async def work(run: AsyncRun, input: None) -> None:
        session = await run.session

        async def step() -> None:
            saying.append(lambda: session.say("user", "meanwhile"))

        await run.step("one", step)

    execution_id = start(engine, engine.agent(work))
    engine.execute(execution_id)
    assert not saying, "it was written with others"
    assert said(engine) == ["meanwhile"]
    assert engine.context(execution_id).memory.working_memory == {}
