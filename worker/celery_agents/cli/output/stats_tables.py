"""Statistics as tables on a terminal."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from agent_statestore.stats import Durations, Stats
from celery_agents.cli.output.rendering import STATE_STYLES, say
from celery_agents.cli.output.table import Column, table_lines
from celery_agents.cli.output.text import age, one_line, short_type, took

_DURATIONS: Final = tuple(Column(name=name, is_number=True) for name in ("p50", "p95", "p99", "longest"))


def print_stats(console: Console, found: Stats, now: datetime) -> None:
    """Print one table for the executions, and one each for steps, failures and waits, if there are any."""
    states = [state for state in STATE_STYLES if any(agent.states.get(state) for agent in found.agents)]
    _print_table(
        console,
        "Executions",
        [
            Column(name="agent", least=8),
            *(Column(name=state.value, is_number=True) for state in states),
            Column(name="steps", is_number=True),
            Column(name="resumed", is_number=True),
            *_DURATIONS,
        ],
        [
            [
                Text(one_line(agent.agent_id)),
                *(Text(str(agent.states.get(state, 0)), style=STATE_STYLES[state]) for state in states),
                Text(str(agent.steps)),
                Text(str(agent.resumed)),
                *_duration_cells(agent.durations),
            ]
            for agent in found.agents
        ],
    )
    _print_table(
        console,
        "Steps",
        [
            Column(name="agent", least=8),
            Column(name="step", least=8),
            Column(name="recorded", is_number=True),
            Column(name="failed", is_number=True),
            *_DURATIONS,
        ],
        [
            [
                Text(one_line(step.agent_id)),
                Text(one_line(step.name)),
                Text(str(step.durations.count)),
                Text(str(step.failed), style="red" if step.failed else ""),
                *_duration_cells(step.durations),
            ]
            for step in found.steps
        ],
    )
    _print_table(
        console,
        "Failures",
        [
            Column(name="agent", least=8),
            Column(name="error", least=8),
            Column(name="times", is_number=True),
            Column(name="latest execution"),
            Column(name="latest message", least=12),
        ],
        [
            [
                Text(one_line(failure.agent_id)),
                Text(one_line(short_type(failure.error_type)), style="red"),
                Text(str(failure.count)),
                Text(one_line(failure.execution_id)),
                Text(one_line(failure.message)),
            ]
            for failure in found.failures
        ],
    )
    _print_table(
        console,
        "Waiting for people",
        [
            Column(name="agent", least=8),
            Column(name="state"),
            Column(name="answered", is_number=True),
            *_DURATIONS,
            Column(name="waiting", is_number=True),
            Column(name="oldest", is_number=True),
        ],
        [
            [
                Text(one_line(wait.agent_id)),
                Text(wait.state.value, style=STATE_STYLES[wait.state]),
                Text(str(wait.durations.count)),
                *_duration_cells(wait.durations),
                Text(str(wait.waiting)),
                Text("" if wait.oldest is None else age(wait.oldest, now)),
            ]
            for wait in found.waits
        ],
    )


def _print_table(console: Console, title: str, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
    if not rows:
        return
    say(console, Text(f"{title}", style="bold underline"))
    for line in table_lines(columns, rows, console.width):
        say(console, line)
    say(console, Text())


def _duration_cells(durations: Durations) -> list[Text]:
    taken = (durations.p50, durations.p95, durations.p99, durations.longest)
    return [Text("" if duration is None else took(duration)) for duration in taken]
