"""The names that front ends have for what an execution asks: an answer comes back with nothing but such a name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agent_statestore.records import JSONValue

INPUT: Final = "input"
APPROVAL: Final = "approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question or an approval; `digest` is what an approval is bound to, "" for a question."""

    execution_id: str
    key: str
    round: int
    digest: str = ""
    data: Mapping[str, JSONValue] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, execution_id: str, data: Mapping[str, JSONValue]) -> "Ask | None":
        """Return what an event `asked` asks of a person; None if it waits for something else."""
        key, round_, digest = data.get("key"), data.get("round"), data.get("digest", "")
        is_person = data.get("wait") in (INPUT, APPROVAL)
        if not is_person or not isinstance(key, str) or not isinstance(round_, int) or not isinstance(digest, str):
            return None
        return cls(execution_id=execution_id, key=key, round=round_, digest=digest, data=data)

    @classmethod
    def read(cls, name: str) -> "Ask | None":
        """Return what a name names; None if it names nothing of ours."""
        execution_id, *rest = name.split(":", 3)
        if len(rest) != 3 or not rest[0].isdecimal() or not rest[0].isascii() or len(rest[0]) > 9:
            return None
        return cls(execution_id=execution_id, round=int(rest[0]), digest=rest[1], key=rest[2])

    @property
    def name(self) -> str:
        """The name: that of one execution, key and round."""
        return f"{self.execution_id}:{self.round}:{self.digest}:{self.key}"

    @property
    def is_approval(self) -> bool:
        """Whether a call is to be approved."""
        return bool(self.digest)

    @property
    def prompt(self) -> str:
        """What is asked, for a person to read."""
        prompt = self.data.get("prompt", self.data.get("description"))
        return prompt if isinstance(prompt, str) else ""
