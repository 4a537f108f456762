"""What the run of a plain agent and of an async one have in common: everything that does not wait."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from agent_statestore.envelope import dump
from agent_statestore.errors import InvalidRecord
from agent_statestore.recall.facts import Scope
from agent_statestore.records import JSONValue, Message, SayMode
from celery_agents.define import types as types
from celery_agents.define.called_as import CalledAs
from celery_agents.define.crash_policy import OnCrash
from celery_agents.define.live import LiveStream
from celery_agents.define.names import check_duration
from celery_agents.define.retry import Retry
from celery_agents.define.voting import Voting
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.memory import RunMemory
from celery_agents.engine.journal.spending import added
from celery_agents.engine.outcome import Ending, Outcome
from celery_agents.engine.pauses.approval import AskedApproval, asked_approval
from celery_agents.engine.pauses.child import Spawn
from celery_agents.engine.pauses.event import AwaitedEvent, awaited_event
from celery_agents.engine.pauses.job import DEFAULT_EVERY, Job
from celery_agents.engine.pauses.question import MISSING, Question, question
from celery_agents.engine.pauses.sleep import Sleep
from celery_agents.engine.relatives import ChildOptions
from celery_agents.engine.run import recalling
from celery_agents.engine.run.saying import EVERY_MODE, WITHIN_TURN
from celery_agents.engine.run.session import OpenSession, RunSession
from celery_agents.engine.steps.call import Call, CallOptions
from celery_agents.engine.steps.parallel import first_error
from celery_agents.engine.steps.spending import spend
from celery_agents.engine.stream.speaking import live_stream

P = ParamSpec("P")
T = TypeVar("T")
Durable = Question | AskedApproval | AwaitedEvent | Sleep | Spawn | Job | OpenSession
Calls = Mapping[str, Callable[[], Any]] | Sequence[Callable[[], Any]]


@dataclass(eq=False, repr=False)
class BaseRun:
    """What the run of a plain agent and of an async one have in common: everything that does not wait."""

    _attempt: Attempt
    _options: CallOptions = CallOptions()  # noqa: RUF009 - frozen

    @property
    def execution_id(self) -> str:
        """The execution's id (UUIDv7)."""
        return self._attempt.context.execution_id

    @property
    def agent_id(self) -> str:
        """The agent's name."""
        return self._attempt.context.agent_id

    @property
    def session_id(self) -> str | None:
        """The conversation that the execution belongs to."""
        return self._attempt.context.session_id

    @property
    def user_id(self) -> str | None:
        """The user for whom it runs."""
        return self._attempt.context.user_id

    @property
    def metadata(self) -> Mapping[str, JSONValue]:
        """What was given at `enqueue`."""
        return self._attempt.context.metadata

    @property
    def attempt(self) -> int:
        """Which claim of the execution this is, from 1."""
        return self._attempt.context.attempt

    @property
    def group(self) -> str | None:
        """The key of the group whose function calls this, see `options`; None outside of groups."""
        group = self._attempt.nesting.group
        return None if group is None else group.keys[-1]

    @property
    def max_value_bytes(self) -> int:
        """The size of the largest value that the store takes: a step's result, a message, a prompt."""
        return self._attempt.max_value_bytes

    @property
    def memory(self) -> RunMemory:
        """The working memory: a mapping of JSON values, stored with the next checkpoint."""
        return self._attempt.memory

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said up to this point of the code."""
        return tuple(self._attempt.memory.conversation.messages)

    def say(self, role: str, content: JSONValue) -> None:
        """Adds to the conversation history. Stored with the next checkpoint."""
        self._attempt.memory.conversation.say(role, content, self._attempt.now())

    @property
    def stream(self) -> LiveStream:
        """The execution's stream, to say something into it that others follow live. It belongs to the step around."""
        return live_stream(self._attempt)

    def emit(self, value: JSONValue) -> None:
        """Say something of the agent's own into the stream, a JSON value, for whoever follows the execution.

        Between steps it is said once, also if the code comes here again; an attempt that dies before the next
        checkpoint may have said it before, under the same `index`. Raise `NotSerialisable` or `ValueTooLarge`.
        """
        self.stream.emit(value)

    def _modes(self, *, turn_is_over: bool) -> Collection[SayMode]:
        return EVERY_MODE if turn_is_over else WITHIN_TURN

    def remember(
        self,
        fact: JSONValue,
        *,
        scope: str | Scope | None = None,
        data: JSONValue = None,
        entity: str | None = None,
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
    ) -> None:
        """Adds a fact to the memory. Stored with the next checkpoint.

        Without a `scope` it is this execution's alone. With "user", "session", "agent" or a `Scope` it is a text that
        outlives the execution, to be found by `recall`: with what it is about (`entity`), more of it as `data`, and for
        what time it holds. It notes the execution, its agent, and the last step that was recorded. Raises
        `InvalidRecord`, also for what goes with a scope only, `NotSerialisable` or `ValueTooLarge`.
        """
        about: dict[str, Any] = {
            "data": data,
            "entity": entity,
            "valid_from": valid_from,
            "valid_until": valid_until,
        }
        if scope is not None:
            recalling.remember(self._attempt, cast(str, fact), scope, **about)
            return
        for name, value in about.items():
            if value is not None:
                raise InvalidRecord(name, "goes with a fact that has a scope")
        self._attempt.memory.conversation.remember(fact)

    def _recalling(self, question: str, k: int, entity: str | None) -> "recalling.Recalling":
        return recalling.recalling(self._attempt, question, k, entity)

    def _record_pending(self) -> None:
        """Record what is pending, so that the documents have it."""
        attempt = self._attempt
        if attempt.memory.outbox.pending.goes_out:
            with attempt.course.lock:
                attempt.course.write(attempt.recorder.write)

    def _opened_session(self) -> RunSession | None:
        """Return the session if the code has asked for it before. Raise `InvalidRecord` without one."""
        if self.session_id is None:
            raise InvalidRecord("session_id", "this execution has none: give it one at enqueue")
        session: RunSession | None = self._attempt.recorder.outgoing.session
        return session

    def _keep_session(self, session: RunSession) -> RunSession:
        self._attempt.recorder.outgoing.session = session
        return session

    def spend(self, *, tokens: float = 0, cost: float = 0) -> None:
        """Count what was used up, for the limits `max_tokens` and `max_cost`.

        Inside a step's function it belongs to the record of that step, whatever becomes of the step: its failed tries
        count, too, and it counts once however often the step is replayed. In the agent's own code it is stored with the
        next checkpoint. The limits are looked at before the next step begins, so that what was paid for is not lost.

        Raise `InvalidRecord` for an invalid amount, and `SpentInVain` where it could not be recorded.
        """
        spend(self._attempt, tokens=tokens, cost=cost)

    @property
    def spent(self) -> dict[str, float]:
        """What was spent so far, by the code and by the steps whose results it has: `tokens` and `cost`."""
        spent = added(self._attempt.memory.spent(), self._attempt.journal.seen)
        return {name: spent.get(name, 0) for name in ("tokens", "cost")}

    def fail(self, error: Exception) -> NoReturn:
        """End the execution as failed with this error, now, whatever the code around the call catches.

        For code within a framework that would turn an exception into something that a model is told. Steps that are in
        flight are recorded before.
        """
        if not isinstance(error, Exception):
            raise TypeError(f"fail needs an exception, not {error!r:.80}")
        self._attempt.course.stop(Outcome(ending=Ending.FAILED, error=error))

    def _changed(
        self,
        retry: Retry | None,
        returns: Any,
        timeout: timedelta | None,
        on_crash: OnCrash | None,
        called_as: CalledAs | None,
        group: bool | None,
        interruptible: bool | None = None,
    ) -> CallOptions:
        if retry is not None and not isinstance(retry, Retry):
            raise TypeError(f"retry needs a Retry, such as Retry(retries=3), not {retry!r:.80}")
        if called_as is not None and not isinstance(called_as, CalledAs):
            raise TypeError(f"called_as needs a CalledAs, not {called_as!r:.80}")
        if timeout is not None:
            check_duration("options", "timeout", timeout)
        options = self._options
        return CallOptions(
            retry=options.retry if retry is None else retry,
            returns=options.returns if returns is MISSING else returns,
            timeout=options.timeout if timeout is None else timeout,
            on_crash=options.on_crash if on_crash is None else on_crash,
            called_as=options.called_as if called_as is None else called_as,
            group=options.group if group is None else group,
            interruptible=options.interruptible if interruptible is None else interruptible,
        )

    def _all_calls(self, calls: Calls) -> list[Call]:
        if self._options.group:
            raise TypeError("run.parallel takes no groups: an async agent takes several at once with asyncio.gather")
        if isinstance(calls, Mapping):
            return [Call(name=name, function=function) for name, function in calls.items()]
        return [Call.named_like(function) for function in calls]

    @staticmethod
    def _as_given(calls: Calls, results: list[Any], *, return_exceptions: bool) -> Any:
        if not return_exceptions:
            first_error(results)
        return dict(zip(calls, results, strict=True)) if isinstance(calls, Mapping) else results

    def _question(
        self,
        prompt: JSONValue,
        *,
        schema: Any = MISSING,
        choices: Sequence[JSONValue] | None = None,
        timeout: timedelta | None = None,
        default: Any = MISSING,
        escalate: Callable[[JSONValue], Any] | None = None,
        name: str = "ask",
    ) -> Question:
        dump(prompt, "prompt", self._attempt.max_value_bytes)
        return question(name, prompt, schema, choices, timeout, default, escalate)

    def _approval(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        description: str = "",
        schema: Mapping[str, JSONValue] | None = None,
        timeout: timedelta | None = None,
        name: str | None = None,
        approvers: Iterable[str] = (),
        quorum: int = 1,
        rejections: int = 1,
    ) -> AskedApproval:
        size, voting = self._attempt.max_value_bytes, Voting.of(approvers, quorum, rejections)
        return asked_approval(tool, arguments, description, schema, timeout, name, size, voting)

    @staticmethod
    def _event(
        event: str, *, schema: Any = MISSING, timeout: timedelta | None = None, default: Any = MISSING
    ) -> AwaitedEvent:
        return awaited_event(event, schema, timeout, default)

    def _job(
        self,
        name: str,
        submitted: JSONValue,
        *,
        poll: Callable[[Any], Any],
        every: timedelta = DEFAULT_EVERY,
        timeout: timedelta | None = None,
        event: str | None = None,
    ) -> Job:
        options = self._options
        return Job(
            label=name,
            submitted=types.carried(types.ANY, submitted, name)[1],
            poll=poll,
            every=every,
            timeout=timeout,
            event=event,
            retry=options.retry,
            returns=types.ANY if options.returns is MISSING else types.adapter_for(options.returns, name),
            call_timeout=options.timeout,
        )

    @staticmethod
    def _spawn(
        agent: Any,
        value: Any,
        *,
        name: str = "spawn",
        session_id: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, JSONValue] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        start_at: datetime | None = None,
    ) -> Spawn:
        options = ChildOptions(
            session_id=session_id,
            user_id=user_id,
            metadata=metadata or {},
            queue=queue,
            priority=priority,
            start_at=start_at,
        )
        return Spawn(name=name, agent=agent, value=value, options=options)
