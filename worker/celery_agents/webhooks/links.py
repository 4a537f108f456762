"""One-time links, each of which answers one question, or decides one approval, without a login: for mail and chat.

A link carries what it does, signed and with an end: the question with its round, or the approval with its digest, and
in whose name. That it counts once needs nothing that is kept: the store accepts one answer to a round for ever.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import pydantic

from agent_statestore.plain_text import require_sender
from agent_statestore.records import ExecutionSummary, JSONValue, Wait, WaitKind
from celery_agents.errors import AgentsError, ConfigurationError
from celery_agents.lifecycle import signals
from celery_agents.lifecycle.decider import Decider
from celery_agents.lifecycle.services import Services
from celery_agents.settings import Settings

try:
    from itsdangerous import BadSignature, URLSafeSerializer
except ImportError as error:
    raise ConfigurationError(
        "agents_link_secrets", "needs more packages: pip install 'celery-agents[webhooks]'"
    ) from error

DEFAULT_LIFE: Final = timedelta(days=7)
_SALT: Final = "celery-agents one-time link"
_CHANNEL: Final = "link"
# Longer ones are cut by mail programs and refused by servers.
_LONGEST: Final = 4000


class LinkAct(StrEnum):
    """What a link does."""

    ANSWER = "answer"
    APPROVE = "approve"
    REJECT = "reject"


class InvalidLink(AgentsError):
    """A link was not made here, is damaged, or (`expired_at`) has expired."""

    def __init__(self, expired_at: datetime | None = None) -> None:
        super().__init__(expired_at)
        self.expired_at = expired_at

    def __str__(self) -> str:
        return "the link is not valid" if self.expired_at is None else f"the link expired at {self.expired_at}"


class LinkTooLong(AgentsError):
    """A link would have more characters than mail programs pass on: its answer is too long."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(length, limit)
        self.length = length
        self.limit = limit

    def __str__(self) -> str:
        return f"the link would have {self.length} characters, more than {self.limit}: give a shorter answer, or none"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeLink:
    """What a link does, once.

    Attributes:
        execution_id, key, round: what it answers; see `agent_statestore.Wait`.
        digest: for an approval, what is decided.
        sender: in whose name.
        answers: the answer in a tuple; empty if whoever opens the link chooses.
        expires_at: until when, on the clock of the process that serves it.
    """

    act: LinkAct
    execution_id: str
    key: str
    round: int
    digest: str | None = None
    sender: str
    answers: tuple[JSONValue, ...] = ()
    expires_at: datetime

    def wait_in(self, summary: ExecutionSummary) -> Wait | None:
        """Return what it is about, if the execution still waits for that."""
        kind = WaitKind.INPUT if self.act is LinkAct.ANSWER else WaitKind.APPROVAL
        found = (wait for wait in summary.waits if (wait.kind, wait.key, wait.round) == (kind, self.key, self.round))
        return next((wait for wait in found if self.digest in (None, signals.shown(wait)["digest"])), None)


class Links:
    """Makes links and reads them, with the keys of the settings: the first signs, all are read."""

    def __init__(self, settings: Settings) -> None:
        """Raise `ConfigurationError` without keys."""
        if not settings.link_secrets:
            raise ConfigurationError("agents_link_secrets", "is needed for one-time links")
        self._base = settings.link_url
        self._serializer = _serializer(settings.link_secrets)

    def make(
        self,
        act: LinkAct,
        execution_id: str,
        wait: Wait,
        *,
        sender: str,
        answers: Sequence[JSONValue] = (),
        expires: timedelta = DEFAULT_LIFE,
        url: str | None = None,
    ) -> str:
        """Return the URL of a link. Raise `InvalidRecord` for a sender that no trail may show, and `LinkTooLong`."""
        base = url or self._base
        if base is None:
            raise ConfigurationError("agents_link_url", "is needed for one-time links, or give the url")
        if not isinstance(sender, str) or not sender:
            raise TypeError(f"a link needs the name of its sender, not {sender!r:.80}")
        require_sender("sender", sender)
        if not isinstance(expires, timedelta) or expires <= timedelta(0):
            raise TypeError(f"expires needs a timedelta above zero, not {expires!r:.80}")
        fields: dict[str, Any] = {
            "v": 1,
            "a": act.value,
            "e": execution_id,
            "k": wait.key,
            "r": wait.round,
            "s": sender,
            "x": int((datetime.now(UTC) + expires).timestamp()),
        }
        if act is not LinkAct.ANSWER:
            fields["d"] = signals.shown(wait)["digest"]
        if answers:
            fields["w"] = list(answers)
        link = f"{base.rstrip('/')}/{self._serializer.dumps(fields)}"
        if len(link) > _LONGEST:
            raise LinkTooLong(len(link), _LONGEST)
        return link

    def read(self, token: str) -> OneTimeLink:
        """Return what a link does. Raise `InvalidLink`."""
        if len(token) > _LONGEST:
            raise InvalidLink
        try:
            fields: Any = self._serializer.loads(token)
        except BadSignature as error:  # also for what is no token at all
            raise InvalidLink from error
        if fields["v"] != 1:
            raise InvalidLink  # a newer version has made it
        link = OneTimeLink(
            act=LinkAct(fields["a"]),
            execution_id=fields["e"],
            key=fields["k"],
            round=fields["r"],
            digest=fields.get("d"),
            sender=fields["s"],
            answers=tuple(fields.get("w", ())),
            expires_at=datetime.fromtimestamp(fields["x"], UTC),
        )
        if link.expires_at <= datetime.now(UTC):
            raise InvalidLink(link.expires_at)
        return link


def use(
    services: Services, summary: ExecutionSummary, link: OneTimeLink, answer: JSONValue, reason: str | None
) -> None:
    """Do what a link does; `answer` counts where the link has none. Raise what `Execution.resume` and `approve` do."""
    by = Decider(sender=link.sender, reason=reason, channel=_CHANNEL)
    if link.act is LinkAct.ANSWER:
        value = link.answers[0] if link.answers else answer
        signals.answer(services, summary, value, key=link.key, round=link.round, by=by)
    elif link.act is LinkAct.APPROVE:
        signals.approve(services, summary, key=link.key, digest=link.digest, arguments=None, by=by)
    else:
        signals.reject(services, summary, key=link.key, digest=link.digest, by=by)


def links_shown(links: Links, execution_id: str, wait: Wait, sender: str) -> dict[str, JSONValue]:
    """Return the links that come with a question or an approval: where it can be answered with one click each.

    Those of a question with choices have one for each, as far as they are not too long.
    """
    if wait.kind is WaitKind.APPROVAL:
        acts = (LinkAct.APPROVE, LinkAct.REJECT)
        return {act.value: links.make(act, execution_id, wait, sender=sender) for act in acts}
    choices: Any = (wait.schema or {}).get("enum")
    shown: dict[str, JSONValue] = {"answer": links.make(LinkAct.ANSWER, execution_id, wait, sender=sender)}
    if isinstance(choices, list) and len(choices) <= _MOST_CHOICES:
        shown["choices"] = [
            {
                "answer": choice,
                "url": links.make(LinkAct.ANSWER, execution_id, wait, sender=sender, answers=[choice]),
            }
            for choice in choices
            if len(str(choice)) <= _LONGEST_CHOICE
        ]
    return shown


_MOST_CHOICES: Final = 20
_LONGEST_CHOICE: Final = 500


def _serializer(secrets: Sequence[pydantic.SecretStr]) -> URLSafeSerializer:
    keys = [secret.get_secret_value() for secret in reversed(secrets)]  # it signs with the last one
    return URLSafeSerializer(keys, salt=_SALT, signer_kwargs={"digest_method": hashlib.sha256})
