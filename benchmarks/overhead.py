"""The cost of one step, against the raw client that makes the same writes."""

import time
from contextlib import ExitStack
from functools import partial

from agent_statestore import Store, open_store
from agent_statestore.codec import encode_step
from benchmarks.executing import Engine, Writer, make_step, payload
from benchmarks.measuring import Turn, take_turns
from benchmarks.raw import RawWriter, raw_writer
from benchmarks.report import Table, Value
from benchmarks.round_trips import round_trips_per_step
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes

STEP_BYTES = 2048


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure the cost of a step of 2 KB: raw, by `store.checkpoint`, and by `run.step`."""
    output = payload(STEP_BYTES)
    text = encode_step(make_step(1, output), 1 << 20).text
    urls = servers.store_urls()
    turns: dict[str, Turn] = {}
    with ExitStack() as stack:
        for name, url in urls.items():
            store = stack.enter_context(open_store(url))
            raw = raw_writer(url)
            if raw is not None:
                stack.callback(raw.close)
                turns[f"{name} raw"] = partial(_raw_turn, raw, text, sizes.calls)
            turns[f"{name} checkpoint"] = partial(_store_turn, store, output, sizes.calls)
            turns[f"{name} step"] = partial(Engine(store, output).take_steps, sizes.calls)
        measured = take_turns(turns, sizes.rounds)
    rows: list[dict[str, Value]] = []
    for name, url in urls.items():
        has_raw = f"{name} raw" in turns
        step_us = measured.median(f"{name} step") * 1e6
        checkpoint_us = measured.median(f"{name} checkpoint") * 1e6
        rows.append(
            {
                "store": name,
                "raw, us": measured.median(f"{name} raw") * 1e6 if has_raw else None,
                "checkpoint, us": checkpoint_us,
                "checkpoint / raw": measured.ratio(f"{name} checkpoint", f"{name} raw") if has_raw else None,
                "run.step, us": step_us,
                "run.step / raw": measured.ratio(f"{name} step", f"{name} raw") if has_raw else None,
                "engine's part, us": step_us - checkpoint_us,
                "round trips": None if name == "memory" else round_trips_per_step(url),
            }
        )
    table = Table(
        name="overhead",
        title=f"A step of {STEP_BYTES // 1024} KB: raw client, store.checkpoint, run.step",
        note=(
            "Medians. Raw: EVALSHA (AOF everysec), writable CTE in autocommit, a transaction on SQLite (WAL) and "
            "MariaDB; no lease, no encoding. Round trips (SQLite: transactions) are counted, per step, through the "
            "engine."
        ),
        rows=rows,
    )
    return [table]


def _raw_turn(raw: RawWriter, text: str, calls: int) -> list[float]:
    raw.begin()
    times = []
    for number in range(1, calls + 1):
        started = time.perf_counter()
        raw.write(number, text)
        times.append(time.perf_counter() - started)
    return times


def _store_turn(store: Store, output: str, calls: int) -> list[float]:
    writer = Writer(store, output)
    return [writer.write() for _ in range(calls)]
