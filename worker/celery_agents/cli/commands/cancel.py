"""`agents cancel`."""

import click

from agent_statestore.errors import ExecutionOver
from agent_statestore.states import AgentState
from celery_agents.cli.invocation import command_line, execution_of, os_user, shared_runtime
from celery_agents.cli.output.text import one_line, took
from celery_agents.host.owner import worker_text


@click.command()
@click.argument("execution_id")
@click.option("--now", is_flag=True, help="Do not wait for the step in flight: it may hang.")
@click.option("--reason", metavar="TEXT", help="Why; recorded with the cancel.")
@click.option("--sender", metavar="NAME", help="Who cancels.  [default: the system user]")
@click.pass_context
def cancel(ctx: click.Context, execution_id: str, now: bool, reason: str | None, sender: str | None) -> None:
    """Cancel an execution for good.

    An execution that is being executed ends at its next step boundary, any other one at once. With --now that one ends
    at once, too: nothing that still runs is recorded. A worker with a prefork pool kills the process within seconds;
    on threads and solo the step keeps its slot until its function returns.

    \b
      celery -A celery_agents agents cancel EXECUTION_ID --reason "asked twice"
    """
    execution = execution_of(ctx, execution_id)
    before = execution.summary()
    holder = one_line(worker_text(before.owner or ""))
    accepted = execution.cancel(now=now, sender=sender or os_user(), reason=reason)
    state = execution.state
    if state is AgentState.CANCELLED:
        click.echo(f"Execution {execution.id} is cancelled." if accepted else f"{execution.id} was cancelled already.")
        if now and accepted and holder:
            click.echo(
                f"It was executed by {holder}. A prefork pool kills the process within seconds; on "
                "threads and solo its step keeps the slot until the function returns, and nothing more is recorded."
            )
    elif accepted and not state.is_over:
        click.echo(f"Execution {execution.id} is being executed; it ends at its next step boundary.")
        if holder:
            silent = took(shared_runtime(ctx).store.now() - before.updated_at)
            click.echo(f"{holder} has it, and recorded something for the last time {silent} ago.")
        click.echo(f"If its step hangs: {command_line(ctx, 'cancel', execution.id, '--now')}")
    else:
        raise ExecutionOver(execution.id, state.value)
