"""`agents show`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from agent_statestore.records import AgentContext, JSONValue, SignalKind, Wait, WaitKind
from agent_statestore.states import AgentState
from celery_agents.cli.invocation import execution_of, shared_runtime
from celery_agents.cli.output import as_json
from celery_agents.cli.output.approval_text import deciding_lines
from celery_agents.cli.output.several import answering_line
from celery_agents.cli.output.text import (
    compact,
    counted,
    local_time,
    metadata_text,
    one_line,
    printable,
    readable,
    spent_text,
)
from celery_agents.cli.output.wait_text import is_only_a_look
from celery_agents.define import deadline
from celery_agents.engine.journal.spending import spent_in
from celery_agents.host.owner import worker_text
from celery_agents.lifecycle.signals import approvals_of, questions_of

if TYPE_CHECKING:
    from rich.console import Console

_DEFAULT_STEPS = 50


@click.command()
@click.argument("execution_id")
@click.option(
    "--steps-limit",
    type=click.IntRange(min=0),
    help=f"Show only the last steps.  [default: {_DEFAULT_STEPS}; all with --json]",
)
@click.option("--json", "wants_json", is_flag=True, help="Print the whole context as one JSON document.")
@click.pass_context
def show(ctx: click.Context, execution_id: str, steps_limit: int | None, wants_json: bool) -> None:
    """Show everything that is recorded of one execution.

    \b
      celery -A celery_agents agents show EXECUTION_ID
      celery -A celery_agents agents show EXECUTION_ID --json | jq .output
    """
    context = execution_of(ctx, execution_id).context()
    if wants_json:
        as_json.write(as_json.of_context(context, steps_limit))
        return
    from celery_agents.cli.output.rendering import print_approval, print_question
    from celery_agents.cli.output.terminal import make_console

    console, now = make_console(ctx), datetime.now(UTC)
    _print_header(console, context, now)
    for question in questions_of(context):
        console.print()
        print_question(console, question, answering_line(ctx, context, question), now)
    for approval in approvals_of(context):
        console.print()
        print_approval(console, approval, deciding_lines(ctx, context.execution_id, approval), now)
    _print_error(console, context)
    _print_value(console, "input", context.input)
    limit = _DEFAULT_STEPS if steps_limit is None else steps_limit
    _print_steps(console, context, limit)
    _print_children(ctx, console, context, limit)
    _print_memory(console, context)
    _print_unread(console, context, now)
    if context.output is not None:
        _print_value(console, "output", context.output)


def _print_header(console: "Console", context: AgentContext, now: datetime) -> None:
    from rich.text import Text

    from celery_agents.cli.output.rendering import say, state_text

    state = state_text(context.state)
    if context.cancel_requested and not context.state.is_over:
        state.append(" (cancel asked for)", style="yellow")
    texts = {
        "agent": context.agent_id,
        "steps": f"{context.step_count}, {counted(context.attempt, 'attempt')}" + _crashes(context, now),
        "spent": spent_text(spent_in(context)),
        "session": context.session_id,
        "user": context.user_id,
        "parent": context.parent_execution_id,
        "queue": context.queue,
        "priority": None if context.priority is None else str(context.priority),
        "idempotency key": context.idempotency_key,
        "deadline": _deadline(context, now),
        "metadata": metadata_text({key: value for key, value in context.metadata.items() if key != deadline.KEY}),
        "created": local_time(context.created_at, now),
        "last write": local_time(context.updated_at, now),
        **_waits(context.waits, now),
        "rung next": None if context.due_at is None else local_time(context.due_at, now),
        "claimed by": None if context.owner is None else worker_text(context.owner),
        "lease until": None if context.lease_expires_at is None else local_time(context.lease_expires_at, now),
    }
    rows = {"execution": Text(printable(context.execution_id)), "state": state}
    rows |= {name: Text(one_line(text)) for name, text in texts.items() if text}
    for name, row in rows.items():
        say(console, Text.assemble((f"{name:<15}  ", "bold"), row))


def _deadline(context: AgentContext, now: datetime) -> str | None:
    """Return the deadline as it was given; a value that `enqueue` has not written is shown as it is."""
    given = context.metadata.get(deadline.KEY)
    if given is None:
        return None
    try:
        return local_time(datetime.fromisoformat(given), now)
    except (TypeError, ValueError):
        return compact(given)


def _waits(waits: tuple[Wait, ...], now: datetime) -> dict[str, str | None]:
    """Return what is waited for: of one wait in rows of their own, of several each on a line."""
    from celery_agents.cli.output.rendering import wait_text

    if len(waits) == 1:
        (waiting,) = waits
        passed_over = waiting.refused if waiting.kind is WaitKind.EVENT else None
        return {"waits for": wait_text(waiting), "passed over": passed_over, **_waking(waiting, now)}
    rows: dict[str, str | None] = {"waits for": f"the first of {len(waits)}" if waits else None}
    for number, waiting in enumerate(waits, start=1):
        told = [wait_text(waiting), *(f"{what} {when}" for what, when in _waking(waiting, now).items())]
        if waiting.kind is WaitKind.EVENT and waiting.refused is not None:
            told.append(f"passed over: {waiting.refused}")
        rows[f"  {number}"] = ", ".join(told)
    return rows


def _waking(waiting: Wait, now: datetime) -> dict[str, str]:
    """Return what happens at a wait's moment, and when that is."""
    if waiting.wake_at is None:
        return {}
    if is_only_a_look(waiting):
        what = "looked at again"
    else:
        what = "goes on" if waiting.kind is WaitKind.TIMER else "waits until"
    return {what: local_time(waiting.wake_at, now)}


def _crashes(context: AgentContext, now: datetime) -> str:
    """Return how many claims in a row died; the one that lives, and the one that gave up, are none of them."""
    lives = context.lease_expires_at is not None and context.lease_expires_at > now
    lives = lives or context.state is AgentState.FAILED
    deaths = context.crashes - lives
    if deaths < 1 or context.state in (AgentState.COMPLETED, AgentState.CANCELLED):
        return ""
    return f", {counted(deaths, 'death')} in a row without a recorded step"


def _print_error(console: "Console", context: AgentContext) -> None:
    from celery_agents.cli.output.rendering import error_line, indented, say

    if context.error is None:
        return
    _print_title(console, "error")
    say(console, indented(error_line(context.error).plain, "red"))
    if context.error.traceback:
        say(console, indented(printable(context.error.traceback.rstrip()), "dim"))


def _print_steps(console: "Console", context: AgentContext, limit: int) -> None:
    from celery_agents.cli.output.rendering import say, steps_lines

    if not context.steps:
        return
    shown = context.steps[max(0, len(context.steps) - limit) :]
    left_out = len(context.steps) - len(shown)
    _print_title(console, f"steps (the last {len(shown)} of {len(context.steps)})" if left_out else "steps")
    for line in steps_lines(shown, console.width) if shown else ():
        say(console, line)


def _print_children(ctx: click.Context, console: "Console", context: AgentContext, limit: int) -> None:
    from celery_agents.cli.output.children import children_lines
    from celery_agents.cli.output.rendering import say

    lines = children_lines(shared_runtime(ctx).store, context, limit, console.width)
    if lines:
        _print_title(console, "children")
    for line in lines:
        say(console, line)


def _print_memory(console: "Console", context: AgentContext) -> None:
    memory = context.memory
    sections = {
        "working memory": [f"{key} = {compact(value)}" for key, value in memory.working_memory.items()],
        "entities": [f"{key} = {compact(value)}" for key, value in memory.entities.items()],
        "facts": [f"- {_text(fact)}" for fact in memory.facts],
        "retrieved passages": [
            f"- {_text(chunk.content)}" + (f" ({chunk.source})" if chunk.source else "")
            for chunk in context.rag_context
        ],
        "messages": [f"{message.role}: {_text(message.content)}" for message in memory.conversation_history],
    }
    for title, entries in sections.items():
        if entries:
            _print_value(console, title, "\n".join(entries))


def _print_unread(console: "Console", context: AgentContext, now: datetime) -> None:
    """Print what was said to it that nobody has read."""
    unread = [signal for signal in context.signals if signal.kind is SignalKind.SAY]
    lines = [
        f"{signal.sender or 'somebody'}, {'' if signal.sent_at is None else local_time(signal.sent_at, now)} "
        f"({signal.key}): {_text(signal.payload)}"
        for signal in unread
    ]
    if lines:
        _print_value(console, f"unread ({len(lines)})", "\n".join(lines))


def _text(value: JSONValue) -> str:
    return value if isinstance(value, str) else compact(value)


def _print_value(console: "Console", title: str, value: JSONValue) -> None:
    from celery_agents.cli.output.rendering import indented, say

    if value is not None:
        _print_title(console, title)
        say(console, indented(readable(value)))


def _print_title(console: "Console", title: str) -> None:
    from rich.text import Text

    console.print()
    console.print(Text(title, style="bold"))
