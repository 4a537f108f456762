"""The errors of a worker and a client.

    AgentsError
    |-- ConfigurationError      a setting is wrong; names it
    |-- RegistrationError       an agent or tool that cannot be registered
    |-- UnknownAgent            no agent of this name is registered here
    |-- InvalidInput            the input does not fit the agent's declared schema, or is not JSON
    |-- InvalidArguments        a tool's arguments do not fit its signature
    |-- InvalidAnswer           an answer that does not fit the question's schema
    |-- InvalidEvent            an event's payload does not fit what the execution waits for
    |-- InvalidResult           a step's result does not fit its function's return annotation, or is not JSON
    |-- InvalidDecision         a loop agent decided repeatedly what cannot be done
    |-- UnknownTool             no tool of this name is registered here
    |-- StepFailed              a recorded failure whose exception cannot be made again as it was
    |-- StepTimeout             a call overran its time
    |-- StepInterrupted         the process died during a call that must not be repeated
    |-- AnswerTimeout           nobody answered before the deadline
    |-- ApprovalDenied          a person refused a tool call
    |-- ApprovalExpired         nobody approved a tool call in time
    |-- NoApprovalAsked         the execution does not wait for an approval, or waits for another one
    |-- EventTimeout            an event did not come in time
    |-- JobTimeout              another service did not finish a job in time
    |-- ChildFailed             an execution that this one had started failed, was cancelled or is gone
    |-- TooManyDescendants      executions have started as many others as there may be
    |-- SpawnTooDeep            executions start executions start executions ...
    |-- JournalMismatch         the recorded steps contradict the agent's code
    |-- SessionBusy             another execution of the session is active, and rejects or keeps out a second one
    |-- NestedStep, StepInThread  a step's function, or a thread of the agent's code, tried to take a step itself
    |-- MemoryInParallel        a step that runs beside others tried to change the memory
    |-- NotAwaited              an async agent never awaited a call of its run
    |-- ResultBackendUnavailable  Celery's result backend could not do what was asked of it
    |-- LimitExceeded           the execution used up one of its limits
    |   |-- MaxStepsExceeded    steps
    |   |-- MaxTurnsExceeded    turns of a loop agent
    |   |-- DeadlineExceeded    time
    |   `-- BudgetExceeded      tokens or cost
    |-- DeadLetter              given up: too many claims in a row ended without recording a step
    |-- WaitInsideAgent         an agent's code waited for another execution in its slot
    |-- ExecutionFailed         raised by `Execution.wait` for a failed execution
    `-- ExecutionCancelled      raised by `Execution.wait` for a cancelled execution

Errors of the store (`agent_statestore.errors`) pass through unchanged. Constructors take facts; all survive pickling.
"""

from typing import Final


class AgentsError(Exception):
    """Root of this package's errors."""


class ConfigurationError(AgentsError):
    """A setting is wrong."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(setting, reason)
        self.setting = setting
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.setting}: {self.reason}"


class RegistrationError(AgentsError):
    """An agent or tool that cannot be registered."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


_WHERE_MODULES_ARE_NAMED: Final = (
    "is the module that defines it named in AGENTS_IMPORTS, or imported by your own app (imports, autodiscover_tasks)?"
)


class UnknownAgent(AgentsError):
    """No agent of this name is registered in this process."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        registered = ", ".join(self.known) or f"none; {_WHERE_MODULES_ARE_NAMED}"
        return f"unknown agent {self.name!r}; registered agents: {registered}"


class _Invalid(AgentsError, ValueError):
    """A value that does not fit. `problems` holds one sentence per fault, each naming its field."""

    what = "value"

    def __init__(self, name: str, problems: list[str]) -> None:
        super().__init__(name, problems)
        self.name = name
        self.problems = problems

    def __str__(self) -> str:
        return f"{self.what} {self.name!r}: {'; '.join(self.problems)}"


class InvalidInput(_Invalid):
    """The input does not fit the agent's declared schema, or JSON cannot carry it."""

    what = "invalid input for agent"


class InvalidArguments(_Invalid):
    """A tool's arguments do not fit its signature."""

    what = "invalid arguments for tool"


class InvalidAnswer(_Invalid):
    """An answer does not fit the schema of its question."""

    what = "invalid answer to question"


class InvalidEvent(_Invalid):
    """What an event carries does not fit what the execution waits for under its name."""

    what = "invalid payload of event"


class InvalidResult(_Invalid):
    """What a function returned does not fit its return annotation, or JSON cannot carry it."""

    what = "invalid result of"


class InvalidDecision(_Invalid):
    """A loop agent decided repeatedly what cannot be done. `problems` are those of its last decision.

    The deciding function raises it to say that its model has returned nonsense; the model is then told so.
    """

    what = "invalid decision of agent"


class ResultBackendUnavailable(AgentsError):
    """Celery's result backend cannot be reached, or refuses."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the result backend: {self.reason}"


class UnknownTool(AgentsError):
    """No tool of this name is registered in this process."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        registered = ", ".join(self.known) or f"none; {_WHERE_MODULES_ARE_NAMED}"
        return f"unknown tool {self.name!r}; registered tools: {registered}"


class StepFailed(AgentsError):
    """A step failed with an exception that cannot be made again from the journal as it was.

    It is also of that exception's class where it is loaded, else of the nearest of its `bases`; fields of the class go
    before those of this one. `not_kept` names what JSON does not carry: a field by its name, an argument as `args[0]`.
    """

    bases: tuple[str, ...] = ()
    not_kept: tuple[str, ...] = ()

    def __init__(self, type: str, message: str) -> None:  # noqa: A002 - the name of the recorded field
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class StepTimeout(AgentsError, TimeoutError):
    """A call overran its time. If `still_running`, it could not be ended, and is not tried again beside itself."""

    def __init__(self, key: str, seconds: float, still_running: bool = False) -> None:
        super().__init__()
        self.args = (key, seconds, still_running)  # not OSError's reading of three arguments
        self.key = key
        self.seconds = seconds
        self.still_running = still_running

    def __str__(self) -> str:
        rest = "; it could not be ended, and may still take effect" if self.still_running else ""
        return f"step {self.key!r} took longer than {self.seconds:g} s{rest}"


class StepInterrupted(AgentsError):
    """The process died while the step's function ran. It must not be repeated, because its effect is unknown."""

    def __init__(self, key: str, reason: str = "") -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        said = f": {self.reason}" if self.reason else ""
        return f"the process died during step {self.key!r}, which may have taken effect or not{said}"


class ApprovalDenied(AgentsError):
    """A person refused the tool call. `by` and `reason` are what that person stated."""

    def __init__(self, tool: str, by: str | None = None, reason: str | None = None) -> None:
        super().__init__(tool, by, reason)
        self.tool = tool
        self.by = by
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.tool} was refused"
            + (f" by {self.by}" if self.by else "")
            + (f": {self.reason}" if self.reason else "")
        )


class ApprovalExpired(AgentsError, TimeoutError):
    """Nobody approved the tool call before the deadline."""

    def __init__(self, tool: str) -> None:
        super().__init__(tool)
        self.tool = tool

    def __str__(self) -> str:
        return f"nobody approved of {self.tool} in time"


class NoApprovalAsked(AgentsError):
    """The execution does not wait for this approval: it asked for another one, or for none."""

    def __init__(self, execution_id: str, reason: str) -> None:
        super().__init__(execution_id, reason)
        self.execution_id = execution_id
        self.reason = reason

    def __str__(self) -> str:
        return f"execution {self.execution_id}: {self.reason}"


class EventTimeout(AgentsError, TimeoutError):
    """The event did not come before the deadline."""

    def __init__(self, event: str) -> None:
        super().__init__(event)
        self.event = event

    def __str__(self) -> str:
        return f"event {self.event!r} did not come in time"


class JobTimeout(AgentsError, TimeoutError):
    """Another service did not finish a job in time. It may still finish it. `seconds` is how long it had."""

    def __init__(self, job: str, seconds: float) -> None:
        super().__init__(job, seconds)
        self.job = job
        self.seconds = seconds

    def __str__(self) -> str:
        return f"job {self.job!r} did not finish within {self.seconds:g} s"


class ChildFailed(AgentsError):
    """An execution that this one had started did not complete. `type` is its error's class, or "cancelled", "gone"."""

    def __init__(self, execution_id: str, agent_id: str, type: str, message: str) -> None:  # noqa: A002
        super().__init__(execution_id, agent_id, type, message)
        self.execution_id = execution_id
        self.agent_id = agent_id
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"child {self.execution_id} of agent {self.agent_id!r}: {self.type}: {self.message}"


class SpawnTooDeep(AgentsError):
    """The chain of executions that started each other is too long: most likely it is a cycle."""

    def __init__(self, agent_id: str, max_depth: int) -> None:
        super().__init__(agent_id, max_depth)
        self.agent_id = agent_id
        self.max_depth = max_depth

    def __str__(self) -> str:
        return f"agent {self.agent_id!r} would be the child of {self.max_depth} generations, more than there may be"


class TooManyDescendants(AgentsError):
    """An execution and all that come from it have started as many executions as there may be (`max_descendants`).

    `execution_id` is the first of them.
    """

    def __init__(self, agent_id: str, max_descendants: int, execution_id: str) -> None:
        super().__init__(agent_id, max_descendants, execution_id)
        self.agent_id = agent_id
        self.max_descendants = max_descendants
        self.execution_id = execution_id

    def __str__(self) -> str:
        return (
            f"agent {self.agent_id!r} is not started: execution {self.execution_id} has {self.max_descendants} "
            "descendants, which is its limit (max_descendants)"
        )


class AnswerTimeout(AgentsError, TimeoutError):
    """Nobody answered the question before its deadline."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"question {self.key!r} was not answered in time"


class JournalMismatch(AgentsError):
    """The recorded steps contradict the agent's code: it was changed in a way that this execution cannot follow."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"the journal contradicts the code at step {self.key!r}: {self.reason}"


class SessionBusy(AgentsError):
    """Another execution in the session is active: with `session_policy="reject"`, or it holds the conversation.

    `execution_id` is the id of the other execution.
    """

    def __init__(self, agent_id: str, session_id: str, execution_id: str) -> None:
        super().__init__(agent_id, session_id, execution_id)
        self.agent_id = agent_id
        self.session_id = session_id
        self.execution_id = execution_id

    def __str__(self) -> str:
        return f"session {self.session_id!r} of agent {self.agent_id!r} is busy with execution {self.execution_id}"


class LimitExceeded(AgentsError):
    """The execution has used up one of its limits."""


class DeadlineExceeded(LimitExceeded):
    """The execution did not end in time. `deadline` is in ISO 8601."""

    def __init__(self, deadline: str) -> None:
        super().__init__(deadline)
        self.deadline = deadline

    def __str__(self) -> str:
        return f"the execution was to be over by {self.deadline}"


class BudgetExceeded(LimitExceeded):
    """The execution has spent more than its limit of `what` ("tokens" or "cost")."""

    def __init__(self, what: str, limit: float, spent: float) -> None:
        super().__init__(what, limit, spent)
        self.what = what
        self.limit = limit
        self.spent = spent

    def __str__(self) -> str:
        return f"the execution has spent {self.spent:g} of {self.limit:g} {self.what}"


class MaxStepsExceeded(LimitExceeded):
    """The execution wants to take more steps than `max_steps`."""

    def __init__(self, max_steps: int) -> None:
        super().__init__(max_steps)
        self.max_steps = max_steps

    def __str__(self) -> str:
        return f"the execution has taken {self.max_steps} steps, which is its limit (max_steps)"


class MaxTurnsExceeded(LimitExceeded):
    """A loop agent wants to take more turns than `max_turns`."""

    def __init__(self, max_turns: int) -> None:
        super().__init__(max_turns)
        self.max_turns = max_turns

    def __str__(self) -> str:
        return f"the execution has taken {self.max_turns} turns, which is its limit (max_turns)"


class DeadLetter(AgentsError):
    """The execution was given up: its claims kept ending without recording a step."""

    def __init__(self, attempts: int) -> None:
        super().__init__(attempts)
        self.attempts = attempts

    def __str__(self) -> str:
        return (
            f"given up as a dead letter: {self.attempts} attempts in a row died without recording a step "
            "(max_attempts); after mending the cause, release it with `agents recover EXECUTION_ID`"
        )


class ExecutionFailed(AgentsError):
    """The execution failed. `type` is the error's class as `module:qualified_name`."""

    def __init__(self, execution_id: str, type: str, message: str) -> None:  # noqa: A002
        super().__init__(execution_id, type, message)
        self.execution_id = execution_id
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"execution {self.execution_id} failed with {self.type}: {self.message}"


class ExecutionCancelled(AgentsError):
    """The execution was cancelled."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(execution_id)
        self.execution_id = execution_id

    def __str__(self) -> str:
        return f"execution {self.execution_id} was cancelled"
