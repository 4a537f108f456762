"""Patience with a store that does not answer: how long, and what is told of it."""

import logging
import time
from typing import Any

import pytest

from agent_statestore import StoreUnavailable
from celery_agents.engine.patience import Outage, Patience

log = logging.getLogger(__name__)


class Away:
    """A store that answers after so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions
        self.error = StoreUnavailable("somewhere", "refused")

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


def patience(seconds: float = 60.0, **options: Any) -> Patience:
    until = time.monotonic() + seconds
    outage = Outage(log, "a question")
    return Patience(outage, until=until, first_seconds=0.001, longest_seconds=0.002, **options)


def test_it_asks_until_there_is_an_answer_and_tells_once(caplog: pytest.LogCaptureFixture) -> None:
    between: list[str] = []
    with caplog.at_level(logging.INFO):
        assert patience(between=lambda: between.append("looked")).ask(Away(3)) == "answer"
    assert between == ["looked"] * 3
    told = [(record.levelname, record.getMessage().partition(",")[0]) for record in caplog.records]
    assert told == [("WARNING", "a question failed"), ("INFO", "a question succeeded again")]


def test_of_an_answer_at_once_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert patience().ask(Away(0)) == "answer"
    assert not caplog.records


def test_when_the_time_is_up_the_last_error_is_raised() -> None:
    away = Away(1_000_000)
    with pytest.raises(StoreUnavailable) as raised:
        patience(0.01).ask(away)
    assert raised.value is away.error
    assert away.left < 1_000_000 - 1, "it tried again"


def test_nobody_waits_for_an_answer_that_nobody_wants_any_more() -> None:
    away = Away(5)
    with pytest.raises(StoreUnavailable):
        patience(is_over=lambda: away.left == 3).ask(away)
    assert away.left == 3


def test_who_gives_up_says_what_is_raised() -> None:
    def give_up(error: StoreUnavailable) -> None:
        raise LookupError from error

    with pytest.raises(LookupError) as raised:
        patience(-1.0, give_up=give_up).ask(Away(1))
    assert isinstance(raised.value.__cause__, StoreUnavailable)
