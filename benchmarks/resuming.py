"""The time that a worker needs to go on with a long execution."""

from contextlib import ExitStack
from functools import partial

from agent_statestore import Store, open_store
from benchmarks.executing import Engine, payload, prefilled
from benchmarks.measuring import Turn, take_turns
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes

STEP_BYTES = 2048


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure claim and replay up to the first new step."""
    output = payload(STEP_BYTES)
    turns: dict[str, Turn] = {}
    urls = servers.store_urls() | {"hybrid": servers.hybrid_url()}
    with ExitStack() as stack:
        for name, url in urls.items():
            store = stack.enter_context(open_store(url))
            turns[name] = partial(_turn, store, Engine(store, output), output, sizes.resume_steps)
        measured = take_turns(turns, sizes.resume_rounds)
    rows: list[dict[str, Value]] = [
        {
            "store": name,
            "to the next new step, ms": measured.median(name) * 1e3,
            "per recorded step, us": measured.median(name) * 1e6 / sizes.resume_steps,
            "/ memory": measured.ratio(name, "memory"),
        }
        for name in turns
    ]
    table = Table(
        name="resume",
        title=f"Resume: claim and replay of {sizes.resume_steps} recorded steps of 2 KB",
        note="Until the function of the first step that is not recorded is called. Hybrid: Redis over PostgreSQL.",
        rows=rows,
    )
    return [table]


def _turn(store: Store, engine: Engine, output: str, steps: int) -> list[float]:
    return [engine.resume(prefilled(store, steps, output))]
