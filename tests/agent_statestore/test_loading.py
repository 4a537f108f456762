"""Loading a long execution: what each recorded step calls, and what it takes of memory, counted and not timed."""

import gc
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from types import FrameType

import pytest

from agent_statestore import AgentStep, Checkpoint, open_store
from agent_statestore.codec import decode_steps, encode_step
from agent_statestore.errors import ExecutionUnreadable
from agent_statestore.testing.kit.builders import TTL, claim, create, done

# It was 16 once. `json.loads` alone calls three of them.
MOST_CALLS = 14
STEPS = 300
OUTPUT = "x" * 2048


def test_reading_a_step_calls_few_functions() -> None:
    texts = [encode_step(done(number, output=OUTPUT), 1 << 20).text for number in range(1, STEPS + 1)]
    assert count(lambda: decode_steps("id", texts)) // STEPS <= MOST_CALLS


def test_a_step_that_was_read_is_what_was_written() -> None:
    written = done(3, output=OUTPUT)
    (read,) = decode_steps("id", [encode_step(written, 1 << 20).text])
    assert type(read) is AgentStep
    assert read == pickle.loads(pickle.dumps(read)) == written
    assert replace(read, name="other").name == "other"
    with pytest.raises(FrozenInstanceError):
        read.name = "other"  # type: ignore[misc]
    damaged = encode_step(written, 1 << 20).text.replace('"n":3', '"n":0')
    with pytest.raises(ExecutionUnreadable):
        decode_steps("id", [damaged])


def test_a_claim_holds_what_it_loads_once(tmp_path: Path, redis_url: str, redis_prefix: str) -> None:
    """Neither while it is loaded, nor then, has an execution twice the size of what is stored."""
    urls = ("memory://", f"sqlite:///{tmp_path}/agents.db", f"{redis_url}?key_prefix={redis_prefix}")
    taken = {url.partition(":")[0]: memory_of_claim(url) / (STEPS * len(OUTPUT)) for url in urls}
    assert {name: share for name, share in taken.items() if share > 2} == {}


def memory_of_claim(url: str) -> int:
    """Return how many bytes Python's objects had at most during a claim."""
    with ExitStack() as stack:
        store = stack.enter_context(open_store(url))
        execution_id = create(store)
        lease = claim(store, execution_id).lease
        steps = tuple(done(number, output=OUTPUT) for number in range(1, STEPS + 1))
        store.checkpoint(execution_id, Checkpoint(steps=steps), lease)
        store.release(lease)
        del steps
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        claimed = store.claim(execution_id, "host:1", TTL)
        _, most = tracemalloc.get_traced_memory()
        assert claimed is not None
        assert len(claimed.context.steps) == STEPS
        return most - before


def count(function: Callable[[], object]) -> int:
    """Return how many Python functions are called."""
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
