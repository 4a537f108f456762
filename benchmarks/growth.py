"""Whether a step costs more after many steps."""

from collections.abc import Callable
from contextlib import ExitStack

from agent_statestore import Store, open_store
from benchmarks.executing import Engine, Writer, payload, prefilled
from benchmarks.measuring import Turn, take_turns
from benchmarks.report import Table, Value
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes

STEP_BYTES = 2048
_CALLS = 10
# These steps before each turn are not measured: a replay of thousands of steps, or the turn before, has filled the
# processor's caches with other things.
_WARM_UP = 30


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """Measure steps 1 to 10, and ten steps around each later place, by the store and through the engine."""
    output = payload(STEP_BYTES)
    first, *later = sizes.growth_at
    rows: list[dict[str, Value]] = []
    for name, url in servers.store_urls().items():
        with ExitStack() as stack:
            store = stack.enter_context(open_store(url))
            engine = Engine(store, output)
            turns: dict[str, Turn] = {}
            for at in sizes.growth_at:
                turns[f"checkpoint {at}"] = _store_turn(store, output, at)
                turns[f"run.step {at}"] = _engine_turn(store, engine, output, at)
            measured = take_turns(turns, sizes.growth_rounds)
        row: dict[str, Value] = {"store": name}
        for kind in ("checkpoint", "run.step"):
            row[f"{kind} 1-10, us"] = measured.median(f"{kind} {first}") * 1e6
            for at in later:
                row[f"{kind} at {at} / 1-10"] = measured.ratio(f"{kind} {at}", f"{kind} {first}")
        rows.append(row)
    table = Table(
        name="growth",
        title="A step after many steps, in times of steps 1 to 10",
        note=(
            "2 KB each. Left: store.checkpoint. Right: run.step, without the claim and the replay before it. "
            f"{_WARM_UP} steps before each turn are not measured."
        ),
        rows=rows,
    )
    return [table]


def _store_turn(store: Store, output: str, at: int) -> Callable[[], list[float]]:
    """Go on with one execution, half before and half after the place; steps 1 to 10 need a new one each time."""
    writer = Writer(store, output, steps=max(at - 100, 0))

    def turn() -> list[float]:
        for _ in range(_WARM_UP):
            writer.write()
        measured = writer if at else Writer(store, output)
        return [measured.write() for _ in range(_CALLS)]

    return turn


def _engine_turn(store: Store, engine: Engine, output: str, at: int) -> Turn:
    """Do the same through the engine: each turn claims and replays the execution, which is not measured."""
    if not at:

        def turn() -> list[float]:
            engine.take_steps(_WARM_UP)
            return engine.take_steps(_CALLS)

        return turn
    execution_id = prefilled(store, max(at - 100, 0), output)
    return lambda: engine.take_steps(_WARM_UP + _CALLS, execution_id, stays_open=True)[_WARM_UP:]
