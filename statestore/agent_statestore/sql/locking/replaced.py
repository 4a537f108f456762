"""Under a lock: how many bytes a checkpoint replaces or takes out. The look that a write begins with asks for it."""

from collections.abc import Mapping

from agent_statestore.codec import WITHOUT_INTENT, EncodedCheckpoint, EncodedStep
from agent_statestore.sql.locking.base import Dialect
from agent_statestore.sql.tables import ENTITY, WORKING, Tables
from agent_statestore.sql.transaction import Select


class ReplacedSizes:
    """The SELECTs that a checkpoint needs, each of which gives one number or null."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        self._dialect = dialect
        data, name = dialect.octets.format("data"), dialect.octets.format("name")
        self._step = f"SELECT SUM({data}) FROM {tables.steps} WHERE execution_id = ? AND step_number = ?"
        self._values = (
            f"SELECT SUM({name} + {data}) FROM {tables.memory} WHERE execution_id = ? AND kind = ? "
            f"AND name IN {dialect.any_of}"
        )
        self._signals = (
            f"SELECT SUM({data}) FROM {tables.signals} WHERE execution_id = ? AND signal_id IN {dialect.any_of}"
        )

    def by(self, execution_id: str, change: EncodedCheckpoint) -> list[Select]:
        """Return the SELECTs for this checkpoint: none for an ordinary step, which hardly ever replaces anything."""
        listed = self._dialect.listed
        asked = [self._of(execution_id, step) for step in change.steps if not _is_ordinary(step)]
        working = {*(name for name, _ in change.working_memory), *change.forget}
        for kind, names in ((WORKING, sorted(working)), (ENTITY, [name for name, _ in change.entities])):
            if names:
                asked.append((self._values, (execution_id, kind, listed(names))))
        if change.consumed:
            asked.append((self._signals, (execution_id, listed(change.consumed))))
        return asked

    def by_ordinary_steps(
        self, execution_id: str, change: EncodedCheckpoint, intents: Mapping[str, str]
    ) -> list[Select]:
        """Return the SELECTs for ordinary steps that do replace one of the recorded intents."""
        return [
            self._of(execution_id, step) for step in change.steps if _is_ordinary(step) and str(step.number) in intents
        ]

    def _of(self, execution_id: str, step: EncodedStep) -> Select:
        return self._step, (execution_id, step.number)


def _is_ordinary(step: EncodedStep) -> bool:
    return step.is_done and step.kind in WITHOUT_INTENT
