"""`agents watch`."""

import click

from celery_agents.cli.invocation import execution_of, shared_runtime
from celery_agents.cli.output.progress import show_progress


@click.command()
@click.argument("execution_id", required=False)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks, without EXECUTION_ID.",
)
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON object per line and change.")
@click.pass_context
def watch(ctx: click.Context, execution_id: str | None, interval: float, wants_json: bool) -> None:
    """Watch one execution to its end, or all active ones.

    With EXECUTION_ID, show its steps as they are recorded, the question when it pauses, and its output; exit with 1 if
    it fails or is cancelled. Without EXECUTION_ID, show the active executions until Ctrl-C. If the output is no
    terminal, print a line per change.

    \b
      celery -A celery_agents agents watch EXECUTION_ID
      celery -A celery_agents agents watch
    """
    if execution_id is not None:
        show_progress(ctx, execution_of(ctx, execution_id), wants_json=wants_json)
        return
    from celery_agents.cli.output.overview import show_active

    show_active(ctx, shared_runtime(ctx).store, interval_seconds=interval, wants_json=wants_json)
