"""`agents purge`."""

import sys
from datetime import UTC, datetime

import click

from agent_statestore.moving.retention import purge_deleted, purge_ended
from agent_statestore.states import OVER, AgentState
from celery_agents.cli.invocation import decider, nothing_there, shared_runtime
from celery_agents.cli.output.text import counted, local_time
from celery_agents.cli.parameters import Moment
from celery_agents.host.runtime import Runtime
from celery_agents.lifecycle import delete
from celery_agents.lifecycle.decider import Decider

_BATCH = 100
_MOST_COUNTED = 1000


@click.command()
@click.argument("execution_ids", nargs=-1)
@click.option("--older-than", "before", type=Moment(ago=True), help="What was over, or deleted, before, e.g. 30d.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(sorted(state.value for state in OVER)),
    help="With --older-than: executions that ended like this; may be repeated.",
)
@click.option("--deleted", is_flag=True, help="With --older-than: executions that are deleted and still kept.")
@click.option("--reason", metavar="TEXT", help="Why; told to the log.")
@click.option("--sender", metavar="NAME", help="Who purges.  [default: the system user]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def purge(
    ctx: click.Context,
    execution_ids: tuple[str, ...],
    before: datetime | None,
    states: tuple[str, ...],
    deleted: bool,
    reason: str | None,
    sender: str | None,
    yes: bool,
) -> None:
    """Remove executions for good, with their audit trails, and their results in Celery's result backend.

    Give ids, also of deleted executions, or remove all that have been over or deleted for long enough. An active
    execution is not removed: cancel it first. The log, here the standard error, says who purged what, for no trail is
    left that could. With the setting agents_retention, workers purge by themselves.

    \b
      celery -A celery_agents agents purge EXECUTION_ID
      celery -A celery_agents agents purge --older-than 30d --state completed --state cancelled
      celery -A celery_agents agents purge --older-than 30d --deleted
    """
    runtime, by = shared_runtime(ctx), decider(sender, reason)
    if execution_ids:
        if before is not None or states or deleted:
            raise click.UsageError("give either ids, or --older-than with --state or --deleted")
        _purge_ids(ctx, runtime, [execution_id.strip() for execution_id in execution_ids], by, yes)
    elif before is None or not (states or deleted):
        raise click.UsageError("say what to purge: ids, or --older-than with --state or --deleted")
    else:
        _purge_old(runtime, before, frozenset(AgentState(state) for state in states), deleted, by, yes)


def _purge_ids(ctx: click.Context, runtime: Runtime, execution_ids: list[str], by: Decider, yes: bool) -> None:
    store, there, refused = runtime.store, [], False
    for execution_id in execution_ids:
        summary = store.get_summary(execution_id)
        if summary is not None and not summary.state.is_over:
            fault = f"execution {execution_id} is {summary.state.value}: cancel it first"
        elif summary is None and not store.get_audit(execution_id):
            fault = nothing_there(runtime, execution_id)
        else:
            there.append(execution_id)
            continue
        click.echo(f"Error: {fault}", err=True)
        refused = True
    if there:
        _confirm(f"Remove {counted(len(there), 'execution')} for good?", yes)
        _say(sum(delete.purge(runtime, execution_id, by=by) for execution_id in there))
    if refused:
        ctx.exit(1)


def _purge_old(
    runtime: Runtime, before: datetime, states: frozenset[AgentState], deleted: bool, by: Decider, yes: bool
) -> None:
    store, forget = runtime.store, runtime.forget_result
    found = len(store.find_ended(before, states=states, limit=_MOST_COUNTED + 1)) if states else 0
    found += len(store.find_deleted(before, _MOST_COUNTED + 1)) if deleted else 0
    if not found:
        click.echo(f"No execution matches (looked at {store.url}).", err=True)
        return
    number = f"more than {_MOST_COUNTED} executions" if found > _MOST_COUNTED else counted(found, "execution")
    kinds = " or ".join(sorted(states) + ["deleted"] * deleted)
    _confirm(f"Remove {number}, {kinds} before {local_time(before, datetime.now(UTC))}, for good?", yes)
    purged = 0
    try:
        while states:
            done, _ = purge_ended(store, before, states=states, limit=_BATCH, before_each=forget)
            purged += done
            if done < _BATCH:
                break
        while deleted:
            done = purge_deleted(store, before, limit=_BATCH, before_each=forget)
            purged += done
            if done < _BATCH:
                break
    finally:
        _say(purged)
        if purged:
            delete.say_removed(
                runtime, f"{counted(purged, 'execution')}, {kinds} before {before:%Y-%m-%dT%H:%M:%S%z},", by
            )


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask: add --yes")
    click.confirm(question, abort=True)


def _say(purged: int) -> None:
    click.echo(f"Purged {counted(purged, 'execution')}.")
