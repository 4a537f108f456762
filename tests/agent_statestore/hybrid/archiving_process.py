"""A process that archives, to be killed at a named step.

It settles what is over in the hot store, and kills itself, as `kill -9` does, right after the step: `export`, `restore`
(the copy is committed) or `drop_archived`. With `SABOTAGE` "drop-first" the original is let go of before the copy is
committed: the fault that the tests are there to find.
"""

import os
import signal
import sys
from typing import Any

from agent_statestore import AgentState, Store, open_store
from agent_statestore.hybrid import HybridStore, archiver
from agent_statestore.query import Query


def kill_after(store: Store, step: str) -> None:
    method = getattr(store, step)

    def dying(*args: Any) -> None:
        method(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(store, step, dying)


def drop_first(self: archiver.Archiver, execution_id: str) -> bool:
    copy = self._hot.export(execution_id)
    if copy is None or not archiver.is_settled(copy):
        return False
    self._hot.drop_archived(execution_id, copy.place)
    return self._cold.restore(copy)


def main(hot_url: str, cold_url: str, step: str, sabotage: str) -> None:
    with HybridStore(open_store(hot_url), open_store(cold_url)) as store:
        if sabotage == "drop-first":
            archiver.Archiver.archive = drop_first  # type: ignore[method-assign]
        kill_after(store.cold if step == "restore" else store.hot, step)
        for summary in store.find(Query(states=[AgentState.COMPLETED, AgentState.FAILED])).items:
            store.settle(summary.execution_id)
    sys.exit("it should have died")
