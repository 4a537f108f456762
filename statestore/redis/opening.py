"""The opener of `redis://`, `rediss://` and `valkey://` URLs."""

from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.connection import URL_QUERY_ARGUMENT_PARSERS

from statestore.clock import Clock
from statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from statestore.errors import UnsupportedURL
from statestore.opening import masked
from statestore.redis.store import RedisStore

_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "valkey": "redis"}
_TTLS: Final = ("default_ttl", "completed_ttl", "failed_ttl")
# Options that would make the driver repeat a command, or answer in another form, are not among these.
_DRIVER_OPTIONS: Final = (
    {*URL_QUERY_ARGUMENT_PARSERS, "client_name", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile"}
    | {"ssl_keyfile", "ssl_ciphers"}
) - {"retry_on_timeout", "retry_on_error", "legacy_responses", "timeout"}


def open_redis(
    url: str,
    *,
    max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
    clock: Clock | None = None,
    **options: Any,
) -> RedisStore:
    """The backend of `redis://[user:password@]host[:port][/db]`, `rediss://` (TLS) and `valkey://`.

    Options, as keywords or in the URL's query (where a ttl is a number of seconds, or `none`):

    * `key_prefix` (`agent:state:`): what every key starts with;
    * `default_ttl` (none), `completed_ttl` (86400), `failed_ttl` (604800): see `RedisStore`.

    Connection options of redis-py in the query (`socket_timeout`, `ssl_ca_certs`, ...) are passed on. Raises
    `UnsupportedURL` for another scheme or an unknown option.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise UnsupportedURL(masked(url), f"the scheme must be one of {', '.join(_SCHEMES)}")
    driver_options = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "key_prefix":
            options.setdefault(name, value)
        elif name in _TTLS:
            options.setdefault(name, _ttl(masked(url), name, value))
        elif name in _DRIVER_OPTIONS:
            driver_options.append((name, value))
        else:
            raise UnsupportedURL(masked(url), f"unknown option {name!r}; own options: key_prefix, {', '.join(_TTLS)}")
    unknown = sorted(options.keys() - {"key_prefix", *_TTLS})
    if unknown:
        raise UnsupportedURL(masked(url), f"unknown option {unknown[0]!r}; known: key_prefix, {', '.join(_TTLS)}")
    driver_url = urlunsplit(parts._replace(scheme=_SCHEMES[parts.scheme], query=urlencode(driver_options)))
    return RedisStore(driver_url, max_value_bytes=max_value_bytes, clock=clock, **options)


def _ttl(url: str, name: str, value: str) -> timedelta | None:
    if value.lower() == "none":
        return None
    try:
        return timedelta(seconds=float(value))
    except (ValueError, OverflowError) as error:
        raise UnsupportedURL(url, f"{name} needs a number of seconds or 'none', not {value!r}") from error
