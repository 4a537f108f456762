"""`agents recover`."""

from datetime import datetime

import click

from agent_statestore.errors import ExecutionNotFound, ExecutionOver, StoreError
from agent_statestore.records import ExecutionSummary, Lease, Wait, WaitKind
from agent_statestore.states import AgentState
from celery_agents.cli.invocation import decider, nothing_there, shared_runtime
from celery_agents.cli.output.several import answering_line
from celery_agents.cli.output.text import counted, local_time, one_line
from celery_agents.cli.output.wait_text import is_only_a_look
from celery_agents.host import bell, owner
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime


@click.command()
@click.argument("execution_ids", nargs=-1)
@click.option("--reason", metavar="TEXT", help="Why failed ones are released; recorded in their audit trails.")
@click.option("--sender", metavar="NAME", help="Who releases them.  [default: the system user]")
@click.pass_context
def recover(ctx: click.Context, execution_ids: tuple[str, ...], reason: str | None, sender: str | None) -> None:
    """Put executions back on the queue.

    Without ids, do once what each worker's sweeper does all the time: give back the leases of dead processes of this
    host, and ring the bell of each execution that is due. With ids, release failed ones (dead letters too), keeping
    their recorded steps, and ring the bells of those that nobody has claimed. Nothing is executed here; recovering
    twice is harmless.

    \b
      celery -A celery_agents agents recover
      celery -A celery_agents agents recover EXECUTION_ID --reason "the model is back"
    """
    runtime = shared_runtime(ctx)
    if not execution_ids:
        _recover_due(runtime)
        return
    refused = 0
    for execution_id in execution_ids:
        try:
            click.echo(_recover_one(ctx, runtime, execution_id.strip(), reason, sender))
        except (StoreError, _NothingToRecover) as error:
            said = nothing_there(runtime, error.execution_id) if isinstance(error, ExecutionNotFound) else str(error)
            click.echo(f"Error: {one_line(said)}", err=True)
            refused += 1
    if refused:
        ctx.exit(1)


class _NothingToRecover(Exception):
    """The execution needs no recovery; the message says why."""


def _recover_due(runtime: Runtime) -> None:
    sweeper = Sweeper(runtime)
    broken = sweeper.break_dead_leases()
    rung = cancelled = 0
    while True:
        swept = sweeper.sweep()
        rung, cancelled = rung + swept.rung, cancelled + swept.cancelled
        if swept.rung < runtime.settings.sweep_batch:  # the batch was not full, or the broker is away
            break
    click.echo(f"leases of dead processes given back: {broken}")
    click.echo(f"bells rung: {rung}")
    click.echo(f"cancels finished: {cancelled}")
    tidied = runtime.store.tidy()
    if tidied:
        click.echo(f"expired index entries removed: {tidied}")


def _recover_one(
    ctx: click.Context, runtime: Runtime, execution_id: str, reason: str | None, sender: str | None
) -> str:
    """Recover one execution and say how. Raise `_NothingToRecover` and errors of the store."""
    summary = runtime.store.get_summary(execution_id)
    if summary is None:
        raise ExecutionNotFound(execution_id)
    if summary.state is AgentState.FAILED:
        by = decider(sender, reason)
        runtime.store.requeue(execution_id, by=by.sender, reason=by.reason, via=by.via)
        rung = _ring(runtime, summary, mark=True)
        return f"Execution {execution_id} is released with {counted(summary.step_count, 'step')} recorded{rung}."
    if summary.state.is_over:
        raise ExecutionOver(execution_id, summary.state.value)
    lease = _live_lease(runtime, summary)
    if lease is not None:
        if not (owner.is_dead(lease.owner) and runtime.store.release(lease, crashed=True)):
            until = local_time(lease.expires_at, runtime.store.now())
            raise _NothingToRecover(
                f"execution {execution_id} is claimed by {owner.worker_text(lease.owner)}, with a lease until {until}; "
                "if that process dies, a worker recovers it by itself"
            )
    elif not _may_be_claimed(summary, now := runtime.store.now()):
        raise _NothingToRecover(_what_it_waits_for(ctx, summary, now))
    # Unmarked: this is an extra message, and must not move a start time or the sweeper's next ring.
    rung = _ring(runtime, summary, mark=False)
    return f"Execution {execution_id} is free to be claimed{rung}."


def _live_lease(runtime: Runtime, summary: ExecutionSummary) -> Lease | None:
    """Return the lease if it lives by the store's own clock; None otherwise."""
    if summary.owner is None:
        return None
    leases = runtime.store.find_leases(summary.owner)
    return next((lease for lease in leases if lease.execution_id == summary.execution_id), None)


def _may_be_claimed(summary: ExecutionSummary, now: datetime) -> bool:
    """Return False for a pause that nothing has ended yet. A signal or a timer that has run out makes it due."""
    is_due = summary.due_at is not None and summary.due_at <= now
    return not summary.state.is_paused or summary.cancel_requested or is_due


def _what_it_waits_for(ctx: click.Context, summary: ExecutionSummary, now: datetime) -> str:
    if not summary.waits:
        return f"execution {summary.execution_id} is paused ({summary.state.value})"
    told = [_what(ctx, summary, waiting, now) for waiting in summary.waits]
    return f"execution {summary.execution_id} waits for {', or '.join(told)}"


def _what(ctx: click.Context, summary: ExecutionSummary, waiting: Wait, now: datetime) -> str:
    what = f"{waiting.kind.value} {one_line(waiting.key)!r}"
    if waiting.wake_at is not None and not is_only_a_look(waiting):
        what += f" until {local_time(waiting.wake_at, now)}"
    if waiting.kind is WaitKind.INPUT:
        what += f"; answer it with `{answering_line(ctx, summary, waiting)}`"
    return what


def _ring(runtime: Runtime, summary: ExecutionSummary, *, mark: bool) -> str:
    """Ring the bell and return, as the end of a sentence, how that went."""
    rung = bell.ring(
        runtime.app,
        runtime.settings,
        execution_id=summary.execution_id,
        agent_id=summary.agent_id,
        queue=summary.queue,
        priority=summary.priority,
    )
    if rung and mark:
        bell.mark_rung(runtime.store, runtime.settings, [(summary.execution_id, summary.attempt)])
    return "; its bell is rung" if rung else "; a worker's sweeper rings its bell once the broker is back"
