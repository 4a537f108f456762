"""`agents stats`."""

from datetime import UTC, datetime, timedelta

import click

from celery_agents.cli.invocation import shared_runtime
from celery_agents.cli.output import as_json
from celery_agents.cli.parameters import Moment

_DEFAULT_SPAN = timedelta(days=7)


@click.command()
@click.option(
    "--since", type=Moment(ago=True), help="Only executions created since, e.g. 2h or 2026-03-01T09:00Z.  [default: 7d]"
)
@click.option("--until", type=Moment(ago=True), help="Only executions created before.")
@click.option("--agent", metavar="NAME", help="Only executions of this agent.")
@click.option("--json", "wants_json", is_flag=True, help="Print all numbers as one JSON object; durations in seconds.")
@click.pass_context
def stats(
    ctx: click.Context, since: datetime | None, until: datetime | None, agent: str | None, wants_json: bool
) -> None:
    """Show executions by agent and state, durations, failures, and how long people let them wait.

    \b
      celery -A celery_agents agents stats --since 24h
      celery -A celery_agents agents stats --agent research --json | jq '.steps[] | {name, p95: .durations.p95}'
    """
    since = since or datetime.now(UTC) - _DEFAULT_SPAN
    store = shared_runtime(ctx).store
    found = store.stats(since=since, until=until, agent_id=agent)
    if wants_json:
        as_json.write(as_json.of_stats(found))
        return
    if not found.agents:
        click.echo(f"No execution was created in this span of time (looked at {store.url}).", err=True)
        return
    from celery_agents.cli.output.stats_tables import print_stats
    from celery_agents.cli.output.terminal import make_console

    print_stats(make_console(ctx), found, datetime.now(UTC))
