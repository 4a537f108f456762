"""One pair of functions is passed by all that users say: what it conceals stands nowhere in the store."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from agent_statestore import envelope
from agent_statestore.checkpoint import STATE_OF_WAIT, Checkpoint
from agent_statestore.documents import codec
from agent_statestore.documents.contract import Selection
from agent_statestore.documents.places import Range
from agent_statestore.records import (
    Action,
    AgentStep,
    ErrorInfo,
    Message,
    RagChunk,
    Result,
    Signal,
    SignalKind,
    Wait,
    WaitKind,
)
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import AT, claimed, context_of
from agent_statestore.testing.kit.suite import Suite

_SECRET: Final = "4111-1111-1111-1111"
_SAID: Final = {"said": [_SECRET]}


@contextmanager
def concealing() -> Iterator[None]:
    """Put a mark into the pair that can be taken back and shows nothing of what it conceals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "conceal", _conceal)
        patch.setattr(envelope, "reveal", _reveal)
        # Imported by name there.
        patch.setattr(codec, "conceal_bytes", lambda content: content.hex().encode())
        patch.setattr(codec, "reveal_bytes", lambda content: bytes.fromhex(content.decode()))
        yield


def _conceal(value: Any) -> Any:
    return {"concealed": json.dumps(value).encode().hex()}


def _reveal(value: Any) -> Any:
    """Return what was concealed, with what stood beside it."""
    if not isinstance(value, dict) or "concealed" not in value:
        return value
    beside = {name: each for name, each in value.items() if name != "concealed"}
    inside = json.loads(bytes.fromhex(value["concealed"]))
    return {**inside, **beside} if beside else inside


class SealingConformance(Suite):
    """`envelope.conceal` and `envelope.reveal`."""

    def test_the_values_of_documents_pass_it_as_well(self, store: Store) -> None:
        documents, values = store.documents, {"json": _SAID, "bytes": _SECRET.encode()}
        with concealing():
            for key, value in values.items():
                documents.put(("session", "s"), key, value)
            everything = Selection(namespace=(), places=Range("", None), limit=9)
            assert _SECRET not in str(documents.read_range(everything))
            for key, value in values.items():
                found = documents.get(("session", "s"), key)
                assert found is not None
                assert found.value == value

    @pytest.mark.parametrize("over", [False, True])
    def test_all_that_users_say_passes_the_one_pair(self, store: Store, over: bool) -> None:
        with concealing():
            execution_id, lease = claimed(store, input=_SAID, metadata=_SAID)
            store.checkpoint(execution_id, _everything(), lease)
            store.send(execution_id, _signal(SignalKind.EVENT, "else"))
            if over:
                store.checkpoint(execution_id, Checkpoint(state=AgentState.COMPLETED, output=_SAID), lease)
            else:
                store.checkpoint(execution_id, _pause(), lease)
                store.send(execution_id, _signal(SignalKind.ANSWER, "question"))
            context = context_of(store, execution_id)
            exported = store.export(execution_id)
        assert exported is not None
        assert _SECRET not in repr(exported)
        assert "concealed" in repr(exported)
        assert (context.input, context.metadata, context.output) == (_SAID, _SAID, _SAID if over else None)
        assert context.steps == _everything().steps
        assert context.memory.conversation_history == _everything().messages
        assert context.memory.working_memory == context.memory.entities == {"k": _SAID}
        assert (context.memory.facts, context.rag_context) == ((_SAID,), _everything().rag_context)
        assert context.waits == (() if over else _pause().waits)
        assert [each.payload for each in context.signals] == [_SAID] * (1 if over else 2)
        assert len({each.sent_at for each in context.signals}) == 1

    def test_a_failure_passes_the_pair(self, store: Store) -> None:
        with concealing():
            execution_id, lease = claimed(store)
            error = _error()
            store.checkpoint(execution_id, Checkpoint(state=AgentState.FAILED, error=error), lease)
            exported = store.export(execution_id)
            assert context_of(store, execution_id).error == error
        assert _SECRET not in repr(exported)


def _error() -> ErrorInfo:
    return ErrorInfo(type="builtins:ValueError", message="bad", args=(_SECRET,), traceback=_SECRET, notes=(_SECRET,))


def _everything() -> Checkpoint:
    """Something of the user's in every part of a context."""
    failed = AgentStep(
        step_number=2,
        name="second",
        action=Action(kind="tool", tool="search", input=_SAID, thought=_SECRET, title=_SECRET),
        result=Result(success=False, error=_error()),
        attempt=1,
        timestamp=AT,
    )
    done = AgentStep(
        step_number=1,
        name="first",
        action=Action(kind="step", input=_SAID),
        result=Result(success=True, output=_SAID),
        attempt=1,
        timestamp=AT,
    )
    return Checkpoint(
        steps=(done, failed),
        messages=(Message(role="user", content=_SAID, metadata=_SAID, timestamp=AT),),
        working_memory={"k": _SAID},
        facts=(_SAID,),
        entities={"k": _SAID},
        rag_context=(RagChunk(content=_SAID, source=_SECRET, metadata=_SAID),),
    )


def _pause() -> Checkpoint:
    asked = Wait(kind=WaitKind.INPUT, key="question", prompt=_SAID, schema=_SAID, asked_at=AT)
    return Checkpoint(state=STATE_OF_WAIT[asked.kind], waits=(asked,))


def _signal(kind: SignalKind, key: str) -> Signal:
    return Signal(signal_id=f"{kind}-{key}", kind=kind, key=key, payload=_SAID, reason=None)
