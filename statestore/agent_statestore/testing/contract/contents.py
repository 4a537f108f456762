"""The contents of a context: memory, messages, retrieved passages; and the values that they may hold."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from agent_statestore.checkpoint import Checkpoint, NewExecution
from agent_statestore.codec import ERROR_ROOM_BYTES
from agent_statestore.errors import ExecutionNotFound, InvalidRecord, NotSerialisable, ValueTooLarge
from agent_statestore.records import (
    Action,
    AgentStep,
    ErrorInfo,
    JSONValue,
    Message,
    RagChunk,
    Result,
    SignalKind,
    Wait,
    WaitKind,
)
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import AT, claimed, context_of, create, done, pause, signal
from agent_statestore.testing.kit.matrix import cells
from agent_statestore.testing.kit.suite import Suite

KEYS = [
    *("a b", " a", "a ", "A", "a", "e\N{COMBINING ACUTE ACCENT}", "\N{LATIN SMALL LETTER E WITH ACUTE}", "ключ"),
    *("\N{SLIGHTLY SMILING FACE}", "a'b\"c\\", "%_*?[x]", "{a}:b", "\n", "0", "x" * 255, "__proto__", "null"),
]
VALUES: list[JSONValue] = [
    *(None, True, False, 0, 1, -1, 2**53 + 1, 2**63, 2**70, -(2**70)),
    *(0.0, 1.0, 0.1, -1e308, 5e-324, 1e22, 123456789.123456789),
    *("", " ", "a\x00b", "\x7f\x1b\u2028", "Ünï", "\N{SLIGHTLY SMILING FACE}", "</script>", "'; --", "null", "1"),
    *([], {}, [[]], [{}], {"": ""}, {"a": []}, {"a": {"b": [1, None, {"c": 0.5}]}}, [None], {"a\x00": 1}),
]


def _cycle() -> JSONValue:
    value: list[Any] = []
    value.append(value)
    return value


@cache
def _deep() -> JSONValue:
    """Return one value for all tests: making it takes a second."""
    value: JSONValue = 1
    for _ in range(100_000):
        value = [value]
    return value


REFUSED: dict[str, Callable[[], JSONValue]] = {
    "not a number": lambda: {"a": [math.nan]},
    "infinity": lambda: -math.inf,
    "object": lambda: {"a": object()},
    "bytes": lambda: b"x",
    "set": lambda: {1},
    "lone surrogate": lambda: "\ud800",
    "lone surrogate in a key": lambda: {"\udfff": 1},
    "cycle": _cycle,
    "bottomless": _deep,
}


def _step(output: JSONValue = None, input_: JSONValue = None, args: tuple[JSONValue, ...] | None = None) -> Checkpoint:
    error = None if args is None else ErrorInfo(type="t", message="m", args=args)
    step = AgentStep(
        step_number=1,
        name="a",
        action=Action(kind="k", input=input_),
        result=Result(success=error is None, output=output, error=error),
        timestamp=AT,
    )
    return Checkpoint(facts=("good",), steps=(step,))


# Each builds, around a value, the arguments of one write; the parts beside the value are good.
PLACES: dict[str, Callable[[JSONValue], Checkpoint]] = {
    "step output": lambda value: _step(output=value),
    "step input": lambda value: _step(input_=value),
    "step error": lambda value: _step(args=(value,)),
    "message": lambda value: Checkpoint(
        steps=(done(1),), messages=(Message(role="user", content=value, timestamp=AT),)
    ),
    "message metadata": lambda value: Checkpoint(
        messages=(Message(role="user", content="x", timestamp=AT, metadata={"m": value}),)
    ),
    "working memory": lambda value: Checkpoint(steps=(done(1),), working_memory={"good": 1, "bad": value}),
    "fact": lambda value: Checkpoint(steps=(done(1),), facts=("good", value)),
    "entity": lambda value: Checkpoint(steps=(done(1),), entities={"good": 1, "bad": value}),
    "rag": lambda value: Checkpoint(steps=(done(1),), rag_context=(RagChunk(content=value),)),
    "output": lambda value: Checkpoint(steps=(done(1),), state=AgentState.COMPLETED, output=value),
    "error": lambda value: Checkpoint(state=AgentState.FAILED, error=ErrorInfo(type="t", message="m", args=(value,))),
    "prompt": lambda value: Checkpoint(
        state=AgentState.WAITING_FOR_INPUT,
        waits=(Wait(kind=WaitKind.INPUT, key="q", prompt=value, asked_at=AT),),
    ),
}

every_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
every_refused = pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)


def identical(one: JSONValue, other: JSONValue) -> bool:
    """Return whether they are equal, and of the same types all the way down."""
    return one == other and repr(one) == repr(other)


class ContentsConformance(Suite):
    """Memory, messages and values."""

    def test_a_step_keeps_what_was_spent_on_it_and_its_groups(self, store: Store) -> None:
        spent = {"tokens": 1203, "cost": 0.1 + 0.2}
        intent = AgentStep(step_number=1, name="a#/b", action=Action(kind="tool"), timestamp=AT, spent={"tokens": 3})
        ended = replace(intent, result=Result(success=True), spent=spent, within=("a", "a#/c"))
        execution_id, lease = claimed(store)
        for step in (intent, ended, done(2)):
            store.checkpoint(execution_id, Checkpoint(steps=(step,)), lease)
            assert store.get_steps(execution_id)[step.step_number - 1] == step
        context = context_of(store, execution_id)
        assert [(dict(step.spent), step.within) for step in context.steps] == [(spent, ("a", "a#/c")), ({}, ())]

    def test_appended_parts_stay_in_their_order_across_checkpoints(self, store: Store) -> None:
        execution_id = create(store)
        for number in range(12):
            store.add_message(execution_id, "user", number, metadata={"n": number})
            store.add_fact(execution_id, number)
            store.add_rag_context(execution_id, [RagChunk(content=number), RagChunk(content=-number, score=0.1)])
        context = context_of(store, execution_id)
        assert [item.content for item in context.memory.conversation_history] == list(range(12))
        assert [item.metadata for item in context.memory.conversation_history] == [{"n": n} for n in range(12)]
        assert context.memory.facts == tuple(range(12))
        assert [chunk.content for chunk in context.rag_context] == [
            content for number in range(12) for content in (number, -number)
        ]

    def test_every_field_of_a_message_is_kept(self, store: Store) -> None:
        execution_id = create(store)
        written = Message(role="Ünï \x00", content=None, timestamp=AT, metadata={"a": [1]}, by_run=True)
        store.checkpoint(execution_id, Checkpoint(messages=(written, written)))
        assert context_of(store, execution_id).memory.conversation_history == (written, written)
        added = store.add_message(execution_id, "user", {"text": "hi"})
        assert context_of(store, execution_id).memory.conversation_history[-1] == added

    def test_the_last_value_of_a_key_counts(self, store: Store) -> None:
        execution_id = create(store)
        for value in (1, {"a": 1}, None):
            store.set_working_memory(execution_id, "key", value)
            store.set_entity(execution_id, "name", value)
            assert store.get_working_memory(execution_id, "key", "default") == value
            assert context_of(store, execution_id).memory.entities == {"name": value}

    def test_an_absent_key_reads_as_the_default(self, store: Store) -> None:
        execution_id = create(store)
        assert store.get_working_memory(execution_id, "key") is None
        assert store.get_working_memory(execution_id, "key", 7) == 7
        with pytest.raises(ExecutionNotFound):
            store.get_working_memory("unknown", "key")

    def test_a_forgotten_key_is_gone_and_may_come_back(self, store: Store) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, Checkpoint(working_memory={"a": 1, "b": 2}))
        store.checkpoint(execution_id, Checkpoint(working_memory={"b": 3}, forget=("a", "b", "never there")))
        assert context_of(store, execution_id).memory.working_memory == {}
        store.set_working_memory(execution_id, "a", 4)
        assert context_of(store, execution_id).memory.working_memory == {"a": 4}

    def test_keys_may_be_any_text_and_are_told_apart(self, store: Store) -> None:
        execution_id = create(store)
        wanted = {key: number for number, key in enumerate(KEYS)}
        store.checkpoint(execution_id, Checkpoint(working_memory=wanted, entities=wanted))
        memory = context_of(store, execution_id).memory
        assert (memory.working_memory, memory.entities) == (wanted, wanted)
        for key in KEYS:
            store.checkpoint(execution_id, Checkpoint(forget=(key,)))
            del wanted[key]
            assert context_of(store, execution_id).memory.working_memory == wanted

    @pytest.mark.parametrize("key", ["", "a\x00b", "x" * 256, "\ud800"])
    def test_a_key_that_no_backend_could_hold_is_refused(self, store: Store, key: str) -> None:
        execution_id = create(store)
        with pytest.raises(InvalidRecord):
            store.set_working_memory(execution_id, key, 1)
        with pytest.raises(InvalidRecord):
            store.set_entity(execution_id, key, 1)

    def test_every_json_value_comes_back_identical_from_everywhere(self, store: Store) -> None:
        execution_id = create(store, input=VALUES, metadata={"values": VALUES})
        step = done(1, output=VALUES)
        store.checkpoint(
            execution_id,
            Checkpoint(
                steps=(step,),
                messages=tuple(Message(role="r", content=value, timestamp=AT) for value in VALUES),
                working_memory={str(number): value for number, value in enumerate(VALUES)},
                facts=tuple(VALUES),
                entities={str(number): value for number, value in enumerate(VALUES)},
                rag_context=tuple(RagChunk(content=value) for value in VALUES),
            ),
        )
        store.send(execution_id, signal(SignalKind.EVENT, payload=VALUES))
        store.update_state(execution_id, AgentState.COMPLETED, output=VALUES)
        context = context_of(store, execution_id)
        assert context.steps[0].result is not None
        for read in (
            context.input,
            context.metadata["values"],
            context.steps[0].result.output,
            [item.content for item in context.memory.conversation_history],
            [context.memory.working_memory[str(number)] for number in range(len(VALUES))],
            list(context.memory.facts),
            [context.memory.entities[str(number)] for number in range(len(VALUES))],
            [chunk.content for chunk in context.rag_context],
            context.signals[0].payload,
            context.output,
        ):
            assert identical(read, VALUES)

    @cells(value={repr(value): value for value in VALUES})
    def test_every_json_value_may_be_input_and_output(self, store: Store, value: JSONValue) -> None:
        made = store.create_context("agent", value)
        assert identical(made.input, value)
        store.update_state(made.execution_id, AgentState.COMPLETED, output=value)
        assert identical(context_of(store, made.execution_id).output, value)

    def test_large_values_are_kept(self, store: Store) -> None:
        large = "\N{SLIGHTLY SMILING FACE}x" * 200_000
        execution_id = create(store, input=large)
        store.checkpoint(execution_id, _step(output=large))
        store.set_working_memory(execution_id, "large", large)
        store.add_message(execution_id, "user", large)
        context = context_of(store, execution_id)
        assert context.steps[0].result is not None
        assert context.input == context.steps[0].result.output == context.memory.working_memory["large"] == large
        assert context.memory.conversation_history[0].content == large

    @cells(place=PLACES, make=REFUSED)
    def test_what_json_cannot_carry_is_refused_and_nothing_of_the_write_is_stored(
        self, store: Store, place: Callable[[JSONValue], Checkpoint], make: Callable[[], JSONValue]
    ) -> None:
        execution_id, lease = claimed(store)
        before = context_of(store, execution_id)
        with pytest.raises(NotSerialisable) as refused:
            store.checkpoint(execution_id, place(make()), lease)
        assert refused.value.field
        assert context_of(store, execution_id) == before

    @every_refused
    def test_an_execution_whose_input_json_cannot_carry_is_not_created(
        self, store: Store, make: Callable[[], JSONValue]
    ) -> None:
        with pytest.raises(NotSerialisable, match="input"):
            store.create(NewExecution(agent_id="agent", input=make(), idempotency_key="key"))
        with pytest.raises(NotSerialisable, match="metadata"):
            store.create(NewExecution(agent_id="agent", metadata={"a": make()}, idempotency_key="key"))
        assert store.find().items == ()
        assert store.create_context("agent", "good", idempotency_key="key").input == "good"

    @every_refused
    def test_a_signal_that_json_cannot_carry_is_not_sent(self, store: Store, make: Callable[[], JSONValue]) -> None:
        execution_id = create(store)
        store.checkpoint(execution_id, pause())
        before = context_of(store, execution_id)
        with pytest.raises(NotSerialisable):
            store.send(execution_id, signal(SignalKind.ANSWER, payload=make()))
        assert context_of(store, execution_id) == before
        store.send(execution_id, signal(SignalKind.ANSWER, payload="good"))

    @every_place
    def test_a_value_over_the_limit_is_refused_and_nothing_of_the_write_is_stored(
        self, store: Store, place: Callable[[JSONValue], Checkpoint]
    ) -> None:
        execution_id, lease = claimed(store)
        before = context_of(store, execution_id)
        with pytest.raises(ValueTooLarge) as refused:
            store.checkpoint(execution_id, place("x" * (store.max_value_bytes + ERROR_ROOM_BYTES)), lease)
        assert store.max_value_bytes <= refused.value.limit_bytes < refused.value.size_bytes
        assert context_of(store, execution_id) == before

    def test_everything_of_an_error_comes_back(self, store: Store) -> None:
        inner = ErrorInfo(type="b:C", message="cause", args=(2, "no"), fields={"errno": 2}, notes=("inner",))
        error = ErrorInfo(
            type="a:B",
            message="m",
            args=("m", [1, [2]]),
            bases=("builtins:OSError",),
            traceback="Traceback ...",
            fields={"status": 429, "pair": ["a", "b"], "nothing": None},
            tuples=(("args", 1), ("fields", "pair")),
            not_kept=("request", "args[2]"),
            members=(inner, ErrorInfo(type="c:D", message="", members=(inner,))),
            cause=ErrorInfo(type="d:E", message="middle", cause=inner),
            notes=("one", "two"),
        )
        execution_id, lease = claimed(store)
        step = replace(done(1), result=Result(success=False, error=error))
        store.checkpoint(execution_id, Checkpoint(steps=(step,)), lease)
        store.update_state(execution_id, AgentState.FAILED, error=error, lease=lease)
        context = context_of(store, execution_id)
        assert context.steps[0].result is not None
        assert context.steps[0].result.error == error
        assert context.error == error

    def test_a_failure_can_be_recorded_even_over_the_limit(self, store: Store) -> None:
        execution_id, lease = claimed(store)
        long = "x" * store.max_value_bytes
        store.checkpoint(execution_id, _step(args=(long,)), lease)
        error = ErrorInfo(type="t", message=long)
        store.update_state(execution_id, AgentState.FAILED, error=error, lease=lease)
        context = context_of(store, execution_id)
        assert context.steps[0].result is not None
        assert context.steps[0].result.error == ErrorInfo(type="t", message="m", args=(long,))
        assert context.error == error

    def test_the_limit_counts_bytes_and_holds_for_inputs_and_signals(self, store: Store) -> None:
        large = "\N{SLIGHTLY SMILING FACE}" * (store.max_value_bytes // 4)
        with pytest.raises(ValueTooLarge):
            store.create_context("agent", large)
        with pytest.raises(ValueTooLarge):
            store.create_context("agent", metadata={"a": large})
        assert store.find().items == ()
        execution_id = create(store)
        with pytest.raises(ValueTooLarge):
            store.send(execution_id, signal(SignalKind.EVENT, payload=large))
        assert context_of(store, execution_id).signals == ()
