"""What the holder of a lease hears of an execution, read by one SELECT, the same in every database."""

import json
from collections.abc import Sequence
from typing import Any

from agent_statestore.codec.signals import decode_mailbox
from agent_statestore.contract.mail import Heard
from agent_statestore.records import Lease, Signal
from agent_statestore.rules.hearing import HolderStanding, heard
from agent_statestore.sql.activity import AMONG
from agent_statestore.sql.database import Database
from agent_statestore.sql.single import quoted
from agent_statestore.states import ACTIVE


class MailReading:
    """The reads of `MailPrimitives`, on one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        tables, self._dialect = database.settings.tables, database.settings.dialect
        self._mailbox = (
            f"SELECT s.data FROM {tables.signals} AS s JOIN {tables.contexts} AS c ON c.execution_id = s.execution_id "
            "WHERE s.execution_id = :execution_id AND s.data <> '' AND c.deleted_us IS NULL "
            f"AND c.state IN ({quoted(ACTIVE)}) ORDER BY s.position"
        )
        self._standings = (
            f"SELECT execution_id, token, lease_until_us, cancel_requested, pending FROM {tables.contexts} "
            f"WHERE execution_id {AMONG[self._dialect]} AND deleted_us IS NULL"
        )

    def mailbox(self, execution_id: str) -> tuple[Signal, ...]:
        """Return the unconsumed signals; see `MailPrimitives.get_mailbox`."""
        rows = self._database.run(self._mailbox, {"execution_id": execution_id})
        return decode_mailbox(execution_id, [text for (text,) in rows])

    def hear(self, leases: Sequence[Lease]) -> Heard:
        """Return what the holders of these leases hear; see `MailPrimitives.hear`."""
        if not leases:
            return Heard()
        execution_ids = [lease.execution_id for lease in leases]
        ids: Any = json.dumps(execution_ids) if self._dialect == "sqlite" else execution_ids
        rows = self._database.run(self._standings, {"ids": ids})
        return heard(
            leases,
            [
                HolderStanding(execution_id, token, until_us, cancelled, _mail_of(pending))
                for execution_id, token, until_us, cancelled, pending in rows
            ],
        )


def _mail_of(pending: Any) -> dict[str, str]:
    """Return the addresses of unconsumed signals; `pending` is JSON text except on PostgreSQL."""
    mail: dict[str, str] = json.loads(pending) if isinstance(pending, str) else pending
    return mail
