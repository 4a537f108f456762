"""What a worker asks about executions that it works on: what came for them meanwhile."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent_statestore.records import Lease, Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The outcome of one `hear` call, by execution id: as `Renewed`, and the ids of what interrupts each execution."""

    lost: frozenset[str] = frozenset()
    cancel_requested: frozenset[str] = frozenset()
    interrupts: Mapping[str, frozenset[str]] = field(default_factory=dict)


class MailPrimitives(ABC):
    """The part of the contract by which the holder of a lease learns what was sent since its claim. All of it reads."""

    @abstractmethod
    def get_mailbox(self, execution_id: str) -> tuple[Signal, ...]:
        """Return the signals of an execution that is not over and has not consumed them, oldest first.

        One round trip, whose cost is that of the signals. The result is empty for an unknown execution. Raise
        `FormatTooNew` or `ExecutionUnreadable`.
        """

    @abstractmethod
    def hear(self, leases: Sequence[Lease]) -> Heard:
        """Say of many executions, in one look, whether their holder has to hear something at once.

        Lost are the leases whose token is not the current one, that were given back or taken, and those on executions
        that are not there any more; not those that have run out, which their holder knows. The cancels are those that
        `renew` would tell of. What interrupts an execution are the unconsumed signals of kind `say` under the key
        `interrupt`. Nothing is written, and the cost does not grow with the steps. A second look may follow where
        something interrupts. An empty sequence asks nobody.
        """
