"""The shapes of checkpoints: the text of a statement depends on the parts that a checkpoint has."""

from dataclasses import dataclass
from enum import StrEnum

from agent_statestore.codec import WITHOUT_INTENT, EncodedCheckpoint
from agent_statestore.states import AgentState


class StepShape(StrEnum):
    """The steps that a checkpoint has. A single one travels as plain values: arrays cost 60 us more.

    `NEW` is a result of which nothing is recorded yet. Not looking for an intent that it replaces saves 10 us.
    """

    NONE = "none"
    NEW = "new"
    RESULT = "result"
    INTENT = "intent"
    MANY = "many"


class StreamShape(StrEnum):
    """The events that a checkpoint brings: one of an attempt or several, which the stream does not have yet, or any.

    `GENERAL` are any. A single one travels as a plain value.
    """

    NONE = "none"
    ONE = "one"
    MANY = "many"
    GENERAL = "general"


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts that a checkpoint has, on which the text of its statement depends."""

    state: AgentState | None
    leased: bool
    chained: bool
    steps: StepShape
    notes: bool
    memory: bool
    forget: bool
    consumed: bool
    format: int
    stream: StreamShape

    @property
    def grows(self) -> bool:
        """Whether it has a part that may make the context larger."""
        return self.steps is not StepShape.NONE or self.notes or self.memory

    @property
    def is_ordinary(self) -> bool:
        """Whether it is a new step of an execution that must be working and goes on. No such one waits for a bell."""
        return self.steps is StepShape.NEW and self.state is None


def shape_of(change: EncodedCheckpoint, *, leased: bool, is_general: bool = False) -> Shape:
    """Return the shape of a checkpoint.

    With `is_general` it is that of the statement that applies the checkpoint whatever is recorded already.
    """
    steps = StepShape.MANY if change.steps else StepShape.NONE
    if len(change.steps) == 1:
        (step,) = change.steps
        steps = StepShape.RESULT if step.is_done else StepShape.INTENT
        if step.is_done and step.kind in WITHOUT_INTENT and not is_general:
            steps = StepShape.NEW
    stream = StreamShape.NONE
    if change.stream is not None:
        stream = StreamShape.ONE if change.stream.place and len(change.stream.texts) == 1 else StreamShape.MANY
        if is_general:
            stream = StreamShape.GENERAL
    return Shape(
        state=change.state,
        leased=leased,
        chained=change.after_checkpoint is not None,
        steps=steps,
        notes=bool(change.messages or change.facts or change.rag_context),
        memory=bool(change.working_memory or change.entities),
        forget=bool(change.forget),
        consumed=bool(change.consumed),
        format=change.format,
        stream=stream,
    )
