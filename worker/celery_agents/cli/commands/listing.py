"""`agents list`."""

from datetime import UTC, datetime

import click

from agent_statestore.query import Query
from agent_statestore.states import AgentState
from celery_agents.cli.invocation import command_line, shared_runtime
from celery_agents.cli.output import as_json
from celery_agents.cli.parameters import Moment


@click.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in AgentState]),
    help="Only executions in this state; may be repeated.",
)
@click.option("--agent", metavar="NAME", help="Only executions of this agent.")
@click.option("--session", metavar="ID", help="Only executions of this session.")
@click.option("--user", metavar="ID", help="Only executions of this user.")
@click.option("--since", type=Moment(ago=True), help="Only executions created since, e.g. 2h or 2026-03-01T09:00Z.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Executions on one page.")
@click.option("--cursor", metavar="CURSOR", help="The page after this; the page before prints it.")
@click.option("--json", "wants_json", is_flag=True, help='Print {"items": [...], "next_cursor": ...}.')
@click.pass_context
def list_executions(
    ctx: click.Context,
    states: tuple[str, ...],
    agent: str | None,
    session: str | None,
    user: str | None,
    since: datetime | None,
    limit: int,
    cursor: str | None,
    wants_json: bool,
) -> None:
    """List executions, newest first.

    \b
      celery -A celery_agents agents list --state failed --state cancelled --since 2h
      celery -A celery_agents agents list --agent research --json | jq -r '.items[].execution_id'
    """
    store = shared_runtime(ctx).store
    page = store.find(
        Query(
            session_id=session,
            user_id=user,
            agent_id=agent,
            states=[AgentState(name) for name in states] or None,
            created_after=since,
            limit=limit,
            cursor=cursor,
        )
    )
    if wants_json:
        as_json.write(as_json.of_page(page))
        return
    from celery_agents.cli.output.rendering import execution_lines, say
    from celery_agents.cli.output.terminal import make_console

    if page.items:
        console = make_console(ctx)
        for line in execution_lines(page.items, datetime.now(UTC), console.width):
            say(console, line)
    else:
        filtered = any((states, agent, session, user, since, cursor))
        start = command_line(ctx, "enqueue", "AGENT", "INPUT")
        nothing = "No execution matches" if filtered else f"There are no executions yet; start one: {start}"
        message = f"{nothing} (looked at {store.url})"
        click.echo(message, err=True)
    if page.next_cursor is not None:
        # Kept apart from the rows, so that a script that reads them need not skip it.
        click.echo(f"There are more: repeat the command with --cursor {page.next_cursor}", err=True)
