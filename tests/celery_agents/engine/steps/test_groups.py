"""Groups: steps that take steps themselves, and are recorded when those are."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import celery_agents
from agent_statestore import AgentState, SignalKind
from agent_statestore.records import AgentContext
from celery_agents import ApprovalDenied, AsyncRun, Registry, Retry, Run, agent, tool
from celery_agents.engine.journal.spending import spent_in
from celery_agents.testing import LocalAgents
from tests.celery_agents.driving import Calls, Crash, Engine
from tests.celery_agents.household import Household, dying_at_each_write

HOUR = timedelta(hours=1)
TOOLS = Registry()


def keys(context: AgentContext) -> list[str]:
    return [step.name for step in context.steps]


def failure(engine: Engine, execution_id: str) -> str:
    error = engine.context(execution_id).error
    assert error is not None, engine.context(execution_id).state
    return f"{error.type.rpartition(':')[2]}: {error.message}"


# -- recorded when all are ---------------------------------------------------------------------------------------------


def test_the_steps_of_a_group_are_steps_and_its_own_record_comes_last(engine: Engine) -> None:
    def research(run: Run, topic: str) -> list[str]:
        return [run.step("search", lambda: topic), run.step("search", lambda: topic * 2)]

    def work(run: Run, input: None) -> list[Any]:
        grouped = run.options(group=True)
        return [
            run.step("search", lambda: "own"),
            grouped.step("research", research, run, "a"),
            grouped.step("research", research, run, "b"),
        ]

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)

    context = engine.context(execution_id)
    assert context.output == ["own", ["a", "aa"], ["b", "bb"]]
    assert keys(context) == [
        "search",
        *("research#/search", "research#/search#2", "research"),
        *("research#2#/search", "research#2#/search#2", "research#2"),
    ]
    assert [step.within for step in context.steps[1:4]] == [("research",), ("research",), ()]


def nested(run: Run, calls: Callable[[Any], Any]) -> Any:
    grouped = run.options(group=True)

    def outer() -> list[Any]:
        first = run.step("a", calls, "outer a")
        return [first, grouped.step("inner", inner), run.step("a", calls, "outer a 2")]

    def inner() -> list[Any]:
        both = run.parallel({"b": lambda: calls("b"), "c": lambda: calls("c")})
        return [run.step("a", calls, "inner a"), both["b"], both["c"]]

    return grouped.step("outer", outer)


async def async_nested(run: AsyncRun, calls: Callable[[Any], Any]) -> Any:
    grouped = run.options(group=True)

    async def called(value: str) -> Any:
        await asyncio.sleep(0)
        return calls(value)

    async def outer() -> list[Any]:
        first = await run.step("a", called, "outer a")
        return [first, await grouped.step("inner", inner), await run.step("a", called, "outer a 2")]

    async def inner() -> list[Any]:
        return [await run.step("a", called, "inner a"), *await asyncio.gather(*(run.step(n, called, n) for n in "bc"))]

    return await grouped.step("outer", outer)


@pytest.mark.parametrize("function", [nested, async_nested])
def test_whenever_the_process_dies_no_recorded_step_of_a_group_is_done_again(function: Any) -> None:
    for home, execution_id in dying_at_each_write(lambda home: _play(home, function)):
        context = home.context(execution_id)
        assert context.output == [["outer a", ["inner a", "b", "c"], "outer a 2"], "after"], home.store.writes
        assert sorted(keys(context)) == sorted(
            [
                *("outer#/a", "outer#/inner#/a", "outer#/inner#/b", "outer#/inner#/c", "outer#/inner", "outer#/a#2"),
                *("outer", "sleep", "after"),
            ]
        )
        made = home.calls.made  # type: ignore[attr-defined]
        assert len(made) <= 7 + 1, "at most the steps in flight once more"


def _play(home: Household, function: Any) -> str:
    home.calls = Calls()  # type: ignore[attr-defined]

    def work(run: Run, input: None) -> list[Any]:
        result = function(run, home.calls)  # type: ignore[attr-defined]
        run.sleep(HOUR)
        return [result, run.step("after", lambda: "after")]

    async def async_work(run: AsyncRun, input: None) -> list[Any]:
        result = await function(run, home.calls)  # type: ignore[attr-defined]
        await run.sleep(HOUR)
        return [result, await run.step("after", lambda: "after")]

    execution_id = home.start(home.agent(async_work if asyncio.iscoroutinefunction(function) else work))
    home.work(within=2 * HOUR)
    return execution_id


def test_once_a_group_is_recorded_its_function_is_not_called_again() -> None:
    home = Household()
    entered: list[str] = []

    async def group(run: AsyncRun, name: str) -> str:
        entered.append(name)
        await asyncio.gather(run.step("a", lambda: 1), run.step("b", lambda: 2))
        return name

    async def work(run: AsyncRun, input: None) -> list[str]:
        grouped = run.options(group=True)
        names = await asyncio.gather(*(grouped.step("research", group, run, name) for name in "xyz"))
        await run.sleep(HOUR)
        return list(names)

    execution_id = home.start(home.agent(work))
    home.work(within=2 * HOUR)
    assert home.context(execution_id).output == ["x", "y", "z"]
    assert (sorted(entered), home.context(execution_id).attempt) == (["x", "y", "z"], 2)


def test_groups_side_by_side_do_not_mix_their_steps_in_whatever_order_they_run() -> None:
    """The first attempt dies when some are half-way; on the next one the others come to their steps first."""
    for place in range(1, 9):
        home = Household()
        count = 0

        async def group(run: AsyncRun, name: str, home: Household = home, place: int = place) -> list[str]:
            nonlocal count
            results = []
            for number in range(3):
                if not home.deaths:  # nothing takes any time when it is replayed
                    await asyncio.sleep(0.001 * ((ord(name) * 7 + number * 3) % 5))
                results.append(await run.step("think", "{}{}".format, name, number))
                count += 1
                if count == place and not home.deaths:
                    raise Crash
            return results

        async def work(run: AsyncRun, input: None) -> list[list[str]]:
            grouped = run.options(group=True)
            return list(await asyncio.gather(*(grouped.step("research", group, run, name) for name in "abc")))

        execution_id = home.start(home.agent(work))
        home.work(within=HOUR)
        assert home.deaths == 1
        assert home.context(execution_id).output == [[f"{name}{n}" for n in range(3)] for name in "abc"], place


def test_a_group_ends_after_the_steps_that_nobody_awaits() -> None:
    home = Household()

    async def slow() -> str:
        await asyncio.sleep(0.02)
        return "slow"

    async def group(run: AsyncRun) -> str:
        try:
            async with asyncio.timeout(0.005):
                await run.step("slow", slow)
        except TimeoutError:
            pass
        return "done"

    async def work(run: AsyncRun, input: None) -> str:
        result: str = await run.options(group=True).step("group", group, run)
        await run.sleep(HOUR)
        return result

    execution_id = home.start(home.agent(work))
    home.work(within=2 * HOUR)
    context = home.context(execution_id)
    assert (context.output, keys(context)) == ("done", ["group#/slow", "group", "sleep"])


# -- people and time ---------------------------------------------------------------------------------------------------


@tool(requires_approval=True, registry=TOOLS)
def pay(amount: int) -> str:
    return f"paid {amount}"


def asking(run: Run) -> list[Any]:
    grouped = run.options(group=True)

    def group() -> list[Any]:
        run.sleep(HOUR)
        answer = run.ask("How much?", schema=int, timeout=HOUR, escalate=lambda _: None)
        event = run.wait_for("go")
        return [run.tool(pay, amount=answer), event, run.step("last", lambda: 1)]

    return [grouped.step("group", group), run.ask("Sure?")]


async def async_asking(run: AsyncRun) -> list[Any]:
    async def group() -> list[Any]:
        await run.sleep(HOUR)
        answer = await run.ask("How much?", schema=int, timeout=HOUR, escalate=lambda _: None)
        event = await run.wait_for("go")
        return [await run.tool(pay, amount=answer), event, await run.step("last", lambda: 1)]

    return [await run.options(group=True).step("group", group), await run.ask("Sure?")]


@pytest.mark.parametrize("function", [asking, async_asking])
def test_what_waits_in_a_group_pauses_as_in_the_agents_code(function: Any) -> None:
    async def async_work(run: AsyncRun, input: None) -> list[Any]:
        return list(await function(run))

    def work(run: Run, input: None) -> list[Any]:
        return list(function(run))

    def scenario(home: Household) -> str:
        execution_id = home.start(home.agent(async_work if asyncio.iscoroutinefunction(function) else work))
        home.work(within=2 * HOUR + HOUR / 2)  # and the question escalates
        home.answer(execution_id, 30, "group#/ask")
        home.event(execution_id, "go", "now")
        home.work(within=HOUR / 4)
        waiting = home.context(execution_id).waiting
        assert waiting is not None
        assert waiting.key == "approve group#/pay"
        home.send(
            execution_id, SignalKind.APPROVAL, waiting.key, {"approved": True, "digest": waiting.prompt["digest"]}
        )
        home.work(within=HOUR / 4)
        home.answer(execution_id, True)
        home.work(within=HOUR / 4)
        return execution_id

    home = Household()
    context = home.context(scenario(home))
    assert context.state is AgentState.COMPLETED, context
    assert context.output == [["paid 30", "now", 1], True]
    for home, execution_id in dying_at_each_write(scenario):
        assert home.context(execution_id).output == context.output, home.store.writes


def test_a_tool_can_be_a_group() -> None:
    registry = Registry()
    calls = Calls()

    @tool(requires_approval=True, registry=TOOLS)
    async def delegate(topic: str) -> str:
        run = celery_agents.current_run()
        assert isinstance(run, AsyncRun)
        assert run.group == "delegate"
        return str(await run.step("search", lambda: calls(topic)))

    @agent(registry=registry)
    async def boss(run: AsyncRun, input: None) -> list[str | None]:
        try:
            return [await run.options(group=True).tool(delegate, topic="x"), run.group]
        except ApprovalDenied:
            return ["denied", run.group]

    for approve, output in ((True, ["x", None]), (False, ["denied", None])):
        agents = LocalAgents(registry=registry)
        execution = agents.start(boss).run()
        (execution.approve if approve else execution.reject)()
        assert execution.run().wait() == output
        if approve:
            step = execution.context().steps[-1]
            assert (step.name, step.action.kind, step.action.input) == ("delegate", "tool", {"topic": "x"})


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_the_failure_of_a_group_is_recorded_as_its_own(is_async: bool) -> None:
    home = Household()
    entered: list[int] = []

    def fails(run: Run) -> None:
        entered.append(1)
        run.step("a", lambda: 1)
        raise ValueError("no")

    async def async_fails(run: AsyncRun) -> None:
        entered.append(1)
        await run.step("a", lambda: 1)
        raise ValueError("no")

    def work(run: Run, input: None) -> str:
        try:
            run.options(group=True).step("group", fails, run)
        except ValueError as error:
            run.sleep(HOUR)
            return str(error)
        return "nothing"

    async def async_work(run: AsyncRun, input: None) -> str:
        try:
            await run.options(group=True).step("group", async_fails, run)
        except ValueError as error:
            await run.sleep(HOUR)
            return str(error)
        return "nothing"

    execution_id = home.start(home.agent(async_work if is_async else work))
    home.work(within=2 * HOUR)
    context = home.context(execution_id)
    assert (context.output, keys(context), len(entered)) == ("no", ["group#/a", "group", "sleep"], 1)
    assert context.steps[1].result is not None
    assert context.steps[1].result.error is not None


@pytest.mark.parametrize("dies_in_group", [True, False])
def test_a_step_of_a_group_that_is_gone_is_a_mismatch_unless_the_group_is_recorded(
    engine: Engine, dies_in_group: bool
) -> None:
    version = 1

    def work(run: Run, input: None) -> str:
        def group() -> str:
            if version == 1:
                run.step("old", lambda: 1)
                if dies_in_group:
                    raise Crash
            return "done"

        result: str = run.options(group=True).step("group", group)
        if version == 1:
            raise Crash
        return result

    execution_id = engine.start(engine.agent(work))
    engine.crash(execution_id)
    version = 2
    engine.execute(execution_id)
    if dies_in_group:
        assert failure(engine, execution_id).startswith("JournalMismatch")
        assert "'group#/old'" in failure(engine, execution_id)
        assert keys(engine.context(execution_id)) == ["group#/old"]
    else:
        assert engine.context(execution_id).output == "done"


def test_a_limit_is_no_result_of_a_group(engine: Engine) -> None:
    def group(run: Run) -> None:
        for _ in range(3):
            run.step("a", lambda: celery_agents.spend(tokens=10))

    def work(run: Run, input: None) -> None:
        run.options(group=True).step("group", group, run)

    execution_id = engine.start(engine.agent(work, max_tokens=15))
    engine.execute(execution_id)
    assert failure(engine, execution_id).startswith("BudgetExceeded")
    assert keys(engine.context(execution_id)) == ["group#/a", "group#/a#2"]


# -- what is spent -----------------------------------------------------------------------------------------------------


def spends(run: Run) -> list[Any]:
    def group() -> None:
        celery_agents.spend(tokens=1)
        run.step("a", lambda: celery_agents.spend(tokens=10))
        run.spend(tokens=100)

    run.options(group=True).step("group", group)
    seen = run.spent["tokens"]
    run.sleep(HOUR)
    return [seen, run.spent["tokens"]]


async def async_spends(run: AsyncRun) -> list[Any]:
    async def group() -> None:
        celery_agents.spend(tokens=1)
        await run.step("a", lambda: celery_agents.spend(tokens=10))
        run.spend(tokens=100)

    await run.options(group=True).step("group", group)
    seen = run.spent["tokens"]
    await run.sleep(HOUR)
    return [seen, run.spent["tokens"]]


@pytest.mark.parametrize("function", [spends, async_spends])
def test_what_a_group_and_its_steps_spend_counts_once(function: Any) -> None:
    async def async_work(run: AsyncRun, input: None) -> list[Any]:
        return list(await function(run))

    def work(run: Run, input: None) -> list[Any]:
        return list(function(run))

    def scenario(home: Household) -> str:
        execution_id = home.start(home.agent(async_work if asyncio.iscoroutinefunction(function) else work))
        home.work(within=2 * HOUR)
        return execution_id

    for home, execution_id in dying_at_each_write(scenario):
        context = home.context(execution_id)
        assert context.output == [111, 111], home.store.writes
        assert {step.name: dict(step.spent) for step in context.steps if step.spent} == {
            "group#/a": {"tokens": 10},
            "group": {"tokens": 101},
        }
        assert spent_in(context) == {"tokens": 111}


# -- names -------------------------------------------------------------------------------------------------------------


def test_long_names_and_deep_groups_have_keys_of_their_own() -> None:
    home = Household()
    long = "x" * 200

    def deep(run: Run, level: int) -> int:
        if not level:
            return 1
        total = 0
        for name in ("a", f"{long[:-1]}{level}"):
            total += run.options(group=True).step(name, deep, run, level - 1)
        return total

    def work(run: Run, input: None) -> int:
        total = deep(run, 4)
        run.options(group=True).step(long, lambda: run.ask("?", timeout=HOUR, default=1, escalate=lambda _: None))
        return total

    execution_id = home.start(home.agent(work))
    home.work(within=9 * HOUR)
    assert home.context(execution_id).output == 16
    assert max(len(key) for key in keys(home.context(execution_id))) <= 255


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_a_group_cannot_have_is_refused(engine: Engine) -> None:
    async def coroutine() -> None: ...

    @tool(retries=1, registry=TOOLS)
    def retried() -> None: ...

    def nests(run: Run) -> None:
        run.step("a", lambda: run.step("b", lambda: 1))

    def writes(run: Run) -> None:
        run.memory["a"] = 1

    def says(run: Run) -> None:
        run.step("a", lambda: run.say("user", "x"))

    def work(run: Run, input: None) -> list[str]:
        grouped = run.options(group=True)
        said = []
        for take in (
            lambda: grouped.options(retry=Retry(retries=1)).step("a", lambda: 1),
            lambda: grouped.options(timeout=HOUR).step("b", lambda: 1),
            lambda: grouped.options(on_crash="ask").step("c", lambda: 1),
            lambda: grouped.tool(retried),
            lambda: grouped.parallel([lambda: 1]),
            lambda: grouped.transaction("t", lambda _: 1),
            lambda: grouped.step("d", coroutine),
            lambda: grouped.step("e", nests, run),
            lambda: grouped.step("f", writes, run),
            lambda: grouped.step("g", says, run),
        ):
            try:
                take()
            except Exception as error:  # noqa: BLE001 - all of them are shown
                said.append(f"{type(error).__name__}: {error}")
            else:
                said.append("nothing")
        return said

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    said = [one.partition(":")[0] for one in engine.context(execution_id).output]
    assert said == ["TypeError"] * 7 + ["NestedStep", "MemoryInGroup", "MemoryInGroup"], engine.context(execution_id)


def test_a_task_that_outlives_its_group_takes_no_steps(engine: Engine) -> None:
    async def work(run: AsyncRun, input: None) -> str:
        async def group() -> None:
            tasks.append(asyncio.create_task(late()))

        async def late() -> str:
            await ended.wait()
            try:
                return str(await run.step("late", lambda: "taken"))
            except celery_agents.GroupEnded as error:
                return str(error)

        tasks: list[asyncio.Task[str]] = []
        ended = asyncio.Event()
        await run.options(group=True).step("group", group)
        ended.set()
        return await tasks[0]

    execution_id = engine.start(engine.agent(work))
    engine.execute(execution_id)
    assert engine.context(execution_id).output == (
        "step 'late' cannot be taken: the group 'group', which this code is part of, has ended"
    )
