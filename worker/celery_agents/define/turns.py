"""An agent's demands on the order in which its executions work."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from agent_statestore.errors import InvalidRecord
from agent_statestore.records import ExecutionSummary, JSONValue
from celery_agents.errors import RegistrationError

# The key in an execution's metadata under which it is counted. Its value is made of the input at creation.
KEY: Final = "agents.key"

_PERIODS: Final = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/([smh])")


class SessionPolicy(StrEnum):
    """What happens to several active executions of one agent in one session.

    `PARALLEL`: nothing. `QUEUE`: one works after the other, in the order of creation, and an older execution keeps its
    turn while it is paused. `REJECT`: no execution is created while another one is active. `INTERRUPT`: a new one
    cancels those before it, and begins when they are over. `ROLLBACK`: the same, and what they had said to the session
    is taken out first.
    """

    PARALLEL = "parallel"
    QUEUE = "queue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A number of starts per period."""

    limit: int
    per: timedelta

    @classmethod
    def parse(cls, name: str, text: str) -> "RateLimit":
        """Return the limit in Celery's notation: "10/s", "10/m", "10/h". Raise `RegistrationError`."""
        found = _RATE.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise RegistrationError(name, f"rate_limit is a number per s, m or h, such as '10/m', not {text!r:.80}")
        return cls(int(found[1]), _PERIODS[found[2]])


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` executions work at once, or that many for each `key` of the input."""

    limit: int
    key: Callable[[Any], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The demands of one agent."""

    agent_id: str
    session_policy: SessionPolicy = SessionPolicy.PARALLEL
    concurrency: Concurrency | None = None
    rate: RateLimit | None = None
    # Whether executions may have to wait for others to end or pause; whether they may have to wait at all.
    has_lines: bool = field(init=False)
    may_wait: bool = field(init=False)
    # Whether a new execution cancels those before it in its session; whether one works there after the other.
    displaces: bool = field(init=False)
    is_serial: bool = field(init=False)

    def __post_init__(self) -> None:
        displaces = self.session_policy in (SessionPolicy.INTERRUPT, SessionPolicy.ROLLBACK)
        is_serial = displaces or self.session_policy is SessionPolicy.QUEUE
        has_lines = self.concurrency is not None or is_serial
        object.__setattr__(self, "displaces", displaces)
        object.__setattr__(self, "is_serial", is_serial)
        object.__setattr__(self, "has_lines", has_lines)
        object.__setattr__(self, "may_wait", has_lines or self.rate is not None)

    @classmethod
    def of(
        cls,
        name: str,
        session_policy: str,
        concurrency: int | None,
        concurrency_key: Callable[[Any], object] | None,
        rate_limit: str | None,
    ) -> "Turns":
        """Return the demands that `@agent` was given. Raise `RegistrationError`."""
        try:
            policy = SessionPolicy(session_policy)
        except ValueError as error:
            allowed = ", ".join(repr(policy.value) for policy in SessionPolicy)
            raise RegistrationError(name, f"session_policy is one of {allowed}, not {session_policy!r}") from error
        if concurrency is not None and (
            isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
        ):
            raise RegistrationError(name, f"concurrency needs a whole number of at least 1, not {concurrency!r}")
        if concurrency_key is not None and concurrency is None:
            raise RegistrationError(name, "concurrency_key says what concurrency is counted by: it needs one")
        if concurrency_key is not None and not callable(concurrency_key):
            raise RegistrationError(name, f"concurrency_key is a function of the input, not {concurrency_key!r:.80}")
        return cls(
            agent_id=name,
            session_policy=policy,
            concurrency=None if concurrency is None else Concurrency(concurrency, concurrency_key),
            rate=None if rate_limit is None else RateLimit.parse(name, rate_limit),
        )

    def rejects(self, session_id: str | None) -> bool:
        """Return whether nothing is started in this session while something is active."""
        return self.session_policy is SessionPolicy.REJECT and session_id is not None

    def added_to(self, metadata: Mapping[str, JSONValue], value: Callable[[], Any]) -> dict[str, JSONValue]:
        """Return a caller's metadata with the key of the input added. Raise what the agent's function raises.

        Raise `InvalidRecord` if the caller gave a value for it, and for a key that is neither a text nor a number.
        """
        require_no_key(metadata)
        if self.concurrency is None or self.concurrency.key is None:
            return dict(metadata)
        key = self.concurrency.key(value())
        if key is not None and not isinstance(key, str | int):
            raise InvalidRecord("concurrency_key", f"needs to return a text, a number or None, not {key!r:.80}")
        return {**metadata, KEY: key if key is None else str(key)}


def require_no_key(metadata: Mapping[str, JSONValue]) -> None:
    """Raise `InvalidRecord` if a caller gave a value for the key."""
    if KEY in metadata:
        raise InvalidRecord("metadata", f"{KEY!r} is not to be given there: the agent's concurrency_key makes it")


def key_of(summary: ExecutionSummary) -> JSONValue:
    """Return the key under which an execution is counted. None stands for no key, and is counted like a key."""
    return summary.metadata.get(KEY)
