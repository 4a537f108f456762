"""`ExportedExecution`: everything of one execution, in the one form in which it goes from store to store."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, Final, NamedTuple

from agent_statestore.codec.audit import AuditRow
from agent_statestore.codec.headers import HEADER_FIELDS
from agent_statestore.codec.signals import ANSWERING
from agent_statestore.codec.steps import EncodedStep
from agent_statestore.envelope import octets

# A lease belongs to one store and its workers, and so does what is counted while bells are rung.
LEFT_BEHIND: Final = {"owner": None, "lease_until_us": 0, "rings": 0}
_NOT_IN_DIGEST: Final = frozenset({"header", "steps", "leased_until_us", "events", "trimmed_to"})
EXPORTED_FIELDS: Final = tuple(name for name in HEADER_FIELDS if name not in LEFT_BEHIND)


class ExportedSignal(NamedTuple):
    """A signal that was accepted. `text` is None once it is consumed: then only its former presence is remembered."""

    signal_id: str
    kind: str
    key: str
    text: str | None

    @property
    def is_answer(self) -> bool:
        """Whether only the first signal of this kind and key is ever accepted."""
        return self.kind in ANSWERING


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedExecution:
    """One execution as `StorePrimitives.export` gives and `StorePrimitives.restore` takes it.

    Everything is as stored: texts that the codec made. `header` has `EXPORTED_FIELDS`. Named values are sorted by name.
    `signals` are the unconsumed ones in the order of their arrival, then the consumed ones by id. `leased_until_us`
    mentions a lease (0: none), which is not taken along. `events` are those of its stream by number, and `trimmed_to`
    is that of `StreamPage`: they may be fewer in one of two copies that are equal.
    """

    header: dict[str, Any]
    steps: tuple[EncodedStep, ...] = ()
    messages: tuple[str, ...] = ()
    working_memory: tuple[tuple[str, str], ...] = ()
    facts: tuple[str, ...] = ()
    entities: tuple[tuple[str, str], ...] = ()
    rag_context: tuple[str, ...] = ()
    signals: tuple[ExportedSignal, ...] = ()
    audit: tuple[AuditRow, ...] = ()
    leased_until_us: int = 0
    events: tuple[tuple[int, str], ...] = ()
    trimmed_to: int = 0

    @property
    def execution_id(self) -> str:
        """The execution whose contents these are."""
        execution_id: str = self.header["execution_id"]
        return execution_id

    @property
    def place(self) -> tuple[int, int, int]:
        """How far the execution has come: of two copies, the greater one is the newer."""
        return place_of(self.header, len(self.audit))

    @property
    def context_bytes(self) -> int:
        """How many bytes it counts for: see `StorePrimitives.max_context_bytes`."""
        texts = [self.header["input"], self.header["metadata"], *self.messages, *self.facts, *self.rag_context]
        texts += [step.text for step in self.steps]
        texts += [signal.text for signal in self.signals if signal.text is not None]
        named = (*self.working_memory, *self.entities)
        return sum(map(octets, texts)) + sum(octets(name) + octets(text) for name, text in named)

    @property
    def digest(self) -> str:
        """SHA-256 of the contents, in hexadecimal: equal for two copies if and only if nothing differs.

        The time of the next ring is not part of it, as that moves while it is looked at.
        """
        header = {name: value for name, value in self.header.items() if name != "due_us"}
        parts = [getattr(self, part.name) for part in fields(self) if part.name not in _NOT_IN_DIGEST]
        steps = [(step.number, step.name, step.text, step.is_done) for step in self.steps]
        contents = json.dumps([header, steps, parts], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return sha256(contents.encode()).hexdigest()


def place_of(header: Mapping[str, Any], audited: int) -> tuple[int, int, int]:
    """Return the counts behind `ExportedExecution.place`.

    They are the applied checkpoints, the claims, and the entries of the audit trail (a decision, say).
    """
    return int(header["version"]), int(header["token"]), audited
