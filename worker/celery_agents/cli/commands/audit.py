"""`agents audit`."""

from typing import TYPE_CHECKING, Final

import click

from agent_statestore.errors import ExecutionNotFound
from agent_statestore.records import AuditEntry, SignalKind, without_voter
from celery_agents.cli.invocation import shared_runtime
from celery_agents.cli.output import as_json
from celery_agents.cli.output.step_text import decider_text
from celery_agents.cli.output.text import compact, exact, one_line
from celery_agents.host.owner import worker_text

if TYPE_CHECKING:
    from rich.text import Text

_WIDE_COLUMNS: Final = 110


@click.command()
@click.argument("execution_id")
@click.option("--json", "wants_json", is_flag=True, help="Print a list of all entries as one JSON document.")
@click.pass_context
def audit(ctx: click.Context, execution_id: str, wants_json: bool) -> None:
    """Show who and what moved an execution, from its creation to its end, and why.

    A store that keeps deleted executions shows the trail of one until it is purged.

    \b
      celery -A celery_agents agents audit EXECUTION_ID
      celery -A celery_agents agents audit EXECUTION_ID --json | jq '.[] | select(.event == "decided")'
    """
    execution_id = execution_id.strip()
    store = shared_runtime(ctx).store
    entries = store.get_audit(execution_id)
    if not entries and store.get_summary(execution_id) is None:
        raise ExecutionNotFound(execution_id)
    if wants_json:
        as_json.write([as_json.of_record(entry) for entry in entries])
        return
    if not entries:
        click.echo("Nothing was noted of this execution yet: it is older than the audit trail.", err=True)
        return
    from celery_agents.cli.output.rendering import say
    from celery_agents.cli.output.table import Column, table_lines
    from celery_agents.cli.output.terminal import make_console

    console = make_console(ctx)
    is_wide = console.width >= _WIDE_COLUMNS
    columns = [
        Column(name="when"),
        Column(name="what", least=8),
        Column(name="state"),
        Column(name="attempt", is_number=True),
        Column(name="who", least=6),
        Column(name="why", least=6),
    ]
    if is_wide:
        columns.append(Column(name="worker", least=6))
    for line in table_lines(columns, [_cells(entry, is_wide) for entry in entries], console.width):
        say(console, line)


def _cells(entry: AuditEntry, is_wide: bool) -> "list[Text]":
    from rich.text import Text

    cells = [
        Text(f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}"),
        Text(_what(entry)),
        _states(entry, is_wide),
        Text(str(entry.attempt)),
        Text(one_line(_who(entry, is_wide))),
        Text(one_line(entry.reason or "")),
    ]
    return [*cells, Text(one_line(worker_text(entry.worker or "")))] if is_wide else cells


def _what(entry: AuditEntry) -> str:
    """Return the event; for a decision, what was decided."""
    signal = entry.signal
    if signal is None:
        return entry.event.value
    if signal.kind is SignalKind.APPROVAL and isinstance(signal.payload, dict):
        decided = "approved" if signal.payload.get("approved") is True else "rejected"
        arguments = signal.payload.get("arguments")
        edited = "" if arguments is None else f", with {exact(arguments)}"
        return f"{decided} {one_line(without_voter(signal.key).removeprefix('approve '))}{edited}"
    key = f" {one_line(signal.key)}" if signal.key else ""
    payload = "" if signal.payload is None else f": {compact(signal.payload)}"
    return f"{signal.kind.value}{key}{payload}"


def _who(entry: AuditEntry, is_wide: bool) -> str:
    """Return who did it; a narrow table has no room for what the sending process knew of somebody who gave a name."""
    if entry.channel is None or (entry.by and not is_wide):
        return entry.by or ""
    return decider_text(entry.by, entry.channel, entry.os_user)


def _states(entry: AuditEntry, is_wide: bool) -> "Text":
    """Return from which state to which; in a narrow table the row before tells the first state."""
    from rich.text import Text

    from celery_agents.cli.output.rendering import state_text

    if entry.to_state is None:
        return Text() if entry.from_state is None else state_text(entry.from_state)
    begins = state_text(entry.from_state) + Text(" ") if is_wide and entry.from_state is not None else Text()
    return begins + Text("-> ") + state_text(entry.to_state)
