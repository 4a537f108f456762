"""`agents resume`."""

import sys
from datetime import UTC, datetime

import click

from agent_statestore.errors import ExecutionOver
from agent_statestore.records import ExecutionSummary, JSONValue, Wait
from celery_agents.cli.invocation import command_line, execution_of, os_user
from celery_agents.cli.output.several import one_of
from celery_agents.cli.output.text import one_line
from celery_agents.cli.parameters import parse_answer
from celery_agents.client.execution import Execution
from celery_agents.errors import InvalidAnswer
from celery_agents.lifecycle.signals import approval_of, the_question, what_it_does


@click.command()
@click.argument("execution_id")
@click.argument("answer", required=False)
@click.option("--text", "as_text", is_flag=True, help="Take the answer as text, even if it looks like JSON.")
@click.option("--key", metavar="KEY", help="Answer only this question: there may be several, or another by now.")
@click.option("--sender", metavar="NAME", help="Who answers.  [default: the system user]")
@click.option("--reason", metavar="TEXT", help="Why; recorded with the answer.")
@click.pass_context
def resume(
    ctx: click.Context,
    execution_id: str,
    answer: str | None,
    as_text: bool,
    key: str | None,
    sender: str | None,
    reason: str | None,
) -> None:
    """Answer the question that an execution asks.

    ANSWER is JSON if it parses, otherwise text. An answer that begins with { must be JSON, unless --text is given.
    Without ANSWER, show the question and ask. A negative number needs -- before the arguments. The first answer counts;
    a second one is refused.

    \b
      celery -A celery_agents agents resume EXECUTION_ID yes
      celery -A celery_agents agents resume EXECUTION_ID '{"amount": 30}' --reason "as agreed"
      celery -A celery_agents agents resume EXECUTION_ID
    """
    execution = execution_of(ctx, execution_id)
    asked = _asked(ctx, execution.summary(), key)
    sender = sender or os_user()
    if answer is not None:
        _send(execution, asked, parse_answer(answer, as_text=as_text), sender, reason)
    elif not sys.stdin.isatty():
        raise click.UsageError("give an ANSWER: there is no terminal to ask for it")
    else:
        _show(ctx, asked)
        while True:
            typed = click.prompt("Answer", prompt_suffix="> ")
            try:
                _send(execution, asked, parse_answer(typed, as_text=as_text or _is_text(asked)), sender, reason)
                break
            except (InvalidAnswer, click.UsageError) as error:
                click.echo(f"{one_line(str(error))}", err=True)
    click.echo(f'Answered "{one_line(asked.key)}" of execution {execution.id}; it goes on.')


def _asked(ctx: click.Context, summary: ExecutionSummary, key: str | None) -> Wait:
    """Return the question to answer. Raise an error that says what the execution does instead of waiting for one."""
    if summary.state.is_over:
        raise ExecutionOver(summary.execution_id, summary.state.value)
    asked = one_of(ctx, "resume", ["ANSWER"], lambda: the_question(summary, key))
    if asked is not None:
        return asked
    what = "an answer" if key is None else f'an answer to "{one_line(key)}"'
    instead = one_line(what_it_does(summary))
    if approval_of(summary) is not None:
        instead += f": {command_line(ctx, 'approve', summary.execution_id)}"
    raise click.ClickException(f"execution {summary.execution_id} does not wait for {what}: {instead}")


def _send(execution: Execution, asked: Wait, answer: JSONValue, sender: str | None, reason: str | None) -> None:
    try:
        execution.resume(answer, key=asked.key, round=asked.round, sender=sender, reason=reason)
    except InvalidAnswer as error:
        if isinstance(answer, str):
            raise
        hint = "the answer was read as JSON; --text sends it as text"
        raise InvalidAnswer(error.name, [*error.problems, hint]) from error


def _show(ctx: click.Context, asked: Wait) -> None:
    from celery_agents.cli.output.rendering import print_question
    from celery_agents.cli.output.terminal import make_console

    print_question(make_console(ctx), asked, None, datetime.now(UTC))


def _is_text(asked: Wait) -> bool:
    """Return whether only texts are answers, so that a typed 42 means a text."""
    schema = asked.schema or {}
    choices = schema.get("enum") or (None,)
    return schema.get("type") == "string" or all(isinstance(choice, str) for choice in choices)
