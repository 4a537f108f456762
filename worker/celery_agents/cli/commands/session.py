"""`agents session`."""

import json

import click

from agent_statestore.documents.sessions import Session
from celery_agents.cli.invocation import shared_runtime
from celery_agents.cli.output.text import counted, one_line


@click.group()
def session() -> None:
    """Show the conversation of a session, or change it.

    While an execution has the conversation, it is not changed.

    \b
      celery -A celery_agents agents session show SESSION_ID --last 10
      celery -A celery_agents agents session rewind SESSION_ID 2
      celery -A celery_agents agents session fork SESSION_ID NEW_SESSION_ID
    """


def _session_of(ctx: click.Context, session_id: str) -> Session:
    return shared_runtime(ctx).store.session(session_id)


@session.command()
@click.argument("session_id")
@click.option("--last", "count", type=click.IntRange(min=1), default=50, show_default=True, help="How many messages.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each message.")
@click.pass_context
def show(ctx: click.Context, session_id: str, count: int, as_json: bool) -> None:
    """Show the last messages, with their numbers."""
    conversation = _session_of(ctx, session_id)
    messages = conversation.last(count)
    if as_json:
        for message in messages:
            click.echo(
                json.dumps(
                    {
                        "number": message.number,
                        "role": message.role,
                        "content": message.content,
                        "metadata": dict(message.metadata),
                        "timestamp": message.timestamp.isoformat(),
                        "execution_id": message.execution_id,
                    },
                    ensure_ascii=False,
                )
            )
        return
    summary = conversation.summary()
    if summary is not None:
        click.echo(f"Up to {summary.up_to}, in short: {one_line(str(summary.content))}")
    for message in messages:
        click.echo(f"{message.number:>5}  {one_line(message.role)}: {one_line(str(message.content))}")
    if not messages:
        click.echo(f"No messages in the session {session_id} (looked at {shared_runtime(ctx).store.url}).", err=True)


@session.command()
@click.argument("session_id")
@click.argument("to", type=click.IntRange(min=0))
@click.pass_context
def rewind(ctx: click.Context, session_id: str, to: int) -> None:
    """Remove the messages behind number TO."""
    removed = _session_of(ctx, session_id).rewind(to)
    click.echo(f"Removed {counted(removed, 'message')}.")


@session.command()
@click.argument("session_id")
@click.argument("new_session_id")
@click.pass_context
def fork(ctx: click.Context, session_id: str, new_session_id: str) -> None:
    """Copy the conversation to a session that has none."""
    forked = _session_of(ctx, session_id).fork(new_session_id)
    click.echo(f"The session {new_session_id} begins with {counted(forked.length(), 'message')}.")
