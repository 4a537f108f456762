"""All settings, with their defaults, in one place.

Each is read from the environment (`AGENTS_LEASE_SECONDS`), then from Celery's configuration
(`app.conf.agents_lease_seconds`), and otherwise has the default below. A wrong value or an unknown name is refused at
start-up, and the error names it.
"""

import base64
import binascii
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import pydantic
from pydantic import Field

from agent_statestore.codec.checkpoints import DEFAULT_MAX_CONTEXT_BYTES
from agent_statestore.contract import DEFAULT_MAX_MAILBOX
from agent_statestore.drivers.masking import masked
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.moving.retention import Retention
from celery_agents.errors import ConfigurationError

PREFIX: Final = "agents_"

# Only `celery_agents.celery` reads these, before there is an app to ask. Another app's installation does not know them.
APP_ONLY: Final = frozenset(
    {"agents_home", "agents_broker_url", "agents_result_backend", "agents_imports", "agents_sent_event"}
)

# Kubernetes puts these into the environment of every pod beside a service called `agents` or `agents-...`: AGENTS_PORT,
# AGENTS_SERVICE_HOST, AGENTS_API_PORT_80_TCP_ADDR. They are not mistakes of the person who wrote the settings.
_OF_A_SERVICE: Final = re.compile(
    r"AGENTS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)

# What is set here is a secret, or holds some: no message shows any of it.
_SECRET: Final = ("webhooks", "link_secrets")
# Standard Webhooks asks for 24 to 64 bytes.
_KEY_BYTES: Final = range(24, 65)
_LEAST_LINK_SECRET: Final = 32


class WebhookEvent(StrEnum):
    """What a webhook tells of."""

    ASKED = "execution.asked"
    APPROVAL_REQUESTED = "execution.approval_requested"
    ENDED = "execution.ended"
    REMINDER = "execution.reminder"


def _read_json(value: Any) -> Any:
    """Return what the JSON text of an environment variable says; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else ()
    except ValueError:
        raise ValueError("needs to be JSON: a list") from None


class WebhookSettings(pydantic.BaseModel):
    """One receiver of webhooks.

    Attributes:
        name: names the receiver in lists and logs; it stays the same where the URL changes.
        url: where deliveries are posted to, over http or https. No output shows more of it than its host.
        secrets: the keys that sign, as `whsec_` and base64 of 24 to 64 bytes; each signs, so that keys can be rotated.
        events: what is told. Reminders are not among them: `remind_after_seconds` asks for these.
        agents: of which agents; of all, if there are none.
        outputs: whether the end of an execution comes with its output.
        remind_after_seconds: how long after it was asked a question or an approval is told of (again), if it is open.
        links_as: who decides with the one-time links that come with a question or an approval; unset: none come.
        timeout_seconds: how long one try may take in all.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    url: str = Field(repr=False, max_length=2000)
    secrets: Annotated[tuple[pydantic.SecretStr, ...], Field(repr=False, min_length=1)]
    events: frozenset[WebhookEvent] = frozenset(
        {WebhookEvent.ASKED, WebhookEvent.APPROVAL_REQUESTED, WebhookEvent.ENDED}
    )
    agents: tuple[str, ...] = ()
    outputs: bool = False
    remind_after_seconds: tuple[Annotated[float, Field(ge=1, le=31_536_000)], ...] = Field((), max_length=20)
    links_as: str | None = Field(None, min_length=1, max_length=255)
    timeout_seconds: float = Field(15.0, ge=0.1, le=60)

    @pydantic.field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_good = False
        if not is_good or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("needs the URL of a receiver, which begins with https:// or http://")
        if parts.username is not None or parts.fragment:
            raise ValueError("needs a URL without a login and without a fragment")
        return url

    @pydantic.field_validator("secrets", mode="before")
    @classmethod
    def _check_secrets(cls, secrets: Any) -> Any:
        secrets = [secrets] if isinstance(secrets, str) else secrets
        for secret in secrets if isinstance(secrets, list | tuple) else ():
            try:
                key = base64.b64decode(str(secret).removeprefix("whsec_"), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) not in _KEY_BYTES:
                raise ValueError("needs whsec_ and base64 of 24 to 64 bytes, or several of these in a list")
        return secrets

    @pydantic.field_validator("events")
    @classmethod
    def _check_events(cls, events: frozenset[WebhookEvent]) -> frozenset[WebhookEvent]:
        if WebhookEvent.REMINDER in events:
            raise ValueError("reminders are told where remind_after_seconds says when")
        return events

    @property
    def host(self) -> str:
        """What may be shown of its URL."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def hears(self, event: WebhookEvent, agent_id: str) -> bool:
        """Return whether it is told of this."""
        return event in self.events and self.hears_of(agent_id)

    def hears_of(self, agent_id: str) -> bool:
        """Return whether it is told of this agent's executions."""
        return not self.agents or agent_id in self.agents

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield "name", self.name
        yield "host", self.host
        yield "events", sorted(event.value for event in self.events)


class Settings(pydantic.BaseModel):
    """The settings of one process."""

    # Values may be URLs with passwords: pydantic's own messages, which tracebacks show, leave them out.
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    store_url: str = Field("memory://", description="Where executions are kept; see `agent_statestore.open_store`.")
    archive_url: str | None = Field(
        None, description="Where executions are moved when they are over: a second store; unset: nowhere."
    )
    archive_after_seconds: float = Field(
        0.0, ge=0, le=315_360_000, description="How long after its end an execution is moved there."
    )
    retention: str = Field(
        "", description="When to purge for good, e.g. completed=30d,failed=90d,cancelled=7d,deleted=30d; empty: never."
    )
    queue: str | None = Field(
        None, description="Celery queue for executions whose agent names none; unset: the app's default queue."
    )
    lease_seconds: float = Field(
        15.0, ge=0.3, le=3600, description="How long a claim lasts without renewal: the longest unseen death."
    )
    sweep_seconds: float = Field(
        5.0, ge=0.05, le=3600, description="How often due executions are looked for, by one worker for all."
    )
    watch_seconds: float = Field(
        1.0, ge=0.05, le=3600, description="How often each worker looks for dead processes on its host, and revokes."
    )
    drain_seconds: float | None = Field(
        None,
        ge=1,
        le=604_800,
        description="How long a shutdown waits for steps in flight before it ends them; unset: until they end.",
    )
    sweep_batch: int = Field(100, ge=1, le=10_000, description="How many due executions one sweep takes at most.")
    publish_grace_seconds: float = Field(
        10.0, ge=0.05, le=3600, description="When to ring for an execution that a sweep took and did not ring for."
    )
    ring_seconds: float = Field(
        15.0, ge=0.05, le=86_400, description="When to ring (again) for an execution that nobody claimed."
    )
    ring_max_seconds: float = Field(
        3600.0, ge=0.05, le=604_800, description="The longest such interval; each ring doubles it up to here."
    )
    max_attempts: int = Field(
        5, ge=1, le=1000, description="Claims in a row that may die without recording a step before the dead letter."
    )
    max_steps: int = Field(1000, ge=1, le=10_000_000, description="Steps that one execution may take.")
    max_retries: int = Field(1000, ge=0, le=10_000_000, description="Retries of failed steps that one execution has.")
    max_depth: int = Field(16, ge=1, le=1000, description="Generations of executions that start each other.")
    max_value_bytes: int = Field(
        DEFAULT_MAX_VALUE_BYTES, ge=1024, le=1 << 30, description="Largest JSON value in bytes: input, result, message."
    )
    max_mailbox: int = Field(
        DEFAULT_MAX_MAILBOX, ge=1, le=1_000_000, description="Signals that an execution's mailbox holds, not yet taken."
    )
    max_context_bytes: int = Field(
        DEFAULT_MAX_CONTEXT_BYTES, ge=4096, le=1 << 40, description="Bytes of JSON that one execution keeps in all."
    )
    max_descendants: int = Field(
        1000, ge=0, le=10_000_000, description="Executions that one execution starts, with all that those start."
    )
    inline_wait_seconds: float = Field(
        5.0, ge=0, le=300, description="Longest retry delay that is slept in place; longer ones free the slot."
    )
    enqueue_by_message: bool = Field(
        False, description="Whether messages may start executions of agents that no `schedule()` of the app names."
    )
    allow_green: bool = Field(
        False,
        description="Whether a worker may run on a gevent or eventlet pool, in spite of what does not work there.",
    )
    events: bool = Field(
        True, description="Whether to send the events that show live states in Flower, while monitors want any."
    )

    streams: bool = Field(True, description="Whether executions keep a stream of events, for those who follow them.")
    stream_seconds: float = Field(
        86_400.0, ge=0, le=315_360_000, description="How long a stream is kept after the end of its execution."
    )
    stream_events: int = Field(
        10_000, ge=100, le=1_000_000, description="Events that the stream of one execution holds; the oldest go first."
    )
    webhooks: Annotated[tuple[WebhookSettings, ...], pydantic.BeforeValidator(_read_json)] = Field(
        (), description="Who is told of questions, approvals and ends: a list of receivers, in the environment as JSON."
    )
    link_secrets: Annotated[tuple[pydantic.SecretStr, ...], pydantic.BeforeValidator(_read_json)] = Field(
        (), description="Keys of one-time links, each of 32 characters or more; the first signs. A list; JSON likewise."
    )
    link_url: str | None = Field(
        None, description="Where the pages of one-time links are served, e.g. https://example.com/answer."
    )

    @classmethod
    def load(cls, configured: Mapping[str, Any], environ: Mapping[str, str], *, namespace: str | None = None) -> Self:
        """Return the settings from Celery's configuration and the environment. Raise `ConfigurationError`.

        `namespace` is that of `app.config_from_object`. Names in the configuration may begin with it, and may be in
        upper case, as Celery's own names may.
        """
        values: dict[str, Any] = {}
        own = f"{namespace.lower()}_" if namespace else ""
        for raw, value in configured.items():
            name = raw.lower().removeprefix(own)
            if name.startswith(PREFIX) and name not in APP_ONLY:
                values[name.removeprefix(PREFIX)] = value
        for name, text in environ.items():
            lower = name.lower()
            if name.isupper() and lower.startswith(PREFIX) and not (lower in APP_ONLY or _OF_A_SERVICE.fullmatch(name)):
                values[lower.removeprefix(PREFIX)] = text
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            fault = error.errors(include_url=False, include_context=False)[0]
            name = PREFIX + ".".join(str(part) for part in fault["loc"] or ("webhooks",))
            if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
                raise ConfigurationError(name, f"no such setting; {cls._meant_by(name)}") from error
            said = fault["msg"].removeprefix("Value error, ")
            is_secret = not fault["loc"] or fault["loc"][0] in _SECRET
            shown = "" if is_secret or repr(fault["input"]) in said else f", not {masked(repr(fault['input']))}"
            raise ConfigurationError(name, said + shown) from error

    @classmethod
    def _meant_by(cls, name: str) -> str:
        known = [PREFIX + field for field in cls.model_fields]
        near = difflib.get_close_matches(name, [*known, *sorted(APP_ONLY)], n=2, cutoff=0.75)
        return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"

    @pydantic.field_validator("store_url")
    @classmethod
    def _check_store_url(cls, url: str) -> str:
        if not url.strip():
            raise ValueError(f"{url!r} is no URL: give one, or leave the setting out")
        return url

    @pydantic.field_validator("webhooks")
    @classmethod
    def _check_webhooks(cls, webhooks: tuple[WebhookSettings, ...]) -> tuple[WebhookSettings, ...]:
        if len({webhook.name for webhook in webhooks}) < len(webhooks):
            raise ValueError("two receivers have one name")
        return webhooks

    @pydantic.field_validator("link_secrets")
    @classmethod
    def _check_link_secrets(cls, secrets: tuple[pydantic.SecretStr, ...]) -> tuple[pydantic.SecretStr, ...]:
        if any(len(secret.get_secret_value()) < _LEAST_LINK_SECRET for secret in secrets):
            raise ValueError(f"needs secrets of {_LEAST_LINK_SECRET} characters or more")
        return secrets

    @pydantic.field_validator("link_url")
    @classmethod
    def _check_link_url(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("needs a URL that begins with https:// or http://")
        return url

    @pydantic.field_validator("retention")
    @classmethod
    def _check_retention(cls, text: str) -> str:
        Retention.parse(text)
        return text

    @pydantic.model_validator(mode="after")
    def _check_links(self) -> Self:
        if any(webhook.links_as for webhook in self.webhooks) and not (self.link_secrets and self.link_url):
            raise ValueError("links_as needs agents_link_secrets and agents_link_url")
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(value) if isinstance(value, str) else value

    @property
    def kept_for(self) -> Retention:
        """`retention` as durations."""
        return Retention.parse(self.retention)

    @property
    def archive_after(self) -> timedelta:
        """`archive_after_seconds` as a duration."""
        return timedelta(seconds=self.archive_after_seconds)

    @property
    def stream_kept_for(self) -> timedelta:
        """`stream_seconds` as a duration."""
        return timedelta(seconds=self.stream_seconds)

    @property
    def lease(self) -> timedelta:
        """`lease_seconds` as a duration."""
        return timedelta(seconds=self.lease_seconds)
