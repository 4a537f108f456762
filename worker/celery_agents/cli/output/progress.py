"""One execution's progress, shown as it happens: drawn live, as plain lines, or as JSON lines."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from agent_statestore.records import AgentContext, ExecutionSummary
from agent_statestore.states import AgentState
from celery_agents.cli.output import as_json
from celery_agents.cli.output.approval_text import deciding_lines
from celery_agents.cli.output.following import Look, follow
from celery_agents.cli.output.several import answering_line
from celery_agents.cli.output.text import counted, one_line, readable, took
from celery_agents.client.execution import Execution

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# What a shell reports for a program that Ctrl-C ended.
_INTERRUPTED = 130


def show_progress(ctx: click.Context, execution: Execution, *, wants_json: bool = False) -> None:
    """Follow the execution to its end. Exit with 1 unless it completed, and with 130 on Ctrl-C."""
    try:
        ended = _in_json(execution) if wants_json else _in_text(ctx, execution)
    except KeyboardInterrupt:
        click.echo(f"No longer watching. The execution goes on: {execution.id}", err=True)
        ctx.exit(_INTERRUPTED)
    if ended is not AgentState.COMPLETED:
        ctx.exit(1)


def _in_json(execution: Execution) -> AgentState:
    for look in follow(execution):
        for step in look.recorded:
            as_json.write_line({"event": "step", "step": as_json.of_record(step)})
        as_json.write_line({"event": "execution", "execution": as_json.of_record(look.summary)})
    context = execution.context()
    error = None if context.error is None else as_json.of_record(context.error)
    as_json.write_line({"event": "end", "state": context.state.value, "output": context.output, "error": error})
    return context.state


def _in_text(ctx: click.Context, execution: Execution) -> AgentState:
    from celery_agents.cli.output.terminal import is_live, make_console

    console = make_console(ctx)
    lines = _Lines(console, ctx)
    if is_live(console):
        _draw_live(console, lines, execution)
    else:
        for look in follow(execution):
            lines.print(look)
    return lines.print_end(execution.context())


def _draw_live(console: "Console", lines: "_Lines", execution: Execution) -> None:
    """Let steps scroll by as lines that stay. One line below them says what is going on now."""
    from rich.live import Live
    from rich.spinner import Spinner

    spinner = Spinner("dots" if console.encoding.startswith("utf") else "line")
    with Live(spinner, console=console, transient=True, refresh_per_second=10) as live:
        for look in follow(execution):
            lines.print(look)
            spinner.update(text=_status(look))
            live.refresh()


def _status(look: Look) -> str:
    summary = look.summary
    doing = ", ".join(one_line(step.name) for step in look.intents)
    doing = f" ({doing})" if doing else ""
    return f"{summary.state.value}{doing}, {counted(summary.step_count, 'step')}, attempt {summary.attempt}"


class _Lines:
    """Prints what each look shows and the look before did not."""

    def __init__(self, console: "Console", ctx: click.Context) -> None:
        self._console = console
        self._ctx = ctx
        self._last: ExecutionSummary | None = None

    def print(self, look: Look) -> None:
        from rich.text import Text

        from celery_agents.cli.output.rendering import print_approval, print_question, say, step_line

        summary, last = look.summary, self._last
        if last is None:
            say(self._console, Text(f"execution {summary.execution_id} of agent {one_line(summary.agent_id)}"))
        is_news = not summary.state.is_over and (last is None or _position(last) != _position(summary))
        if is_news and not summary.state.is_paused:  # the steps are of this attempt
            say(self._console, _state_line(summary))
        for step in look.recorded:
            self._console.print(step_line(step), no_wrap=True, overflow="ellipsis")
        if is_news and summary.state.is_paused:  # the steps led to this pause
            say(self._console, _state_line(summary))
            for question in look.questions:
                print_question(self._console, question, answering_line(self._ctx, summary, question), datetime.now(UTC))
            for approval in look.approvals:
                decide_with = deciding_lines(self._ctx, summary.execution_id, approval)
                print_approval(self._console, approval, decide_with, datetime.now(UTC))
        self._last = summary

    def print_end(self, context: AgentContext) -> AgentState:
        """Print the end: the output or the error."""
        from rich.text import Text

        from celery_agents.cli.output.rendering import error_line, say, state_text

        life = took(context.updated_at - context.created_at)
        end = state_text(context.state)
        end.append(
            f" after {counted(context.step_count, 'step')}, {counted(context.attempt, 'attempt')}, {life}",
            style="default",
        )
        say(self._console, end)
        if context.error is not None:
            say(self._console, error_line(context.error))
        elif context.state is AgentState.COMPLETED:
            say(self._console, Text(readable(context.output)))
        return context.state


def _position(summary: ExecutionSummary) -> tuple[object, ...]:
    """Return what a person would call news. Between two steps the state goes to and fro, which does not count."""
    working = summary.state in (AgentState.THINKING, AgentState.USING_TOOL)
    return (working or summary.state, summary.attempt, summary.cancel_requested, summary.waits)


def _state_line(summary: ExecutionSummary) -> "Text":
    from celery_agents.cli.output.rendering import state_text, wait_text

    line = state_text(summary.state)
    if summary.attempt:
        line.append(f", attempt {summary.attempt}", style="default")
    told = [wait_text(wait) for wait in summary.waits if wait.prompt is None or len(summary.waits) > 1]
    if told:
        line.append(f", for {', or '.join(told)}", style="default")
    if summary.cancel_requested:
        line.append(", cancel asked for", style="yellow")
    return line
