"""Format versions: newer ones are refused, older ones are migrated when they are read."""

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from uuid import uuid4

import pytest

from agent_statestore import envelope
from agent_statestore.checkpoint import STATE_OF_WAIT, Checkpoint
from agent_statestore.errors import FormatTooNew
from agent_statestore.records import Action, Result, Signal, Wait, WaitKind
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    TTL,
    cancel,
    claimed,
    context_of,
    create,
    done,
    event,
    message,
    pause,
    saying,
    wait,
)
from agent_statestore.testing.kit.matrix import cells
from agent_statestore.testing.kit.suite import Suite


@contextmanager
def newer_package(store: Store, *, needs_it: Mapping[str, Collection[str]] | None = None) -> Iterator[None]:
    """Let the calls inside run as a later version of this package, which knows one more format.

    All that it writes needs that format. With `needs_it`, only those needs of these kinds of record do, by what they
    are called in `envelope.NEEDS`.
    """
    _prepare(store)
    packages = {"agent_statestore", type(store).__module__.partition(".")[0]}
    known, newer = envelope.FORMAT, envelope.FORMAT + 1
    needs: Mapping[str, tuple[envelope.Need, ...]]
    if needs_it is None:
        needs = defaultdict(lambda: (envelope.Need("all", newer, lambda _: True),))
    else:
        needs = {
            kind: tuple(need._replace(format=newer) for need in each if need.what in needs_it.get(kind, ()))
            for kind, each in envelope.NEEDS.items()
        }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in packages and getattr(module, "FORMAT", None) == known:
                patch.setattr(module, "FORMAT", newer)
        patch.setattr(envelope, "NEEDS", needs)
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


def _waiting(*waits: Wait) -> Checkpoint:
    return Checkpoint(state=STATE_OF_WAIT[waits[0].kind], waits=waits)


def _step(action: Action) -> Checkpoint:
    return Checkpoint(steps=(replace(done(1), action=action),))


_LIMIT: Final = {"limit": "steps", "during": []}

# For each entry of `envelope.NEEDS`, a checkpoint or a signal that holds it.
_NEEDING: Final[dict[tuple[str, str], Checkpoint | Signal]] = {
    ("waits", "several open waits"): _waiting(wait(key="one"), wait(key="two")),
    ("waits", "a wait that several steps share"): _waiting(
        replace(wait(WaitKind.EVENT, "paid"), prompt={"steps": {"paid": "2030-01-01T00:00:00+00:00"}})
    ),
    ("waits", "several interrupted waits"): _waiting(replace(wait(), prompt=_LIMIT)),
    ("waits", "votes of several people"): _waiting(
        replace(wait(), kind=WaitKind.APPROVAL, voters=("ann", "bob")),
    ),
    ("step", "the first of several waits"): _step(Action(kind="any", input=["one", "two"])),
    ("step", "several interrupted waits"): _step(Action(kind="limit", input=_LIMIT)),
    ("step", "a call of a model or a handler"): _step(Action(kind="model", tool="gpt")),
    ("step", "what it has spent"): Checkpoint(steps=(replace(done(1), spent={"tokens": 1}),)),
    ("step", "groups around it"): Checkpoint(steps=(replace(done(1), within=("group",)),)),
    ("message", "a message for a session"): Checkpoint(
        messages=(replace(message("x"), metadata={envelope.SESSION_MARK: True}),)
    ),
    ("step", "what somebody has said"): _step(Action(kind="said")),
    ("signal", "what somebody says"): saying(),
    ("step", "a title"): _step(Action(kind="tool", tool="pay", title="Pays")),
}
_EACH_NEED: Final = {
    f"{kind}: {need.what}": (kind, need.what) for kind, needs in envelope.NEEDS.items() for need in needs
}


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
        with pytest.raises(FormatTooNew):
            store.claim(execution_id, "host:1", TTL)
        with newer_package(store):
            assert context_of(store, execution_id) == before

    @cells(need=_EACH_NEED)
    def test_what_an_older_version_cannot_honour_makes_it_refuse_the_claim(
        self, store: Store, need: tuple[str, str]
    ) -> None:
        kind, what = need
        execution_id, lease = claimed(store)
        store.send(execution_id, cancel())  # no pause keeps anybody from claiming
        with newer_package(store, needs_it={kind: {what}}):
            needing = _NEEDING[kind, what]
            if isinstance(needing, Signal):
                store.send(execution_id, needing)
            else:
                # The ids of checkpoints are made once a record: each store has its own.
                store.checkpoint(execution_id, replace(needing, checkpoint_id=uuid4().hex), lease)
            store.release(lease)
            before = context_of(store, execution_id)
        with pytest.raises(FormatTooNew) as refused:
            store.claim(execution_id, "older:1", TTL)
        assert (refused.value.found, refused.value.supported) == (envelope.FORMAT + 1, envelope.FORMAT)
        with pytest.raises(FormatTooNew):
            store.send(execution_id, event())
        with newer_package(store, needs_it={}):
            assert context_of(store, execution_id) == before

    def test_an_older_version_goes_on_with_what_needs_no_newer_format(self, store: Store) -> None:
        every_need = {kind: [need.what for need in needs] for kind, needs in envelope.NEEDS.items()}
        with newer_package(store, needs_it=every_need):
            execution_id, lease = claimed(store)
            store.checkpoint(execution_id, Checkpoint(steps=(done(1),), messages=(message("x"),)), lease)
            store.checkpoint(execution_id, pause(), lease)
            store.send(execution_id, cancel())
        claim = store.claim(execution_id, "older:1", TTL)
        assert claim is not None
        store.checkpoint(execution_id, Checkpoint(steps=(done(2),)), claim.lease)
        assert [step.step_number for step in context_of(store, execution_id).steps] == [1, 2]

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
