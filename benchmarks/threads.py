"""The bytes and the time that a thread of LangGraph costs, beside the savers of others. Needs `frameworks`."""

import operator
import random
import sqlite3
import string
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

import psycopg
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row

from agent_statestore import open_store
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from benchmarks.storage import STEP_BYTES, stored_bytes
from celery_agents.integrations.langgraph import StoreSaver
from tests.services.postgresql import driver_url

_PORTIONS: Final = 10
_numbers: Final = count()
_LETTERS: Final = string.ascii_letters + string.digits
_WORDS: Final[list[str]] = str.split(
    "the customer asked for an invoice of order and we answered that delivery takes three working days because "
    "your payment was received yesterday please let me know if there is anything else that I can help you with"
)


def _extend(texts: list[str], more: list[list[str]]) -> list[str]:
    return [*texts, *(one for each in more for one in each)]


class Walk(TypedDict, total=False):
    """The state of a graph that writes a text in each super-step, and keeps what it began with."""

    replaced: str
    appended: Annotated[list[str], DeltaChannel(_extend, snapshot_frequency=100_000)]
    kept: str
    steps: Annotated[int, operator.add]
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A saver, and what it has stored so far, in bytes."""

    saver: BaseCheckpointSaver[Any]
    stored: Callable[[], int]


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure threads of super-steps that write 1 KB each: noise, which does not compress well, and words."""
    cases = [(text, field) for text in (_noise, _words) for field in ("replaced", "appended")]
    rows = [row for text, field in cases for row in _rows(servers, sizes.thread_steps, text, field)]
    return [
        Table(
            name="threads",
            title=f"A thread of LangGraph, {sizes.thread_steps} super-steps of 1 KB",
            note=(
                "Each super-step writes a text of 1 KB and a number; the thread holds 4 KB more, which do not change. "
                "LangGraph gives a saver two copies of a text that is replaced: a write, and the value of a channel; "
                "and one of a text that is appended to a DeltaChannel. Payload is 1 KB for each super-step. "
                "Last / first: the last tenth of the super-steps against the first."
            ),
            rows=rows,
        )
    ]


def _rows(servers: Servers, steps: int, text: Callable[[random.Random], str], field: str) -> Iterator[dict[str, Value]]:
    with ExitStack() as stack:
        for name, kept in _savers(servers, stack).items():
            dice = random.Random(steps)
            graph = _walking(kept.saver, partial(text, dice), field)
            config: Any = {"configurable": {"thread_id": "thread"}, "recursion_limit": 10 * steps}
            graph.invoke({"kept": _noise(dice) * 4, "steps": 0, "until": 1}, config)
            bytes_, seconds = [kept.stored()], list[float]()
            for portion in range(1, _PORTIONS + 1):
                began = time.perf_counter()
                graph.invoke({"until": 1 + steps * portion // _PORTIONS}, config, durability="sync")
                seconds.append(time.perf_counter() - began)
                bytes_.append(kept.stored())
            grown = [after - before for before, after in pairwise(bytes_)]
            yield {
                "saver": name,
                "text": f"{text.__name__.lstrip('_')}, {field}",
                "stored, KB": sum(grown) / 1024,
                "stored / payload": sum(grown) / (steps * STEP_BYTES),
                "bytes, last / first": grown[-1] / grown[0] if grown[0] else None,
                "a super-step, ms": sum(seconds) / steps * 1e3,
                "time, last / first": seconds[-1] / seconds[0],
            }
            kept.saver.delete_thread("thread")


def _walking(saver: BaseCheckpointSaver[Any], text: Callable[[], str], field: str) -> Any:
    def walk(_: Walk) -> dict[str, Any]:
        return {field: [text()] if field == "appended" else text(), "steps": 1}

    graph: Any = StateGraph(Walk)
    graph.add_node("walk", walk).add_edge(START, "walk")
    graph.add_conditional_edges("walk", lambda state: "walk" if state["steps"] < state["until"] else END)
    return graph.compile(checkpointer=saver)


def _savers(servers: Servers, stack: ExitStack) -> dict[str, _Kept]:
    kept: dict[str, _Kept] = {}
    for name, url in servers.store_urls().items():
        if name not in ("memory", "SQLite NORMAL"):
            store = stack.enter_context(open_store(url))
            kept[f"StoreSaver, {name}"] = _Kept(saver=StoreSaver(store), stored=partial(stored_bytes, url))
    kept["PostgresSaver"] = stack.enter_context(_postgres(servers))
    kept["SqliteSaver"] = stack.enter_context(_sqlite(servers))
    return kept


@contextmanager
def _postgres(servers: Servers) -> Iterator[_Kept]:
    url = driver_url(servers.postgresql)
    with psycopg.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row) as connection:
        saver = PostgresSaver(connection)
        saver.setup()
        connection.execute("TRUNCATE checkpoints, checkpoint_blobs, checkpoint_writes")

        def stored() -> int:
            row = connection.execute(
                "SELECT sum(pg_total_relation_size(oid))::bigint AS bytes FROM pg_class "
                "WHERE relkind = 'r' AND starts_with(relname, 'checkpoint')"
            ).fetchone()
            assert row is not None
            return int(row["bytes"])

        yield _Kept(saver=saver, stored=stored)


@contextmanager
def _sqlite(servers: Servers) -> Iterator[_Kept]:
    path = Path(servers.folder) / f"langgraph{next(_numbers)}.db"
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        saver = SqliteSaver(connection)
        saver.setup()
        yield _Kept(saver=saver, stored=partial(stored_bytes, f"sqlite:///{path}"))


def _noise(dice: random.Random) -> str:
    return "".join(dice.choices(_LETTERS, k=STEP_BYTES))


def _words(dice: random.Random) -> str:
    return " ".join(dice.choices(_WORDS, k=STEP_BYTES))[:STEP_BYTES]
