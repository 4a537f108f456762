"""Bad input is refused where it is given, by name, and nothing half-written remains."""

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydantic
import pytest
from celery import Celery

from agent_statestore import (
    AgentState,
    AlreadyAnswered,
    ExecutionNotFound,
    ExecutionOver,
    IdempotencyConflict,
    InvalidRecord,
    QuestionNotAsked,
    StoreUnavailable,
    UnknownScheme,
    ValueTooLarge,
)
from agent_statestore.contract.watch import PollingWatch
from celery_agents import (
    Agent,
    ExecutionCancelled,
    ExecutionFailed,
    InvalidAnswer,
    InvalidInput,
    Registry,
    Run,
    UnknownAgent,
    UnknownTool,
    agent,
    aio,
    enqueue,
    get_execution,
    install,
)
from celery_agents.client import watch
from celery_agents.client.execution import Execution
from celery_agents.client.watch import AsyncWatch
from celery_agents.errors import ConfigurationError, RegistrationError
from celery_agents.host.bell import TASK_NAME
from celery_agents.host.runtime import Runtime, runtime_of


class Order(pydantic.BaseModel):
    item: str
    count: int = pydantic.Field(gt=0)


def asks(run: Run, input: Any) -> Any:
    run.step("look", lambda: input)
    return run.ask("Go on?", choices=["yes", "no"])


@pytest.fixture
def asking(runtime: Runtime) -> Agent:
    return agent(registry=runtime.registry, name="asks")(asks)


@pytest.fixture
def ordering(runtime: Runtime) -> Agent:
    def order(run: Run, input: Order) -> str:
        return input.item

    return agent(registry=runtime.registry, name="order")(order)


def published(runtime: Runtime) -> list[Any]:
    """Takes everything out of the queue."""
    found, name = [], runtime.app.conf.task_default_queue
    with runtime.app.connection_for_read() as connection, connection.SimpleQueue(name) as queue:
        while queue.qsize():
            message = queue.get_nowait()
            found.append(message)
            message.ack()
    return found


def work(runtime: Runtime, execution: Execution) -> None:
    """Does what a worker does with one bell."""
    runtime.executor.execute(execution.id, "host/1/0")


def test_the_message_carries_the_id_and_nothing_else(runtime: Runtime, ordering: Agent) -> None:
    execution = enqueue(
        ordering, {"item": "secret thing", "count": 2}, user_id="user-7", metadata={"k": "v"}, runtime=runtime
    )

    (message,) = published(runtime)
    assert message.headers["id"] == execution.id
    assert message.headers["task"] == TASK_NAME
    assert message.headers["shadow"] == "order"
    assert message.payload[:2] == [[execution.id], {}]
    assert "secret" not in repr(message.headers) + repr(message.payload) + repr(message.properties)
    assert "user-7" not in repr(message.headers) + repr(message.payload)
    context = execution.context()
    assert (context.agent_id, context.input, context.state) == (
        "order",
        {"item": "secret thing", "count": 2},
        AgentState.IDLE,
    )


def test_queue_and_priority_reach_the_message_and_the_sweeper(runtime: Runtime, ordering: Agent) -> None:
    execution = enqueue(ordering, Order(item="a", count=1), queue="slow", priority=3, runtime=runtime)

    assert published(runtime) == []
    summary = execution.summary()
    assert (summary.queue, summary.priority) == ("slow", 3)


def test_defaults_of_the_schema_are_stored(runtime: Runtime) -> None:
    class Defaults(pydantic.BaseModel):
        depth: int = 3

    made = agent(registry=runtime.registry, name="d")(_with_input(Defaults))
    assert enqueue(made, {}, runtime=runtime).context().input == {"depth": 3}


def _with_input(annotation: Any) -> Any:
    def function(run: Run, input: Any) -> Any:
        return None

    function.__annotations__["input"] = annotation
    return function


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"item": "a"}, "count"),
        ({"item": "a", "count": 0}, "count"),
        ({"item": 3, "count": 1}, "item"),
        (None, "value"),
        ("text", "value"),
    ],
)
def test_an_input_that_fails_the_schema_is_refused_by_field(
    runtime: Runtime, ordering: Agent, value: Any, field: str
) -> None:
    with pytest.raises(InvalidInput, match=field):
        enqueue(ordering, value, runtime=runtime)
    assert_nothing_happened(runtime)


@pytest.mark.parametrize(
    "value",
    [object(), float("nan"), {"a": {1: object()}}, "\ud800", b"\xff\xfe", lambda: 1],
    ids=["object", "nan", "nested", "surrogate", "bytes", "function"],
)
def test_an_input_that_is_not_json_is_refused(runtime: Runtime, asking: Agent, value: Any) -> None:
    with pytest.raises(InvalidInput, match="input"):
        enqueue(asking, value, runtime=runtime)
    assert_nothing_happened(runtime)


def test_an_endless_input_is_refused(runtime: Runtime, asking: Agent) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidInput):
        enqueue(asking, endless, runtime=runtime)
    assert_nothing_happened(runtime)


def test_an_oversized_input_is_refused_with_both_sizes(runtime: Runtime, asking: Agent) -> None:
    runtime.store.max_value_bytes = 2000
    with pytest.raises(ValueTooLarge, match=r"input: \d+ bytes of JSON, but the limit is 2000"):
        enqueue(asking, "é" * 1500, runtime=runtime)
    assert_nothing_happened(runtime)


def test_an_unknown_agent_is_refused_with_those_that_are_known(runtime: Runtime, asking: Agent) -> None:
    with pytest.raises(UnknownAgent, match=r"'nobody'; registered agents: asks"):
        enqueue("nobody", 1, runtime=runtime)
    assert_nothing_happened(runtime)


def test_where_no_agent_is_known_it_is_said_what_imports_them() -> None:
    assert "AGENTS_IMPORTS" in str(UnknownAgent("research", []))
    assert "autodiscover_tasks" in str(UnknownTool("search", []))
    assert "AGENTS_IMPORTS" not in str(UnknownAgent("research", ["refund"]))


@pytest.mark.parametrize(
    "options",
    [
        {"session_id": ""},
        {"user_id": "x" * 300},
        {"idempotency_key": 3},
        {"metadata": [1]},
        {"priority": "high"},
        {"start_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - the fault that this test is about
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_bad_option_is_refused_by_name(runtime: Runtime, asking: Agent, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord, match=next(iter(options))):
        enqueue(asking, 1, runtime=runtime, **options)
    assert_nothing_happened(runtime)


def test_metadata_that_is_not_json_is_refused(runtime: Runtime, asking: Agent) -> None:
    with pytest.raises(InvalidRecord, match="metadata"):
        enqueue(asking, 1, metadata={"a": object()}, runtime=runtime)
    assert_nothing_happened(runtime)


def test_an_unreachable_store_is_said_so_and_nothing_is_published(unused_port: int) -> None:
    app = Celery("theirs", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = f"queue-{unused_port}"
    app.conf.agents_store_url = f"redis://:hunter2@127.0.0.1:{unused_port}/0"
    install(app, registry=Registry())
    runtime = runtime_of(app)
    made = agent(registry=runtime.registry, name="asks")(asks)
    with pytest.raises(StoreUnavailable) as refused:
        enqueue(made, 1, runtime=runtime)
    assert str(unused_port) in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert published(runtime) == []


def test_an_unreachable_broker_delays_the_execution_and_loses_nothing(
    tmp_path: Path, unused_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = Celery("theirs", broker=f"redis://127.0.0.1:{unused_port}/0", set_as_current=False)
    app.conf.agents_store_url = f"sqlite:///{tmp_path}/executions.db"
    app.conf.task_publish_retry = False
    install(app, registry=Registry())
    runtime = runtime_of(app)
    made = agent(registry=runtime.registry, name="asks")(asks)
    execution = enqueue(made, 1, runtime=runtime)

    assert execution.state is AgentState.IDLE
    due_at = execution.summary().due_at
    assert due_at is not None
    assert due_at - execution.summary().created_at <= timedelta(seconds=10)
    assert "the sweeper does so later" in caplog.text
    runtime.store.close()


def test_an_idempotency_key_starts_one_execution(runtime: Runtime, asking: Agent) -> None:
    first, second = (enqueue(asking, 1, idempotency_key="k", runtime=runtime) for _ in range(2))

    assert first == second
    with pytest.raises(IdempotencyConflict, match=first.id):
        enqueue(asking, 2, idempotency_key="k", runtime=runtime)
    assert len(runtime.store.find().items) == 1


def test_a_second_enqueue_under_a_key_does_not_move_the_start_time(runtime: Runtime, asking: Agent) -> None:
    start_at = datetime.now(UTC) + timedelta(hours=5)
    execution = enqueue(asking, 1, idempotency_key="k", start_at=start_at, runtime=runtime)
    assert enqueue(asking, 1, idempotency_key="k", runtime=runtime) == execution
    assert execution.summary().due_at == start_at


def test_a_result_backend_that_fails_does_not_fail_the_enqueue(
    runtime: Runtime, asking: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("Retry limit exceeded while trying to reconnect to the Celery result store backend.")

    monkeypatch.setattr(runtime.app.backend, "on_task_call", fail)
    execution = enqueue(asking, 1, runtime=runtime)

    assert execution.state is AgentState.IDLE
    assert "the sweeper does so later" in caplog.text


def test_a_start_time_is_not_published_but_due_then(runtime: Runtime, asking: Agent) -> None:
    start_at = datetime.now(UTC) + timedelta(days=2)
    execution = enqueue(asking, 1, start_at=start_at, runtime=runtime)

    assert published(runtime) == []
    assert execution.summary().due_at == start_at


# -- answering ---------------------------------------------------------------------------------------------------------


def test_an_answer_that_was_not_asked_for_is_refused(runtime: Runtime, asking: Agent) -> None:
    execution = enqueue(asking, 1, runtime=runtime)
    with pytest.raises(QuestionNotAsked):
        execution.resume("yes")
    work(runtime, execution)
    with pytest.raises(QuestionNotAsked, match="other"):
        execution.resume("yes", key="other")


def test_an_answer_that_fails_the_question_is_refused_and_may_be_given_again(runtime: Runtime, asking: Agent) -> None:
    execution = enqueue(asking, 1, runtime=runtime)
    work(runtime, execution)
    with pytest.raises(InvalidAnswer, match="'maybe' is not one of"):
        execution.resume("maybe")
    execution.resume("yes")
    work(runtime, execution)
    assert execution.wait(0) == "yes"


def test_an_answer_that_does_not_fit_with_its_question_is_refused(runtime: Runtime) -> None:
    def long_question(run: Run, input: None) -> Any:
        return run.ask("?" * 1500)

    runtime.store.max_value_bytes = 2500
    execution = enqueue(agent(registry=runtime.registry)(long_question), runtime=runtime)
    work(runtime, execution)
    with pytest.raises(ValueTooLarge, match="answer"):
        execution.resume("x" * 1500)
    execution.resume("short")
    work(runtime, execution)
    assert execution.wait(0) == "short"


def test_the_second_answer_is_refused(runtime: Runtime, asking: Agent) -> None:
    execution = enqueue(asking, 1, runtime=runtime)
    work(runtime, execution)
    execution.resume("yes")
    with pytest.raises(AlreadyAnswered):
        execution.resume("no")


def test_a_finished_execution_cannot_be_resumed_or_cancelled(runtime: Runtime, asking: Agent) -> None:
    execution = enqueue(asking, 1, runtime=runtime)
    work(runtime, execution)
    execution.resume("yes")
    work(runtime, execution)
    with pytest.raises(ExecutionOver, match="completed"):
        execution.resume("no")
    assert execution.cancel() is False
    assert execution.state is AgentState.COMPLETED


def test_an_unknown_execution_is_said_to_be_unknown(runtime: Runtime) -> None:
    with pytest.raises(ExecutionNotFound, match="nowhere"):
        get_execution("nowhere", runtime=runtime)
    ghost = Execution("nowhere", runtime)
    for call in (ghost.summary, ghost.context, lambda: ghost.wait(0), lambda: ghost.resume(1), ghost.cancel):
        with pytest.raises(ExecutionNotFound):
            call()


# -- waiting and following ---------------------------------------------------------------------------------------------


def test_cancel_takes_effect_at_once_where_nothing_runs(runtime: Runtime, asking: Agent) -> None:
    queued, paused = (enqueue(asking, 1, runtime=runtime) for _ in range(2))
    work(runtime, paused)
    for execution in (queued, paused):
        assert execution.cancel(sender="ada", reason="changed my mind") is True
        assert execution.state is AgentState.CANCELLED
        with pytest.raises(ExecutionCancelled):
            execution.wait(0)


def test_wait_raises_what_the_execution_failed_with(runtime: Runtime) -> None:
    def fails(run: Run, input: None) -> None:
        raise LookupError("nothing there")

    execution = enqueue(agent(registry=runtime.registry)(fails), runtime=runtime)
    work(runtime, execution)
    with pytest.raises(ExecutionFailed, match="nothing there") as failure:
        execution.wait()
    assert failure.value.type == "builtins:LookupError"


def test_wait_gives_up_after_its_timeout(runtime: Runtime, asking: Agent) -> None:
    with pytest.raises(TimeoutError, match=r"still idle .*: no worker on sqlite:.* that knows agent 'asks' has taken"):
        enqueue(asking, 1, runtime=runtime).wait(0.01)


def test_a_timeout_that_is_no_number_of_seconds_is_refused(runtime: Runtime, asking: Agent) -> None:
    execution = enqueue(asking, 1, runtime=runtime)
    with pytest.raises(TypeError, match="timeout needs a number of seconds"):
        execution.wait(timedelta(seconds=1))  # type: ignore[arg-type] # the fault that this test is about
    with pytest.raises(TypeError, match="timeout needs a number of seconds"):
        asyncio.run(execution.aio.wait_for_question(timedelta(seconds=1)))  # type: ignore[arg-type]


def test_a_function_without_the_decorator_is_no_agent(runtime: Runtime) -> None:
    with pytest.raises(TypeError, match="needs an agent, which is a function with @agent, or its name, not <function"):
        enqueue(_with_input(int), 1, runtime=runtime)  # type: ignore[arg-type] # the fault that this test is about
    assert_nothing_happened(runtime)


def test_following_yields_every_step_once(runtime: Runtime) -> None:
    def steps(run: Run, input: int) -> None:
        for number in range(input):
            run.step("s", int, number)

    execution = enqueue(agent(registry=runtime.registry)(steps), 25, runtime=runtime)
    work(runtime, execution)
    assert [step.step_number for step in execution] == list(range(1, 26))


def test_the_async_facade_does_the_same(runtime: Runtime, asking: Agent) -> None:
    async def main() -> None:
        execution = await aio.enqueue("asks", "input", runtime=runtime)
        assert await execution.state() is AgentState.IDLE
        await asyncio.to_thread(runtime.executor.execute, execution.id, "host/1/0")
        question = await execution.question()
        assert question is not None
        with pytest.raises(InvalidAnswer):
            await execution.resume("perhaps")
        await execution.resume("no")
        with pytest.raises(TimeoutError):
            await execution.wait(0.05)
        await asyncio.to_thread(runtime.executor.execute, execution.id, "host/1/0")
        assert await execution.wait(5) == "no"
        assert [step.name async for step in execution] == ["look", "ask"]
        assert (await execution.context()).input == "input"
        assert await execution.cancel() is False

    asyncio.run(main())


def test_a_bell_waits_for_a_store_that_is_away_for_less_than_a_lease(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else an outage would use up the queue."""
    execution = enqueue(agent(registry=runtime.registry)(doubling), 4, runtime=runtime)
    published(runtime)
    claim, away = runtime.store.claim, iter([True, True, False])

    def unsure(*given: Any) -> Any:
        if next(away):
            raise StoreUnavailable("x://", "gone")
        return claim(*given)

    monkeypatch.setattr(runtime.store, "claim", unsure)
    task = runtime.app.tasks[TASK_NAME]
    assert task(execution.id) == 8
    assert caplog.text.count("claiming executions failed") == 1


def doubling(run: Run, input: int) -> int:
    return 2 * input


# -- configuration -----------------------------------------------------------------------------------------------------


def test_an_async_wait_without_patience_still_looks_once(runtime: Runtime, asking: Agent) -> None:
    running, over = (enqueue(asking, runtime=runtime) for _ in range(2))
    over.cancel()

    async def look() -> None:
        with pytest.raises(ExecutionCancelled):
            await over.aio.wait(timeout=0)
        with pytest.raises(TimeoutError, match=f"{running.id} is still idle after 0 s"):
            await running.aio.wait(timeout=0)

    asyncio.run(look())


def test_an_async_wait_that_is_cancelled_while_it_opens_its_watch_leaves_nothing_open() -> None:
    closed, may_open = threading.Event(), threading.Event()

    class Slow(PollingWatch):
        def __init__(self) -> None:
            may_open.wait(10)
            super().__init__()

        def close(self) -> None:
            closed.set()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), AsyncWatch(Slow):
                raise AssertionError("it never opens in time")
        may_open.set()
        assert await asyncio.to_thread(closed.wait, 10)

    free = watch._threads.free._value
    asyncio.run(give_up())
    give_up_at = time.monotonic() + 10
    while watch._threads.free._value != free:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_an_unknown_store_scheme_is_refused(runtime: Runtime) -> None:
    app = Celery("theirs", broker="memory://", set_as_current=False)
    app.conf.agents_store_url = "mongodb://host/db"
    install(app, registry=Registry())
    with pytest.raises(UnknownScheme, match="mongodb"):
        _ = runtime_of(app).store


def test_an_app_without_install_is_told_so() -> None:
    app = Celery("bare", set_as_current=False)
    with pytest.raises(ConfigurationError, match="install"):
        runtime_of(app)


def test_two_agents_of_one_name_are_refused(runtime: Runtime, asking: Agent) -> None:
    with pytest.raises(RegistrationError, match="asks"):
        agent(registry=runtime.registry, name="asks")(_with_input(int))


def assert_nothing_happened(runtime: Runtime) -> None:
    assert runtime.store.find().items == ()
    assert published(runtime) == []
