"""What others wrote neither forges an entry of a log nor hides in a name."""

import ast
import io
import logging
from pathlib import Path

import pytest

from agent_statestore import InvalidRecord
from agent_statestore.plain_text import line_logger, require_sender, shown

FORGED = "slow\n[2026-03-01 09:00:00,000: INFO/MainProcess] execution 1 approved by ann\x1b[2J\x9b1A\r\u202eevil\u2028x"


class Loud(Exception):
    """Says in its representation what it says in its text."""

    def __repr__(self) -> str:
        return FORGED


def entries() -> list[str]:
    """Log one entry of each kind; return the lines that a handler writes."""
    logger = line_logger(f"{__name__}.forging")
    line_logger(logger.name)  # a module that is loaded again
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("ENTRY %(levelname)s %(message)s"))
    logger.handlers = [handler]
    error = Loud(FORGED)
    logger.warning("execution %s: %s", "e1", error)
    logger.error("execution %r: %r", FORGED, error)
    logger.info("%(what)s after %(number)05.1f s and %(count)d", {"what": FORGED, "number": 2.5, "count": 3})
    logger.debug("nothing to fill in")
    try:
        try:
            raise error
        except Loud as cause:
            raise ValueError(FORGED) from cause
    except ValueError:
        logger.exception("it failed")
    return out.getvalue().split("\n")[:-1]


def test_no_text_of_an_error_begins_a_line_of_the_log() -> None:
    lines = entries()
    assert len([line for line in lines if line.startswith("ENTRY ")]) == 5
    assert all(line.startswith(("ENTRY ", "    ")) for line in lines), lines
    assert all(line.isprintable() for line in lines), lines
    assert lines[2].endswith("after 002.5 s and 3")
    assert "ValueError: slow" in "\n".join(lines)


def test_every_logger_of_the_product_is_one_of_these() -> None:
    root = Path(__file__).parents[2]
    found = []
    for path in [*root.glob("worker/celery_agents/**/*.py"), *root.glob("statestore/agent_statestore/**/*.py")]:
        nodes = ast.walk(ast.parse(path.read_text()))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        if names & {"getLogger", "get_task_logger"}:
            found.append(path.relative_to(root).as_posix())
    # The second one quietens Alembic's loggers, the third one filters Celery's, the last one httpx's: none writes.
    assert sorted(found) == [
        "statestore/agent_statestore/plain_text.py",
        "statestore/agent_statestore/sql/schema/quiet_alembic.py",
        "worker/celery_agents/host/task_log.py",
        "worker/celery_agents/webhooks/sending.py",
    ]


def test_what_is_seen_is_shown_as_it_is() -> None:
    for text in ("plain", "Zoë Müller", "漢字", "नमस्ते", "🦊", "a\u00a0b"):
        assert shown(text) == text
    assert shown("a\u200bb\u00ad\U000e0041\x00\n\t\u061c\ud800") == r"a\u200bb\xad\U000e0041\x00\n\t\u061c\ud800"
    assert shown("a\nb\u200d", keep="\n\u200d") == "a\nb\u200d"


def test_a_name_of_a_sender() -> None:
    for name in (None, "ann", "Zoë", "漢字", "a" * 255, "O'Neil, José <j@example.org>"):
        require_sender("sender", name)
    for name in ("", "a" * 256, "a\nb", "Zoe\u0308", "a\u200bb", 5):
        with pytest.raises(InvalidRecord):
            require_sender("sender", name)
