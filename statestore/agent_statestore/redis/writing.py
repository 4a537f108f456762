"""Checkpoints of several executions, written in one round trip; each has an outcome of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent_statestore.codec import EncodedCheckpoint
from agent_statestore.errors import ExecutionUnreadable, StoreError, StoreUnavailable
from agent_statestore.records import Checkpointed
from agent_statestore.redis import answers
from agent_statestore.redis.scripts import Script, script
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.redis.servers.packing import Word


@dataclass(frozen=True, slots=True)
class General:
    """A checkpoint of any kind: the call of `checkpoint.lua`."""

    execution_id: str
    change: EncodedCheckpoint
    token: int
    keys: Callable[[], Sequence[bytes]]
    arguments: Callable[[], Sequence[Word]]

    def call(self) -> tuple[Script, Sequence[bytes], Sequence[Word]]:
        return script("checkpoint"), self.keys(), self.arguments()

    def outcome(self, answer: Any) -> Checkpointed | StoreError:
        try:
            return answers.checkpointed(answer, self.execution_id, self.change, self.token)
        except StoreError as error:
            return error


@dataclass(frozen=True, slots=True)
class Ordinary:
    """The commonest checkpoint: the call of `append_step.lua`, which leaves what is not ordinary to `general`."""

    keys: Sequence[bytes]
    arguments: Sequence[Word]
    general: General

    def call(self) -> tuple[Script, Sequence[bytes], Sequence[Word]]:
        return script("append_step"), self.keys, self.arguments

    def outcome(self, answer: Any) -> Checkpointed | None:
        if answer is None:
            return None
        version, cancel_requested = answer
        return Checkpointed(version=int(version), cancel_requested=bool(int(cancel_requested)), due_now=False)


def write_each(
    connection: Connection, writes: Sequence[Ordinary | General | StoreError]
) -> list[Checkpointed | StoreError]:
    """Write in one round trip, and in a second one what turns out not to be ordinary. An error stays as it is."""
    outcomes: list[Checkpointed | StoreError | None] = [one if isinstance(one, StoreError) else None for one in writes]
    left = {number: one for number, one in enumerate(writes) if not isinstance(one, StoreError)}
    while left:
        try:
            answered = connection.run_apart([one.call() for one in left.values()])
        except (StoreUnavailable, ExecutionUnreadable) as error:
            answered = [error] * len(left)
        general: dict[int, Ordinary | General] = {}
        for (number, one), answer in zip(left.items(), answered, strict=True):
            outcomes[number] = answer if isinstance(answer, StoreError) else one.outcome(answer)
            if outcomes[number] is None and isinstance(one, Ordinary):
                general[number] = one.general
        left = general
    return [outcome for outcome in outcomes if outcome is not None]
