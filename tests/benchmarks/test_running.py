"""The benchmark itself, with tiny sizes: it runs, prints its tables and writes its figures."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import SECTIONS, main
from benchmarks.measuring import percentile, take_turns
from benchmarks.sizes import Sizes
from tests.services.postgresql import find_postgresql
from tests.services.process import absent
from tests.services.redis import find_redis

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
)


def test_it_prints_its_tables_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_redis() is None or find_postgresql() is None:
        absent("server", "the benchmark needs Redis and PostgreSQL")
    file = tmp_path / "figures.json"
    assert main(["--json", str(file)], sizes=TINY) == 0
    printed = capsys.readouterr().out
    figures = json.loads(file.read_text())
    tables = {table["name"]: table for table in figures["tables"]}
    assert list(tables) == ["overhead", "growth", "storage", "resume", "workers", "latency"]
    for table in tables.values():
        assert table["title"] in printed
        assert len({tuple(row) for row in table["rows"]}) == 1
    stores = ["memory", "SQLite NORMAL", "SQLite FULL", "PostgreSQL", "Redis"]
    for name in ("overhead", "growth", "resume"):
        assert [row["store"] for row in tables[name]["rows"]] == stores
    assert [row["round trips"] for row in tables["overhead"]["rows"]] == [None, 1, 1, 1, 1]
    assert all(1 < row["stored / payload"] < 10 for row in tables["storage"]["rows"])
    assert tables["workers"]["rows"][0]["pool, store"] == "threads 2, Redis, events"
    assert figures["environment"]["celery"]


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
