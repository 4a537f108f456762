"""How many Python functions a step calls, counted: it is the same on every machine, and grows with every layer."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from agent_statestore import MemoryStore
from benchmarks.executing import Writer
from celery_agents import Run
from tests.celery_agents.driving import Engine

# What a step calls besides `store.checkpoint`. With each goes about half a microsecond, and it was 107 once.
MOST_CALLS = 56
STEPS = 20


def text(value: str = "text") -> str:
    return value


def numbers() -> list[int]:
    return [1]


def of_a_module(run: Run) -> None:
    run.step("step", text)


def in_a_loop(run: Run) -> None:
    def made(value: str = "text") -> str:
        return value

    run.step("step", made)


def of_a_list(run: Run) -> None:
    run.step("step", numbers)


def of_a_list_in_a_loop(run: Run) -> None:
    def made() -> list[int]:
        return [1]

    run.step("step", made)


def as_a_lambda(run: Run) -> None:
    run.step("step", lambda: "text")


def test_a_step_calls_few_functions() -> None:
    calls = calls_per_step(of_a_module) - calls_per_checkpoint()
    assert calls <= MOST_CALLS


def test_a_function_that_is_defined_anew_for_each_step_costs_as_little() -> None:
    of_module = calls_per_step(of_a_module)
    assert calls_per_step(in_a_loop) <= of_module
    assert calls_per_step(as_a_lambda) <= of_module
    # This annotation is made anew, too, and has to be compared.
    assert calls_per_step(of_a_list_in_a_loop) <= calls_per_step(of_a_list) + 10


def calls_per_step(take: Callable[[Run], Any]) -> int:
    """Return how many functions one more step calls."""
    counted: list[int] = []

    def work(run: Run, input: None) -> None:
        del input
        for _ in range(3):  # what is known of a function from then on
            take(run)
        counted.append(count(lambda: [take(run) for _ in range(STEPS)]))

    engine = Engine()
    engine.execute(engine.start(engine.agent(work)))
    return round(counted[0] / STEPS)


def calls_per_checkpoint() -> int:
    writer = Writer(MemoryStore(), "text")
    writer.write()
    return round(count(lambda: [writer.write() for _ in range(STEPS)]) / STEPS)


def count(function: Callable[[], object]) -> int:
    calls = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        del frame, argument
        calls += event == "call"

    gc.disable()  # it would call what waits for the end of an object
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls
