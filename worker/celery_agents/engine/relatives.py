"""What the engine asks of the outside so that an execution has children: the port that `lifecycle.relatives` fills."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from agent_statestore.checkpoint import NewExecution
from agent_statestore.records import AgentContext, ExecutionSummary, JSONValue
from agent_statestore.states import AgentState
from celery_agents.define.agent import AgentDefinition

SPAWN: Final = "spawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a child ended: in `state`, with an output or an error. A child that is gone has no state."""

    state: AgentState | None
    output: JSONValue = None
    error_type: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildOptions:
    """What a parent may choose for a child; the session and the user are the parent's unless given."""

    session_id: str | None = None
    user_id: str | None = None
    metadata: Mapping[str, JSONValue] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    start_at: datetime | None = None


class Relatives(Protocol):
    """Starts the children of executions, and tells how they ended."""

    def wanted(
        self,
        parent: AgentContext,
        agent: AgentDefinition | str,
        value: object,
        key: str,
        options: ChildOptions,
        deadline: datetime | None,
    ) -> NewExecution:
        """Return the child that the step of this key starts. It is to be over by the `deadline` of its parent.

        Raise `UnknownAgent`, `InvalidInput`, `SpawnTooDeep`, `InvalidRecord`.
        """
        ...

    def count(self, parent: AgentContext, wanted: NewExecution) -> None:
        """Count a child that is about to be created. Raise `TooManyDescendants`."""
        ...

    def create(self, wanted: NewExecution, step: str) -> ExecutionSummary:
        """Create the child of this step, or find the one that the same step has created.

        Raise `InvalidRecord`, `SessionBusy`, and `JournalMismatch` if the one that is found has another input.
        """
        ...

    def announce(self, child: ExecutionSummary, options: ChildOptions) -> None:
        """Ring the bell of a child that may run at once."""
        ...

    def end_of(self, execution_id: str) -> ChildEnd | None:
        """Return how a child ended; None while it has not."""
        ...


def name_of(agent: object) -> str:
    """Return the name of an agent that is given by its name, or as such. Raise `TypeError`."""
    name = agent if isinstance(agent, str) else getattr(agent, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"spawn takes an agent or its name, not {agent!r:.80}")
    return name
