"""One try of a delivery: signed as Standard Webhooks says, posted, and judged by the status of the answer."""

import asyncio
import functools
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final

import pydantic

from celery_agents.errors import ConfigurationError
from celery_agents.settings import WebhookSettings

try:
    import httpx
    from standardwebhooks import Webhook
except ImportError as error:
    raise ConfigurationError("agents_webhooks", "needs more packages: pip install 'celery-agents[webhooks]'") from error

_LONGEST_RETRY_AFTER: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of a try. `is_final` says that the receiver wants no other; `wait` that it wants none before."""

    said: str
    is_delivered: bool = False
    is_final: bool = False
    wait: timedelta = timedelta(0)


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # takes long, as it reads all authorities


class _HostsAlone(logging.Filter):
    """Leaves of receivers' URLs their hosts in what httpx logs of each request: a path may be a secret."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[str, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(self.hosts.get(str(one), one) for one in record.args)
        return True


_hosts_alone: Final = _HostsAlone()
logging.getLogger("httpx").addFilter(_hosts_alone)


def make_client() -> httpx.AsyncClient:
    """Return the client that all tries share. It follows no redirect: the URL of the settings is the only one."""
    return httpx.AsyncClient(
        verify=_tls(),
        follow_redirects=False,
        headers={"User-Agent": f"celery-agents/{version('celery-agents')}"},
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        timeout=None,  # `post` has one for the whole
    )


def signed(message_id: str, body: bytes, secrets: Sequence[pydantic.SecretStr]) -> dict[str, str]:
    """Return the headers of a signed delivery."""
    now, text = datetime.now(UTC), body.decode()
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(
            Webhook(secret.get_secret_value()).sign(msg_id=message_id, timestamp=now, data=text) for secret in secrets
        ),
    }


async def post(client: httpx.AsyncClient, receiver: WebhookSettings, message_id: str, body: bytes) -> Tried:
    """Post a body to a receiver, once. The answer's body is never read."""
    headers = signed(message_id, body, receiver.secrets)
    _hosts_alone.hosts[str(httpx.URL(receiver.url))] = receiver.host
    try:
        async with (
            asyncio.timeout(receiver.timeout_seconds),
            client.stream("POST", receiver.url, content=body, headers=headers) as response,
        ):
            return _judged(response)
    except TimeoutError:
        return Tried(said=f"did not answer within {receiver.timeout_seconds:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        reason = str(error).replace(receiver.url, receiver.host)
        return Tried(said=f"{type(error).__name__}: {reason}")


def _judged(response: httpx.Response) -> Tried:
    status = response.status_code
    said = f"answered {status}"
    if response.is_success:
        return Tried(said=said, is_delivered=True)
    if response.has_redirect_location or 300 <= status < 400:
        return Tried(said=f"{said}, and redirects are not followed")
    if status == httpx.codes.GONE:
        return Tried(said=f"{said}: it wants no more of this", is_final=True)
    after = response.headers.get("retry-after", "")
    if after.isascii() and after.isdecimal() and len(after) < 8:
        return Tried(said=said, wait=min(timedelta(seconds=int(after)), _LONGEST_RETRY_AFTER))
    return Tried(said=said)
