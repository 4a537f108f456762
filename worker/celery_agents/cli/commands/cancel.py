"""`agents cancel`."""

import click

from agent_statestore.errors import ExecutionOver
from agent_statestore.states import AgentState
from celery_agents.cli.invocation import execution_of, os_user


@click.command()
@click.argument("execution_id")
@click.option("--reason", metavar="TEXT", help="Why; recorded with the cancel.")
@click.option("--sender", metavar="NAME", help="Who cancels.  [default: the system user]")
@click.pass_context
def cancel(ctx: click.Context, execution_id: str, reason: str | None, sender: str | None) -> None:
    """Cancel an execution for good.

    An execution that is being executed ends at its next step boundary, any other one at once.

    \b
      celery -A celery_agents agents cancel EXECUTION_ID --reason "asked twice"
    """
    execution = execution_of(ctx, execution_id)
    accepted = execution.cancel(sender=sender or os_user(), reason=reason)
    state = execution.state
    if state is AgentState.CANCELLED:
        click.echo(f"Execution {execution.id} is cancelled." if accepted else f"{execution.id} was cancelled already.")
    elif accepted and not state.is_over:
        click.echo(f"Execution {execution.id} is being executed; it ends at its next step boundary.")
    else:
        raise ExecutionOver(execution.id, state.value)
