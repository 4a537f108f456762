"""`agents enqueue`."""

import sys
from datetime import datetime
from pathlib import Path

import click

from agent_statestore.records import JSONValue
from celery_agents import current
from celery_agents.cli.invocation import shared_runtime
from celery_agents.cli.output import as_json
from celery_agents.cli.output.approval_text import call_text, deciding_lines
from celery_agents.cli.output.following import follow
from celery_agents.cli.output.progress import show_progress
from celery_agents.cli.output.several import answering_line
from celery_agents.cli.output.text import one_line, readable
from celery_agents.cli.parameters import Moment, parse_json, parse_metadata
from celery_agents.client.execution import Execution
from celery_agents.errors import ConfigurationError
from celery_agents.host.runtime import Runtime


@click.command()
@click.argument("agent")
@click.argument("input_json", metavar="[INPUT | -]", required=False)
@click.option(
    "--input-file",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True, path_type=Path),
    help="Read the input (JSON) from this file; - is the standard input.",
)
@click.option("--session", metavar="ID", help="The conversation that it belongs to.")
@click.option("--user", metavar="ID", help="The user for whom it runs.")
@click.option("--metadata", "metadata", metavar="KEY=TEXT", multiple=True, help="Or a JSON object; may be repeated.")
@click.option("--idempotency-key", metavar="KEY", help="If this agent had this key before: that execution, no new one.")
@click.option("--queue", metavar="NAME", help="The Celery queue.")
@click.option("--priority", type=int, help="The message's priority.")
@click.option("--start-at", type=Moment(), help="Not before this moment, e.g. 2026-03-01T09:00+01:00.")
@click.option(
    "--deadline", type=Moment(ahead=True), help="It fails if it is not over by then, e.g. 2h or 2026-03-01T09:00Z."
)
@click.option("--follow", "wants_follow", is_flag=True, help="Show its progress to the end.")
@click.option("--wait", "wants_output", is_flag=True, help="Wait for its end and print its output as JSON.")
@click.pass_context
def enqueue(
    ctx: click.Context,
    agent: str,
    input_json: str | None,
    input_file: Path | None,
    session: str | None,
    user: str | None,
    metadata: tuple[str, ...],
    idempotency_key: str | None,
    queue: str | None,
    priority: int | None,
    start_at: datetime | None,
    deadline: datetime | None,
    wants_follow: bool,
    wants_output: bool,
) -> None:
    """Start an execution of AGENT and print its id.

    INPUT is JSON (a text needs double quotes), or - to read it from the standard input. Without INPUT the input is
    null.

    \b
      celery -A celery_agents agents enqueue research '"Why is the sky blue?"'
      celery -A celery_agents agents enqueue refund --input-file order.json --user ann --follow
      echo '{"n": 3}' | celery -A celery_agents agents enqueue count - --wait
    """
    if wants_follow and wants_output:
        raise click.UsageError("--follow and --wait exclude each other")
    value = _read_input(input_json, input_file)
    tags = parse_metadata(metadata)
    runtime = shared_runtime(ctx, creates=True)
    _import_agents(runtime)
    execution = current.enqueue(
        agent,
        value,
        session_id=session,
        user_id=user,
        metadata=tags,
        idempotency_key=idempotency_key,
        queue=queue,
        priority=priority,
        start_at=start_at,
        deadline=deadline,
        runtime=runtime,
    )
    if wants_follow:
        show_progress(ctx, execution)
    elif wants_output:
        _wait(ctx, execution)
    else:
        click.echo(execution.id)


def _read_input(text: str | None, file: Path | None) -> JSONValue:
    if text is not None and file is not None:
        raise click.UsageError("give the input either as an argument or with --input-file")
    if text == "-" or (file is not None and str(file) == "-"):
        raw = sys.stdin.buffer.read()
    elif file is not None:
        raw = file.read_bytes()
    else:
        return None if text is None else parse_json(text, "input")
    try:
        return parse_json(raw.decode("utf-8-sig"), "input")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"the input is not UTF-8: {error}") from error


def _import_agents(runtime: Runtime) -> None:
    """Import the agents. The client does so too; this says which configured module is missing."""
    try:
        runtime.app.loader.import_default_modules()
    except ModuleNotFoundError as error:
        configured = [*runtime.app.conf.imports, *runtime.app.conf.include]
        if error.name is None or not any(f"{name}.".startswith(f"{error.name}.") for name in configured):
            raise  # a fault inside the user's modules: its traceback helps
        raise ConfigurationError("agents_imports", f"there is no module {error.name!r} on the path") from error


def _wait(ctx: click.Context, execution: Execution) -> None:
    """Wait and print only the output to standard output; the rest tells a person what the execution waits for."""
    click.echo(f"execution {execution.id}", err=True)
    shown: set[str] = set()
    try:
        for look in follow(execution):
            for question in look.questions:
                if question.key not in shown:
                    click.echo(f"It asks: {one_line(readable(question.prompt))}", err=True)
                    click.echo(f"Answer it: {answering_line(ctx, look.summary, question)}", err=True)
            for approval in look.approvals:
                if approval.key not in shown:
                    click.echo(f"It asks for approval of {call_text(approval)}", err=True)
                    approve, reject = deciding_lines(ctx, execution.id, approval)
                    click.echo(f"Approve of it: {approve}\nor reject it: {reject}", err=True)
            shown.update(asked.key for asked in (*look.questions, *look.approvals))
    except KeyboardInterrupt:
        click.echo("No longer waiting. The execution goes on.", err=True)
        ctx.exit(130)
    as_json.write(execution.wait())
