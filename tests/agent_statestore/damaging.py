"""Damage to what is stored, done past the store, as a disk, a restore or a person may do it."""

from typing import Any

from agent_statestore import MemoryStore
from agent_statestore.hybrid import HybridStore
from agent_statestore.redis import RedisStore
from agent_statestore.redis.keys import Keys, partition_of
from agent_statestore.store import Store
from agent_statestore.testing.contract.damage import Damage

NO_JSON = "{"


def damage_of(store: Store) -> Damage:
    """What damages executions of this store; of a hybrid, those in its hot store."""
    while isinstance(store, HybridStore):
        store = store.hot
    if isinstance(store, MemoryStore):
        return _in_memory(store)
    if isinstance(store, RedisStore):
        return _in_redis(store)
    return _in_sql(store)


def _in_memory(store: MemoryStore) -> Damage:
    executions = store._executions

    def damage(execution_id: str, part: str) -> None:
        execution = executions[execution_id]
        if part.startswith("all"):
            del executions[execution_id]
        elif part == "header":
            execution.header["waits"] = NO_JSON
        elif part == "input":
            execution.header["input"] = NO_JSON
        elif part == "step":
            execution.steps[-1] = type(execution.steps[-1])(3, "x", NO_JSON, is_done=True)
        elif part == "steps":
            execution.steps.pop()
        else:
            execution.messages[:] = [NO_JSON]

    return damage


def _in_redis(store: RedisStore) -> Damage:
    def damage(execution_id: str, part: str) -> None:
        keys: Keys = store._keys
        header, steps, _, messages, *_ = keys.own(execution_id)
        send = store._connection.send_each
        commands: dict[str, Any] = {
            "header": [("HSET", header, "waits", NO_JSON)],
            "input": [("HSET", header, "input", NO_JSON)],
            "step": [("LSET", steps, -1, NO_JSON)],
            "steps": [("RPOP", steps)],
            "message": [("LSET", messages, 0, NO_JSON)],
            "all but traces": [("DEL", header)],
            "all but the due time": [
                ("DEL", header),
                *(
                    ("HDEL", key, execution_id)
                    for key in keys.of_partition(partition_of(execution_id), "bells", "cards")
                ),
            ],
        }
        send(commands[part])

    return damage


def _in_sql(store: Store) -> Damage:
    settings = store._settings  # type: ignore[attr-defined]
    tables = settings.tables
    statements = {
        "header": f"UPDATE {tables.contexts} SET waits = :bad WHERE execution_id = :id",
        "input": f"UPDATE {tables.contexts} SET input = :bad WHERE execution_id = :id",
        "step": f"UPDATE {tables.steps} SET data = :bad WHERE execution_id = :id AND step_number = 3",
        "steps": f"DELETE FROM {tables.steps} WHERE execution_id = :id AND step_number = 3",
        "message": f"UPDATE {tables.notes} SET data = :bad WHERE execution_id = :id",
        "all but traces": f"DELETE FROM {tables.contexts} WHERE execution_id = :id",
        "all but the due time": f"DELETE FROM {tables.contexts} WHERE execution_id = :id",
    }

    def damage(execution_id: str, part: str) -> None:
        statement = statements[part]
        values = {"id": execution_id} | ({"bad": NO_JSON} if ":bad" in statement else {})
        store._database.change(statement, values)  # type: ignore[attr-defined]

    return damage
