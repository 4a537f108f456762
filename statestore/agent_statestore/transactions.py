"""A step's own writes and its checkpoint in one transaction of the store's database."""

from typing import Any, Protocol

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.records import Checkpointed


class StepTransaction(Protocol):
    """An open transaction: what is written through `connection` and the one checkpoint commit together, or not at all.

    Leaving its block without a checkpoint, or with an error, rolls everything back.
    """

    @property
    def connection(self) -> Any:
        """The `sqlalchemy.Connection` of the transaction. Committing or rolling it back is not the caller's to do."""
        ...

    @property
    def was_applied(self) -> bool:
        """Whether the checkpoint turned out to be a repetition: it, and what belongs to it, was committed before.

        What was written through `connection` since is then rolled back.
        """
        ...

    def checkpoint(self, checkpoint: Checkpoint) -> Checkpointed:
        """Applies the checkpoint under the lease and commits. Raises what `StorePrimitives.checkpoint` raises.

        After `StoreUnavailable` it is unknown whether it was committed. Doing the whole again, in a new transaction and
        with the same `checkpoint_id`, is safe: see `was_applied`.
        """
        ...
