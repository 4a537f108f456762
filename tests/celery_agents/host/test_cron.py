"""Executions on a schedule, through Celery beat."""

import pickle
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery.beat import PersistentScheduler, Scheduler
from celery.schedules import BaseSchedule, crontab
from celery.schedules import schedule as interval

from agent_statestore import AgentState, InvalidRecord
from agent_statestore.query import Query
from celery_agents import InvalidInput, Run, agent, enqueue, schedule
from celery_agents.errors import ConfigurationError
from celery_agents.host import cron
from celery_agents.host.cron import latest, tick_of
from celery_agents.host.runtime import Runtime
from tests.celery_agents.their_workers import client_of
from tests.services.commands import Command, environment, wait_until

BERLIN = ZoneInfo("Europe/Berlin")


@dataclass
class Kept:
    reason: str


@dataclass
class Dropped:
    reason: str


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# -- what a tick is called ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sent_at", "tick"),
    [
        ({}, "2026-05-04T12:30:00", "2026-05-04T12:30:00"),
        ({}, "2026-05-04T12:30:59.999999", "2026-05-04T12:30:00"),
        ({"minute": "*/15"}, "2026-05-04T12:29:59", "2026-05-04T12:15:00"),
        ({"minute": 0, "hour": 3}, "2026-05-04T09:17:00", "2026-05-04T03:00:00"),
        ({"minute": 0, "hour": 3}, "2026-05-04T02:59:59", "2026-05-03T03:00:00"),
        ({"minute": 5, "hour": 0}, "2026-01-01T00:04:00", "2025-12-31T00:05:00"),
        ({"minute": 0, "hour": 0, "day_of_week": "sun"}, "2026-05-05T01:00:00", "2026-05-03T00:00:00"),
        ({"minute": 0, "hour": 0, "day_of_month": 31}, "2026-05-05T01:00:00", "2026-03-31T00:00:00"),
        (
            {"minute": 0, "hour": 0, "day_of_month": 29, "month_of_year": 2},
            "2028-02-28T00:00:00",
            "2024-02-29T00:00:00",
        ),
    ],
)
def test_a_tick_of_a_crontab_is_the_latest_time_that_it_names(
    runtime: Runtime, fields: dict[str, Any], sent_at: str, tick: str
) -> None:
    assert latest(crontab(**fields, app=runtime.app), at(sent_at)) == at(tick)


def test_a_crontab_names_times_of_its_own_zone(runtime: Runtime) -> None:
    runtime.app.conf.timezone = "Europe/Berlin"
    planned = crontab(minute=30, hour=2, app=runtime.app)
    assert latest(planned, at("2026-07-04T00:30:00")) == datetime(2026, 7, 4, 2, 30, tzinfo=BERLIN)
    assert tick_of(planned, at("2026-07-04T00:29:00")) == "2026-07-03T00:30:00+00:00"
    # In this night the hour from two to three comes twice.
    every_hour = crontab(minute=30, app=runtime.app)
    assert tick_of(every_hour, at("2026-10-25T00:31:00")) == "2026-10-25T00:30:00+00:00"
    assert tick_of(every_hour, at("2026-10-25T01:31:00")) == "2026-10-25T01:30:00+00:00"


def test_beat_is_due_when_a_new_tick_begins(runtime: Runtime) -> None:
    """The name changes at exactly those moments at which Celery finds the schedule due."""
    now = at("2026-02-27T22:10:30")
    planned = crontab(minute="7,52", hour="*/5", day_of_week="1-6", nowfun=lambda: now, app=runtime.app)
    last, ticks = now, [tick_of(planned, now)]
    for _ in range(6 * 24 * 60):
        now += timedelta(minutes=1)
        if planned.is_due(last).is_due:
            last = now
            ticks.append(tick_of(planned, now))
        else:
            assert tick_of(planned, now) == ticks[-1]
    assert len(set(ticks)) == len(ticks) > 40


def test_ticks_of_an_interval_differ_however_early_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [0.0, 9.999, 20.5, 30.4999, 30.5, 100.0]
    passing = iter(moments)

    class Passing(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # noqa: ARG003 - the signature is given
            return at("2026-05-04T12:00:00") + timedelta(seconds=next(passing))

    ticks = cron._Ticks(interval(timedelta(seconds=10)))
    monkeypatch.setattr(cron, "datetime", Passing)
    names = [int(str(ticks())) for _ in moments]
    assert names == sorted(set(names))


def test_two_beats_give_one_interval_one_name() -> None:
    hour = interval(timedelta(hours=10_000))
    assert cron._Ticks(hour)() == cron._Ticks(hour)()


def test_a_tick_of_the_sun_is_the_event(runtime: Runtime) -> None:
    from celery.schedules import solar

    def name(sent_at: str) -> str | None:
        return tick_of(solar("sunset", 52.5, 13.4, app=runtime.app, nowfun=lambda: at(sent_at)), at(sent_at))

    names = [name(f"2026-05-{day:02}T19:00:00") for day in range(1, 29)]
    assert len(set(names)) == len(names)
    assert name("2026-05-04T19:00:00") == name("2026-05-04T19:00:02") == name("2026-05-05T03:00:00")


class Other(BaseSchedule):
    """A schedule of the user's own."""


def test_a_schedule_of_the_users_own_has_no_names(runtime: Runtime) -> None:
    assert tick_of(Other(app=runtime.app), at("2026-05-04T12:00:00")) is None


# -- entries -----------------------------------------------------------------------------------------------------------


def report(run: Run, input: int) -> int:
    return input


@pytest.fixture
def reporting(runtime: Runtime) -> Any:
    return agent(registry=runtime.registry)(report)


def sent_by(runtime: Runtime) -> list[str | None]:
    """What the tasks return that one beat sends now, run at once."""
    runtime.app.conf.task_always_eager = True
    scheduler = Scheduler(app=runtime.app, lazy=True)
    scheduler.merge_inplace(runtime.app.conf.beat_schedule)
    return [scheduler.apply_async(entry, advance=False).result for entry in list(scheduler.schedule.values())]


def test_an_entry_starts_an_execution_with_its_options(runtime: Runtime, reporting: Any) -> None:
    hour = timedelta(hours=1)
    schedule(
        runtime.app,
        "daily",
        reporting,
        crontab(hour=3, minute=0),
        7,
        session_id="s",
        user_id="u",
        metadata={"a": 1},
        queue="q",
        priority=3,
        deadline=hour,
    )
    (execution_id,) = sent_by(runtime)
    assert execution_id is not None
    context = runtime.store.get_context(execution_id)
    assert context is not None
    assert (context.agent_id, context.input, context.session_id, context.user_id) == ("report", 7, "s", "u")
    assert (context.metadata["a"], context.queue, context.priority) == (1, "q", 3)
    assert datetime.fromisoformat(context.metadata["agents.deadline"]) - context.created_at < hour + timedelta(
        seconds=5
    )
    assert context.idempotency_key is not None
    assert "daily @ 2" in context.idempotency_key


@pytest.mark.parametrize("when", [crontab(hour=3, minute=0), timedelta(days=20_000), 3_000_000])
def test_two_beats_start_one_execution_for_one_tick(runtime: Runtime, reporting: Any, when: Any) -> None:
    schedule(runtime.app, "daily", reporting, when, 7)
    first = sent_by(runtime)
    schedule(runtime.app, "daily", reporting, when, 7)  # as another process does
    assert sent_by(runtime) == first
    assert len(runtime.store.find().items) == 1


def test_a_tick_that_another_beat_started_with_another_input_is_left_to_it(
    runtime: Runtime, reporting: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (7, 8):
        schedule(runtime.app, "daily", reporting, crontab(hour=3, minute=0), number)
        started = sent_by(runtime)
    assert started == [None]
    assert [item.execution_id in caplog.text for item in runtime.store.find().items] == [True]
    assert "daily: this tick was started before, with another input" in caplog.text


def test_no_key_of_a_users_takes_the_place_of_a_tick(runtime: Runtime, reporting: Any) -> None:
    schedule(runtime.app, "daily", reporting, crontab(hour=3, minute=0), 7)
    (tick,) = sent_by(runtime)
    assert tick is not None
    made = runtime.store.get_context(tick)
    assert made is not None
    assert made.idempotency_key is not None
    name = made.idempotency_key.partition("daily @ ")[2]
    runtime.store.purge(tick)

    forged = enqueue(reporting, 7, idempotency_key=f"daily @ {name}", runtime=runtime)
    with pytest.raises(InvalidRecord, match="as only keys of the engine do"):
        enqueue(reporting, 7, idempotency_key=made.idempotency_key, runtime=runtime)
    (again,) = sent_by(runtime)
    assert again not in (None, forged.id)


def test_entries_of_one_agent_are_different_things(runtime: Runtime, reporting: Any) -> None:
    for name in ("one", "two"):
        schedule(runtime.app, name, "report", crontab(hour=3, minute=0), 7)
    assert len(set(sent_by(runtime))) == 2


def test_a_repeated_message_without_a_tick_starts_nothing_new(runtime: Runtime, reporting: Any) -> None:
    runtime.app.conf.agents_enqueue_by_message = True
    task = runtime.app.tasks[cron.TASK_NAME]
    first = task.apply(("report", 7), task_id="t1").get()
    assert task.apply(("report", 7), task_id="t1").get() == first
    assert task.apply(("report", 7), task_id="t2").get() != first


def test_a_message_starts_only_what_the_schedule_names(
    runtime: Runtime, reporting: Any, caplog: pytest.LogCaptureFixture
) -> None:
    agent(registry=runtime.registry, name="pays")(report)
    schedule(runtime.app, "daily", reporting, crontab(hour=3, minute=0), 7, user_id="ann")
    task = runtime.app.tasks[cron.TASK_NAME]
    for args, kwargs in [(("pays", 7), {}), (("pays",), {"user_id": "ann"}), (("report", 7), {"user_id": "admin"})]:
        caplog.clear()
        assert task.apply(args, kwargs | {"entry": "forged\nline"}).get() is None
        (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert all(part in record.getMessage() for part in (args[0], "forged", "agents_enqueue_by_message"))
        assert "\n" not in record.getMessage()
    assert runtime.store.find().items == ()
    assert task.apply(("report", 7), {"user_id": "ann"}).get() is not None


def test_a_handwritten_schedule_names_agents_too(runtime: Runtime, reporting: Any) -> None:
    entry = {"task": cron.TASK_NAME, "schedule": 60, "kwargs": {"agent": "report", "input": 7}}
    runtime.app.conf.beat_schedule = {"by hand": entry, "another": {"task": "other", "schedule": 1}}
    assert runtime.app.tasks[cron.TASK_NAME].apply((), entry["kwargs"]).get() is not None


def test_a_tick_is_skipped_while_the_session_is_busy(runtime: Runtime) -> None:
    runtime.app.conf.agents_enqueue_by_message = True
    agent(registry=runtime.registry, session_policy="reject")(report)
    task = runtime.app.tasks[cron.TASK_NAME]
    first = task.apply(("report", 7), {"session_id": "s"}).get()
    assert task.apply(("report", 7), {"session_id": "s"}).get() is None
    runtime.store.update_state(first, AgentState.COMPLETED)
    assert task.apply(("report", 7), {"session_id": "s"}).get() not in (first, None)


def test_what_beat_keeps_on_disk_can_be_kept(runtime: Runtime, reporting: Any, tmp_path: Path) -> None:
    for name, when in (("cron", crontab(minute=0)), ("every", 30)):
        schedule(runtime.app, name, reporting, when, 7)
    scheduler = PersistentScheduler(app=runtime.app, schedule_filename=str(tmp_path / "beat"))
    assert {"cron", "every"} <= set(scheduler.schedule)
    for entry in scheduler.schedule.values():
        assert pickle.loads(pickle.dumps(entry)).name == entry.name
    scheduler.close()


def test_what_cannot_be_scheduled_is_refused(runtime: Runtime, reporting: Any) -> None:
    with pytest.raises(InvalidInput):
        schedule(runtime.app, "daily", reporting, 30, "seven")
    for name, when in (("", 30), ("x" * 201, 30), ("daily", 0), ("daily", timedelta(seconds=-1))):
        with pytest.raises(ConfigurationError, match="beat_schedule"):
            schedule(runtime.app, name, reporting, when, 7)
    assert not runtime.app.conf.beat_schedule


# -- real beats --------------------------------------------------------------------------------------------------------

AGENTS = """
from celery_agents import agent, schedule
from celery_agents.celery import app

@agent
def noted(run, input: str) -> str:
    return run.step("note", lambda: input)

schedule(app, "often", noted, 1, "tick")
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A client on the embedded defaults in a folder with an agent that is scheduled every second."""
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


def test_two_real_beats_start_one_execution_per_tick(client: Runtime, tmp_path: Path) -> None:
    env = environment(AGENTS_HOME=str(tmp_path / "home"), AGENTS_IMPORTS="their_agents", AGENTS_SWEEP_SECONDS="0.5")
    env["PYTHONPATH"] += f":{tmp_path}"

    def command(arguments: str, name: str) -> Command:
        return Command(
            f"celery -A celery_agents {arguments}", cwd=tmp_path, env=env, log=tmp_path / f"{name}.log", warm=True
        )

    def stored() -> int:
        return len(client.store.find(Query(limit=100)).items)

    with command("worker -l INFO -P threads -c 4 --without-mingle --without-gossip", "worker") as worker:
        worker.wait_for("ready.")
        beats = [command(f"beat -l INFO -s beat{number}", f"beat{number}") for number in (1, 2)]
        with beats[0], beats[1]:
            for beat in beats:
                beat.wait_for("Sending due task often")
            began, before = time.monotonic(), stored()
            wait_until("executions", lambda: stored() >= before + 6, seconds=60)
            passed = time.monotonic() - began
        sent = sum(beat.output.count("Sending due task often") for beat in beats)
        received = lambda: worker.output.count("Task agents.enqueue")  # noqa: E731
        wait_until("the worker has worked off all messages", lambda: received() >= 2 * sent, seconds=30)
        executions = client.store.find(Query(limit=100)).items
        wait_until(
            "all are over",
            lambda: stored() == len(client.store.find(Query(states=[AgentState.COMPLETED], limit=100)).items),
        )
    # Each of the two has sent one per second; only every other message has started something.
    assert len(executions) <= passed + before + 3
    assert sent >= 1.5 * len(executions) - 2
    keys = [summary.idempotency_key for summary in executions]
    assert len(set(keys)) == len(keys)


def test_a_typed_input_that_the_message_would_change_is_refused_when_it_is_scheduled(runtime: Runtime) -> None:
    def work(run: Run, input: Kept | Dropped) -> None:
        raise NotImplementedError

    planned = agent(registry=runtime.registry)(work)
    schedule(runtime.app, "daily", planned, 60, input=Kept("a"))
    with pytest.raises(InvalidInput, match="plain JSON"):
        schedule(runtime.app, "nightly", planned, 60, input=Dropped("a"))
