"""Format versions: newer ones are refused, older ones are migrated when they are read."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import pytest

from agent_statestore import envelope
from agent_statestore.checkpoint import Checkpoint
from agent_statestore.errors import FormatTooNew
from agent_statestore.records import Result
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import TTL, cancel, claimed, context_of, create, done, event, message, pause
from agent_statestore.testing.kit.suite import Suite


@contextmanager
def newer_package(store: Store) -> Iterator[None]:
    """Let the calls inside run as a later version of this package, which knows one more format."""
    _prepare(store)
    packages = {"agent_statestore", type(store).__module__.partition(".")[0]}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            is_ours = name.partition(".")[0] in packages and module is not envelope
            if is_ours and getattr(module, "FORMAT", None) == envelope.FORMAT:
                patch.setattr(module, "FORMAT", envelope.FORMAT + 1)
        patch.setattr(envelope, "FORMAT", envelope.FORMAT + 1)
        try:
            yield
        finally:
            _forget_what_was_prepared(packages)


def _forget_what_was_prepared(packages: Collection[str]) -> None:
    """Forget statements that were made and kept meanwhile: they know of the newer format."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages:
            for kept in list(vars(module).values()):
                if hasattr(type(kept), "cache_clear"):
                    kept.cache_clear()


def _prepare(store: Store) -> None:
    """Let a backend prepare now, with its own format, what it prepares once (a script, a statement)."""
    execution_id, lease = claimed(store)
    store.checkpoint(execution_id, Checkpoint(steps=(done(1),)), lease)
    store.release(lease)
    store.checkpoint(execution_id, pause())
    store.send(execution_id, cancel())
    store.delete_context(execution_id)


class FormatConformance(Suite):
    """Formats."""

    def test_an_execution_of_a_newer_format_is_refused_and_not_changed(self, store: Store) -> None:
        with newer_package(store):
            execution_id = create(store, input=1)
            before = context_of(store, execution_id)
        with pytest.raises(FormatTooNew) as refused:
            store.get_context(execution_id)
        assert (refused.value.found, refused.value.supported) == (envelope.FORMAT + 1, envelope.FORMAT)
        with pytest.raises(FormatTooNew):
            store.get_summary(execution_id)
        with pytest.raises(FormatTooNew):
            store.claim(execution_id, "host:1", TTL)
        with pytest.raises(FormatTooNew):
            store.checkpoint(execution_id, Checkpoint(messages=(message("x"),)))
        with pytest.raises(FormatTooNew):
            store.send(execution_id, cancel())
        with newer_package(store):
            assert context_of(store, execution_id) == before

    @pytest.mark.parametrize(
        "write",
        [
            lambda store, execution_id: store.checkpoint(execution_id, Checkpoint(steps=(done(1),))),
            lambda store, execution_id: store.checkpoint(execution_id, Checkpoint(messages=(message("x"),))),
            lambda store, execution_id: store.send(execution_id, event()),
            lambda store, execution_id: store.checkpoint(execution_id, pause()),
        ],
        ids=["step", "message", "signal", "wait"],
    )
    def test_a_part_of_a_newer_format_is_refused(self, store: Store, write: Callable[[Store, str], object]) -> None:
        execution_id = create(store)
        with newer_package(store):
            write(store, execution_id)
            before = context_of(store, execution_id)
        with pytest.raises(FormatTooNew):
            store.get_context(execution_id)
        with newer_package(store):
            assert context_of(store, execution_id) == before

    def test_an_older_format_is_migrated_when_it_is_read(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1, output="old"),), messages=(message("old"),)), lease)

        def migrate(fields: envelope.Fields) -> envelope.Fields:
            return {**fields, "result": {"ok": True, "output": f"migrated from {fields['result']['output']}"}}

        monkeypatch.setitem(envelope.MIGRATIONS, ("step", envelope.FORMAT), migrate)
        with newer_package(store):
            store.checkpoint(execution_id, Checkpoint(steps=(done(2, output="new"),)), lease)
            context = context_of(store, execution_id)
            assert [step.result for step in context.steps] == [
                Result(success=True, output="migrated from old"),
                Result(success=True, output="new"),
            ]
            assert store.get_steps(execution_id) == context.steps
            assert context.memory.conversation_history == (message("old"),)
