"""Executions on a schedule, through Celery beat: `schedule(app, "daily", report, crontab(hour=3))`.

Beat sends the task `agents.enqueue`, which any worker runs: it creates an execution and rings its bell. Two beats, or a
message that comes twice, start one execution per tick, because the tick's name travels in the message and becomes part
of the idempotency key. The name of a tick does not depend on the beat that sends it:

* `crontab`: the latest time that it names, in its own time zone, at or before the sending. A beat that was down and
  catches up uses the time that it missed.
* an interval: the number of whole intervals since 1970. Two beats with different phases therefore start one execution
  per interval, not two. A single beat never loses a tick to this: its ticks are at least an interval apart.
* `solar`: the event itself.

A worker starts only agents that the schedule of its app names, unless `agents_enqueue_by_message` allows any.

Ticks of other schedules have no such name; there only a repeated message is recognised, by its task id.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any, Final

from celery import Celery, Task
from celery.beat import BeatLazyFunc
from celery.schedules import BaseSchedule, crontab, maybe_schedule, solar
from celery.schedules import schedule as interval

from agent_statestore.errors import IdempotencyConflict, InvalidRecord, StoreUnavailable
from agent_statestore.plain_text import line_logger
from agent_statestore.records import JSONValue, require_name
from celery_agents.define.agent import AgentDefinition
from celery_agents.errors import ConfigurationError, InvalidInput, SessionBusy
from celery_agents.host.runtime import runtime_of
from celery_agents.lifecycle import keys
from celery_agents.lifecycle.create import create

log = line_logger(__name__)

TASK_NAME: Final = "agents.enqueue"

# The longest name of an entry, which leaves room for the tick in an idempotency key.
_NAME_LENGTH: Final = 200
# The 29th of February comes again after eight years at most.
_DAYS: Final = 366 * 8 + 2
# The same event of the sun comes again after about 24 hours, and never twice within 23.
_SOLAR_SPAN: Final = timedelta(hours=23)
_SOLAR_STEP: Final = timedelta(hours=12)


def schedule(
    app: Celery,
    name: str,
    agent: AgentDefinition | str,
    when: BaseSchedule | timedelta | float,
    input: JSONValue = None,  # noqa: A002 - the field's standard name
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    metadata: Mapping[str, JSONValue] | None = None,
    queue: str | None = None,
    priority: int | None = None,
    deadline: timedelta | None = None,
) -> None:
    """Add an entry to the beat schedule of an app: it starts an execution of `agent` at each tick of `when`.

    `when` is a `crontab`, an interval (a `timedelta` or a number of seconds), or another schedule of Celery's. `name`
    is the name of the entry; an entry with the same name is replaced. `queue` holds both the executions and beat's
    message. The other options are those of `enqueue`. The input travels through the broker, unlike the input of other
    executions.

    With a `session_id`, an agent with `session_policy="reject"` skips a tick while the execution of an earlier tick is
    active. Raises `InvalidInput` if the agent is given as an object, and `ConfigurationError`.
    """
    try:
        require_name("name", name)
    except InvalidRecord as error:
        raise ConfigurationError("beat_schedule", str(error)) from error
    if len(name) > _NAME_LENGTH:
        raise ConfigurationError(
            "beat_schedule", f"an entry's name has at most {_NAME_LENGTH} characters: {name!r:.80}"
        )
    if isinstance(when, int | float | timedelta) and _seconds(when) <= 0:
        raise ConfigurationError("beat_schedule", f"the interval of {name!r} needs to be positive, not {when}")
    options = {
        "session_id": session_id,
        "user_id": user_id,
        "metadata": None if metadata is None else dict(metadata),
        "queue": queue,
        "priority": priority,
        "deadline_seconds": None if deadline is None else deadline.total_seconds(),
    }
    kwargs: dict[str, Any] = {
        "agent": agent if isinstance(agent, str) else agent.name,
        "input": input if isinstance(agent, str) else _encoded(agent, input),
        "entry": name,
        **{option: value for option, value in options.items() if value is not None},
    }
    planned = maybe_schedule(when, app=app)
    if isinstance(planned, crontab | solar) or type(planned) is interval:
        kwargs["tick"] = BeatLazyFunc(_Ticks(planned))
    sent: dict[str, Any] = {} if queue is None else {"queue": queue}
    app.add_periodic_task(planned, SimpleNamespace(name=TASK_NAME), kwargs=kwargs, name=name, **sent)


def _encoded(agent: AgentDefinition, input: object) -> JSONValue:  # noqa: A002 - as above
    """Return an input as a message carries it, to be encoded once more by the worker. Raise `InvalidInput`."""
    encoded = agent.encode_input(input)
    if agent.encode_input(encoded) != encoded:
        raise InvalidInput(agent.name, ["input: a schedule would start it with another one; name it as plain JSON"])
    return encoded


class EnqueueTask(Task):  # type: ignore[misc] # Celery carries no types
    """Starts an execution. Repeating it is harmless, so the message is acknowledged after the work."""

    name = TASK_NAME
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True
    autoretry_for = (StoreUnavailable,)
    max_retries = 60
    retry_backoff = 1
    retry_backoff_max = 60

    def run(
        self,
        agent: str,
        input: JSONValue = None,  # noqa: A002 - the field's standard name
        *,
        entry: str | None = None,
        tick: str | None = None,
        deadline_seconds: float | None = None,
        **options: Any,
    ) -> str | None:
        """Return the execution's id.

        Return None if the agent may not be started by a message, or if its session is busy and it rejects a second
        execution. Return None also if the tick was started before with another input: by another beat, while a new
        version of the entry was deployed.
        """
        called = TASK_NAME if entry is None else entry
        runtime = runtime_of(self.app)
        if not runtime.settings.enqueue_by_message and (agent, options.get("user_id")) not in _scheduled(self.app):
            # A broker that others write to would let them start any agent as any user.
            log.error(
                "%.200r starts nothing: no schedule() of this worker's app names the agent %.200r for the user %.200r; "
                "call schedule() in a module that workers import as well, or set agents_enqueue_by_message",
                called,
                agent,
                options.get("user_id"),
            )
            return None
        try:
            created = create(
                runtime,
                agent,
                input,
                tick_key=keys.of_tick(called, self.request.id if tick is None else tick),
                deadline=None if deadline_seconds is None else timedelta(seconds=deadline_seconds),
                **options,
            )
        except SessionBusy as busy:
            log.info("%s: this tick is skipped: %s", called, busy)
            return None
        except IdempotencyConflict as conflict:
            log.error("%s: this tick was started before, with another input: %s", called, conflict)
            return None
        return created


def _scheduled(app: Celery) -> set[tuple[str, str | None]]:
    """Return the agents that the app's schedule names, each with the user that it starts them for."""
    found = set()
    for entry in dict(app.conf.beat_schedule or {}).values():
        planned = entry if isinstance(entry, Mapping) else vars(entry)
        if planned.get("task") == TASK_NAME:
            args, kwargs = planned.get("args") or (), planned.get("kwargs") or {}
            named = args[0] if args else kwargs.get("agent")
            if isinstance(named, str):
                found.add((named, kwargs.get("user_id")))
    return found


@dataclass
class _Ticks:
    """Names the ticks of a schedule. Beat calls it when it sends one."""

    planned: BaseSchedule
    last_us: int = field(default=0)

    def __call__(self) -> str | None:
        now = datetime.now(UTC)
        if type(self.planned) is not interval:
            return tick_of(self.planned, now)
        # Beat noted the tick a moment ago, at least an interval after the last one. That moment may have been shorter
        # this time. The tick must not get the name of the last one.
        every_us, now_us = self.planned.run_every // _MICROSECOND, (now - _EPOCH) // _MICROSECOND
        with _naming:
            self.last_us = max(now_us, self.last_us + every_us if self._is_next(now_us, every_us) else now_us)
            return str(self.last_us // every_us)

    def _is_next(self, now_us: int, every_us: int) -> bool:
        """Return whether this is the tick after the last one, and not the tick of a clock that was set back."""
        return 0 <= now_us - self.last_us < every_us


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_naming = threading.Lock()


def tick_of(planned: BaseSchedule, sent_at: datetime) -> str | None:
    """Return the name of the tick that was sent at this time; None for a schedule whose ticks have no names."""
    if isinstance(planned, crontab):
        moment = latest(planned, sent_at)
        return None if moment is None else moment.astimezone(UTC).isoformat()
    if isinstance(planned, solar):
        event = planned.now() + planned.remaining_estimate(sent_at - _SOLAR_SPAN)
        # The computed time of the event varies a little with the moment of computing: round to the nearest half day.
        return f"{planned.event} {round((event - _EPOCH) / _SOLAR_STEP)}"
    return None


def latest(planned: crontab, sent_at: datetime) -> datetime | None:
    """Return the latest time that a crontab names, at or before `sent_at`; None if it names no such time."""
    zone = planned.tz
    local = sent_at.astimezone(zone)
    hours, minutes = sorted(planned.hour, reverse=True), sorted(planned.minute, reverse=True)
    for days in range(_DAYS):
        day = local.date() - timedelta(days=days)
        if (
            day.month not in planned.month_of_year
            or day.day not in planned.day_of_month
            or day.isoweekday() % 7 not in planned.day_of_week
        ):
            continue
        # An hour may come twice in a day, when clocks are set back.
        named = (
            datetime.combine(day, time(hour, minute, fold=fold), zone).astimezone(UTC)
            for hour in hours
            for minute in minutes
            for fold in (0, 1)
        )
        passed = [moment for moment in named if moment <= sent_at]
        if passed:
            return max(passed)
    return None


def _seconds(when: timedelta | float) -> float:
    return when.total_seconds() if isinstance(when, timedelta) else when
