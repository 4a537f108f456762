"""What a person does about an approval, for tests that drive the engine: looks at it, and decides."""

from typing import Any
from uuid import uuid4

from agent_statestore import Signal, SignalKind, Wait, WaitKind
from tests.celery_agents.driving import Engine


def asked(engine: Engine, execution_id: str) -> Wait:
    """What is shown to a person, when the execution has come there."""
    engine.execute(execution_id)
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    assert waiting.kind is WaitKind.APPROVAL
    return waiting


def decide(engine: Engine, execution_id: str, waiting: Wait, approved: bool = True, **more: Any) -> None:
    payload = {"approved": approved, "digest": waiting.prompt["digest"], **more}
    send(engine, execution_id, waiting.key, payload)


def send(engine: Engine, execution_id: str, key: str, payload: Any) -> None:
    signal = Signal(
        signal_id=uuid4().hex,
        kind=SignalKind.APPROVAL,
        key=key,
        payload=payload,
        sender="ada",
        reason="looks fine",
    )
    engine.store.send(execution_id, signal)
