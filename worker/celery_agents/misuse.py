"""What an agent's code may not do with its run; the other errors stand in `errors`, whose page names these too."""

from celery_agents.errors import AgentsError


class NestedStep(AgentsError):
    """A step's function tried to take a durable step itself.

    Work recorded as one step cannot be resumed in the middle. Take the steps from the agent's function.
    """

    def __init__(self, name: str, inside: str) -> None:
        super().__init__(name, inside)
        self.name = name
        self.inside = inside

    def __str__(self) -> str:
        return f"step {self.name!r} cannot be taken inside step {self.inside!r}: take it from the agent's function"


class StepInThread(AgentsError):
    """Code of the agent's that runs in another thread than its function tried to take a durable step.

    Which of two threads came to its step first would be chance, and another one after a crash. Take the steps from the
    agent's function, several at once with `run.parallel`, or write an async agent: tasks on its event loop may.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"step {self.name!r} cannot be taken in a thread that the agent's code has started: take it from the "
            "agent's function, several at once with run.parallel, or from tasks of an async agent"
        )


class NotAwaited(AgentsError):
    """An async agent ended without awaiting a call of its run, so that call was never made."""

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"run.{self.method}(...) was called and never awaited, so it was not done: await it"


class MemoryInParallel(AgentsError):
    """A step that runs beside others tried to change the memory: chance would decide which change comes last.

    Return what the agent should remember, and change the memory in the agent's function.
    """

    def __init__(self, inside: str) -> None:
        super().__init__(inside)
        self.inside = inside

    def __str__(self) -> str:
        return f"step {self.inside!r} runs beside others and cannot change the memory: return what is to be remembered"


class MemoryInGroup(AgentsError):
    """The code of a group tried to change the memory, which a replay that has the group's result would not repeat.

    Return what the agent should remember, and change the memory in the agent's function.
    """

    def __init__(self, group: str) -> None:
        super().__init__(group)
        self.group = group

    def __str__(self) -> str:
        return f"the memory cannot be changed in the group {self.group!r}: return what is to be remembered"


class GroupEnded(AgentsError):
    """Code that a group has started tried to take a step when the group had ended: it would belong to nothing."""

    def __init__(self, name: str, group: str) -> None:
        super().__init__(name, group)
        self.name = name
        self.group = group

    def __str__(self) -> str:
        return f"step {self.name!r} cannot be taken: the group {self.group!r}, which this code is part of, has ended"


class SpentInVain(AgentsError):
    """What was spent could not be recorded: the step has ended, or is not known in this thread."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class WaitInsideAgent(AgentsError):
    """An agent's own code waited for another execution, and held the slot that this one may need."""

    def __init__(self, execution_id: str, inside: str) -> None:
        super().__init__(execution_id, inside)
        self.execution_id = execution_id
        self.inside = inside

    def __str__(self) -> str:
        return (
            f"execution {self.inside} must not wait for execution {self.execution_id} inside its agent or a step: it "
            "would hold the slot that the other one may need. Start it with run.spawn and wait with run.gather, which "
            "free the slot, or have it send an event and wait with run.wait_for"
        )
