"""The rights that docs/security.md gives to workers on PostgreSQL are enough, and no more than it says."""

import uuid
from datetime import timedelta

import psycopg
import pytest
from psycopg import errors, sql

from agent_statestore import AgentState, Checkpoint, Signal, SignalKind, open_store
from agent_statestore.streams.records import StreamAppend
from agent_statestore.testing.contract.streams import part_of, values_of
from tests.docs.pages import ROOT, blocks
from tests.services.postgresql import driver_url


def test_a_role_with_the_rights_of_the_page_lives_a_whole_life_and_changes_no_schema(
    postgresql_migrated_url: str,
) -> None:
    role = f"workers_{uuid.uuid4().hex}"
    name = sql.Identifier(role)
    (grants,) = blocks(ROOT / "docs/security.md", "sql")
    with psycopg.connect(driver_url(postgresql_migrated_url), autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        try:
            owner.execute(grants.replace("workers", role).encode())
            live(postgresql_migrated_url.replace("://postgres@", f"://{role}@"))
            owner.execute(sql.SQL("SET ROLE {}").format(name))
            with pytest.raises(errors.InsufficientPrivilege):
                owner.execute("ALTER TABLE agent_audit ADD COLUMN more text")
        finally:
            owner.execute("RESET ROLE")
            owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(name))


def live(url: str) -> None:
    """Take one execution from its creation to its purge."""
    with open_store(url) as store:
        execution_id = store.create_context("greeter").execution_id
        claim = store.claim(execution_id, "host:1", timedelta(minutes=1))
        assert claim is not None
        assert store.send(execution_id, Signal(signal_id="s", kind=SignalKind.CANCEL, sender="ada"))
        (appended,) = store.append_events([StreamAppend(lease=claim.lease, part=part_of(claim.lease, 1, *"ab"))])
        assert appended.accepted
        assert values_of(store, execution_id) == ["cancel_requested", *"ab"]
        assert store.trim_stream(execution_id, 1) == 2
        listener = store.listen_streams()
        listener.follow([execution_id])
        assert listener.wait(5) == {execution_id}
        store.tell_readers([execution_id])
        assert listener.wait(5) == {execution_id}
        listener.close()
        store.checkpoint(execution_id, Checkpoint(state=AgentState.CANCELLED, working_memory={"a": 1}), claim.lease)
        store.delete_context(execution_id, by="ada")
        assert [entry.event for entry in store.get_audit(execution_id)][-1] == "deleted"
        store.purge(execution_id)
        store.documents.put(("a", "b"), "k", 1)
        assert store.documents.remove_under(("a",)) == 1
        store.tidy()
        assert store.get_audit(execution_id) == ()
