"""`agents erase`."""

import sys

import click

from celery_agents.cli.invocation import decider, shared_runtime
from celery_agents.cli.output.text import counted
from celery_agents.lifecycle.erase import erase_session, erase_user


@click.command()
@click.option("--user", "user_id", metavar="ID", help="All of a user, with the sessions that are the user's alone.")
@click.option("--session", "session_id", metavar="ID", help="All of a session.")
@click.option("--reason", metavar="TEXT", help="Why; told to the log.")
@click.option("--sender", metavar="NAME", help="Who erases.  [default: the system user]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def erase(
    ctx: click.Context,
    user_id: str | None,
    session_id: str | None,
    reason: str | None,
    sender: str | None,
    yes: bool,
) -> None:
    """Remove all that is stored of a user or a session, for good.

    That is: executions with their audit trails and results, conversations, threads of LangGraph, and facts that were
    remembered. Nothing is removed while an execution is active: cancel it first. Executions that were deleted before
    are kept until `agents purge --deleted` removes them.

    \b
      celery -A celery_agents agents erase --user USER_ID --reason "asked for by the customer"
    """
    if (user_id is None) == (session_id is None):
        raise click.UsageError("give either --user or --session")
    runtime, by = shared_runtime(ctx), decider(sender, reason)
    if not yes:
        question = f"Remove all of {'user' if session_id is None else 'session'} {session_id or user_id} for good?"
        if not sys.stdin.isatty():
            raise click.UsageError(f"{question} There is no terminal to ask: add --yes")
        click.confirm(question, abort=True)
    if session_id is not None:
        erased = erase_session(runtime, session_id, by=by)
    else:
        erased = erase_user(runtime, user_id or "", by=by)
    click.echo(f"Erased {counted(erased.executions, 'execution')} and {counted(erased.documents, 'document')}.")
