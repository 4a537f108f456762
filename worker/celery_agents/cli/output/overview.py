"""All active executions and their changes: a live table, plain lines, or JSON lines."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from agent_statestore.query import Query
from agent_statestore.records import ExecutionSummary
from agent_statestore.states import ACTIVE
from agent_statestore.store import Store
from celery_agents.cli.output import as_json
from celery_agents.cli.output.text import counted, one_line

if TYPE_CHECKING:
    from rich.console import Console

_MOST: Final = 500
_LINES_BESIDE_ROWS: Final = 3


def show_active(ctx: click.Context, store: Store, *, interval_seconds: float, wants_json: bool) -> None:
    """Show the active executions (the newest 500 of them) until Ctrl-C."""
    from celery_agents.cli.output.terminal import is_live, make_console

    try:
        if wants_json:
            for summary in _changes(store, interval_seconds):
                as_json.write_line(as_json.of_record(summary))
        elif is_live(console := make_console(ctx)):
            _draw_live(console, store, interval_seconds)
        else:
            _print_lines(console, store, interval_seconds)
    except KeyboardInterrupt:
        return


def _draw_live(console: "Console", store: Store, interval_seconds: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from celery_agents.cli.output.rendering import execution_lines

    with Live(console=console, auto_refresh=False) as live:
        while True:
            rows = max(1, console.height - _LINES_BESIDE_ROWS)
            page = store.find(Query(states=ACTIVE, limit=min(rows, _MOST)))
            lines = execution_lines(page.items, datetime.now(UTC), console.width)
            more = ", and older ones" if page.next_cursor is not None else ""
            status = Text(f"{len(page.items)} active{more} (Ctrl-C ends)", style="dim")
            live.update(Group(*lines, status) if page.items else status, refresh=True)
            time.sleep(interval_seconds)


def _print_lines(console: "Console", store: Store, interval_seconds: float) -> None:
    from rich.text import Text

    from celery_agents.cli.output.rendering import note_of, state_text

    for summary in _changes(store, interval_seconds):
        line = Text(f"{datetime.now().astimezone():%H:%M:%S}  {summary.execution_id}  {one_line(summary.agent_id)}  ")
        line += state_text(summary.state) + Text(f"  {counted(summary.step_count, 'step')}  {note_of(summary)}")
        line.rstrip()
        console.print(line, no_wrap=True, overflow="ellipsis")


def _changes(store: Store, interval_seconds: float) -> Iterator[ExecutionSummary]:
    """Yield every active execution at first, then each one that changed, including its end."""
    last: dict[str, ExecutionSummary] = {}
    while True:
        page = store.find(Query(states=ACTIVE, limit=_MOST))
        active = {summary.execution_id: summary for summary in page.items}
        for execution_id in last.keys() - active.keys():
            gone = store.get_summary(execution_id)
            if gone is not None and gone.state.is_over:
                yield gone
        for execution_id, summary in reversed(active.items()):
            if execution_id not in last or _what_changes(last[execution_id]) != _what_changes(summary):
                yield summary
        last = active
        time.sleep(interval_seconds)


def _what_changes(summary: ExecutionSummary) -> tuple[object, ...]:
    return (summary.version, summary.state, summary.attempt, summary.cancel_requested)
