"""The keys of the store. `scripts/execution.lua` and `scripts/document.lua` say what each of them holds.

Every key reads `<prefix>{pNN}:<kind>` or `<prefix>{pNN}:<kind>:<name>`. The braces make the partition Redis Cluster's
hash tag: an execution and every index that lists it live in one partition, so that a script may change them together.
So do all documents of one root.
The number of partitions is part of the stored format: changing it would lose what is stored.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

from agent_statestore.errors import InvalidRecord
from agent_statestore.states import AgentState

PARTITIONS: Final = 16

# The kinds of keys that belong to one execution, besides the header; the scripts know them by this order.
PARTS: Final = (
    *("steps", "intents", "messages", "memory", "facts", "entities", "rag", "mailbox", "signals", "audit"),
    "events",
)
_STEPS: Final = PARTS.index("steps")
_AUDIT: Final = PARTS.index("audit")
_EVENTS: Final = PARTS.index("events")
# The places of these in `Keys.own`, behind the header.
MAILBOX: Final = 1 + PARTS.index("mailbox")
SIGNALS: Final = 1 + PARTS.index("signals")
_STATES: Final = tuple(state.value for state in AgentState)
_OVER: Final = tuple(state.value for state in AgentState if state.is_over)


def partition_of(execution_id: str) -> int:
    """Return the partition in which an execution lives."""
    return crc32(_name(execution_id)) % PARTITIONS


def partition_of_idempotency_key(agent_id: str, key: str) -> int:
    """Return the partition of the executions that are created with this key, so that one script sees both."""
    return partition_of(idempotency_field(agent_id, key))


def idempotency_field(agent_id: str, key: str) -> str:
    """Return the field of an idempotency key in its partition's hash; neither part contains NUL."""
    return f"{agent_id}\0{key}"


def entry_of(created_us: int, execution_id: str) -> str:
    """Return an execution's member in the indexes.

    All scores are 0, so that Redis orders the members as texts: by time of creation, then by id. A page may then start
    at any place without counting, also among executions created in the same microsecond.
    """
    return f"{created_us:018d}:{execution_id}"


class Card(NamedTuple):
    """What never changes about an execution and must be known without its header; an empty text stands for None."""

    created_us: str
    agent_id: str
    session_id: str
    user_id: str
    idempotency_key: str
    queue: str
    priority: str

    def text(self) -> str:
        """Return the card as stored; none of the fields contains NUL."""
        return "\0".join(self)

    @classmethod
    def parse(cls, text: str) -> "Card":
        """Return the card that `text` wrote."""
        return cls(*text.split("\0"))


class Keys:
    """The keys of one store. Raises `InvalidRecord` for a prefix with braces, which would move the hash tag."""

    def __init__(self, prefix: str) -> None:
        if not isinstance(prefix, str) or "{" in prefix or "}" in prefix:
            raise InvalidRecord("key_prefix", "needs a text without braces")
        self.prefix = prefix
        self._bases = tuple(f"{prefix}{{p{number:02d}}}:" for number in range(PARTITIONS))
        self._due = tuple(f"{base}due".encode() for base in self._bases)
        self._shared = tuple(
            self.of_partition(number, "bells", "leases", "holders", "expiring") for number in range(PARTITIONS)
        )
        self._states = tuple(tuple(f"{base}state:{state}".encode() for state in _STATES) for base in self._bases)
        self._ended = tuple({state: f"{base}ended:{state}".encode() for state in _OVER} for base in self._bases)
        # Made once: naming keys is a good part of the cost of a checkpoint here.
        self._headers = tuple(f"{base}x:".encode() for base in self._bases)
        self._parts = tuple(tuple(f"{base}{part}:".encode() for part in PARTS) for base in self._bases)

    def of_partition(self, partition: int, *kinds: str) -> tuple[bytes, ...]:
        """Return keys that a partition has once."""
        return tuple(f"{self._bases[partition]}{kind}".encode() for kind in kinds)

    def index(self, partition: int, kind: str, name: str) -> bytes:
        """Return the index of one agent, session, user or state."""
        return f"{self._bases[partition]}{kind}:".encode() + _name(name)

    def ended(self, partition: int, states: Iterable[str] = _OVER) -> list[bytes]:
        """Return the lists of executions that are over in these states and can still be archived or purged.

        Other states have no such key.
        """
        return [self._ended[partition][state] for state in states if state in self._ended[partition]]

    def header(self, execution_id: str) -> bytes:
        """Return the header of an execution. The channel that announces its changes has the same name."""
        return self._headers[partition_of(execution_id)] + _name(execution_id)

    def audit(self, execution_id: str) -> bytes:
        """Return the audit trail of an execution."""
        return self._parts[partition_of(execution_id)][_AUDIT] + _name(execution_id)

    def refusal(self, execution_id: str, promise: str) -> bytes:
        """Return the key that exists if this promise of an idempotency key was taken back; see `redis.idempotency`."""
        return self.index(partition_of(execution_id), "refused", f"{execution_id}:{promise}")

    def own(self, execution_id: str) -> list[bytes]:
        """Return all keys that expire with the execution: the header, the steps, and the rest."""
        partition, name = partition_of(execution_id), _name(execution_id)
        return [self._headers[partition] + name, *[part + name for part in self._parts[partition]]]

    def of_step(self, execution_id: str, *, is_told: bool) -> tuple[bytes, ...]:
        """Return the keys that an ordinary step changes: header and steps, and the stream if that tells of it."""
        partition, name = partition_of(execution_id), _name(execution_id)
        parts = self._parts[partition]
        header, steps = self._headers[partition] + name, parts[_STEPS] + name
        return (header, steps, parts[_EVENTS] + name) if is_told else (header, steps)

    def events(self, execution_id: str) -> bytes:
        """Return the stream of an execution."""
        return self._parts[partition_of(execution_id)][_EVENTS] + _name(execution_id)

    def of_stream(self, execution_id: str) -> tuple[bytes, bytes]:
        """Return the two keys that tell of a stream."""
        partition, name = partition_of(execution_id), _name(execution_id)
        return self._headers[partition] + name, self._parts[partition][_EVENTS] + name

    def execution(self, execution_id: str, *, parts: int = len(PARTS)) -> list[bytes]:
        """Return the first keys of the scripts that work on one execution, in order: header, due, and its parts."""
        partition, name = partition_of(execution_id), _name(execution_id)
        keys = [self._headers[partition] + name, self._due[partition]]
        keys += [part + name for part in self._parts[partition][:parts]]
        return keys

    def execution_and_shared(self, execution_id: str, *, with_states: bool = False) -> list[bytes]:
        """Return the keys of the scripts that work on one execution and on its partition."""
        partition = partition_of(execution_id)
        keys = self.execution(execution_id)
        keys += self._shared[partition]
        if with_states:
            keys += self._states[partition]
        return keys

    def documents(self, root: str) -> list[bytes]:
        """Return the keys of the scripts that work on the documents of one root."""
        partition, name = partition_of(root), _name(root)
        kinds = self.of_partition(partition, "docs:", "docindex:", "docexpiry:")
        return [*(kind + name for kind in kinds), *self.of_partition(partition, "docroots", "docexpiring")]

    def vectors(self, root: str, sets: Iterable[str] = ()) -> list[bytes]:
        """Return the keys of the copies of a root's vectors: two, and those of these vector sets."""
        partition, name = partition_of(root), _name(root)
        kinds = self.of_partition(partition, "docvectors:", "docvectorsets:")
        return [
            *(kind + name for kind in kinds),
            *(self.index(partition, "docvectorset", root + each) for each in sets),
        ]

    def listing(self, partition: int, card: Card) -> list[bytes]:
        """Return every index that may list the execution of this card: the states, then what `placing` gives."""
        return [*self._states[partition], *self.placing(partition, card)]

    def placing(self, partition: int, card: Card) -> list[bytes]:
        """Return the indexes that list an execution from its creation to its end."""
        named: Sequence[tuple[str, str]] = (
            ("agent", card.agent_id),
            ("session", card.session_id),
            ("user", card.user_id),
        )
        return [
            *self.of_partition(partition, "all"),
            *(self.index(partition, kind, name) for kind, name in named if name),
        ]


def _name(execution_id: str) -> bytes:
    """Return the id in a key. No id of the store is beyond UTF-8: such a text must be not found rather than fail."""
    return execution_id.encode("utf-8", "replace")
