"""From a claim to an outcome: calls the agent's function and records how it ended."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from agent_statestore.envelope import OUTBOX_KEY
from agent_statestore.errors import ExecutionUnreadable, StoreError
from agent_statestore.plain_text import line_logger
from agent_statestore.records import AgentContext, Claim, ExecutionSummary, Wait
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.streams.records import StreamKind
from celery_agents.define.agent import AgentDefinition
from celery_agents.define.budget import Budget
from celery_agents.define.registry import Registry
from celery_agents.define.turns import Turns
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.course import Course, never
from celery_agents.engine.environment import Environment
from celery_agents.engine.events import Announcements, EventKind, Subscriber
from celery_agents.engine.journal.failures import describe
from celery_agents.engine.journal.journal import Journal
from celery_agents.engine.journal.last_write import BeforePause, LastWrite
from celery_agents.engine.journal.memory import RunMemory
from celery_agents.engine.journal.outgoing import Outgoing
from celery_agents.engine.journal.recorder import Recorder, store_clock
from celery_agents.engine.journal.revival import revive
from celery_agents.engine.journal.spending import added
from celery_agents.engine.lease import HeldLease, LeaseKeeper
from celery_agents.engine.limits import Limits
from celery_agents.engine.mailbox import Mailbox
from celery_agents.engine.outcome import Ending, ExecutionStopped, Outcome
from celery_agents.engine.relatives import SPAWN, Relatives
from celery_agents.engine.run.async_run import drive
from celery_agents.engine.run.run import Run
from celery_agents.engine.stage import SetStage
from celery_agents.engine.steps.scope import Nesting, executing, running
from celery_agents.engine.stream.beginning import begun
from celery_agents.engine.stream.writer import StreamWriter
from celery_agents.engine.unreadable import end_unreadable
from celery_agents.errors import DeadLetter

log = line_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What an execution may use unless its agent says otherwise; see `celery_agents.settings` for the meaning."""

    lease: timedelta = timedelta(seconds=15)
    max_steps: int = 1000
    max_attempts: int = 5
    max_retries: int = 1000
    max_depth: int = 16
    max_descendants: int = 1000
    inline_wait_seconds: float = 5.0
    first_ring: timedelta = timedelta(seconds=10)
    announce_within: timedelta | None = None


class TurnGate(Protocol):
    """Says whose turn it is: the port that `lifecycle.turns` fills."""

    def unwrapped(self, context: AgentContext) -> AgentContext:
        """Return the context as it would be had the execution not waited for its turn."""
        ...

    def enter(self, attempt: Attempt, turns: Turns, waits: tuple[Wait, ...]) -> None:
        """Return when it is this execution's turn; otherwise pause, and unwind. `waits` are what the claim found."""
        ...

    def pass_on(self, left: ExecutionSummary, now: datetime) -> None:
        """Wake those whose turn it is since this execution ended or paused. May be repeated."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Runs executions on a store. One per process; thread-safe.

    `relatives` starts children, `turns` says whose turn it is. `interrupts` are exceptions that come from outside into
    a step (a time limit): they end the attempt, and say nothing about the step. `is_exiting` says whether somebody has
    asked the process to end; a `SystemExit` means that only then, and else is a failure of the agent's code.
    `is_announced` says, of an attempt that ends with its process, whether a shutdown announced that: then it counts as
    no crash. `tells_ends` says whether the host tells somebody of each end, so that the end must be settled afterwards.
    `set_stage` makes what a test kit puts in the place of the world of each claim; see `engine.stage`. `streams` writes
    what executions say live; without it they say nothing.
    `before_pause` is called before an execution waits for people; see `engine.journal.last_write`.
    """

    store: Store
    registry: Registry
    keeper: LeaseKeeper
    relatives: Relatives
    turns: TurnGate
    limits: Defaults = field(default_factory=Defaults)
    is_draining: Callable[[], bool] = never
    is_announced: Callable[[], bool] = never
    tells_ends: Callable[[], bool] = never
    subscribers: tuple[Subscriber, ...] = ()
    interrupts: tuple[type[BaseException], ...] = ()
    is_exiting: Callable[[], bool] = never
    jitter: random.Random = field(default_factory=random.SystemRandom)
    set_stage: SetStage | None = None
    streams: StreamWriter | None = None
    before_pause: BeforePause | None = None

    def execute(self, execution_id: str, owner: str) -> Outcome | None:
        """Claims the execution and runs its agent until it ends, pauses or has to stop.

        None if it cannot be claimed: somebody else has it, it is over, or it waits. Whatever happens, the lease is
        given back on the way out; only a process that dies at once leaves that to recovery.
        """
        requested_at = time.monotonic()
        try:
            claim = self.store.claim(execution_id, owner, self.limits.lease)
        except ExecutionUnreadable as fault:
            return end_unreadable(self.store, fault, self.limits.announce_within)
        if claim is None:
            return None
        with self.keeper.keep(claim.lease, requested_at) as held:
            held.crashes_before = claim.context.crashes - 1
            outcome: Outcome | None = None
            try:
                agent = self.registry.find(claim.context.agent_id)
                outcome = self._unknown(claim) if agent is None else self._work(agent, claim, held)
            finally:
                if outcome is None:
                    # An exception that ends the process (SystemExit of a cold shutdown) passes through: give the lease
                    # back, so that another process goes on at once. It counts as a crash, because what has killed the
                    # process may do so for ever; not if the worker shuts down. What is still in flight beside it
                    # records nothing any more.
                    held.mark_lost()
                    self._give_back(held, crashed=not self.is_announced())
            if outcome.ending in (Ending.DRAINED, Ending.UNKNOWN):
                self._give_back(held, crashed=False)
            return replace(outcome, token=claim.lease.token)

    def _work(self, agent: AgentDefinition, claim: Claim, held: HeldLease) -> Outcome:
        attempt = self.attempt_at(agent, claim, held)
        if self.streams is None or attempt.outlet is None:
            return self._lead(agent, attempt, claim, held)
        kind, data = begun(claim, self.store)
        attempt.outlet.say(kind, data)
        try:
            outcome = self._lead(agent, attempt, claim, held)
            if outcome.ending is Ending.DRAINED:
                attempt.outlet.say(StreamKind.DRAINED, {})
                self.streams.flush(attempt.outlet)
            return outcome
        finally:
            self.streams.close(attempt.outlet)

    def _lead(self, agent: AgentDefinition, attempt: Attempt, claim: Claim, held: HeldLease) -> Outcome:
        if attempt.events is not None:
            attempt.events.tell(EventKind.CLAIMED, AgentState.THINKING)
        if claim.context.cancel_requested:
            held.mark_cancel_requested()
        try:
            outcome = attempt.last_write.end(self._call(agent, attempt, claim))
        except ExecutionStopped as stopped:
            outcome = stopped.outcome
        if outcome.state.is_over:
            outcome = replace(
                outcome,
                has_relatives=_has_relatives(attempt.context, attempt.journal),
                is_settled=not self._must_be_told(agent, attempt.context, attempt.journal),
            )
        self._pass_turn_on(agent, attempt, outcome)
        if attempt.events is not None:
            attempt.events.tell(EventKind.ENDED, outcome.state, ending=outcome.ending, waits=outcome.waits)
        return outcome

    def _call(self, agent: AgentDefinition, attempt: Attempt, claim: Claim) -> Outcome:
        """Leads the agent's function through its steps."""
        context, course = attempt.context, attempt.course
        max_attempts = attempt.environment.max_attempts
        outcome: Outcome | None = None
        try:
            course.enter_boundary()
            if context.crashes > max_attempts:
                raise DeadLetter(context.crashes - 1)  # this claim has not died
            if self._has_lost_parent(attempt):
                course.stop(Outcome(ending=Ending.CANCELLED))
            attempt.limits.check_deadline()
            if agent.turns.may_wait:
                self.turns.enter(attempt, agent.turns, claim.context.waits)
            with executing(context.execution_id):
                value = self._called(agent, attempt, agent.decode_input(context.input))
            if course.stopped is None:
                course.enter_end()
                attempt.journal.check_all_reached()
                return Outcome(ending=Ending.COMPLETED, output=agent.encode_output(value))
        except BaseException as error:
            if course.is_interrupt(error):
                if not isinstance(error, ExecutionStopped):
                    raise
            elif course.stopped is None:  # recorded as the execution's failure
                failure = error if isinstance(error, Exception) else revive(describe(error))
                outcome = Outcome(ending=Ending.FAILED, error=failure)
        if course.interrupted_by is not None:
            raise course.interrupted_by  # the agent's code caught it
        # Steps that were begun beside each other are recorded before the end is.
        course.join()
        if course.stopped is not None:
            return course.stopped.outcome  # the agent's code may have caught it: the execution has stopped nevertheless
        assert outcome is not None, "failed, as it has neither stopped nor returned"
        return outcome

    @staticmethod
    def _called(agent: AgentDefinition, attempt: Attempt, value: object) -> object:
        if agent.is_async:
            return drive(attempt, agent.function, value)
        run = Run(attempt)
        with running(run):
            return agent(run, value)

    def _has_lost_parent(self, attempt: Attempt) -> bool:
        """Whether the execution that started this one was cancelled, and may not have known of it any more."""
        parent_id = attempt.context.parent_execution_id
        if parent_id is None:
            return False
        parent = attempt.ask_store(lambda: self.store.get_summary(parent_id))
        return parent is not None and parent.state is AgentState.CANCELLED

    def _must_be_told(self, agent: AgentDefinition, context: AgentContext, journal: Journal) -> bool:
        """Whether somebody has to be told of the end: until then, a sweeper rings for it."""
        return self.tells_ends() or agent.turns.has_lines or _has_relatives(context, journal)

    def _pass_turn_on(self, agent: AgentDefinition, attempt: Attempt, outcome: Outcome) -> None:
        """Wakes those that waited for this execution to end, pause or step back."""
        if agent.turns.has_lines and (outcome.state.is_over or outcome.ending is Ending.PAUSED):
            self.turns.pass_on(attempt.context, attempt.now())

    def _unknown(self, claim: Claim) -> Outcome:
        log.error(
            "execution %s: its agent %r is not registered in this worker (agents_imports); leaving it to others",
            claim.context.execution_id,
            claim.context.agent_id,
        )
        return Outcome(ending=Ending.UNKNOWN)

    def _give_back(self, held: HeldLease, *, crashed: bool) -> None:
        try:
            held.give_back(self.store, crashed=crashed)
        except StoreError as error:
            log.warning(
                "the lease on execution %s could not be given back and runs out by itself: %s",
                held.lease.execution_id,
                error,
            )

    def attempt_at(self, agent: AgentDefinition, claim: Claim, held: HeldLease) -> Attempt:
        """The attempt that this claim makes possible."""
        max_value_bytes = self.store.max_value_bytes
        context = self.turns.unwrapped(claim.context) if claim.context.waits else claim.context
        course = Course(held, interrupts=self.interrupts, is_draining=self.is_draining, is_exiting=self.is_exiting)
        stage = None if self.set_stage is None else self.set_stage(claim, course)
        now = store_clock(claim) if stage is None else stage.now
        nesting = Nesting()
        memory = RunMemory(context, max_value_bytes, check_may_write=nesting.check_may_write_memory)
        mailbox = Mailbox(
            list(context.signals),
            partial(self.store.get_mailbox, context.execution_id),
            partial(self.store.get_audit, context.execution_id),
        )
        journal = Journal(context.steps, course=course, nesting=nesting, memory=memory, stage=stage)
        shares_session = agent.turns.is_serial
        outlet = None if self.streams is None else self.streams.open(claim.lease, now)
        outbox = [*context.memory.working_memory.get(OUTBOX_KEY, ())]
        recorder = Recorder(
            self.store,
            claim,
            context,
            held=held,
            course=course,
            journal=journal,
            memory=memory,
            mailbox=mailbox,
            outgoing=Outgoing(self.store, claim.lease, context, shares_session, outbox, bool(outbox)),
            now=now,
            outlet=outlet,
        )
        budget = Budget(
            max_steps=agent.max_steps or self.limits.max_steps,
            deadline=agent.deadline,
            max_tokens=agent.max_tokens,
            max_cost=agent.max_cost,
            ask=agent.on_limit == "ask",
        )
        limits = Limits(budget, context, now=now, spent=lambda: added(memory.spent(), journal.spent))
        journal.pass_by(limits.read(context.steps))
        events = None
        if self.subscribers:
            events = Announcements(context=context, subscribers=self.subscribers, count=lambda: journal.last_number)
            recorder.listeners.append(events.tell_of_record)
        return Attempt(
            context=context,
            max_value_bytes=max_value_bytes,
            environment=Environment(
                relatives=self.relatives,
                max_attempts=agent.max_attempts or self.limits.max_attempts,
                max_retries=self.limits.max_retries,
                inline_wait_seconds=self.limits.inline_wait_seconds,
                jitter=self.jitter,
                names=agent.names,
                memory=agent.memory,
            ),
            stage=stage,
            now=now,
            held=held,
            course=course,
            nesting=nesting,
            memory=memory,
            mailbox=mailbox,
            journal=journal,
            recorder=recorder,
            last_write=LastWrite(
                context,
                course,
                recorder,
                max_value_bytes=max_value_bytes,
                announce_within=lambda: (
                    self.limits.announce_within if self._must_be_told(agent, context, journal) else None
                ),
                before_pause=self.before_pause,
            ),
            limits=limits,
            events=events,
            outlet=outlet,
            retries=sum(step.tries - 1 for step in context.steps),
        )


def _has_relatives(context: AgentContext, journal: Journal) -> bool:
    return context.parent_execution_id is not None or any(step.action.kind == SPAWN for step in journal)
