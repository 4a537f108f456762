"""Long-term memory in an agent: what is remembered for whom, what is found, and what a crash does to it."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentState
from agent_statestore.documents.sessions import SessionMessage
from agent_statestore.recall import Facts, Scope, ScopeKind
from celery_agents import AsyncRun, Run
from celery_agents.define.long_term_memory import BufferMemory, HybridMemory, VectorMemory
from celery_agents.errors import RegistrationError
from tests.celery_agents.driving import Crash, Engine

WORDS = ("tea", "coffee", "cat", "dog")


def embed(texts: list[str]) -> list[list[float]]:
    return [[0.01 + text.split().count(word) for word in WORDS] for text in texts]


def one_each(message: SessionMessage) -> int:
    del message
    return 1


def start(engine: Engine, agent: Any, value: Any = None, **options: Any) -> str:
    whose = {"user_id": "ada", "session_id": "s"} | options
    return engine.store.create_context(agent.name, agent.encode_input(value), **whose).execution_id


def output(engine: Engine, agent: Any, value: Any = None, **options: Any) -> Any:
    execution_id = start(engine, agent, value, **options)
    outcome = engine.execute(execution_id)
    assert outcome is not None
    if outcome.error is not None:
        raise outcome.error
    return engine.context(execution_id).output


def vector_memory(**options: Any) -> VectorMemory:
    return VectorMemory(embed=embed, **options)


def remembering(run: Run, input: list[str]) -> list[str]:
    for text in input:
        run.remember(text, scope="user", entity="ada", data={"text": text})
    run.step("one", lambda: None)
    return [found.fact.text for found in run.recall("tea", k=2).facts]


async def async_remembering(run: AsyncRun, input: list[str]) -> list[str]:
    for text in input:
        run.remember(text, scope="user", entity="ada", data={"text": text})

    async def one() -> None:
        return None

    await run.step("one", one)
    return [found.fact.text for found in (await run.recall("tea", k=2)).facts]


@pytest.mark.parametrize("function", [remembering, async_remembering])
def test_the_next_execution_finds_what_one_has_remembered(engine: Engine, function: Callable[..., Any]) -> None:
    agent = engine.agent(function, memory=vector_memory())
    assert output(engine, agent, ["likes tea", "has a dog"]) == ["likes tea", "has a dog"]
    assert output(engine, agent, ["tea tea"]) in (["likes tea", "tea tea"], ["tea tea", "likes tea"])
    assert output(engine, agent, [], user_id="bob") == []
    facts = Facts(engine.store.documents, Scope(ScopeKind.USER, "ada")).all(entity="ada")
    fact = next(fact for fact in facts if fact.text == "likes tea")
    assert (fact.text, fact.data, fact.agent_id) == ("likes tea", {"text": "likes tea"}, agent.name)
    assert timedelta(0) <= fact.said_at - engine.store.now() < timedelta(minutes=1)


def test_what_was_remembered_just_now_is_found(engine: Engine) -> None:
    def work(run: Run, input: None) -> list[str]:
        run.step("before", lambda: None)
        run.remember("likes tea", scope="user")
        found = [each.fact.text for each in run.recall("tea").facts]
        if run.attempt == 1:
            raise Crash
        run.remember("likes tea", scope="user")
        return [*found, *[each.fact.text for each in run.recall("tea").facts]]

    agent = engine.agent(work, memory=vector_memory())
    execution_id = start(engine, agent)
    engine.crash(execution_id)
    engine.execute(execution_id)
    assert engine.context(execution_id).output == ["likes tea"] * 2
    (fact,) = Facts(engine.store.documents, Scope(ScopeKind.USER, "ada")).all()
    assert fact.step == "before"
    assert engine.context(execution_id).memory.working_memory == {}


def test_what_is_remembered_rides_in_the_checkpoint(engine: Engine) -> None:
    """Nothing is remembered of what is not recorded, and all of what is."""

    def work(run: Run, input: None) -> None:
        run.remember("likes tea", scope="user")
        if run.attempt == 1:
            raise Crash
        run.step("one", lambda: None)
        if run.attempt == 2:
            raise Crash

    execution_id = start(engine, engine.agent(work))
    facts = Facts(engine.store.documents, Scope(ScopeKind.USER, "ada"))
    engine.crash(execution_id)
    assert list(facts.all()) == []
    engine.crash(execution_id)
    assert [fact.text for fact in facts.all()] == ["likes tea"]
    engine.execute(execution_id)
    assert [fact.text for fact in facts.all()] == ["likes tea"]


def test_scopes_are_apart(engine: Engine) -> None:
    team = Scope(ScopeKind.TEAM, "red")

    def work(run: Run, input: None) -> list[str]:
        for scope in ("user", "session", "agent", team):
            run.remember(f"tea {scope if isinstance(scope, str) else 'team'}", scope=scope)
        run.remember("only here")
        found = [each.fact.text for each in run.recall("tea", k=9).facts]
        return sorted(found)

    everywhere = engine.agent(work, name="everywhere", memory=vector_memory(scopes=("user", "session", "agent", team)))
    assert output(engine, everywhere) == ["tea agent", "tea session", "tea team", "tea user"]
    session = engine.agent(work, name="session", memory=vector_memory(scopes="session"))
    assert output(engine, session, session_id="t") == ["tea session"]
    with pytest.raises(Exception, match="has no user"):
        output(engine, session, user_id=None)


def test_the_buffer_has_what_fits_and_sums_up_the_rest(engine: Engine) -> None:
    summed: list[Any] = []

    def summarise(summary: str | None, messages: Sequence[SessionMessage]) -> str:
        summed.append((summary, [message.content for message in messages]))
        return f"{summary or ''}{''.join(str(message.content) for message in messages)}"

    def work(run: Run, input: str) -> Any:
        run.session.say("user", input)
        found = run.recall("?")
        return [found.summary, [message.content for message in found.messages]]

    memory = BufferMemory(max_tokens=4, count=one_each, summarise=summarise)
    agent = engine.agent(work, memory=memory)
    outputs = [output(engine, agent, text) for text in "abcdefgh"]
    assert outputs == [
        [None, ["a"]],
        [None, ["a", "b"]],
        [None, ["a", "b", "c"]],
        [None, ["a", "b", "c", "d"]],
        ["abc", ["d", "e"]],
        ["abc", ["d", "e", "f"]],
        ["abc", ["d", "e", "f", "g"]],
        ["abcdef", ["g", "h"]],
    ]
    assert summed == [(None, ["a", "b", "c"]), ("abc", ["d", "e", "f"])]
    assert [message.content for message in engine.store.session("s").messages()] == list("abcdefgh")


def test_a_buffer_without_a_summary_leaves_out_what_does_not_fit(engine: Engine) -> None:
    memory = BufferMemory(max_tokens=2, count=one_each)

    def work(run: Run, input: str) -> list[Any]:
        run.session.say("user", input)
        return [message.content for message in run.recall("?").messages]

    agent = engine.agent(work, memory=memory)
    assert [output(engine, agent, text) for text in "abcd"][-1] == ["c", "d"]


def test_a_hybrid_has_both_and_is_text_for_a_prompt(engine: Engine) -> None:
    async def summarise(summary: str | None, messages: Sequence[SessionMessage]) -> str:
        await asyncio.sleep(0)
        return f"{len(messages)} messages"

    async def work(run: AsyncRun, input: str) -> str:
        session = await run.session
        run.remember(input, scope="user")
        session.say("user", input)
        return str(await run.recall("tea", k=1))

    buffer = BufferMemory(max_tokens=2, count=one_each, summarise=summarise)
    agent = engine.agent(work, memory=HybridMemory(buffer, vector_memory()))
    assert [output(engine, agent, text) for text in ("tea", "dog", "cat")] == [
        "Known facts:\n- tea\n\nuser: tea",
        "Known facts:\n- tea\n\nuser: tea\nuser: dog",
        "Known facts:\n- tea\n\nSummary of the conversation so far:\n2 messages\n\nuser: cat",
    ]


def test_a_recall_is_recorded(engine: Engine) -> None:
    asked: list[str] = []

    def counting(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return embed(texts)

    def work(run: Run, input: None) -> list[str]:
        run.remember("likes tea", scope="user", valid_until=engine.store.now() + timedelta(days=1))
        found = [each.fact.text for each in run.recall("tea").facts]
        run.step("after", lambda: None)
        if run.attempt == 1:
            raise Crash
        return found

    agent = engine.agent(work, memory=VectorMemory(embed=counting))
    execution_id = start(engine, agent)
    engine.crash(execution_id)
    engine.execute(execution_id)
    assert engine.context(execution_id).state is AgentState.COMPLETED
    assert asked == ["likes tea", "tea"]
    engine.clock.advance(timedelta(days=1))

    def later(run: Run, input: None) -> list[str]:
        return [each.fact.text for each in run.recall("tea").facts]

    other = engine.agent(later, memory=agent.memory)
    assert output(engine, other) == []


def test_what_is_no_memory_is_refused(engine: Engine) -> None:
    def work(run: Run, input: str) -> Any:
        if input == "recall":
            return run.recall("x")
        if input == "scope":
            return run.remember("x", scope="planet")
        if input == "long":
            return run.remember("x", scope=Scope(ScopeKind.TEAM, "\x01" * 255))
        if input == "text":
            return run.remember({"not": "text"}, scope="user")
        return run.remember("x", entity="y")

    agent = engine.agent(work)
    for what, said in (
        ("recall", "memory="),
        ("scope", "'user'"),
        ("text", "words"),
        ("long", "670 characters"),
        ("entity", "has a scope"),
    ):
        with pytest.raises(Exception, match=said):
            output(engine, agent, what)
    for make in (
        lambda: engine.agent(work, name="n", memory="buffer"),
        lambda: BufferMemory(max_tokens=0),
        lambda: VectorMemory(embed=embed, scopes=("planet",)),
        lambda: VectorMemory(embed="x"),  # type: ignore[arg-type]
    ):
        with pytest.raises(RegistrationError):
            make()
