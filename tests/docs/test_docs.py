"""What the README and the docs show works."""

import contextlib
import re
import sqlite3
import tomllib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import text as sql_text
from sqlalchemy.pool import NullPool

from agent_statestore import AgentState, Checkpoint, JSONValue, ManualClock
from agent_statestore.clock import from_us
from agent_statestore.sql import SQLStore
from agent_statestore.testing.kit.builders import answer, claim, claimed, done, event, move, pause
from celery_agents.decorators import Agent
from celery_agents.settings import Settings
from tests.celery_agents.driving import Engine
from tests.docs.pages import PAGES, REPOSITORY, ROOT, blocks


def run_block(text: str, **names: Any) -> dict[str, Any]:
    """Runs one block as a module of its own."""
    namespace: dict[str, Any] = {"__name__": "block", **names}
    exec(compile(text, "a block of the docs", "exec"), namespace)
    return namespace


@pytest.mark.parametrize(
    ("name", "value", "output"),
    [
        ("quoting", None, "2026 [1, 2] (1, 2)"),
        ("planner", "Rome", "Picnic, for Rome: sun for 3 days"),
        ("chatting", "otters", 2),
        ("dice", 1, [1, 1, 1]),
    ],
)
def test_the_agents_of_the_guide_do_what_it_says(engine: Engine, name: str, value: Any, output: Any) -> None:
    (text,) = [block for block in blocks(ROOT / "docs/agents.md") if f"def {name}(" in block]
    made = run_block(text)[name]
    assert isinstance(made, Agent)
    engine.registry.add_agent(made)

    outcome = engine.execute(engine.start(made, value))

    assert outcome is not None
    assert outcome.output == output


def test_the_transactional_agent_of_the_guide_books_once(engine: Engine, tmp_path: Path) -> None:
    (text,) = [block for block in blocks(ROOT / "docs/agents.md") if "def booking(" in block]
    booking = run_block(text)["booking"]
    engine.registry.add_agent(booking)
    with contextlib.closing(SQLStore(f"sqlite:///{tmp_path}/shop.db", clock=engine.clock)) as store:
        store.migrate()
        with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as own:
            own.execute("CREATE TABLE bookings (seat TEXT)")
            engine.store = store
            outcome = engine.execute(engine.start(booking, "12A"))
            assert own.execute("SELECT seat FROM bookings").fetchall() == [("12A",)]
    assert outcome is not None
    assert outcome.output == "12A"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def filled_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SQLStore]:
    """A SQL store with pauses that ended in each way, and failures: one that stayed, one released, two deleted."""
    url = (
        f"sqlite:///{tmp_path}/executions.db"
        if request.param == "sqlite"
        else request.getfixturevalue(f"{request.param}_database_url")
    )
    clock = ManualClock()
    with SQLStore(url, clock=clock) as store:
        store.migrate()
        asked, lease = claimed(store, session_id="s-1", user_id="ada")
        store.checkpoint(asked, Checkpoint(steps=(done(1, "search", "\0"), done(2, "search#2"))), lease)
        store.checkpoint(asked, pause(), lease)
        store.send(asked, event())
        clock.advance(timedelta(seconds=10))
        store.send(asked, answer())
        timed_out, lease = claimed(store)
        store.checkpoint(timed_out, pause(wake_at=from_us(clock.now_us()) + timedelta(seconds=30)), lease)
        clock.advance(timedelta(seconds=30))
        claim(store, timed_out)
        open_pause, lease = claimed(store)
        store.checkpoint(open_pause, pause(), lease)
        deleted, lease = claimed(store)
        store.checkpoint(deleted, pause(), lease)
        clock.advance(timedelta(seconds=1000))
        store.delete_context(deleted)
        for fate in ("failed", "released", "deleted", "deleted"):
            execution_id, lease = claimed(store)
            move(store, execution_id, AgentState.FAILED, lease)
            if fate == "released":
                move(store, execution_id, AgentState.IDLE)
            elif fate == "deleted":
                store.delete_context(execution_id)
        yield store


_QUERIES = blocks(ROOT / "docs/queries.md", "sql")


def ask(store: SQLStore, query: str) -> Sequence[Any]:
    """The rows of a query, which is run as a user would."""
    with create_engine(store._settings.url, poolclass=NullPool).connect() as connection:
        return connection.execute(sql_text(query)).all()


@pytest.mark.parametrize("query", _QUERIES, ids=range(len(_QUERIES)))
def test_the_queries_for_any_dialect_answer(filled_store: SQLStore, query: str) -> None:
    rows = ask(filled_store, query)
    assert rows or "01890a5d" in query  # which asks for one that is not there


def test_the_queries_about_failures_and_pauses_tell_the_truth(filled_store: SQLStore) -> None:
    (failures,) = [query for query in _QUERIES if "AS failures" in query]
    (pauses,) = [query for query in _QUERIES if "mean_seconds" in query]
    assert [(row.why, row.failures) for row in ask(filled_store, failures)] == [("builtins:ValueError: boom", 2)]
    (waited,) = ask(filled_store, pauses)
    assert (waited.agent_id, waited.to_state) == ("agent", "waiting_for_input")
    assert (waited.decided, waited.undecided, waited.waiting, waited.mean_seconds) == (1, 1, 1, 20)
    (stats,) = filled_store.stats().waits
    assert (stats.durations.count, stats.waiting) == (2, 1)


def test_the_queries_for_postgresql_answer(postgresql_migrated_url: str) -> None:
    deep: JSONValue = "a backslash: \\u0000"
    for _ in range(500):
        deep = [deep]
    with SQLStore(postgresql_migrated_url) as store:
        execution_id, lease = claimed(store)
        store.checkpoint(execution_id, Checkpoint(steps=(done(1, "search", "\0"), done(2, "search#2", deep))), lease)
        store.release(lease, crashed=True)
        assert store.claim(execution_id, "host:2", timedelta(seconds=15)) is not None
        other, others_lease = claimed(store)
        move(store, other, AgentState.COMPLETED, others_lease)
        # It was claimed twice, because a person was asked.
        asked, lease = claimed(store)
        store.checkpoint(asked, pause(), lease)
        store.send(asked, answer())
        claim(store, asked)
        deleted, lease = claimed(store)
        store.release(lease, crashed=True)
        claim(store, deleted)
        store.delete_context(deleted)
        durations, steps, crashed = (ask(store, query) for query in blocks(ROOT / "docs/queries.md", "postgresql"))
    assert [(row.agent_id, row.state, row.count, len(row.seconds)) for row in durations] == [
        ("agent", "completed", 1, 3)
    ]
    assert [(row.step, row.count, row.failed, row.seconds) for row in steps] == [("search", 2, 0, [1.5, 1.5])]
    assert [(row.execution_id, row.attempts, row.interrupted, row.workers) for row in crashed] == [
        (execution_id, 2, 1, ["host:1", "host:2"])
    ]


def test_the_table_of_settings_is_complete_and_right() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    rows = re.findall(r"^\| `agents_(\w+)` \| `(.*?)` \| (.*?) \|$", page, flags=re.MULTILINE)
    assert rows == [(name, str(field.default), field.description) for name, field in Settings.model_fields.items()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    in_place = re.findall(r"\]\(([^)]*)\)", text)
    defined = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, flags=re.MULTILINE))
    prose = re.sub(r"^\[[^\]]+\]: \S+$", "", text, flags=re.MULTILINE)
    used = {label or shown for shown, label in re.findall(r"(?<!\])\[([^\]]+)\](?:\[([^\]]*)\])?(?!\()", prose)}
    assert set(defined) <= used, "links that nothing refers to"
    for target in [*in_place, *defined.values()]:
        if page.name == "README.md":
            assert target.startswith("https://"), f"{target} leads nowhere on the page of a package index"
        within = target.removeprefix(f"{REPOSITORY}/blob/main/")
        if within.startswith("https:"):
            continue
        folder = page.parent if within == target else ROOT
        path, _, anchor = within.partition("#")
        found = (folder / path) if path else page
        assert found.exists(), f"{page.name} links to {path}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", found.read_text(), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]


def test_the_projects_urls_are_those_of_the_readme() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        urls = tomllib.load(file)["project"]["urls"]
    assert set(urls) == {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith(REPOSITORY) for url in urls.values())
