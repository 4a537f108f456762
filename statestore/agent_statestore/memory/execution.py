"""One execution in memory: its contents, and how a write changes it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from agent_statestore.checkpoint import Via
from agent_statestore.codec import AuditRow, EncodedCheckpoint, EncodedStep, encode_via
from agent_statestore.codec.exported import EXPORTED_FIELDS, LEFT_BEHIND, ExportedExecution, ExportedSignal, place_of
from agent_statestore.codec.signals import address_of
from agent_statestore.envelope import octets
from agent_statestore.memory.streams import MemoryStream
from agent_statestore.records import AuditEvent, Lease
from agent_statestore.rules.audit import audit_row
from agent_statestore.rules.checkpoints import checkpoint_changes
from agent_statestore.rules.growth import Growth
from agent_statestore.rules.hearing import HolderStanding
from agent_statestore.rules.streams import StreamEnd
from agent_statestore.states import AgentState


@dataclass(slots=True)
class StoredExecution:
    """One execution as stored: texts only, so that a reader's records share nothing with it."""

    header: dict[str, Any]
    steps: list[EncodedStep] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    working_memory: dict[str, str] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)
    entities: dict[str, str] = field(default_factory=dict)
    rag_context: list[str] = field(default_factory=list)
    signals: dict[str, ExportedSignal] = field(default_factory=dict)
    audit: list[AuditRow] = field(default_factory=list)
    context_bytes: int = 0
    descendants: int = 0
    stream: MemoryStream = field(default_factory=MemoryStream)

    @property
    def is_over(self) -> bool:
        return self.header["ended_us"] is not None

    @property
    def place(self) -> tuple[int, int, int]:
        """How far the execution has come."""
        return place_of(self.header, len(self.audit))

    def unconsumed(self) -> list[str]:
        """Return the texts of the mailbox, oldest first."""
        return [signal.text for signal in self.signals.values() if signal.text is not None]

    def waiting(self) -> int:
        """Return how many signals are in the mailbox."""
        return sum(signal.text is not None for signal in self.signals.values())

    def forget_signals(self, remembered: int) -> None:
        """Forget the ids of consumed signals, but not of the last ones, and not of answers."""
        if len(self.signals) <= remembered:
            return
        for signal in list(self.signals.values())[:-remembered]:
            if signal.text is None and not signal.is_answer:
                del self.signals[signal.signal_id]

    def pending(self) -> set[str]:
        """Return the addresses of the signals in the mailbox."""
        return {address_of(signal.kind, signal.key) for signal in self.signals.values() if signal.text is not None}

    def heard(self) -> HolderStanding:
        """Return what `hear` asks about."""
        header = self.header
        mail = {s.signal_id: address_of(s.kind, s.key) for s in self.signals.values() if s.text is not None}
        return HolderStanding(
            header["execution_id"], header["token"], header["lease_until_us"], header["cancel_requested"], mail
        )

    def was_answered(self, kind: str, key: str) -> bool:
        """Return whether a signal of this kind and key was ever accepted."""
        return any((signal.kind, signal.key) == (kind, key) for signal in self.signals.values())

    def note(
        self,
        event: AuditEvent,
        now_us: int,
        *,
        to_state: AgentState | None = None,
        by: str | None = None,
        reason: str | None = None,
        signal: str | None = None,
        via: Via | None = None,
    ) -> None:
        """Add to the audit trail, before the header changes, except for its token and owner."""
        signal = encode_via(via) if signal is None else signal
        position = len(self.audit) + 1
        self.audit.append(
            audit_row(self.header, position, event, now_us, to_state=to_state, by=by, reason=reason, signal=signal)
        )

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def intents_among(self, steps: Iterable[EncodedStep]) -> dict[str, str]:
        """Return the numbers and names of the recorded steps that a checkpoint with these steps may replace."""
        recorded = [self.steps[step.number - 1] for step in steps if step.number <= len(self.steps)]
        return {str(step.number): step.name for step in recorded if not step.is_done}

    def growth(self, change: EncodedCheckpoint) -> Growth:
        """Return how the size of the context changes with a checkpoint."""
        removed = sum(
            octets(self.steps[step.number - 1].text) for step in change.steps if step.number <= len(self.steps)
        )
        for values, names in (
            (self.working_memory, {*(name for name, _ in change.working_memory), *change.forget}),
            (self.entities, {name for name, _ in change.entities}),
        ):
            removed += sum(octets(name) + octets(values[name]) for name in names if name in values)
        for signal_id in set(change.consumed):
            signal = self.signals.get(signal_id)
            if signal is not None and signal.text is not None:
                removed += octets(signal.text)
        return Growth(self.context_bytes, change.added_bytes, removed)

    def apply(self, change: EncodedCheckpoint, lease: Lease | None, now_us: int) -> None:
        """Apply an accepted checkpoint."""
        self.context_bytes = self.growth(change).after
        self._apply_parts(change)
        if change.stream is not None:
            self.stream.append(change.stream, now_us)
        state = change.state
        pending = self.pending() if state is not None and state.is_paused else ()
        changes = checkpoint_changes(self.header, change, lease, pending, now_us)
        if state is not None and state.value != self.header["state"]:
            self.note(AuditEvent.MOVED, now_us, to_state=state, by=change.by, reason=change.reason, signal=change.via)
        self.header.update(changes)

    def _apply_parts(self, change: EncodedCheckpoint) -> None:
        if change.steps:
            for step in change.steps:
                if step.number <= len(self.steps):
                    self.steps[step.number - 1] = step
                else:
                    self.steps.append(step)
        if change.messages:
            self.messages.extend(change.messages)
        if change.working_memory:
            self.working_memory.update(change.working_memory)
        for key in change.forget:
            self.working_memory.pop(key, None)
        if change.facts:
            self.facts.extend(change.facts)
        if change.entities:
            self.entities.update(change.entities)
        if change.rag_context:
            self.rag_context.extend(change.rag_context)
        for signal_id in change.consumed:
            if signal_id in self.signals:
                self.signals[signal_id] = self.signals[signal_id]._replace(text=None)

    # -- moving between stores -----------------------------------------------------------------------------------------

    def exported(self) -> ExportedExecution:
        """Return everything of the execution; see `StorePrimitives.export`."""
        unconsumed = [signal for signal in self.signals.values() if signal.text is not None]
        consumed = sorted(signal for signal in self.signals.values() if signal.text is None)
        return ExportedExecution(
            header={name: self.header[name] for name in EXPORTED_FIELDS},
            steps=tuple(self.steps),
            messages=tuple(self.messages),
            working_memory=tuple(sorted(self.working_memory.items())),
            facts=tuple(self.facts),
            entities=tuple(sorted(self.entities.items())),
            rag_context=tuple(self.rag_context),
            signals=(*unconsumed, *consumed),
            audit=tuple(self.audit),
            leased_until_us=self.header["lease_until_us"],
            events=tuple(self.stream.events),
            trimmed_to=self.stream.trimmed_to,
        )


def restored(exported: ExportedExecution) -> StoredExecution:
    """Return the execution that was exported."""
    return StoredExecution(
        header={**exported.header, **LEFT_BEHIND},
        steps=list(exported.steps),
        messages=list(exported.messages),
        working_memory=dict(exported.working_memory),
        facts=list(exported.facts),
        entities=dict(exported.entities),
        rag_context=list(exported.rag_context),
        signals={signal.signal_id: signal for signal in exported.signals},
        audit=list(exported.audit),
        context_bytes=exported.context_bytes,
        stream=MemoryStream(
            list(exported.events),
            StreamEnd(max([exported.trimmed_to, *[number for number, _ in exported.events]])),
            exported.trimmed_to,
        ),
    )
