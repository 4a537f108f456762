"""The digest of an export: it differs exactly if something else does."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from agent_statestore.checkpoint import Checkpoint
from agent_statestore.clock import ManualClock
from agent_statestore.codec import AuditRow
from agent_statestore.codec.exported import EXPORTED_FIELDS
from agent_statestore.records import RagChunk
from agent_statestore.states import AgentState
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import (
    BOOM,
    GRACE,
    INSTANT,
    TTL,
    answer,
    cancel,
    claim,
    claimed,
    create,
    done,
    due_ids,
    event,
    intent,
    message,
    pause,
)
from agent_statestore.testing.kit.stories import SITUATIONS, export_of
from agent_statestore.testing.kit.suite import Suite


class DigestConformance(Suite):
    """`ExportedExecution.digest`."""

    def test_the_digest_differs_after_every_write(self, store: Store) -> None:
        execution_id = create(store)
        digests = [export_of(store, execution_id).digest]

        def write(change: Checkpoint) -> None:
            store.checkpoint(execution_id, replace(change, checkpoint_id="same length"))
            store.checkpoint(execution_id, Checkpoint(checkpoint_id="the last"))
            digests.append(export_of(store, execution_id).digest)

        for change in (
            Checkpoint(),
            Checkpoint(steps=(intent(1),)),
            Checkpoint(steps=(done(1),)),
            Checkpoint(messages=(message("x"),)),
            Checkpoint(facts=("x",)),
            Checkpoint(facts=("x",), facts_by_run=True),
            Checkpoint(working_memory={"x": 1}),
            Checkpoint(working_memory={"x": 2}),
            Checkpoint(entities={"x": 2}),
            Checkpoint(forget=("x",)),
            Checkpoint(rag_context=(RagChunk(content="x"),)),
            pause(),
        ):
            write(change)
        for sent in (event(), answer(), cancel()):
            store.send(execution_id, sent)
            digests.append(export_of(store, execution_id).digest)
            write(Checkpoint(consumed=(sent.signal_id,)))
        lease = claim(store, execution_id).lease
        digests.append(export_of(store, execution_id).digest)
        store.release(lease)
        for change in (
            Checkpoint(state=AgentState.USING_TOOL, by="ada"),
            Checkpoint(state=AgentState.FAILED, error=BOOM),
            Checkpoint(state=AgentState.IDLE, reason="because"),
        ):
            store.checkpoint(execution_id, change)
            digests.append(export_of(store, execution_id).digest)
        assert len(set(digests)) == len(digests)

    def test_the_digest_of_an_export_differs_when_any_part_does(self, store: Store, clock: ManualClock) -> None:
        exported = export_of(store, SITUATIONS["everything"](store, clock))
        changed: list[dict[str, Any]] = [
            {"header": {**exported.header, name: "other"}} for name in EXPORTED_FIELDS if name != "due_us"
        ]
        for part in ("steps", "messages", "facts", "rag_context", "working_memory", "entities", "signals", "audit"):
            items = getattr(exported, part)
            assert len(items) > 1
            changed += [{part: items[:-1]}, {part: items[::-1]}, {part: (*items, items[-1])}]
        step, sent, entry = exported.steps[-1], exported.signals[0], exported.audit[-1]
        changed += [{"steps": (*exported.steps[:-1], replace(step, is_done=False))}]
        changed += [{"signals": (sent._replace(text=None), *exported.signals[1:])}]
        for place, value in enumerate(entry):
            other = AuditRow._make((*entry[:place], f"not {value}", *entry[place + 1 :]))
            changed.append({"audit": (*exported.audit[:-1], other)})
        digests = {replace(exported, **parts).digest for parts in changed}
        assert len(digests) == len(changed)
        assert exported.digest not in digests
        assert replace(exported, leased_until_us=1).digest == exported.digest

    def test_the_digest_stays_while_bells_are_rung(self, store: Store, clock: ManualClock) -> None:
        execution_id = create(store)
        over, lease = claimed(store)
        store.checkpoint(over, Checkpoint(state=AgentState.COMPLETED, announce_within=INSTANT), lease)
        before = [export_of(store, each).digest for each in (execution_id, over)]
        clock.advance(timedelta(minutes=1))
        assert sorted(due_ids(store)) == sorted((execution_id, over))
        store.mark_rung([(execution_id, 0), (over, 1)], GRACE, GRACE)
        store.settle(over)
        assert [export_of(store, each).digest for each in (execution_id, over)] == before
        leased, lease = claimed(store)
        digest = export_of(store, leased).digest
        clock.advance(INSTANT)
        store.renew([lease], TTL)
        assert export_of(store, leased).digest == digest
