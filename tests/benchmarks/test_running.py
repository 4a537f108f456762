"""The benchmark itself, with tiny sizes: it runs, prints its tables and writes its figures."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_statestore import AgentState, MemoryStore
from agent_statestore.states import ACTIVE
from benchmarks.__main__ import SECTIONS, main
from benchmarks.copying import digests_of, transfer
from benchmarks.measuring import percentile, take_turns
from benchmarks.population import ids_of, populated
from benchmarks.scale import PAGE
from benchmarks.servers import STORES
from benchmarks.sizes import Sizes
from tests.services.mariadb import find_mariadb
from tests.services.postgresql import find_postgresql
from tests.services.process import absent
from tests.services.redis import find_redis

IN_FILES = ("SQLite FULL", "PostgreSQL", "MariaDB", "Redis")

TINY = Sizes(
    rounds=1,
    calls=2,
    growth_rounds=1,
    growth_at=(0, 20),
    storage_steps=20,
    resume_rounds=1,
    resume_steps=20,
    pools=(("threads", 2),),
    worker_stores=(("Redis", True),),
    drain_rounds=1,
    executions=3,
    long_executions=2,
    latencies=3,
    scale_finished=300,
    scale_active=60,
    scale_rounds=1,
    scale_calls=1,
    scale_batch=5,
    copies=250,
    concurrent=10,
    concurrent_steps=2,
    concurrent_seconds=0.05,
    concurrent_rounds=1,
    queue_pool=("threads", 2),
    queue_threads=0,
    queue_stores=("Redis",),
    queue_rounds=1,
    queue_counted=4,
    scaling_rounds=1,
    fleets=(1, 4),
    resting_workers=(1, 2),
    resting_seconds=2.0,
    paused=20,
    spoken=20,
    copied_between=("memory", "SQLite NORMAL", "Redis"),
)


class TestSections:
    """Each runs, prints its tables and writes them."""

    @pytest.fixture
    def tables(
        self, request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """The rows of each table of the sections that the test names."""
        if find_redis() is None or find_postgresql() is None:
            absent("server", "the benchmark needs Redis and PostgreSQL")
        file, document = tmp_path / "figures.json", tmp_path / "figures.md"
        assert main([*request.param, "--json", str(file), "--markdown", str(document)], sizes=TINY) == 0
        printed, written = capsys.readouterr().out, document.read_text()
        figures = json.loads(file.read_text())
        assert figures["environment"]["celery"]
        for table in figures["tables"]:
            assert table["title"] in printed
            assert f"## {table['title']}\n" in written
            assert len({tuple(row) for row in table["rows"]}) == 1
        return {table["name"]: table["rows"] for table in figures["tables"]}

    @pytest.fixture
    def stores(self) -> list[str]:
        """The stores that are measured here."""
        return [name for name in STORES if name != "MariaDB" or find_mariadb() is not None]

    @pytest.mark.parametrize("tables", [("overhead", "growth", "storage", "resume", "loading")], indirect=True)
    def test_steps(self, tables: dict[str, list[dict[str, Any]]], stores: list[str]) -> None:
        assert list(tables) == ["overhead", "growth", "storage", "resume", "loading"]
        for name in ("overhead", "growth", "loading"):
            assert [row["store"] for row in tables[name]] == stores
        assert [row["store"] for row in tables["resume"]] == [*stores, "hybrid"]
        round_trips = {row["store"]: row["round trips"] for row in tables["overhead"]}
        assert all(round_trips[store] == 1 for store in stores if store not in ("memory", "MariaDB"))
        assert [row["store"] for row in tables["storage"]] == [store for store in stores if store in IN_FILES]
        assert all(1 < row["stored / payload"] < 10 for row in tables["storage"])
        assert all(row["claim / raw"] > 0 and row["at most / payload"] > 1 for row in tables["loading"])

    @pytest.mark.parametrize("tables", [("scale", "copying")], indirect=True)
    def test_many_executions(self, tables: dict[str, list[dict[str, Any]]], stores: list[str]) -> None:
        assert list(tables) == ["scale, ms", "scale", "archiving", "copying"]
        ratios = {row["operation"]: row for row in tables["scale"]}
        for operation in ("find", "find, deep", "find session", "find window", "take_due", "find_ended", "stats"):
            assert all(ratios[operation][f"{store} / tenth"] > 0 for store in stores if store != "SQLite FULL")
        assert tables["archiving"][0]["/ tenth"] > 0
        assert len(tables["copying"]) == 3 * 2
        for row in tables["copying"]:
            assert 0 < row["interrupted after"] < TINY.copies
            assert row["digests equal"] == f"{TINY.copies} of {TINY.copies}"

    @pytest.mark.parametrize("tables", [("workers",)], indirect=True)
    def test_workers(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        assert list(tables) == ["workers", "latency"]
        assert tables["workers"][0]["pool, store"] == "threads 2, Redis, events"

    @pytest.mark.parametrize("tables", [("files-entered",)], indirect=True)
    def test_files_that_a_call_enters(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        counted = {row["call"]: row for row in tables["files_entered"]}
        assert list(counted) == ["run.step on Redis", "claim, one step, end on Redis", "enqueue to PostgreSQL"]
        for row in counted.values():
            assert 0 < row["files"] <= row["changes of file"] + 1 <= row["Python calls"]
            assert row["files"] <= row["at most"], row["call"]
            assert row["changes at most"] is None or row["changes of file"] <= row["changes at most"], row["call"]
        files = [row["file"] for row in tables["files_of_run_step"]]
        assert files[0] == "celery_agents/engine/run/run.py"
        assert "agent_statestore/redis/store.py" in files

    @pytest.mark.parametrize("tables", [("streams",)], indirect=True)
    def test_streams(self, tables: dict[str, list[dict[str, Any]]], stores: list[str]) -> None:
        assert list(tables) == ["streams_cost", "streams_way", "streams_rate"]
        assert [row["store"] for row in tables["streams_cost"]] == stores
        assert all(row["with, us"] > 1 and row["with / without"] > 0.1 for row in tables["streams_cost"])
        assert all(row["events"] == TINY.spoken for row in tables["streams_way"])
        assert all(0 < row["rate / plain"] < 2 for row in tables["streams_rate"])

    @pytest.mark.parametrize("tables", [("concurrency",)], indirect=True)
    def test_executions_that_wait(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        rows = {row["program"]: row for row in tables["concurrency"]}
        assert {"asyncio", "Celery tasks", "agents, Redis"} <= set(rows)
        assert all(row["seconds / ideal"] > 1 and row["memory, MB"] > 1 for row in rows.values())
        assert rows["agents, Redis"]["lag max, ms"] >= rows["agents, Redis"]["lag p50, ms"] > 0

    @pytest.mark.parametrize("tables", [("executions",)], indirect=True)
    def test_whole_executions(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        """Ours and bare Celery; the peers are in another environment."""
        trips = {row["way and work"]: row for row in tables["round trips of executions"]}
        assert {"bare, no-op", "alike, Redis, 0 steps", "shipped, Redis, 10 steps"} <= set(trips)
        assert "checkpoint 1" in trips["alike, Redis, 0 steps"]["store's calls"]
        for tens in ("alike, Redis, 10 steps", "shipped, Redis, 10 steps"):
            assert "append_step 10" in trips[tens]["store's calls"]
        assert trips["bare, Redis, 10 raw writes"]["store"] == 10
        for name, row in trips.items():
            assert (row["results"] > 0) is name.startswith(("shipped", "bare with results")), name
        assert [row["way and work"] for row in tables["executions"]] == list(trips)
        assert all(row["CPU each, ms"] > 0 for row in tables["executions"])
        for row in tables["goals of executions"]:
            assert (row["held"] is None) is ("PostgreSQL" in row["what"]), row["what"]

    @pytest.mark.full
    @pytest.mark.parametrize("tables", [("scaling",)], indirect=True)
    def test_fleets(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        assert list(tables) == ["calibration", "fleets", "fleet at rest", "paused executions"]
        for row in tables["calibration"]:
            assert row["calls: enqueue"] >= 1
            assert row["a step"] == pytest.approx(1, abs=0.3)
        assert all(row["4 workers, /s"] > row["1 worker, /s"] for row in tables["fleets"])
        assert all(row["bytes each"] > 1000 for row in tables["paused executions"])


class TestCopying:
    """The figure "digests equal" is counted."""

    def test_a_copy_that_differs_is_not_counted(self) -> None:
        original = populated(250)
        expected = digests_of(original)
        assert transfer(original, MemoryStore(), expected).equal == 250
        changed = expected | {next(iter(expected)): "another"}
        assert transfer(original, MemoryStore(), changed).equal == 249

    def test_a_copy_that_is_missing_ends_the_measurement(self) -> None:
        original = populated(250)
        expected = digests_of(original) | {"nobody": "nothing"}
        with pytest.raises(RuntimeError, match="of 251, 250 are there"):
            transfer(original, MemoryStore(), expected)


def test_a_population_has_what_is_looked_for() -> None:
    store = populated(1000, 100)
    assert len(ids_of(store)) == 1100
    assert len(ids_of(store, states=ACTIVE)) == 100
    assert len(ids_of(store, states=[AgentState.FAILED])) >= PAGE
    assert {len(ids_of(store, session_id=f"session {number}")) for number in range(55)} == {20}
    assert {len(ids_of(store, user_id=f"user {number}")) for number in range(11)} == {100}
    assert len(store.take_due(1000, timedelta(hours=1))) == 50


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])
    said = capsys.readouterr().err
    assert all(name in said for name in SECTIONS)


def test_turns_are_taken_in_both_orders_and_ratios_within_a_round() -> None:
    order: list[str] = []
    seconds = {"a": iter([9.0, 1.0, 10.0]), "b": iter([9.0, 2.0, 40.0])}

    def turn(name: str) -> list[float]:
        order.append(name)
        return [next(seconds[name])]

    measured = take_turns({"a": lambda: turn("a"), "b": lambda: turn("b")}, 2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert measured.median("a") == 5.5
    assert measured.ratio("b", "a") == 3
    assert measured.rate_ratio("b", "a") == pytest.approx((0.5 + 0.25) / 2)


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert percentile(list(map(float, range(100))), 0.99) == 99
