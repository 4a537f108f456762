"""`Run`: an agent's door to everything durable."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, overload

from agent_statestore.records import JSONValue
from celery_agents.define import types as types
from celery_agents.define.arguments import ToolContext
from celery_agents.define.called_as import CalledAs
from celery_agents.define.crash_policy import OnCrash
from celery_agents.define.long_term_memory import Recollection
from celery_agents.define.retry import Retry
from celery_agents.define.saying import Saying
from celery_agents.define.tool import Tool
from celery_agents.engine.pauses.child import Child, come_to_ends, gather
from celery_agents.engine.pauses.job import DEFAULT_EVERY, Finished
from celery_agents.engine.pauses.question import MISSING
from celery_agents.engine.pauses.sleep import Sleep
from celery_agents.engine.pauses.together import ANY, AnyWait, come_to_any, come_to_waits, wait_all, wait_any
from celery_agents.engine.run.base_run import BaseRun, Calls, Durable
from celery_agents.engine.run.saying import SAID, said
from celery_agents.engine.run.session import OpenSession, RunSession
from celery_agents.engine.steps import groups
from celery_agents.engine.steps.call import Call, Place, come_to, name_of_tool, transaction
from celery_agents.engine.steps.parallel import DEFAULT_LIMIT, allow_all, take_all

P = ParamSpec("P")
T = TypeVar("T")


class Run(BaseRun):
    """One attempt at an execution, as the agent's function sees it.

    Everything that must survive a crash goes through here. After a crash the function is called again from its first
    line; what is recorded is returned from the journal instead of being done again, up to the point where the last
    attempt died. The code between steps therefore has to take the same way again: what differs from call to call
    (time, random numbers, the network) belongs into a step.
    """

    def step(self, name: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls `function` and records what it returns, once in the life of the execution.

        If a step of this name (and occurrence) is recorded, its result is returned and `function` is not called; a
        recorded failure is raised again. Otherwise `function` runs, and its result is checkpointed before it is
        returned. The result goes through JSON and back by the function's return annotation, on the first run too, so
        that its type does not depend on whether there was a crash. An async function is awaited, on the process's
        event loop.

        Raises what `function` raises, and `InvalidResult`, `ValueTooLarge`, `LimitExceeded`, `JournalMismatch`,
        `StepTimeout`, `StepInterrupted`; for a tool also `InvalidArguments`, `ApprovalDenied`, `ApprovalExpired`.
        """
        attempt = self._attempt
        if self._options.group:
            call = Call(name=name, function=function, args=args, kwargs=kwargs)
            with attempt.course.abandoned_by_interrupts:
                return cast(T, groups.take(attempt, call, self._options))
        try:
            result: T = come_to(attempt, name, function, args, kwargs, self._options).finish()
            return result
        except BaseException as error:
            attempt.course.abandoned_by_interrupts.look_at(error)
            raise

    @overload
    def tool(self, tool: Tool[Concatenate[ToolContext, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def tool(self, tool: Tool[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def tool(self, tool: Tool[..., T], /, *args: Any, **kwargs: Any) -> T:
        """A step that calls a tool and bears its name. Raises as `step` does."""
        return self.step(name_of_tool(tool), tool, *args, **kwargs)

    def transaction(
        self, name: str, function: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """A step whose writes to the store's own database and whose checkpoint commit together: exactly once.

        `function` is called with a `sqlalchemy.Connection` of the store's database as its first argument, inside a
        transaction that is not its own to commit or roll back. Whenever the process dies, either its writes and the
        recorded result are there, or neither is. A try that fails is rolled back.

        Works on SQL stores, and a hybrid with a SQL store for its active executions; `NoTransactions` is raised
        elsewhere. The function must be done before the lease ends, and on SQLite it keeps all other writers waiting.
        Otherwise as `step`, without a timeout.
        """
        call = Call(name=name, function=function, args=args, kwargs=kwargs)
        with self._attempt.course.abandoned_by_interrupts:
            return cast(T, transaction(self._attempt, call, self._options).finish())

    @overload
    def parallel(
        self, calls: Mapping[str, Callable[[], T]], *, limit: int = ..., return_exceptions: bool = ...
    ) -> dict[str, T]: ...
    @overload
    def parallel(
        self, calls: Sequence[Callable[[], T]], *, limit: int = ..., return_exceptions: bool = ...
    ) -> list[T]: ...
    def parallel(self, calls: Calls, *, limit: int = DEFAULT_LIMIT, return_exceptions: bool = False) -> Any:
        """Takes several steps at once, at most `limit`, each in a thread; returns their results when all have ended.

        `calls` are functions without arguments, most often partials of functions or tools: by the names of their steps,
        or a list, where a step bears the name of its function. Each is recorded as it ends, so that a crash repeats
        only the unfinished. The first error in their order is raised when all have ended, or with `return_exceptions`
        each stands in its place. Approvals that tools need are asked for all at once, before any call.
        """
        attempt = self._attempt
        with attempt.course.abandoned_by_interrupts:
            places = [Place.of(attempt, call) for call in self._all_calls(calls)]
            results = take_all(attempt, allow_all(attempt, places, self._options), limit)
        return self._as_given(calls, results, return_exceptions=return_exceptions)

    def options(
        self,
        *,
        retry: Retry | None = None,
        returns: Any = MISSING,
        timeout: timedelta | None = None,
        on_crash: OnCrash | None = None,
        called_as: CalledAs | None = None,
        group: bool | None = None,
        interruptible: bool | None = None,
    ) -> "Run":
        """The same run, with other options for the steps that are taken through what is returned.

        `retry`, `timeout` and `on_crash` replace a tool's own; `returns` replaces the function's return annotation.
        `called_as` says what tool or model a function that is no tool calls, and is recorded.

        With `interruptible`, what somebody says in mode "interrupt" (`Execution.say`) ends the call, which is recorded
        as failed with `CallInterrupted` and not tried again. It is meant for calls of models, and those that
        `called_as` says to be such are. An async function is cancelled; a plain one ends at its next Python
        instruction, or, with a `timeout`, is left after two seconds if it does not.

        With `group`, the function of a step may take steps itself, ask, and wait. Each is recorded under a key in that
        of the group (`research#/search`), and the group when its function has returned or raised. From then on its
        result is what counts, and its function is not called again. After a crash before that it is called again, as
        the agent's own is, and what is recorded is not done again. So what holds for the agent's function holds for a
        group's: no effects outside of steps. It has no retries, timeout or `on_crash`, which its steps may have, and
        cannot change the memory (`MemoryInGroup`).
        """
        return Run(self._attempt, self._changed(retry, returns, timeout, on_crash, called_as, group, interruptible))

    def recall(self, question: str, *, k: int = 5, entity: str | None = None) -> Recollection:
        """What the agent's `memory` has about the question: the last messages of the session, facts, or both.

        At most `k` facts, those about `entity` alone if it is given. The search is the step "recall", and a summary
        that has to be made the step "summarise". Raises `RegistrationError` for an agent without a memory, and what the
        memory's functions raise.
        """
        asking = self._recalling(question, k, entity)
        try:
            request = next(asking)
            while True:
                request = asking.send(request(self))
        except StopIteration as found:
            return cast(Recollection, found.value)

    def _write_pending(self) -> None:
        self._record_pending()

    def said(self, *, turn_is_over: bool = True) -> tuple[Saying, ...]:
        """What people have said to this execution with `Execution.say` since the last look, oldest first.

        It does not wait. What is found is recorded as a step, so that a replay finds the same at this place; a look
        that finds nothing costs one read of the store and records nothing. Without `turn_is_over`, what was said in
        mode "next_turn" stays for a later look. While a question of the execution is open, nothing is found.
        """
        attempt, modes = self._attempt, self._modes(turn_is_over=turn_is_over)
        with attempt.course.abandoned_by_interrupts:
            return said(attempt, attempt.journal.come_to_look(SAID), modes)

    @property
    def session(self) -> RunSession:
        """The conversation of the session, which lasts across executions; the first use makes this its one writer.

        Raise `SessionBusy` while another active execution is that, unless the agent's `session_policy` is "queue", and
        `InvalidRecord` for an execution without a session.
        """
        opened = self._opened_session()
        return self._keep_session(self._take(OpenSession())) if opened is None else opened

    def ask(
        self,
        prompt: JSONValue,
        *,
        schema: Any = MISSING,
        choices: Sequence[JSONValue] | None = None,
        timeout: timedelta | None = None,
        default: Any = MISSING,
        escalate: Callable[[JSONValue], Any] | None = None,
        name: str = "ask",
    ) -> Any:
        """Asks a person, and pauses until there is an answer; no worker slot and no connection is held meanwhile.

        `schema` is the answer's type; `choices` lists the only answers allowed. Clients hold an answer against both
        before it is sent. After `timeout` the answer is `default`, or `AnswerTimeout` is raised; with `escalate`, that
        function is called with the prompt first, as a step, and the question stands for the same time again. `name` is
        what an answer names the question by, for agents that ask more than one thing.
        """
        return self._take(
            self._question(
                prompt,
                schema=schema,
                choices=choices,
                timeout=timeout,
                default=default,
                escalate=escalate,
                name=name,
            )
        )

    def approve(
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
    ) -> dict[str, JSONValue]:
        """Ask a person to approve a call that the code is about to make itself, and return its arguments.

        For calls that are no tool of ours, whose `requires_approval` does the same: those of a framework's tools. Who
        decides sees `tool`, `description` and `arguments`, which are given by name and have a JSON form, and may
        approve of others that fit `schema`, a JSON Schema; what is returned is what was approved. It is bound to
        exactly these arguments, counts once, and stands in the audit trail. `name` is that of its step, "approve" and
        the tool's if not given.

        With `approvers`, senders of these names alone may decide, each once: `quorum` of them have to approve, and
        `rejections` of them reject. Where several have to approve, nobody changes the arguments.

        Raise `ApprovalDenied`, and `ApprovalExpired` if nobody decided within `timeout`.
        """
        return cast(
            dict[str, JSONValue],
            self._take(
                self._approval(
                    tool,
                    arguments,
                    description=description,
                    schema=schema,
                    timeout=timeout,
                    name=name,
                    approvers=approvers,
                    quorum=quorum,
                    rejections=rejections,
                )
            ),
        )

    def sleep(self, delay: timedelta | float, *, name: str = "sleep") -> None:
        """Waits; a number is in seconds. More than `agents_inline_wait_seconds` pauses, and frees the slot."""
        self._take(Sleep.of(name, delay))

    def sleep_until(self, moment: datetime, *, name: str = "sleep") -> None:
        """Waits until a moment, which has a time zone."""
        self._take(Sleep(name=name, until=moment))

    def wait_for(
        self, event: str, *, schema: Any = MISSING, timeout: timedelta | None = None, default: Any = MISSING
    ) -> Any:
        """Pauses until somebody sends this execution an event of this name, and returns what it carries.

        An event that came earlier, and was not waited for, counts; each counts once, the oldest first. `schema` is the
        type of what it carries: an event that does not fit is refused where it is sent, or else recorded and passed
        over. After `timeout` the result is `default`, or `EventTimeout` is raised.
        """
        return self._take(self._event(event, schema=schema, timeout=timeout, default=default))

    def wait_job(
        self,
        name: str,
        submit: Callable[..., Any],
        /,
        *args: Any,
        poll: Callable[[Any], Finished | None],
        every: timedelta = DEFAULT_EVERY,
        timeout: timedelta | None = None,
        event: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Submit a job to another service, pause until it has finished, and return what came of it.

        `submit`, a function or a tool, is called with the other arguments as a step of this `name`: it happens once,
        and what a crash in the middle means is the tool's `on_crash`. It returns what the service calls the job by.
        `poll` is called with that, at once and then `every` so often: it returns `Finished(output)`, or None while the
        job goes on. In between the execution is paused, and holds no slot. An event of the name `event`
        (`execution.send_event`, from a webhook of the service say) has the job looked at, at once. `poll` must only
        look: it is no step, and is called again after a crash. What it finds is recorded as the step "job NAME".

        What `run.options` gave counts for `submit` as for any step. For `poll`, its `retry` says how many calls in a
        row may fail (none by default), `timeout` how long one call may take, and `returns` is the type of the output.

        Raise what `step` raises, what `poll` raises, and `JobTimeout` if nothing came of the job within `timeout`
        from when it was submitted.
        """
        submitting = self if self._options.returns is MISSING else self.options(returns=Any)
        wanted = self._job(
            name,
            submitting.step(name, submit, *args, **kwargs),
            poll=poll,
            every=every,
            timeout=timeout,
            event=event,
        )
        return self._take(wanted)

    def spawn(
        self,
        agent: Any,
        input: Any = None,  # noqa: A002 - the field's standard name
        *,
        name: str = "spawn",
        session_id: str | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, JSONValue] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        start_at: datetime | None = None,
    ) -> Child:
        """Starts an execution of another agent, given as such or by name, once; it goes on beside this one.

        A cancel of this execution cancels it too, and it has to be over by this execution's deadline. Raises
        `UnknownAgent`, `InvalidInput`, `SpawnTooDeep`.
        """
        wanted = self._spawn(
            agent,
            input,
            name=name,
            session_id=session_id,
            user_id=user_id,
            metadata=metadata,
            queue=queue,
            priority=priority,
            start_at=start_at,
        )
        return cast(Child, self._take(wanted))

    def gather(self, *spawned: Child, return_exceptions: bool = False) -> list[Any]:
        """The outputs of executions that this one has started, in the order given; pauses until all are over.

        Raises the first `ChildFailed` in that order, or with `return_exceptions` returns each in its place.
        """
        keys = come_to_ends(self._attempt, spawned)
        with self._attempt.course.abandoned_by_interrupts:
            return gather(self._attempt, spawned, keys, return_exceptions=return_exceptions)

    def wait_all(self, *waits: AnyWait, return_exceptions: bool = False) -> list[Any]:
        """Wait for all of these at the same time, and return their results in the order given.

        `celery_agents.waits` makes the waits: questions, approvals, events, timers, ends of children. The execution is
        paused on all of them, and what comes for any is recorded as it comes, in any order. Each has a step and a key
        of its own, by which people answer it.

        Raise the first error in the order given (`AnswerTimeout`, `ApprovalDenied`, `EventTimeout`, `ChildFailed`, ...)
        once all have ended, or with `return_exceptions` return each in its place.
        """
        keys = come_to_waits(self._attempt, waits)
        with self._attempt.course.abandoned_by_interrupts:
            return wait_all(self._attempt, waits, keys, return_exceptions=return_exceptions)

    def wait_any(self, *waits: AnyWait, name: str = ANY) -> tuple[AnyWait, Any]:
        """Wait for any of these at the same time; return the wait that came first, as it was given, and its result.

        What was sent counts in the order of the mailbox, and a timer or a timeout by its time. The step `name` records
        which came first, in the write that records its end. The others are withdrawn by that write: an answer or a
        decision that comes later is refused, one that was sent before has no effect, and an event waits for the next
        `wait_for` of its name.

        Raise what the wait that came first raises. A timeout is an end, too: give the wait a default, or race it
        against a timer.
        """
        key, keys = come_to_any(self._attempt, name, waits)
        with self._attempt.course.abandoned_by_interrupts:
            return wait_any(self._attempt, waits, key, keys)

    def _take(self, wanted: Durable) -> Any:
        with self._attempt.course.abandoned_by_interrupts:
            return wanted.take(self._attempt, self._attempt.journal.come_to(wanted.name))
