"""Checkpoints as stored texts."""

from dataclasses import dataclass
from typing import Final

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import duration_us, to_us
from agent_statestore.codec.audit import encode_via
from agent_statestore.codec.contents import encode_facts, encode_items, encode_message, encode_rag
from agent_statestore.codec.failures import encode_error, reason_of
from agent_statestore.codec.steps import EncodedStep, encode_step
from agent_statestore.codec.streams import EncodedPart, encode_stream
from agent_statestore.codec.waits import addresses_of, encode_waits
from agent_statestore.envelope import LOWEST, MEMORY_NEEDS, format_of, octets, seal_value
from agent_statestore.states import AgentState

DEFAULT_MAX_CONTEXT_BYTES: Final = 256 * 1024 * 1024


# Not frozen, as one is made for every step, and a frozen one takes several times as long.
@dataclass(slots=True)
class EncodedCheckpoint:
    """A checkpoint as stored texts; see `Checkpoint` for the meaning of each part.

    `awaited` are the addresses of the signals that end the pause, and `wake_us` is when it ends without any.
    """

    checkpoint_id: str
    steps: tuple[EncodedStep, ...]
    messages: tuple[str, ...]
    working_memory: tuple[tuple[str, str], ...]
    forget: tuple[str, ...]
    facts: tuple[str, ...]
    entities: tuple[tuple[str, str], ...]
    rag_context: tuple[str, ...]
    state: AgentState | None
    waits: str | None
    awaited: tuple[str, ...]
    wake_us: int | None
    output: str | None
    error: str | None
    consumed: tuple[str, ...]
    announce_us: int | None
    gives_back_lease: bool
    by: str | None
    reason: str | None
    via: str | None
    after_checkpoint: str | None
    max_context_bytes: int
    stream: EncodedPart | None

    @property
    def added_bytes(self) -> int:
        """How many bytes the texts have that this adds, whatever they replace."""
        size = sum([octets(step.text) for step in self.steps])
        for texts in (self.messages, self.facts, self.rag_context):
            if texts:
                size += sum(map(octets, texts))
        for key, text in self.working_memory:
            if key not in self.forget:
                size += octets(key) + octets(text)
        for key, text in self.entities:
            size += octets(key) + octets(text)
        return size

    @property
    def format(self) -> int:
        """The highest format of its envelopes. The header's becomes at least this."""
        texts = [step.text for step in self.steps]
        for more in (self.messages, self.facts, self.rag_context):
            texts += more
        found = format_of(*texts, *[text for text in (self.waits, self.error, self.via) if text is not None])
        return max([found, *[MEMORY_NEEDS.get(name, LOWEST) for name, _ in self.working_memory]])

    @property
    def is_failed_end(self) -> bool:
        """Whether it ends the execution as failed or cancelled, which is always accepted."""
        return self.state in (AgentState.FAILED, AgentState.CANCELLED)


def encode_checkpoint(
    checkpoint: Checkpoint, max_bytes: int, max_context_bytes: int = DEFAULT_MAX_CONTEXT_BYTES
) -> EncodedCheckpoint:
    """Return the texts of a checkpoint. Raise `NotSerialisable` or `ValueTooLarge`, naming the part.

    The store holds the whole context against `max_context_bytes` when it applies the checkpoint.
    """
    state, waits, announce_within = checkpoint.state, checkpoint.waits, checkpoint.announce_within
    over = state is not None and state.is_over
    # Most parts of most checkpoints are empty: for those, not even a generator is made.
    return EncodedCheckpoint(
        checkpoint_id=checkpoint.checkpoint_id,
        steps=tuple([encode_step(step, max_bytes) for step in checkpoint.steps]) if checkpoint.steps else (),
        messages=tuple([encode_message(message, max_bytes) for message in checkpoint.messages])
        if checkpoint.messages
        else (),
        working_memory=encode_items("working_memory", checkpoint.working_memory, max_bytes)
        if checkpoint.working_memory
        else (),
        forget=checkpoint.forget,
        facts=encode_facts(checkpoint, max_bytes) if checkpoint.facts else (),
        entities=encode_items("entities", checkpoint.entities, max_bytes) if checkpoint.entities else (),
        rag_context=tuple([encode_rag(chunk, max_bytes) for chunk in checkpoint.rag_context])
        if checkpoint.rag_context
        else (),
        state=state,
        waits=encode_waits(waits, max_bytes) if waits else None,
        awaited=addresses_of(waits) if waits else (),
        wake_us=min((to_us(wait.wake_at) for wait in waits if wait.wake_at is not None), default=None)
        if waits
        else None,
        output=seal_value(checkpoint.output, "output", max_bytes) if over else None,
        error=None if checkpoint.error is None else encode_error(checkpoint.error, max_bytes),
        consumed=checkpoint.consumed,
        announce_us=None if announce_within is None else duration_us(announce_within),
        gives_back_lease=state is not None and checkpoint.gives_back_lease,
        by=checkpoint.by,
        reason=reason_of(checkpoint.error) if checkpoint.reason is None and checkpoint.error else checkpoint.reason,
        via=None if checkpoint.via is None else encode_via(checkpoint.via),
        after_checkpoint=checkpoint.after_checkpoint,
        max_context_bytes=max_context_bytes,
        stream=encode_stream(checkpoint.stream, checkpoint.steps, checkpoint.tells_steps, max_bytes)
        if checkpoint.tells_steps or checkpoint.stream is not None
        else None,
    )
