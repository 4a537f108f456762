"""`LocalExecution`: the client's handle, on an execution that runs when the test says so."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

from agent_statestore.clock import ManualClock
from agent_statestore.records import AgentStep, ExecutionSummary
from agent_statestore.states import AgentState
from celery_agents.client.execution import Execution
from celery_agents.client.following import check_outside_of_agents
from celery_agents.engine.relatives import SPAWN
from celery_agents.lifecycle.services import Services
from celery_agents.lifecycle.signals import what_it_does
from celery_agents.replay import fork, rewind, roll_back


class Process(Protocol):
    """The test's process as its executions see it: `LocalAgents`."""

    clock: ManualClock

    @property
    def runtime(self) -> Services:
        """What clients work with."""
        ...

    def run(self) -> None:
        """Let all executions go on until each is over, or waits."""
        ...


class LocalExecution(Execution):
    """One execution of a `LocalAgents`: what `Execution` offers, without waiting.

    What waits for something elsewhere (`wait`, `wait_for_question`, iteration) runs everything that can go on here, and
    raises `TimeoutError` at once if that was not enough.
    """

    def __init__(self, execution_id: str, agents: Process) -> None:
        super().__init__(execution_id, agents.runtime)
        self._agents = agents

    def run(self) -> Self:
        """`LocalAgents.run`: this execution, its children and all others go on until nothing can."""
        self._agents.run()
        return self

    @property
    def children(self) -> "tuple[LocalExecution, ...]":
        """The executions that it has spawned, in the order of their steps."""
        results = [step.result for step in self.steps() if step.action.kind == SPAWN]
        spawned = [result.output["execution_id"] for result in results if result is not None and result.success]
        return tuple(LocalExecution(execution_id, self._agents) for execution_id in spawned)

    def fork(self, at_step: int, **options: Any) -> "LocalExecution":
        """`celery_agents.replay.fork`, on the test's clock."""
        forked = fork(self.id, at_step, runtime=self._services, clock=self._agents.clock, **options)
        return LocalExecution(forked.id, self._agents)

    def rewind(self, to_step: int, **options: Any) -> "LocalExecution":
        """`celery_agents.replay.rewind`, on the test's clock."""
        rewound = rewind(self.id, to_step, runtime=self._services, clock=self._agents.clock, **options)
        return LocalExecution(rewound.id, self._agents)

    def roll_back(self, to_step: int, text: str, **options: Any) -> "LocalExecution":
        """`celery_agents.replay.roll_back`, on the test's clock."""
        services, clock = self._services, self._agents.clock
        return LocalExecution(
            roll_back(self.id, to_step, text, runtime=services, clock=clock, **options).id, self._agents
        )

    def __iter__(self) -> Iterator[AgentStep]:
        """The steps, after everything that can go on has."""
        check_outside_of_agents(self.id)
        self._agents.run()
        return iter(self.steps())

    def _look_until(self, is_met: Callable[[ExecutionSummary], bool], timeout: float | None) -> ExecutionSummary:
        del timeout
        check_outside_of_agents(self.id)
        self._agents.run()
        summary = self.summary()
        if not is_met(summary):
            is_working = summary.state in (AgentState.THINKING, AgentState.USING_TOOL)
            doing = "its process has died, and the next run goes on" if is_working else what_it_does(summary)
            raise TimeoutError(f"execution {self.id} of {summary.agent_id!r} can go no further: {doing}")
        return summary
