"""A loop agent that dies, is cancelled, drained or fails at every write that it makes.

Whatever happens, no recorded decision is asked for again, no recorded call is made again, and the stored conversation
has no call without its result.
"""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agent_statestore import AgentContext, AgentState, SignalKind, Wait, WaitKind
from celery_agents import AskUser, Complete, LoopContext, Respond, Think, ToolCall, UseTool, UseTools, WaitFor, tool
from tests.celery_agents.driving import Crash, Engine
from tests.celery_agents.loop.looping import check_no_call_is_without_result, conversation, start

ARGUMENTS = {"amount": 20}
TURNS: dict[int, Any] = {
    1: Think(thought="Several things are to be done."),
    2: UseTools(
        calls=(
            ToolCall(tool="look", arguments={"what": "a"}),
            ToolCall(tool="look", arguments={"what": "broken"}),
            ToolCall(tool="book", arguments={"what": "b"}),
        )
    ),
    4: AskUser(question="Go on?"),
    5: UseTools(
        calls=(ToolCall(tool="pay", arguments={"amount": 90}), ToolCall(tool="look", arguments={"what": "c"})),
        text="Now I pay.",
    ),
    6: WaitFor(seconds=3600),
    7: WaitFor(event="shipped"),
    8: Respond(message="It is on its way.", goes_on=True),
    9: UseTool(tool="look", arguments={"what": "d"}),
    10: Complete(output="done", message="Goodbye."),
}
EXPECTED = [
    ("user", "order"),
    ("assistant", "Several things are to be done."),
    ("assistant", ["look", "look", "book"]),
    ("tool", "seen a"),
    ("tool", "ValueError: broken"),
    ("tool", "booked b"),
    ("system", "This decision cannot be used"),
    ("assistant", "Let me think again."),
    ("assistant", "Go on?"),
    ("user", "yes"),
    ("assistant", ["pay", "look"]),
    ("tool", "paid 20"),
    ("tool", "seen c"),
    ("system", "3600 seconds have passed."),
    ("user", "Event 'shipped' came"),
    ("assistant", "It is on its way."),
    ("assistant", ["look"]),
    ("tool", "seen d"),
    ("assistant", "Goodbye."),
]
# Where the process died during the call that must not be repeated.
BOOK_INTERRUPTED = "StepInterrupted: the process died during step 'book', which may have taken effect or not"
INTERRUPTED = [("tool", BOOK_INTERRUPTED) if entry == ("tool", "booked b") else entry for entry in EXPECTED]


class World:
    """The model and the tools of one execution, and how often each was called."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self.engine = engine
        self.asked: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.in_tool: Callable[[str], None] = lambda _: None
        self.in_model: Callable[[str], None] = lambda _: None

        @tool(registry=engine.registry)
        def look(what: str) -> str:
            self.touch(what)
            if what == "broken":
                raise ValueError(what)
            return f"seen {what}"

        @tool(registry=engine.registry, on_crash="fail")
        def book(what: str) -> str:
            self.touch(what)
            return f"booked {what}"

        @tool(registry=engine.registry, requires_approval=True)
        def pay(amount: int) -> str:
            self.touch(f"pay {amount}")
            return f"paid {amount}"

        self.execution_id = start(engine, self.decide, "order", tools=[look, book, pay], **options)

    def touch(self, what: str) -> None:
        self.made[what] += 1
        self.in_tool(what)

    def decide(self, context: LoopContext) -> Any:
        told = context.messages[-1]["role"] == "system" and context.turn == 3
        name = f"{context.turn}{' again' if told else ''}"
        self.asked[name] += 1
        self.in_model(name)
        if context.turn == 3:
            return Think(thought="Let me think again.") if told else "no JSON at all"
        return TURNS[context.turn]

    @property
    def context(self) -> AgentContext:
        return self.engine.context(self.execution_id)

    def answer(self, waiting: Wait) -> None:
        """Does what the execution waits for."""
        engine, execution_id = self.engine, self.execution_id
        if waiting.kind is WaitKind.INPUT:
            engine.answer(execution_id, "yes", waiting.key)
        elif waiting.kind is WaitKind.APPROVAL:
            decision = {"approved": True, "digest": waiting.prompt["digest"], "arguments": ARGUMENTS}
            engine.send(execution_id, SignalKind.APPROVAL, waiting.key, decision)
        elif waiting.kind is WaitKind.TIMER:
            engine.clock.advance(timedelta(seconds=3601))
        else:
            engine.send(execution_id, SignalKind.EVENT, waiting.key, "by sea")

    def step(self) -> bool:
        """One claim, crashed or not; False when the execution is over."""
        context = self.context
        if context.state.is_over:
            return False
        if context.state.is_paused:
            assert context.waiting is not None
            self.answer(context.waiting)
        if self.context.state.is_over:
            return False
        try:
            self.engine.execute(self.execution_id)
        except Crash:
            self.engine.clock.advance(timedelta(seconds=16))
        return True

    def to_end(self) -> AgentContext:
        """Goes on until it is over; looks at what is stored whenever a claim has ended."""
        for _ in range(30):
            if not self.step():
                return self.context
            check_no_call_is_without_result(self.context)
            so_far = told(self.context)
            assert so_far in (EXPECTED[: len(so_far)], INTERRUPTED[: len(so_far)])
        raise AssertionError(f"it never ends: {self.context.state}")


def told(context: AgentContext) -> list[tuple[str, Any]]:
    """The conversation, in short."""
    short: list[tuple[str, Any]] = []
    for role, content in conversation(context):
        if role == "assistant" and isinstance(content, dict):
            short.append((role, [call["name"] for call in content["tool_calls"]]))
        elif role == "tool":
            short.append((role, content.get("error") or content["content"]))
        else:
            expected = EXPECTED[min(len(short), len(EXPECTED) - 1)][1]
            begins = role != "assistant" and isinstance(expected, str) and content.startswith(expected)
            short.append((role, expected if begins else content))
    return short


class AtWrite:
    """Does something at the n-th checkpoint of the execution, once."""

    def __init__(self, world: World, number: int, *, before: Any = None, after: Any = None) -> None:
        self.writes = 0
        store = world.engine.store
        write = store.checkpoint

        def checkpoint(execution_id: str, *args: Any, **kwargs: Any) -> Any:
            self.writes += 1
            is_here = self.writes == number
            if is_here and before is not None:
                before()
            written = write(execution_id, *args, **kwargs)
            if is_here and after is not None:
                after()
            return written

        store.checkpoint = checkpoint  # type: ignore[method-assign]


def die() -> None:
    raise Crash


# 11 decisions, 6 calls, an intent, an approval, an answer, a timer, an event, a note; 4 pauses; the end.
WRITES = range(1, 29)


def test_an_undisturbed_execution_needs_these_writes() -> None:
    world = World(Engine())
    at = AtWrite(world, 0)
    context = world.to_end()
    assert (context.state, context.output) == (AgentState.COMPLETED, "done")
    assert told(context) == EXPECTED
    assert set(world.asked.values()) == set(world.made.values()) == {1}
    assert at.writes == len(WRITES)


@pytest.mark.parametrize("number", WRITES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_a_write_repeats_at_most_what_was_in_flight(number: int, when: str) -> None:
    world = World(Engine())
    AtWrite(world, number, **{when: die})
    context = world.to_end()

    assert (context.state, context.output) == (AgentState.COMPLETED, "done")
    assert told(context) in (EXPECTED, INTERRUPTED)
    repeated = {name: times for name, times in (world.asked + world.made).items() if times > 1}
    if when == "after":
        # Steps beside the one whose write killed the process may have been in flight, too.
        assert set(repeated) <= {"a", "broken", "b", "pay 20", "c"}
    assert set(repeated.values()) <= {2}
    assert sum(world.asked.values()) <= len(world.asked) + 1
    assert world.made["b"] <= 1, "a call that must not be repeated was repeated"


@pytest.mark.parametrize("what", ["a", "broken", "b", "pay 20", "c", "d"])
def test_a_crash_inside_a_tool_asks_the_model_nothing_again(what: str) -> None:
    world = World(Engine())

    def once(name: str) -> None:
        if name == what and world.made[name] == 1:
            raise Crash

    world.in_tool = once
    context = world.to_end()
    assert context.output == "done"
    # Beside the call that took the process down there may have been the one that must not be repeated.
    assert told(context) in ([INTERRUPTED] if what == "b" else [EXPECTED, INTERRUPTED])
    assert set(world.asked.values()) == {1}
    assert world.made[what] == (1 if what == "b" else 2)


@pytest.mark.parametrize("name", ["1", "2", "3", "3 again", "4", "5", "10"])
def test_a_crash_inside_the_model_asks_that_again_alone(name: str) -> None:
    world = World(Engine())

    def once(asked: str) -> None:
        if asked == name and world.asked[asked] == 1:
            raise Crash

    world.in_model = once
    context = world.to_end()
    assert (context.output, told(context)) == ("done", EXPECTED)
    assert {asked for asked, times in world.asked.items() if times > 1} == {name}
    assert set(world.made.values()) == {1}


@pytest.mark.parametrize("number", WRITES)
def test_a_cancel_at_a_write_leaves_no_call_without_result(number: int) -> None:
    world = World(Engine())
    AtWrite(world, number, before=lambda: world.engine.cancel(world.execution_id))
    context = world.to_end()
    # What was asked for during the very last write came too late.
    assert context.state is (AgentState.COMPLETED if number == WRITES[-1] else AgentState.CANCELLED)
    assert told(context) == EXPECTED[: len(told(context))]


@pytest.mark.parametrize("number", WRITES)
def test_a_drain_at_a_write_repeats_nothing(number: int) -> None:
    world = World(Engine())

    def drain() -> None:
        world.engine.draining = True

    AtWrite(world, number, before=drain)
    for _ in range(30):
        if not world.step():
            break
        check_no_call_is_without_result(world.context)
        world.engine.draining = False
    context = world.context
    assert (context.output, told(context)) == ("done", EXPECTED)
    assert set(world.asked.values()) == set(world.made.values()) == {1}


@pytest.mark.parametrize("steps", range(1, 25))
def test_a_limit_at_a_step_leaves_no_call_without_result(steps: int) -> None:
    world = World(Engine(), max_steps=steps)
    context = world.to_end()
    if context.state is AgentState.FAILED:
        assert context.error is not None
        assert context.error.type == "celery_agents.errors:MaxStepsExceeded"
        assert context.step_count == steps
    else:
        assert context.output == "done"
    assert told(context) == EXPECTED[: len(told(context))]
    assert max(world.made.values(), default=1) == 1
