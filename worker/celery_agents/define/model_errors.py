"""What an error of a model's service says: whether another try may help, and how long to wait before it.

Read from what the clients have in common (openai, anthropic, httpx, Pydantic AI, LangChain): an HTTP status and the
response's headers, on the error or on what caused it. No client is imported.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

# RFC 9110 and RFC 6585: a timeout, a conflict with another request, too early, too many requests.
_PASSING: Final = frozenset({408, 409, 425, 429})
# The base classes of "no answer came" in httpx, openai and anthropic, aiohttp, botocore.
_NO_ANSWER: Final = frozenset({"TransportError", "APIConnectionError", "ClientConnectionError", "HTTPClientError"})
# What services call errors that pass, where there is no status: in the middle of an answer in pieces.
_PASSING_WORDS: Final = frozenset(
    {
        *("server_error", "internal_server_error", "internal_error", "api_error", "service_unavailable"),
        *("rate_limit_exceeded", "rate_limit_error", "overloaded_error", "overloaded", "timeout_error", "timeout"),
    }
)
# A 429 that stays one until somebody pays.
_LASTING_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_LONGEST_CHAIN: Final = 16
_LONGEST_SECONDS: Final = 24 * 3600.0


def is_passing(error: BaseException) -> bool:
    """Return whether another try may help: no answer came, or the service is overloaded, failed, or limits the rate.

    Not if it refused the request: a 400, also for a context that is too long, will be one again.
    """
    for one in _chain(error):
        status = _status(one)
        if status is not None:
            return (status in _PASSING or status >= 500) and not _lasts(error)
    if not _PASSING_WORDS.isdisjoint(_words(error)):
        return not _lasts(error)
    return any(
        isinstance(one, ConnectionError | TimeoutError)
        or not _NO_ANSWER.isdisjoint(kind.__name__ for kind in type(one).__mro__)
        for one in _chain(error)
    )


def seconds_to_wait(error: BaseException) -> float | None:
    """Return how long the service wants to be left alone, at most a day; None if it does not say."""
    for one in _chain(error):
        headers = _headers(one)
        for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
            seconds = _seconds(headers.get(name), unit)
            if seconds is not None:
                return min(max(seconds, 0.0), _LONGEST_SECONDS)
        given = getattr(one, "retry_after", None)
        if isinstance(given, int | float) and not isinstance(given, bool) and given >= 0:
            return min(float(given), _LONGEST_SECONDS)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if one is None:
            return
        yield one
        one = one.__cause__


def _status(error: BaseException) -> int | None:
    # One that is no error's is that of an answer which then broke off.
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None) or getattr(holder, "status", None)
        if isinstance(status, int) and not isinstance(status, bool) and 400 <= status <= 599:
            return status
    return None


def _lasts(error: BaseException) -> bool:
    return not _LASTING_CODES.isdisjoint(_words(error))


def _words(error: BaseException) -> Iterator[str]:
    """Yield the codes and types that an error has, or its body, which may have them in an object of its own."""
    for one in _chain(error):
        body: Any = getattr(one, "body", None)
        inner = body.get("error") if isinstance(body, Mapping) else None
        for holder in (body, inner):
            if isinstance(holder, Mapping):
                yield from (word for word in (holder.get("code"), holder.get("type")) if isinstance(word, str))
        yield from (word for word in (getattr(one, "code", None), getattr(one, "type", None)) if isinstance(word, str))


def _headers(error: BaseException) -> Mapping[str, str]:
    for holder in (getattr(error, "response", None), error):
        headers = getattr(holder, "headers", None)
        if isinstance(headers, Mapping):
            return {str(name).lower(): str(value) for name, value in headers.items()}
    return {}


def _seconds(text: str | None, unit: float) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text) * unit
        return seconds if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None  # neither a number nor a date: the service says nothing that can be used
