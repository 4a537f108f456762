"""Records as rich renderables."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from agent_statestore.records import AgentStep, ErrorInfo, ExecutionSummary, JSONValue, Wait, WaitKind
from agent_statestore.states import AgentState
from celery_agents.cli.output.approval_text import call_text, voting_lines
from celery_agents.cli.output.step_text import outcome_text
from celery_agents.cli.output.table import Column, table_lines
from celery_agents.cli.output.text import (
    age,
    compact,
    exact,
    local_time,
    one_line,
    printable,
    readable,
    revealed,
    short_type,
    spent_text,
    took,
)
from celery_agents.lifecycle.signals import shown

_WIDE_COLUMNS: Final = 110

STATE_STYLES: Final = {
    AgentState.IDLE: "dim",
    AgentState.THINKING: "cyan",
    AgentState.USING_TOOL: "cyan",
    AgentState.WAITING_FOR_INPUT: "magenta",
    AgentState.WAITING_FOR_APPROVAL: "magenta",
    AgentState.WAITING: "yellow",
    AgentState.COMPLETED: "green",
    AgentState.FAILED: "red",
    AgentState.CANCELLED: "yellow",
}


def state_text(state: AgentState) -> Text:
    """Return the state in its colour."""
    return Text(state.value, style=STATE_STYLES[state])


def _stands(summary: ExecutionSummary) -> Text:
    return Text("unreadable", style="bold red") if summary.unreadable else state_text(summary.state)


def execution_lines(items: Sequence[ExecutionSummary], now: datetime, width: int) -> list[Text]:
    """Return a header and one line per execution; a wide terminal shows more columns."""
    cells: dict[Column, list[Text]] = {
        Column(name="execution"): [Text(printable(item.execution_id)) for item in items],
        Column(name="agent", least=8): [Text(one_line(item.agent_id)) for item in items],
        Column(name="state"): [_stands(item) for item in items],
        Column(name="steps", is_number=True): [Text(str(item.step_count)) for item in items],
        Column(name="age", is_number=True): [Text(age(item.created_at, now)) for item in items],
    }
    if width >= _WIDE_COLUMNS:
        cells[Column(name="session", least=8)] = [Text(one_line(item.session_id or "")) for item in items]
        cells[Column(name="note", least=12)] = [Text(note_of(item)) for item in items]
    return list(table_lines(list(cells), list(zip(*cells.values(), strict=True)), width))


def note_of(summary: ExecutionSummary) -> str:
    """Return what a person wants to know first: the error, the question, what is waited for, or the cancel."""
    if summary.unreadable is not None:
        return one_line(f"damaged: {summary.unreadable}")
    if summary.error is not None:
        return one_line(f"{short_type(summary.error.type)}: {summary.error.message}")
    if summary.cancel_requested and not summary.state.is_over:
        return "cancel asked for"
    if summary.waiting is not None:
        # A person's part first: the others need nobody.
        asked = min(summary.waits, key=lambda wait: wait.kind not in (WaitKind.INPUT, WaitKind.APPROVAL))
        others = f" (and {len(summary.waits) - 1} more)" if len(summary.waits) > 1 else ""
        return (one_line(_asked_text(asked.prompt)) if asked.kind is WaitKind.INPUT else wait_text(asked)) + others
    return ""


def _asked_text(prompt: JSONValue) -> str:
    """Return what a question asks. The engine's own (a limit, an interrupted call) hold more than a sentence."""
    question = prompt.get("question") if isinstance(prompt, dict) else None
    return question if isinstance(question, str) else readable(prompt)


def wait_text(waiting: Wait) -> str:
    """Return what is waited for, on one line."""
    if waiting.kind is WaitKind.APPROVAL:
        return f"approval of {call_text(waiting)}"
    if waiting.kind is WaitKind.CHILD:
        return f"child {one_line(waiting.key)}"
    return f'{waiting.kind.value} "{one_line(waiting.key)}"'


def steps_lines(steps: Sequence[AgentStep], width: int) -> list[Text]:
    """Return a header and one line per step."""
    cells: dict[Column, list[Text]] = {
        Column(name="#", is_number=True): [Text(str(step.step_number)) for step in steps],
        Column(name="step", least=16): [Text(one_line(step.name)) for step in steps],
        Column(name="kind", least=8): [Text(one_line(step.action.kind)) for step in steps],
        Column(name="tries", is_number=True): [Text(str(step.tries)) for step in steps],
        Column(name="took", is_number=True): [
            Text("" if step.result is None else took(step.duration)) for step in steps
        ],
    }
    if any(step.spent for step in steps):
        cells[Column(name="spent", least=8)] = [Text(spent_text(step.spent)) for step in steps]
    cells[Column(name="result", least=12)] = [result_text(step) for step in steps]
    return list(table_lines(list(cells), list(zip(*cells.values(), strict=True)), width))


def step_line(step: AgentStep) -> Text:
    """Return a step on one line, for following an execution."""
    line = Text(f"{step.step_number:>4}  {one_line(step.name):<20}  {took(step.duration):>6}  ")
    return line + result_text(step)


def result_text(step: AgentStep) -> Text:
    """Return how a step ended, on one line."""
    style = "dim"
    if step.in_flight:
        style = "yellow"
    elif step.result is not None and step.result.error is not None:
        style = "red"
    return Text(outcome_text(step), style=style)


def error_line(error: ErrorInfo) -> Text:
    """Return the error without its traceback."""
    return Text(f"{short_type(error.type)}: {printable(error.message)}", style="red")


def print_question(console: Console, waiting: Wait, answer_with: str | None, now: datetime) -> None:
    """Print the question whose answer an execution waits for, and how to answer it."""
    say(console, Text(f'question "{one_line(waiting.key)}":', style="bold magenta"))
    say(console, indented(readable(waiting.prompt)))
    for line in answer_hints(waiting):
        say(console, indented(line, "dim"))
    if waiting.refused is not None:
        say(console, indented(f"asked again: {one_line(waiting.refused)}", "yellow"))
    if waiting.wake_at is not None:
        say(console, indented(f"until {local_time(waiting.wake_at, now)}", "dim"))
    if answer_with:
        say(console, Text(f"  answer it:\n    {answer_with}"))  # an id and 80 columns: it needs a separate line


def print_approval(console: Console, waiting: Wait, decide_with: Sequence[str] | None, now: datetime) -> None:
    """Print the call whose approval an execution waits for, and the commands to approve and to reject it."""
    call = shown(waiting)
    say(console, Text(f'approval "{one_line(waiting.key)}":', style="bold magenta"))
    say(console, indented(f"{revealed(one_line(str(call['tool'])))} {exact(call['arguments'], indent=2)}"))
    if call["description"]:
        say(console, indented(revealed(str(call["description"])), "dim"))
    say(console, indented(f"digest {one_line(str(call['digest']))}", "dim"))
    for line in voting_lines(waiting):
        say(console, indented(line))
    if waiting.refused is not None:
        say(console, indented(f"asked again: {one_line(waiting.refused)}", "yellow"))
    if waiting.wake_at is not None:
        say(console, indented(f"until {local_time(waiting.wake_at, now)}", "dim"))
    if decide_with:
        say(console, Text("  approve or reject it:\n" + "\n".join(f"    {line}" for line in decide_with)))


def say(console: Console, text: Text) -> None:
    """Print a text whose lines the terminal wraps itself: it copies them whole, and a pipe gets them unbroken."""
    console.print(text, soft_wrap=True)


def answer_hints(waiting: Wait) -> list[str]:
    """Return what an answer may be, if the question says so."""
    schema = waiting.schema
    if not schema:
        return []
    if "enum" in schema:
        return [f"one of: {', '.join(compact(choice) for choice in schema['enum'])}"]
    if set(schema) <= {"type", "title", "description"} and isinstance(schema.get("type"), str):
        return [f"answer type: {printable(schema['type'])}"]
    return [f"answer schema: {compact(dict(schema))}"]


def indented(text: str, style: str = "") -> Text:
    """Return the text with each line indented."""
    return Text("\n".join(f"  {line}" for line in text.splitlines() or [""]), style=style)
