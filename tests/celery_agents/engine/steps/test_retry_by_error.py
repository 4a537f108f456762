"""Retries that look at the error: whether another try may help, and how long the service wants to be left alone."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from agent_statestore import AgentState
from agent_statestore.clock import from_us
from agent_statestore.records import WaitKind
from celery_agents import RegistrationError, Retry, Run
from celery_agents.define.model_errors import is_passing, seconds_to_wait
from tests.celery_agents.driving import Calls, Engine


@dataclass
class Response:
    status_code: int
    headers: dict[str, str] = field(default_factory=dict)


class ServiceError(Exception):
    """As the clients of models raise it: with the response."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"status {status}")
        self.response = Response(status, {name.replace("_", "-"): value for name, value in headers.items()})
        self.status_code = status


class WrappedError(Exception):
    """As a framework raises it: with the client's error as its cause, and a status alone."""

    def __init__(self, status: int) -> None:
        super().__init__(f"wrapped {status}")
        self.status_code = status


class TransportError(Exception):
    """Bears the name that httpx gives to "no answer came"."""


def raising(engine: Engine, calls: Calls, retry: Retry, error: BaseException, times: int = 1) -> str:
    """Starts an execution whose step fails that often and then goes well."""

    def work(run: Run, input: None) -> str:
        def ask() -> str:
            calls(1)
            if len(calls.made) <= times:
                raise error
            return "answered"

        return run.options(retry=retry).step("ask", ask)

    return engine.start(engine.agent(work, name=f"agent-{len(engine.registry.agents)}"))


def now(engine: Engine) -> datetime:
    return from_us(engine.clock.now_us())


def outcome_of(engine: Engine, execution_id: str) -> Any:
    for _ in range(10):
        waiting = engine.context(execution_id).waiting
        if waiting is not None and waiting.wake_at is not None:
            engine.clock.advance(waiting.wake_at - now(engine))
        outcome = engine.execute(execution_id)
        assert outcome is not None
        if outcome.state.is_over:
            return outcome
    raise AssertionError("it does not end")


def test_a_429_waits_as_long_as_the_service_says_without_a_slot(engine: Engine, calls: Calls) -> None:
    execution_id = raising(engine, calls, Retry.for_models(), ServiceError(429, retry_after="600"))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.state is AgentState.WAITING
    waiting = engine.context(execution_id).waiting
    assert waiting is not None
    assert waiting.kind is WaitKind.TIMER
    assert waiting.wake_at is not None
    assert timedelta(seconds=600) <= waiting.wake_at - now(engine) <= timedelta(seconds=602)
    assert outcome_of(engine, execution_id).output == "answered"
    assert len(calls.made) == 2


def test_only_what_may_pass_is_tried_again(engine: Engine) -> None:
    wrapped = WrappedError(503)
    wrapped.__cause__ = ServiceError(503)
    quota = ServiceError(429)
    quota.code = "insufficient_quota"  # type: ignore[attr-defined]
    cases: dict[str, tuple[BaseException, bool]] = {
        **{str(status): (ServiceError(status), True) for status in (408, 409, 429, 500, 502, 503, 504, 529)},
        **{str(status): (ServiceError(status), False) for status in (400, 401, 403, 404, 413, 422)},
        "wrapped": (wrapped, True),
        "no answer": (TransportError("reset"), True),
        "a reset": (ConnectionResetError(), True),
        "too slow": (TimeoutError(), True),
        "quota used up": (quota, False),
        "a fault of the code": (ValueError("no"), False),
    }
    for what, (error, is_tried_again) in cases.items():
        calls = Calls()
        outcome = outcome_of(engine, raising(engine, calls, Retry.for_models(), error))
        assert len(calls.made) == 1 + is_tried_again, what
        assert (outcome.error is None) is is_tried_again, what


def test_the_delay_is_read_wherever_the_service_says_it() -> None:
    outer = WrappedError(429)
    outer.__cause__ = ServiceError(429, retry_after="7")
    by_attribute = ServiceError(429)
    by_attribute.retry_after = 3.5  # type: ignore[attr-defined]
    cases: dict[str, tuple[BaseException, float | None]] = {
        "seconds": (ServiceError(429, retry_after="5"), 5),
        "milliseconds": (ServiceError(429, retry_after_ms="250", retry_after="5"), 0.25),
        "of the cause": (outer, 7),
        "an attribute": (by_attribute, 3.5),
        "capitals": (ServiceError(429, Retry_After="9"), 9),
        "negative": (ServiceError(429, retry_after="-3"), 0),
        "too long": (ServiceError(429, retry_after="1e9"), 24 * 3600),
        "nonsense": (ServiceError(429, retry_after="soon"), None),
        "not a number": (ServiceError(429, retry_after="nan"), None),
        "nothing": (ServiceError(500), None),
    }
    for what, (error, seconds) in cases.items():
        assert seconds_to_wait(error) == seconds, what


def test_a_date_is_read_too() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    seconds = seconds_to_wait(ServiceError(503, retry_after=later))
    assert seconds is not None
    assert 60 < seconds <= 100


def test_functions_of_the_user_decide(engine: Engine, calls: Calls) -> None:
    retry = Retry(retries=3, retry_if=lambda error: "again" in str(error), delay_of=lambda _: timedelta(minutes=2))
    execution_id = raising(engine, calls, retry, ValueError("again, please"))
    outcome = engine.execute(execution_id)
    assert outcome is not None
    assert outcome.state is AgentState.WAITING
    assert outcome_of(engine, execution_id).output == "answered"

    calls.made.clear()
    outcome = outcome_of(engine, raising(engine, calls, retry, ValueError("never")))
    assert isinstance(outcome.error, ValueError)
    assert len(calls.made) == 1


def test_a_function_that_fails_fails_the_step_in_the_place_of_the_error(engine: Engine) -> None:
    def broken(error: Exception) -> Any:
        raise LookupError("broken policy")

    for retry in (
        Retry(retries=3, retry_if=broken),
        Retry(retries=3, delay_of=broken),
        Retry(retries=3, delay_of=lambda _: -1.0),
        Retry(retries=3, delay_of=lambda _: float("nan")),
        Retry(retries=3, delay_of=lambda _: timedelta(days=365)),
    ):
        calls = Calls()
        execution_id = raising(engine, calls, retry, ValueError("first"))
        outcome = outcome_of(engine, execution_id)
        assert isinstance(outcome.error, LookupError | ValueError), retry
        assert "broken policy" in str(outcome.error) or "delay_of" in str(outcome.error), retry
        assert len(calls.made) == 1, retry
        assert engine.context(execution_id).steps[0].result is not None, retry


def test_what_is_no_function_is_refused() -> None:
    for name in ("retry_if", "delay_of"):
        with pytest.raises(RegistrationError, match=name):
            Retry(retries=1, **{name: "no"})  # type: ignore[arg-type]


def test_an_error_amid_an_answer_is_known_by_its_code() -> None:
    """The status is that of the beginning, or there is none."""

    class InStream(Exception):
        def __init__(self, body: Any, status_code: int | None = None, code: str | None = None) -> None:
            super().__init__("amid")
            self.body, self.status_code, self.code = body, status_code, code

    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "later"}}
    cases = (
        (InStream(overloaded, status_code=200), True),
        (InStream({"message": "it failed", "type": "server_error", "code": None}), True),
        (InStream(None, code="rate_limit_exceeded"), True),
        (InStream({"type": "error", "error": {"type": "invalid_request_error"}}, status_code=200), False),
        (InStream({"type": "server_error", "code": "insufficient_quota"}), False),
        (InStream({"code": "server_error"}, status_code=400), False),
        (InStream("text"), False),
    )
    wrong = [vars(error) for error, expected in cases if is_passing(error) is not expected]
    assert wrong == []
