"""`LocalAgents`: runs executions in the test's own process, without Celery, on a clock that the test moves."""

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, cast

from agent_statestore.clock import ManualClock, from_us
from agent_statestore.memory import MemoryStore
from agent_statestore.query import Query
from agent_statestore.records import Claim, ExecutionSummary, JSONValue, WaitKind
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from celery_agents import current
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.registry import Registry, default_registry
from celery_agents.define.tool import Tool
from celery_agents.engine.course import Course
from celery_agents.engine.executor import Defaults
from celery_agents.engine.outcome import Ending
from celery_agents.engine.stream.writer import StreamWriter
from celery_agents.errors import UnknownAgent
from celery_agents.lifecycle.assembly import make_executor
from celery_agents.testing.crashes import Crash, PlannedCrash, When
from celery_agents.testing.execution import LocalExecution
from celery_agents.testing.plans import STEP, TOOL, Plans
from celery_agents.testing.runtime import KnownAgents, LocalRuntime
from celery_agents.testing.stage import LocalStage, NoKeeper
from celery_agents.testing.store import WatchedStore

# A lease that no test outlives, however far it moves its clock inside of a step.
_LEASE: Final = timedelta(days=36_500)
_OWNER: Final = "test/1/0"
_BATCH: Final = 1000
_ACTIVE: Final = tuple(state for state in AgentState if not state.is_over)


class LocalAgents:
    """A store in memory, a clock that stands still, and one process that executes: all that a test of agents needs.

        agents = LocalAgents()
        execution = agents.start(refund, {"amount": 30}).run()
        assert execution.state is AgentState.WAITING_FOR_APPROVAL
        agents.advance(timedelta(weeks=3))
        execution.approve(sender="ada", arguments={"amount": 20})
        assert execution.wait() == "refunded 20"

    Nothing happens by itself: executions go on in `run` and `advance`, one after the other, in the order in which they
    were started or woken. Waits of up to `agents_inline_wait_seconds`, which a worker sits out, move the clock on in
    `run`. Each instance stands for itself; there is nothing to close. For one thread.

    What was planned with `replace` or `crash_at` and never came about is an error, `PlanNotReached`, as soon as all
    executions are over. `with LocalAgents() as agents:` also says so at its end, where some still wait.
    """

    def __init__(
        self,
        *,
        registry: Registry | None = None,
        store: Store | None = None,
        clock: ManualClock | None = None,
    ) -> None:
        """`registry` is where agents and tools are found by name, by default the one that `@agent` registers in.

        Another `store` (a SQLite file, for steps in transactions) has to be on the `clock` that is given with it.
        """
        if store is not None and clock is None:
            raise ValueError("a store needs the clock that it is on: LocalAgents(store=..., clock=...)")
        self.clock = clock or ManualClock()
        self._plans = Plans()
        watched = WatchedStore(store or MemoryStore(clock=self.clock), self._plans.crashes)
        self.store = cast(Store, watched)
        self._registry = KnownAgents(registry or default_registry)
        self.runtime = LocalRuntime(self._registry, self.store)
        self._course: Course | None = None
        self._is_running = False
        settings = self.runtime.settings
        self._inline_wait = timedelta(seconds=settings.inline_wait_seconds)
        self._executor = make_executor(
            store=self.store,
            registry=self._registry,
            keeper=NoKeeper(self.store),
            limits=Defaults(
                lease=_LEASE,
                max_steps=settings.max_steps,
                max_attempts=settings.max_attempts,
                max_retries=settings.max_retries,
                max_depth=settings.max_depth,
                max_descendants=settings.max_descendants,
                inline_wait_seconds=0,
                first_ring=timedelta(0),  # a child that nobody rang for is found at once
                announce_within=settings.lease,
            ),
            ring=self.runtime.ring,
            jitter=random.Random(0),
            interrupts=(Crash,),
            set_stage=self._set_stage,
            streams=StreamWriter(self.store, in_background=False),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._plans.check(even_without_work=True)

    # -- starting and running ------------------------------------------------------------------------------------------

    def start(
        self,
        agent: AgentDefinition | str,
        input: JSONValue = None,  # noqa: A002 - the field's standard name
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, JSONValue] | None = None,
        idempotency_key: str | None = None,
        start_at: datetime | None = None,
        deadline: datetime | timedelta | None = None,
    ) -> LocalExecution:
        """Stores an execution, which `run` will begin with. Parameters and errors: see `celery_agents.enqueue`."""
        if isinstance(agent, AgentDefinition):
            self._registry.start(agent)
        started = current.enqueue(
            agent if isinstance(agent, AgentDefinition) else self._registry.agent(agent),
            input,
            session_id=session_id,
            user_id=user_id,
            metadata=metadata,
            idempotency_key=idempotency_key,
            start_at=start_at,
            deadline=self.now + deadline if isinstance(deadline, timedelta) else deadline,
            runtime=self.runtime,
        )
        return LocalExecution(started.id, self)

    def get(self, execution_id: str) -> LocalExecution:
        """The handle of an execution. Raises `ExecutionNotFound`."""
        return LocalExecution(current.get_execution(execution_id, runtime=self.runtime).id, self)

    def run(self) -> None:
        """Lets all executions go on until each is over, or waits for somebody or for a later time.

        Returns early when a planned crash has come about; the next call goes on as a new process would. Raises
        `UnknownAgent` for an execution whose agent is in no registry, and `PlanNotReached` when all executions are over
        without what was planned for them.
        """
        while (execution_id := self._next()) is not None:
            if not self._work(execution_id):
                return
        self._check_plans()

    def advance(self, by: timedelta) -> None:
        """Runs, then moves the clock on, stopping wherever something falls due on the way, and running that.

        Timers fire, deadlines pass, and executions begin that were to start later. After a planned crash the next
        claim follows at once.
        """
        if by < timedelta(0):
            raise ValueError(f"time does not go back: {by}")
        target = self.now + by
        self._run_to_the_end()
        while (due_at := self._next_due()) is not None and due_at <= target:
            self._move_to(due_at)
            self._run_to_the_end()
        self._move_to(target)
        self._run_to_the_end()
        self._check_plans()

    @property
    def now(self) -> datetime:
        """The time on the test's clock."""
        return from_us(self.clock.now_us())

    # -- planning ------------------------------------------------------------------------------------------------------

    def crash_at(
        self,
        step: str,
        when: When,
        *,
        execution: LocalExecution | None = None,
        times: int = 1,
        required: bool = True,
    ) -> PlannedCrash:
        """Plans that the process dies at this step: its key in the journal ("pay", and "pay#2" for the second).

        What is returned tells whether it `happened`. Unless not `required`, it has to happen at least once before all
        executions are over, else `run` raises `PlanNotReached`.
        """
        if not isinstance(step, str):
            raise TypeError(f"crash_at needs the key of a step, not {step!r:.80}")
        planned = PlannedCrash(
            step=step,
            when=When(when),
            execution_id=None if execution is None else execution.id,
            times=times,
            required=required,
            since=self._plans.claims,
        )
        self._plans.crashes.planned.append(planned)
        return planned

    def replace(self, step: str | Tool[..., Any], function: Callable[..., Any], *, required: bool = True) -> None:
        """From now on calls `function` in all steps of this name, or wherever this tool is called.

        It gets the same arguments, and its result is held against the type that the real function returns; a tool's
        validation, approval, retries and policies stay as they are. Functions in transactions are not replaced.

        Unless not `required`, there has to be such a step before all executions are over, else `run` raises
        `PlanNotReached`.
        """
        if not isinstance(step, str | Tool):
            raise TypeError(f"replace takes the name of a step, or a tool, not {step!r:.80}")
        if not callable(function):
            raise TypeError(f"replace needs a function to be called instead, not {function!r:.80}")
        kind, name = (STEP, step) if isinstance(step, str) else (TOOL, step.name)
        self._plans.replace(kind, name, function, is_required=required)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _check_plans(self) -> None:
        """While somebody waits, everything that is planned may still come about."""
        if not self._is_running and next(self._active(), None) is None:
            self._plans.check()

    def _run_to_the_end(self) -> None:
        while (execution_id := self._next()) is not None:
            self._work(execution_id)

    def _next(self) -> str | None:
        """The execution whose turn it is; None if none can go on without time passing."""
        bells = self.runtime.bells
        while not bells:
            self._sweep()
            if not bells:
                due_at = self._end_of_short_wait()
                if due_at is None:
                    return None
                self._move_to(due_at)
        return bells.popleft()

    def _sweep(self) -> None:
        """Rings for what is due, as a worker's sweeper does."""
        for due in self.store.take_due(_BATCH, self.runtime.settings.lease):
            if due.cancel_requested and not due.over:
                self.runtime.ends.finish_cancel(due.execution_id)
            summary = self.store.get_summary(due.execution_id)
            if summary is not None:
                self.runtime.ring(summary)

    def _work(self, execution_id: str) -> bool:
        """Works on one claim; False if it died."""
        if self._is_running:
            raise RuntimeError("executions are running already: a step cannot run them")
        self._is_running = True
        try:
            outcome = self._executor.execute(execution_id, _OWNER)
        except Crash:
            if self._course is not None:
                # Steps beside the one that died: their effects happen, and they record nothing any more.
                self._course.join()
            self.runtime.bells.appendleft(execution_id)
            return False
        finally:
            self._is_running, self._course = False, None
        summary = self.store.get_summary(execution_id)
        if summary is None:
            return True
        if outcome is not None and outcome.ending is Ending.UNKNOWN:
            raise UnknownAgent(summary.agent_id, [agent.name for agent in self._registry.agents])
        if summary.state.is_over:
            self.runtime.ends.tell(summary)
            self.store.settle(execution_id)
        elif outcome is not None and outcome.ring:
            self.runtime.ring(summary)
        return True

    def _set_stage(self, claim: Claim, course: Course) -> LocalStage:
        self._plans.claims += 1
        self._course = course
        return LocalStage(claim.lease, clock=self.clock, plans=self._plans)

    def _move_to(self, moment: datetime) -> None:
        if moment > self.now:
            self.clock.advance(moment - self.now)

    def _next_due(self) -> datetime | None:
        return min((one.due_at for one in self._active() if one.due_at is not None), default=None)

    def _end_of_short_wait(self) -> datetime | None:
        """When something falls due, by the end of a wait that a worker sits out; None if there is no such wait."""
        waits = [wait for one in self._active() for wait in one.waits]
        is_short = any(
            wait.kind is WaitKind.TIMER
            and wait.wake_at is not None
            and wait.wake_at - wait.asked_at <= self._inline_wait
            for wait in waits
        )
        return self._next_due() if is_short else None

    def _active(self) -> Iterator[ExecutionSummary]:
        """The executions that are not over."""
        cursor = None
        while True:
            page = self.store.find(Query(states=_ACTIVE, limit=_BATCH, cursor=cursor))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return
