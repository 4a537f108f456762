"""Who decides on a call that needs approval, where not anybody may, or one alone is not enough."""

from collections.abc import Iterable
from dataclasses import dataclass

from agent_statestore.errors import InvalidRecord
from agent_statestore.plain_text import require_sender

_MOST: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Voting:
    """`quorum` of the `approvers` have to approve, and `rejections` of them reject; each of them counts once."""

    approvers: tuple[str, ...]
    quorum: int = 1
    rejections: int = 1

    @classmethod
    def of(cls, approvers: Iterable[str], quorum: int, rejections: int) -> "Voting | None":
        """Return who decides; None if anybody may. Raise `InvalidRecord`."""
        if isinstance(approvers, str):
            raise InvalidRecord("approvers", f"needs a list of names, not {approvers!r:.80}")
        names = tuple(approvers)
        if not names:
            if (quorum, rejections) != (1, 1):
                raise InvalidRecord("quorum", "needs the approvers of whom so many have to approve")
            return None
        for name in names:
            if not isinstance(name, str) or not name:
                raise InvalidRecord("approvers", f"needs the names of people, not {name!r:.80}")
            require_sender("approvers", name)
        if len(set(names)) < len(names) or len(names) > _MOST:
            raise InvalidRecord("approvers", f"needs each name once, and at most {_MOST}")
        for field, number in (("quorum", quorum), ("rejections", rejections)):
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(names):
                raise InvalidRecord(field, f"needs a whole number from 1 to {len(names)}, not {number!r:.80}")
        return cls(approvers=names, quorum=quorum, rejections=rejections)

    def is_rejected(self, rejected: int) -> bool:
        """Return whether so many who reject have decided it; also where too few are left who could approve."""
        return rejected >= self.rejections or len(self.approvers) - rejected < self.quorum
