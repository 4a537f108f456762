"""A call that overruns its time: ended if it can be ended, never run beside its own retry, and known if it did end."""

import asyncio
import contextlib
import gc
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from celery_agents import AsyncRun, Retry, Run, StepTimeout, tool
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.outcome import Ending
from celery_agents.engine.run import event_loop
from celery_agents.engine.steps import calling
from tests.celery_agents.driving import Calls, Crash, Engine

SOON = timedelta(seconds=0.05)
AT_ONCE = timedelta(milliseconds=1)


class Overtime(Exception):
    """Stands for Celery's soft time limit."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end by itself is not waited for long."""
    monkeypatch.setattr(calling, "STOP_SECONDS", 0.3)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Lets go of what a test has blocked."""
    event = threading.Event()
    yield event
    event.set()


def busily(seconds: float) -> None:
    """Takes Python instructions all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_plain_tool_that_overruns_is_ended_and_tried_again(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, timeout=SOON, retries=1, retry_on=[TimeoutError], first_delay=AT_ONCE)
    def look(query: str) -> str:
        calls("begin")
        try:
            busily(10 if len(calls.made) == 1 else 0)
        finally:
            calls("end")
        return query

    def work(run: Run, input: None) -> str:
        return run.tool(look, "ü")

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output == "ü"
    assert calls.made == ["begin", "end", "begin", "end"]
    assert engine.context(execution_id).steps[0].tries == 2


def test_an_async_tool_that_overruns_is_ended_and_tried_again_by_a_plain_agent(engine: Engine, calls: Calls) -> None:
    @tool(registry=engine.registry, timeout=SOON, retries=1, first_delay=AT_ONCE)
    async def look(query: str) -> str:
        calls("begin")
        try:
            await asyncio.sleep(10 if len(calls.made) == 1 else 0)
        finally:
            calls("end")
        return query

    def work(run: Run, input: None) -> str:
        found: str = run.tool(look, "ü")  # type: ignore[assignment]
        return found

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "ü"
    assert calls.made == ["begin", "end", "begin", "end"]


@pytest.mark.usefixtures("impatient")
def test_a_plain_call_that_cannot_be_ended_is_not_tried_beside_itself(
    engine: Engine, calls: Calls, released: threading.Event
) -> None:
    def hang() -> None:
        calls("begin")
        released.wait(30)  # in the kernel: no exception reaches it there

    def work(run: Run, input: None) -> str:
        try:
            run.options(timeout=SOON, retry=Retry(retries=5, first_delay=AT_ONCE)).step("hang", hang)
        except StepTimeout as error:
            return f"{error.still_running}: {error}"
        return "never"

    execution_id = engine.start(engine.agent(work))
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert (
        outcome.output == "True: step 'hang' took longer than 0.05 s; it could not be ended, and may still take effect"
    )
    assert calls.made == ["begin"]


@pytest.mark.usefixtures("impatient")
def test_an_async_call_that_cannot_be_ended_is_not_tried_beside_itself(
    engine: Engine, calls: Calls, released: threading.Event
) -> None:
    async def hang() -> None:
        calls("begin")
        while not released.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                calls("refused")

    def work(run: Run, input: None) -> bool:
        hang_in_vain: Any = hang
        try:
            run.options(timeout=SOON, retry=Retry(retries=5, first_delay=AT_ONCE)).step("hang", hang_in_vain)
        except StepTimeout as error:
            return error.still_running
        return False

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output is True
    assert calls.made == ["begin", "refused"]


@pytest.mark.usefixtures("impatient")
def test_what_could_not_be_ended_is_not_tried_again_after_a_crash_either(
    engine: Engine, calls: Calls, released: threading.Event
) -> None:
    def hang() -> None:
        calls("begin")
        released.wait(30)

    def work(run: Run, input: None) -> bool:
        try:
            run.options(timeout=SOON, retry=Retry(retries=5)).step("hang", hang)
        except StepTimeout as error:
            if run.attempt == 1:
                raise Crash from None
            return error.still_running
        return False

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    outcome = engine.execute(execution_id)

    assert outcome is not None
    assert outcome.output is True
    assert calls.made == ["begin"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_ends_at_the_last_moment_counts(engine: Engine, calls: Calls, is_async: bool) -> None:
    def finish() -> str:
        calls("begin")
        while True:
            try:
                busily(10)
            except BaseException:  # noqa: BLE001 - it is told to end, and has what it was to fetch by now
                return "fetched"

    async def finish_async() -> str:
        calls("begin")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "fetched"
        return "never"

    def work(run: Run, input: None) -> Any:
        patient = run.options(timeout=SOON, retry=Retry(retries=3, first_delay=AT_ONCE))
        return patient.step("finish", finish_async if is_async else finish)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "fetched"
    assert calls.made == ["begin"]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_at_the_last_moment_is_the_calls_own_if_it_is_not_made_of_the_timeout(
    engine: Engine, is_async: bool
) -> None:
    def fail() -> None:
        with contextlib.suppress(BaseException):
            busily(10)
        raise LookupError("not there")

    async def fail_async() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        raise LookupError("not there")

    def work(run: Run, input: None) -> None:
        run.options(timeout=SOON).step("fail", fail_async if is_async else fail)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, LookupError)


def test_a_function_that_wraps_whatever_ends_it_still_timed_out(engine: Engine) -> None:
    def wrap() -> None:
        try:
            busily(10)
        except BaseException as error:
            raise RuntimeError("something happened") from error

    def work(run: Run, input: None) -> None:
        run.options(timeout=SOON).step("wrap", wrap)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, StepTimeout)
    assert not outcome.error.still_running


@pytest.mark.parametrize("is_async", [False, True])
def test_a_timeout_of_the_functions_own_is_its_own(engine: Engine, is_async: bool) -> None:
    def fail() -> None:
        raise TimeoutError("the service's")

    async def fail_async() -> None:
        raise TimeoutError("the service's")

    def work(run: Run, input: None) -> None:
        run.options(timeout=timedelta(seconds=30)).step("fail", fail_async if is_async else fail)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert type(outcome.error) is TimeoutError
    assert str(outcome.error) == "the service's"


def test_options_replace_a_tools_own_timeout(engine: Engine) -> None:
    @tool(registry=engine.registry, timeout=AT_ONCE)
    def slow() -> str:
        time.sleep(0.05)
        return "done"

    def work(run: Run, input: None) -> str:
        return run.options(timeout=timedelta(seconds=30)).tool(slow)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.output == "done"


@pytest.mark.parametrize("kind", [Crash, KeyboardInterrupt])
def test_what_ends_the_process_passes_through_a_call_with_a_timeout(engine: Engine, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind

    def work(run: Run, input: None) -> None:
        run.options(timeout=timedelta(seconds=30), retry=Retry(retries=5)).step("leave", leave)

    execution_id = engine.start(engine.agent(work))
    engine.exiting = True
    with pytest.raises(kind):
        engine.execute(execution_id)
    assert engine.context(execution_id).steps == ()


def test_a_time_limit_from_outside_leaves_no_call_behind(engine: Engine, calls: Calls) -> None:
    """It is raised, as by a signal, in the thread that waits for the call."""
    engine.interrupts = (Overtime,)
    begun = threading.Event()
    main = threading.get_ident()

    def slow() -> None:
        begun.set()
        try:
            busily(20)
        finally:
            calls("ended")

    def interrupt() -> None:
        assert begun.wait(5)
        signal.pthread_kill(main, signal.SIGUSR1)

    def overtime(number: int, frame: object) -> None:
        raise Overtime

    def work(run: Run, input: None) -> None:
        run.options(timeout=timedelta(seconds=20), retry=Retry(retries=5)).step("slow", slow)

    before = signal.signal(signal.SIGUSR1, overtime)
    try:
        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(Overtime):
            engine.execute(engine.start(engine.agent(work)))
        interrupter.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert calls.made == ["ended"]


def test_calls_that_end_just_when_their_time_is_up_end_one_way_or_the_other(engine: Engine) -> None:
    """No lock is left taken, no thread dies with a traceback, no value gets lost on the way."""
    ended: list[StepTimeout | None] = []

    def work(run: Run, input: None) -> None:
        for number in range(300):
            hurried = run.options(timeout=timedelta(microseconds=200 + number % 20))
            try:
                hurried.step(f"try {number}", busily, 0.0002)
                ended.append(None)
            except StepTimeout as error:
                ended.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert outcome.ending is Ending.COMPLETED
    assert len(ended) == 300
    assert not any(error.still_running for error in ended if error is not None)


@pytest.mark.parametrize("timeout", [None, timedelta(seconds=30)])
def test_a_coroutine_that_is_interrupted_before_it_begins_ends_nevertheless(
    engine: Engine, timeout: timedelta | None
) -> None:
    """A cancel was asked for just when the step was about to begin."""

    async def never() -> None:
        raise AssertionError("it was interrupted before")

    execution_id = engine.start(engine.agent(busily_for_nobody))
    claim = engine.store.claim(execution_id, "host/1/0", timedelta(seconds=15))
    assert claim is not None
    held = HeldLease(claim.lease, time.monotonic())
    held.mark_cancel_requested()
    blocked, unblock = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        unblock.wait(5)

    event_loop.event_loop().call_soon_threadsafe(block)
    assert blocked.wait(5)
    threading.Timer(0.05, unblock.set).start()  # both are done in the same turn of the loop then
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(event_loop.Interrupted):
            calling.awaited(never(), key="never", timeout=timeout, held=held)
        gc.collect()


def busily_for_nobody(run: Run, input: None) -> None:
    raise AssertionError("never executed")


def test_an_async_agent_ends_a_plain_function_in_time(engine: Engine) -> None:
    async def work(run: AsyncRun, input: None) -> None:
        await run.options(timeout=SOON).step("busy", busily, 10)

    outcome = engine.execute(engine.start(engine.agent(work)))

    assert outcome is not None
    assert isinstance(outcome.error, StepTimeout)
    assert not outcome.error.still_running
