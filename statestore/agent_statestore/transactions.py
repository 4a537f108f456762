"""A step's own writes and its checkpoint in one transaction of the store's database."""

from typing import Any, Protocol

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.records import Checkpointed


class StepTransaction(Protocol):
    """An open transaction: the writes through `connection` and the one checkpoint commit together, or not at all.

    Leaving its block without a checkpoint, or with an error, rolls everything back.
    """

    @property
    def connection(self) -> Any:
        """The `sqlalchemy.Connection` of the transaction. The caller must neither commit nor roll it back."""
        ...

    @property
    def was_applied(self) -> bool:
        """Whether the checkpoint turned out to be a repetition: it was committed before, with all that belongs to it.

        The writes through `connection` since then are rolled back.
        """
        ...

    def checkpoint(self, checkpoint: Checkpoint) -> Checkpointed:
        """Apply the checkpoint under the lease and commit. Raise what `StorePrimitives.checkpoint` raises.

        After `StoreUnavailable` it is unknown whether it was committed. Doing the whole again, in a new transaction and
        with the same `checkpoint_id`, is safe: see `was_applied`.
        """
        ...
