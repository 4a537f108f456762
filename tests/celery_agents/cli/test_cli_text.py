"""How values, durations and tables are shown."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.text import Text

from agent_statestore import (
    Action,
    AgentContext,
    AgentState,
    AgentStep,
    ErrorInfo,
    Memory,
    Message,
    Page,
    RagChunk,
    Result,
    Signal,
    SignalKind,
    Wait,
    WaitKind,
)
from agent_statestore.drivers.masking import masked
from agent_statestore.records import StepChanges
from celery_agents.cli.output import as_json, text
from celery_agents.cli.output.table import Column, table_lines

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def whole_context() -> AgentContext:
    """A context in which every kind of record occurs."""
    error = ErrorInfo(type="builtins:ValueError", message="bad", args=("bad",), traceback="...")
    return AgentContext(
        execution_id="e",
        agent_id="a",
        metadata={"k": [1, None]},
        state=AgentState.WAITING_FOR_INPUT,
        waits=(Wait(kind=WaitKind.INPUT, key="ask", prompt="?", schema={"type": "string"}, asked_at=NOW),),
        error=error,
        created_at=NOW,
        updated_at=NOW,
        input={"q": "ü"},
        steps=(
            AgentStep(
                step_number=1,
                name="s",
                action=Action(kind="tool", tool="t", input=[1]),
                result=Result(success=False, error=error),
                timestamp=NOW,
                duration=timedelta(milliseconds=1500),
                changes=StepChanges(memory={"m": 1}, forgotten=("f",)),
            ),
        ),
        memory=Memory(
            conversation_history=(Message(role="user", content="hi", timestamp=NOW),),
            working_memory={"m": 1},
            facts=("f",),
            entities={"x": {}},
        ),
        rag_context=(RagChunk(content="c", source="s", score=0.5),),
        signals=(Signal(signal_id="1", kind=SignalKind.EVENT, key="k", sent_at=NOW),),
    )


def test_every_record_becomes_json_with_its_own_field_names() -> None:
    context = whole_context()

    shown = json.loads(json.dumps(as_json.of_context(context)))

    assert set(shown) == {*context.__dataclass_fields__, "spent"}
    assert shown["state"] == "waiting_for_input"
    assert shown["created_at"] == "2026-03-01T12:00:00+00:00"
    assert shown["steps"][0]["duration"] == 1.5
    assert shown["waits"][0]["kind"] == "input"
    assert shown["signals"][0]["kind"] == "event"
    assert as_json.of_page(Page(items=(context,), next_cursor="c"))["items"][0]["execution_id"] == "e"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0004, "0ms"), (0.085, "85ms"), (0.9999, "1.0s"), (3.21, "3.2s"), (60, "1m"), (7300, "2h")]
)
def test_took(seconds: float, shown: str) -> None:
    assert text.took(timedelta(seconds=seconds)) == shown


def test_relative_times() -> None:
    assert text.relative(NOW - timedelta(minutes=3, seconds=5), NOW) == "3m ago"
    assert text.relative(NOW + timedelta(days=2), NOW) == "in 2d"
    assert text.age(NOW + timedelta(seconds=2), NOW) == "0s"


def test_control_characters_become_visible() -> None:
    assert text.printable("a\x1b[2J\u202eb\x9b\tc\nd") == "a\\x1b[2J\\u202eb\\x9b\tc\nd"
    assert text.one_line(" a\r\n b ") == "a b"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("amqp://u:pw@a//;amqp://u:pw@b//", "amqp://u:***@a//;amqp://u:***@b//"),
        ("rediss://h/0?password=pw&x=1", "rediss://h/0?password=***&x=1"),
        ("redis://[::1:pw@x", "redis://[:***@x"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
    ],
)
def test_secrets_in_urls_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_only_columns_that_may_be_cut_are_cut() -> None:
    columns = (
        Column(name="id"),
        Column(name="n", is_number=True),
        Column(name="a", least=3),
        Column(name="b", least=4),
    )
    rows = [(Text("x" * 10), Text("5"), Text("a" * 20), Text("日本語日本語"))]

    def lines(width: int) -> list[str]:
        return [line.plain for line in table_lines(columns, rows, width)]

    assert lines(100)[1] == f"{'x' * 10}  5  {'a' * 20}  日本語日本語"
    assert lines(41)[1] == f"{'x' * 10}  5  {'a' * 20}  日 …"
    assert lines(10)[1].startswith("x" * 10 + "  5  aa…  ")


LOOK_ALIKE = {
    "nothing": "pay ann",
    "zero width": "pay a\u200bnn",
    "joiner": "pay a\u200dnn",
    "filler": "pay ann\u3164",
    "braille blank": "pay\u2800ann",
    "no-break space": "pay\u00a0ann",
    "em space": "pay\u2003ann",
    "bidi": "pay \u202enna\u202c",
    "isolate": "pay \u2066ann\u2069",
    "mark": "pay ann\u200e",
    "tag": "pay ann\U000e0041",
    "variation": "pay ann\ufe0f",
    "grapheme joiner": "pay a\u034fnn",
    "soft hyphen": "pay a\u00adnn",
    "C1": "pay ann\x9b2K",
    "escape": "pay ann\x1b[2K",
    "delete": "pay ann\x7f",
    "literal": "pay a\\u200bnn",
    "composed": "pay Zo\u00eb",
    "decomposed": "pay Zoe\u0308",
}


def test_no_two_approvals_look_alike() -> None:
    shown = {name: text.exact({"to": value}) for name, value in LOOK_ALIKE.items()}
    assert len(set(shown.values())) == len(shown)
    for name, line in shown.items():
        visible = line.replace("ë", "e")
        assert visible.isascii(), (name, line)
        assert visible.isprintable(), (name, line)
    assert text.exact({"to": "Zoë 🦊"}) == '{"to": "Zoë 🦊"}'


def test_json_carries_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    values = {**LOOK_ALIKE, "surrogates": "\ud800", "plain": "Zoë 漢字 🦊"}
    as_json.write(values)
    out = capsys.readouterr().out
    assert json.loads(out) == values
    for character in "\x1b\x7f\x9b\u200b\u202e\u2066\u200e\u3164\u2028\U000e0041":
        assert character not in out
    assert "Zoë 漢字 🦊" in out
