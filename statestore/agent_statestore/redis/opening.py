"""The opener of `redis://`, `rediss://` and `valkey://` URLs, also of a Sentinel's service or a cluster."""

import re
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from redis.connection import URL_QUERY_ARGUMENT_PARSERS

from agent_statestore.clock import Clock
from agent_statestore.drivers.masking import masked
from agent_statestore.envelope import DEFAULT_MAX_VALUE_BYTES
from agent_statestore.errors import UnsupportedURL
from agent_statestore.redis.servers.locating import OPTIONS, SCHEMES
from agent_statestore.redis.store import RedisStore

_TTLS: Final = ("default_ttl", "completed_ttl", "failed_ttl")
# Options that would make the driver repeat a command, or answer in another form, are not among these.
_DRIVER_OPTIONS: Final = (
    {*URL_QUERY_ARGUMENT_PARSERS, "client_name", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile"}
    | {"ssl_keyfile", "ssl_ciphers"}
) - {"retry_on_timeout", "retry_on_error", "legacy_responses", "timeout"}
# Values that the driver would refuse at the first connection only, and how they are written.
_SECONDS: Final = (r"(?=.*[1-9])[0-9]{1,9}(\.[0-9]+)?", "a number of seconds")
_VALUES: Final = {
    "max_connections": ("[1-9][0-9]{0,8}", "a whole number of at least 1"),
    "protocol": ("2|3", "2 or 3"),
    "socket_connect_timeout": _SECONDS,
    "socket_timeout": _SECONDS,
    "ssl_cert_reqs": ("none|optional|required", "none, optional or required, in the place of CERT_NONE and so on"),
    "ssl_min_version": ("771|772", "771 for TLS 1.2 or 772 for TLS 1.3"),
}
_HINTS: Final = {
    "decode_responses": "answers are read as bytes: leave it out",
    "master_name": "write service=NAME",
    "sentinel_service": "write service=NAME",
    "service_name": "write service=NAME",
    "ssl": "write rediss:// in the place of redis://",
    "timeout": "write socket_timeout=SECONDS",
    **dict.fromkeys(
        ("retry_on_timeout", "retry_on_error", "retry"),
        "a call that may have been carried out is not repeated here: leave it out",
    ),
}


def open_redis(
    url: str,
    *,
    max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
    clock: Clock | None = None,
    **options: Any,
) -> RedisStore:
    """Return the store at `url`; `rediss` stands for `redis` behind TLS, and `valkey` for the same protocol.

    The forms of the URL:

    * `redis://[user:password@]host[:port][/database]`: one server;
    * `redis+sentinel://[user:password@]host[:port],...[/database]?service=mymaster`: the master that Sentinel names;
      the hosts are sentinels, with the separate login `sentinel_username` and `sentinel_password`;
    * `redis+cluster://[user:password@]host[:port],...`: a cluster, found through any of its servers.

    Options, as keywords or in the URL's query (where a ttl is a number of seconds, or `none`):

    * `key_prefix` (`agent:state:`): the start of every key;
    * `default_ttl` (none), `completed_ttl` (86400), `failed_ttl` (604800): see `RedisStore`.

    In the query only:

    * `replicas` (0): how many replicas must have a write before the call returns. With fewer within
      `replica_timeout_ms` (1000) it raises `StoreUnavailable`, although the write was made. A fail-over may lose the
      last writes; a write that this many replicas have is lost only if none of them is promoted;
    * connection options of redis-py (`socket_timeout`, `ssl_ca_certs`, ...), which are passed on.

    Raise `UnsupportedURL` for another scheme, an unknown option or a malformed URL.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise UnsupportedURL(masked(url), f"the scheme must be one of {', '.join(SCHEMES)}")
    place, _, query = rest.partition("?")
    passed_on = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "key_prefix":
            options.setdefault(name, value)
        elif name in _TTLS:
            options.setdefault(name, _ttl(masked(url), name, value))
        elif name in _DRIVER_OPTIONS or name in OPTIONS:
            _check_driver_option(masked(url), scheme, name, value)
            passed_on.append((name, value))
        elif "@" in name:
            raise UnsupportedURL(masked(url), "a '?' in a password must be written %3F")
        else:
            hint = _HINTS.get(name) or f"own options are {', '.join(('key_prefix', *_TTLS, *OPTIONS))}"
            raise UnsupportedURL(masked(url), f"unknown option {name!r}: {hint}")
    unknown = sorted(options.keys() - {"key_prefix", *_TTLS})
    if unknown:
        raise UnsupportedURL(masked(url), f"unknown option {unknown[0]!r}; known: key_prefix, {', '.join(_TTLS)}")
    query = f"?{urlencode(passed_on)}" if passed_on else ""
    return RedisStore(f"{scheme}://{place}{query}", max_value_bytes=max_value_bytes, clock=clock, **options)


def _check_driver_option(url: str, scheme: str, name: str, value: str) -> None:
    if name.startswith("ssl_") and not scheme.startswith("rediss"):
        raise UnsupportedURL(url, f"{name} needs TLS: write {scheme.replace(scheme.partition('+')[0], 'rediss')}://")
    pattern, meaning = _VALUES.get(name, ("(?s:.*)", ""))
    if re.fullmatch(pattern, value) is None:
        raise UnsupportedURL(url, f"{value!r} is no {name}: write {meaning}")


def _ttl(url: str, name: str, value: str) -> timedelta | None:
    if value.lower() == "none":
        return None
    try:
        return timedelta(seconds=float(value))
    except (ValueError, OverflowError) as error:
        raise UnsupportedURL(url, f"{name} needs a number of seconds or 'none', not {value!r}") from error
