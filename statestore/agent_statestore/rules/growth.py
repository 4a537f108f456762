"""How large a context is, and how a write changes that: the bytes of all texts that it keeps."""

from typing import NamedTuple

from agent_statestore.codec import EncodedCheckpoint
from agent_statestore.errors import ContextTooLarge


class Growth(NamedTuple):
    """The size of a context before a write, and what the write adds and replaces or takes out, in bytes."""

    before: int
    added: int
    removed: int

    @property
    def after(self) -> int:
        """The size after the write. An execution of an older version of this package was counted later."""
        return max(self.before + self.added - self.removed, 0)

    def check(self, execution_id: str, change: EncodedCheckpoint) -> None:
        """Raise `ContextTooLarge` if the checkpoint makes the context larger than it may be."""
        is_larger = self.added > self.removed and self.after > change.max_context_bytes
        if is_larger and not change.is_failed_end:
            raise ContextTooLarge(execution_id, self.after, change.max_context_bytes)
