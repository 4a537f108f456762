"""One execution in memory: what it holds, and how a write changes it."""

from dataclasses import dataclass, field
from typing import Any

from agent_statestore.codec import NEVER_US, AuditRow, EncodedCheckpoint, EncodedStep
from agent_statestore.codec.exported import EXPORTED_FIELDS, LEFT_BEHIND, ExportedExecution, ExportedSignal, place_of
from agent_statestore.errors import StepConflict
from agent_statestore.records import AuditEvent
from agent_statestore.states import AgentState


@dataclass(slots=True)
class StoredExecution:
    """One execution as stored: texts only, so that what is read shares nothing with it."""

    header: dict[str, Any]
    steps: list[EncodedStep] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    working_memory: dict[str, str] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)
    entities: dict[str, str] = field(default_factory=dict)
    rag_context: list[str] = field(default_factory=list)
    signals: dict[str, ExportedSignal] = field(default_factory=dict)
    audit: list[AuditRow] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.header["ended_us"] is not None

    @property
    def place(self) -> tuple[int, int, int]:
        """How far it has come."""
        return place_of(self.header, len(self.audit))

    def unconsumed(self) -> list[str]:
        """The texts of the mailbox, oldest first."""
        return [signal.text for signal in self.signals.values() if signal.text is not None]

    def has_signal_for(self, kind: str | None, key: str | None) -> bool:
        """Whether a pause on this wait would be over at once."""
        return bool(self.header["cancel_requested"]) or any(
            signal.text is not None and (signal.kind, signal.key) == (kind, key) for signal in self.signals.values()
        )

    def was_answered(self, kind: str, key: str) -> bool:
        """Whether a signal of this kind and key was ever accepted."""
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
    ) -> None:
        """Adds to the audit trail; called before the header changes, except for its token and owner."""
        header = self.header
        self.audit.append(
            AuditRow(
                position=len(self.audit) + 1,
                at_us=now_us,
                event=event.value,
                from_state=None if event is AuditEvent.CREATED else header["state"],
                to_state=None if to_state is None else to_state.value,
                attempt=header["token"],
                worker=header["owner"] if header["lease_until_us"] > now_us else None,
                by=by,
                reason=reason,
                signal=signal,
            )
        )

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def check_steps(self, change: EncodedCheckpoint) -> None:
        """Raises `StepConflict` for a gap, or for a recorded step that would be overwritten."""
        count = len(self.steps)
        for step in change.steps:
            if step.number != count + 1:
                recorded = self.steps[step.number - 1] if step.number <= len(self.steps) else None
                if recorded is None or recorded.is_done or recorded.name != step.name:
                    raise StepConflict(self.header["execution_id"], step.number, len(self.steps))
            count = max(count, step.number)

    def apply(self, change: EncodedCheckpoint, now_us: int) -> None:
        """Applies an accepted checkpoint."""
        header = self.header
        self._apply_parts(change)
        if change.steps:
            header["crashes"] = 0
        if change.state is not None:
            if change.state.value != header["state"]:
                self.note(AuditEvent.MOVED, now_us, to_state=change.state, by=change.by, reason=change.reason)
            self._apply_state(change, change.state, now_us)
        header["version"] += 1
        header["checkpoint_id"] = change.checkpoint_id
        header["updated_us"] = now_us

    def _apply_parts(self, change: EncodedCheckpoint) -> None:
        if change.steps:
            for step in change.steps:
                if step.number <= len(self.steps):
                    self.steps[step.number - 1] = step
                else:
                    self.steps.append(step)
            self.header["step_count"] = len(self.steps)
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

    def _apply_state(self, change: EncodedCheckpoint, state: AgentState, now_us: int) -> None:
        header = self.header
        header.update(
            state=state.value, waiting=change.waiting, wait_key=change.wait_key, wait_signal=change.wait_signal
        )
        if state.is_paused:
            header["crashes"] = 0
            if self.has_signal_for(change.wait_signal, change.wait_key):
                header.update(due_us=now_us, not_before_us=0)
            else:
                header.update(
                    due_us=change.wake_us, not_before_us=NEVER_US if change.wake_us is None else change.wake_us
                )
        if state.is_over:
            announce_us = change.announce_us
            header.update(
                output=change.output,
                error=change.error,
                due_us=None if announce_us is None else now_us + announce_us,
                ended_us=now_us,
            )
        if change.gives_back_lease:
            header.update(owner=None, lease_until_us=0, rings=0)
        if state is AgentState.IDLE:
            header.update(output=None, error=None, crashes=0, rings=0, not_before_us=0, due_us=now_us, ended_us=None)

    # -- moving between stores -----------------------------------------------------------------------------------------

    def exported(self) -> ExportedExecution:
        """See `StorePrimitives.export`."""
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
        )


def restored(exported: ExportedExecution) -> StoredExecution:
    """The execution that was exported."""
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
    )
