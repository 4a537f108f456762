"""`agents delete`."""

import sys

import click

from celery_agents.cli.invocation import decider, nothing_there, shared_runtime
from celery_agents.cli.output.text import counted
from celery_agents.lifecycle import delete as deletion


@click.command()
@click.argument("execution_ids", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT", help="Why; kept in the audit trail.")
@click.option("--sender", metavar="NAME", help="Who deletes.  [default: the system user]")
@click.option("--yes", is_flag=True, help="Do not ask where nothing of a deleted execution is kept.")
@click.pass_context
def delete(
    ctx: click.Context, execution_ids: tuple[str, ...], reason: str | None, sender: str | None, yes: bool
) -> None:
    """Delete executions that are over.

    A SQL store, or an archive in one, hides a deleted execution from everything but `agents audit` until it is purged;
    Redis removes it at once. An active execution is not deleted: cancel it first.

    \b
      celery -A celery_agents agents delete EXECUTION_ID --reason "asked for by the customer"
    """
    runtime = shared_runtime(ctx)
    store = runtime.store
    there, refused = [], False
    for execution_id in dict.fromkeys(each.strip() for each in execution_ids):
        summary = store.get_summary(execution_id)
        if summary is None:
            fault = nothing_there(runtime, execution_id)
        elif not summary.state.is_over:
            fault = f"execution {execution_id} is {summary.state.value}: cancel it first"
        else:
            there.append(execution_id)
            continue
        click.echo(f"Error: {fault}", err=True)
        refused = True
    if there:
        if not store.keeps_deleted and not yes:
            question = f"{store.url} keeps nothing of deleted executions. Remove {counted(len(there), 'execution')}?"
            if not sys.stdin.isatty():
                raise click.UsageError(f"{question} There is no terminal to ask: add --yes")
            click.confirm(question, abort=True)
        by = decider(sender, reason)
        deleted = sum(deletion.delete(runtime, each, by=by) for each in there)
        kept = "; `agents audit` still shows who did what, until they are purged" if store.keeps_deleted else ""
        click.echo(f"Deleted {counted(deleted, 'execution')}{kept}.")
    if refused:
        ctx.exit(1)
