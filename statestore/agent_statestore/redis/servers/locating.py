"""The way from a URL to a topology: one server, Sentinel's master, or a cluster, each with or without TLS."""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from agent_statestore.drivers.masking import masked
from agent_statestore.errors import UnsupportedURL
from agent_statestore.redis.servers.cluster import Cluster
from agent_statestore.redis.servers.node import Address, Node, PoolOf
from agent_statestore.redis.servers.topology import OneServer, Replicas, Sentinels, Topology

SOCKET_TIMEOUT_SECONDS: Final = 5.0
HEALTH_CHECK_SECONDS: Final = 30
DEFAULT_REPLICA_TIMEOUT_MS: Final = 1000

# The settings of a connection unless the URL says otherwise. The pool's limit is far above the threads of a worker:
# beyond it a call would fail instead of waiting. RESP2 saves the handshake; the scripts' answers are the same in both.
_DEFAULTS: Final[dict[str, Any]] = {
    "socket_timeout": SOCKET_TIMEOUT_SECONDS,
    "socket_connect_timeout": SOCKET_TIMEOUT_SECONDS,
    "health_check_interval": HEALTH_CHECK_SECONDS,
    "max_connections": 10_000,
    "protocol": 2,
}

_DRIVER_SCHEMES: Final = {"redis": "redis", "rediss": "rediss", "valkey": "redis"}
_PORTS: Final = {"": 6379, "cluster": 6379, "sentinel": 26379}

# The options that this module reads from the query, and the kinds of URL that take them; "" is one server.
OPTIONS: Final = {
    "replicas": ("", "cluster", "sentinel"),
    "replica_timeout_ms": ("", "cluster", "sentinel"),
    "service": ("sentinel",),
    "sentinel_username": ("sentinel",),
    "sentinel_password": ("sentinel",),
}
SCHEMES: Final = tuple(f"{driver}{kind}" for kind in ("", "+sentinel", "+cluster") for driver in _DRIVER_SCHEMES)


def no_retry() -> Retry:
    """Return a policy without any silent repetition.

    The driver's default sends a command up to ten times more when no answer arrives. A `claim` that succeeded and is
    sent again is refused, because its own lease lives, and nobody works on the execution until that has run out. The
    caller knows what may be repeated, and how long its lease lasts. If the server closed a connection while it lay
    idle, that is noticed and the connection replaced before anything is sent.
    """
    return Retry(NoBackoff(), 0)


@dataclass(frozen=True, slots=True)
class Located:
    """Where a store's keys are, and how many replicas must have a write."""

    topology: Topology
    replicas: Replicas | None


def locate(url: str) -> Located:
    """Read a URL; make no connection yet. Raise `UnsupportedURL` for one that is malformed."""
    scheme, separator, rest = url.partition("://")
    driver, _, kind = scheme.partition("+")
    if driver == "unix" and not kind and separator:
        return Located(_one_server(url, url), None)
    if scheme not in SCHEMES or not separator:
        raise UnsupportedURL(masked(url), f"the scheme must be one of {', '.join(SCHEMES)}")
    if "#" in rest:
        raise UnsupportedURL(masked(url), "a '#' must be written %23")
    place, _, query = rest.partition("?")
    if ";" in place.rpartition("@")[2] or "://" in place.rpartition("@")[2]:
        raise UnsupportedURL(
            masked(url), f"a list of servers is written {_listed(kind)}: one scheme, and commas between the servers"
        )
    netloc, _, database = place.partition("/")
    credentials, at, hosts = netloc.rpartition("@")
    if not kind and "," in hosts:
        raise UnsupportedURL(masked(url), "several servers need redis+sentinel:// or redis+cluster://")
    addresses = [_address(url, host, _PORTS[kind]) for host in hosts.split(",")] if hosts or kind else []
    own, drivers = _options(url, kind, query)
    database = _database(url, database, dict(drivers).get("db", ""))
    replicas = _replicas(url, own)
    one_url = f"{_DRIVER_SCHEMES[driver]}://{credentials}{at}localhost/{database}?{urlencode(drivers)}"
    shown = masked(url)
    settings = _settings(shown, one_url)
    if replicas is not None and replicas.timeout_ms >= settings["socket_timeout"] * 1000:
        raise UnsupportedURL(shown, "replica_timeout_ms must be shorter than socket_timeout, which ends the wait")
    if kind == "cluster":
        if database != "0":
            raise UnsupportedURL(shown, f"a cluster has only database 0, not {database}")
        return Located(Cluster(addresses, shown, pool=_pool_of(settings)), replicas)
    if kind == "sentinel":
        return Located(_sentinels(shown, addresses, settings, own), replicas)
    address = addresses[0] if addresses else Address("localhost", _PORTS[kind])
    return Located(OneServer(Node(address, _pool_of(settings)(address)), shown), replicas)


def _listed(kind: str) -> str:
    if kind == "cluster":
        return "redis+cluster://host1:6379,host2:6379"
    return "redis+sentinel://host1:26379,host2:26379/0?service=mymaster"


def located_by(client: redis.Redis | redis.RedisCluster) -> Located:
    """Return the topology of a client that the user has made, with separate connections that repeat nothing.

    A pool of a special kind (the driver's one for Sentinel, say) cannot be copied: it is used as it is, and stays open.
    """
    if isinstance(client, redis.RedisCluster):
        return Located(_cluster_of(client), None)
    pool = client.connection_pool
    if type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool):
        service = pool.service_name if isinstance(pool, SentinelConnectionPool) else type(pool).__name__
        address = Address(str(service), 0)
        return Located(OneServer(Node(address, pool), f"redis://{service}", closes=False), None)
    settings = pool.connection_kwargs
    if "path" in settings:
        url = f"unix://{settings['path']}"
    else:
        url = f"redis://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}/{settings.get('db', 0)}"
    address = Address(str(settings.get("host", "")), int(settings.get("port", 0)))
    return Located(OneServer(Node(address, _copy(pool)), url), None)


def _one_server(url: str, shown: str) -> Topology:
    settings = _settings(shown, url)
    return OneServer(Node(Address("", 0), _pool(settings)), masked(shown))


def _sentinels(shown: str, addresses: list[Address], settings: dict[str, Any], own: dict[str, str]) -> Topology:
    if not own.get("service"):
        raise UnsupportedURL(shown, "needs the name of the service, as in ?service=mymaster")
    # The same connections, but another login and no database.
    for_sentinel = {
        name: value for name, value in settings.items() if name not in ("username", "password", "db", "client_name")
    }
    for name in ("username", "password"):
        if own.get(f"sentinel_{name}"):
            for_sentinel[name] = own[f"sentinel_{name}"]
    return Sentinels(
        addresses,
        own["service"],
        shown,
        sentinel_pool=_pool_of(for_sentinel),
        server_pool=_pool_of(settings),
    )


def _cluster_of(client: redis.RedisCluster) -> Topology:
    manager: Any = client.nodes_manager
    nodes = list(manager.nodes_cache.values())

    def pool(address: Address) -> redis.ConnectionPool:
        host, port = manager.remap_host_port(*address) if address not in known else address
        settings = {**manager.connection_kwargs}
        settings.pop("redis_connect_func", None)  # the client's own, which would make connections read replicas
        made = manager.create_redis_node(host, port, **settings)
        return _copy(made.connection_pool)

    known = {Address(node.host, node.port) for node in nodes}
    url = "redis://" + ",".join(f"{node.host}:{node.port}" for node in nodes[:3])
    return Cluster(sorted(known), url, pool=pool)


def _copy(pool: redis.ConnectionPool) -> redis.ConnectionPool:
    settings = {
        **pool.connection_kwargs,
        "retry": no_retry(),
        "retry_on_timeout": False,
        "retry_on_error": [],
    }
    return type(pool)(connection_class=pool.connection_class, max_connections=pool.max_connections, **settings)


def _settings(shown: str, url: str) -> dict[str, Any]:
    try:
        given: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise UnsupportedURL(shown, str(error)) from error
    return {**_DEFAULTS, **given, "retry": no_retry()}


def _pool(settings: dict[str, Any]) -> redis.ConnectionPool:
    return redis.ConnectionPool(**settings)


def _pool_of(settings: dict[str, Any]) -> PoolOf:
    def make(address: Address) -> redis.ConnectionPool:
        return _pool({**settings, "host": address.host, "port": address.port})

    return make


def _address(url: str, text: str, default_port: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        # The driver's words are left out: they repeat what may be a piece of a password.
        raise UnsupportedURL(masked(url), "a host or port is malformed") from None
    if not host:
        raise UnsupportedURL(masked(url), "a host is missing")
    return Address(host, default_port if port is None else port)


def _database(url: str, path: str, option: str) -> str:
    text = option or path.strip("/") or "0"
    if not (text.isascii() and text.isdigit()):
        raise UnsupportedURL(masked(url), "the database must be a number")
    return text


def _options(url: str, kind: str, query: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the store's options, and the driver's."""
    own: dict[str, str] = {}
    drivers = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            drivers.append((name, value))
        elif kind not in OPTIONS[name]:
            raise UnsupportedURL(masked(url), f"{name} belongs to redis+sentinel:// only")
        else:
            own[name] = value
    return own, drivers


def _replicas(url: str, own: dict[str, str]) -> Replicas | None:
    values = {}
    for name, default in (("replicas", 0), ("replica_timeout_ms", DEFAULT_REPLICA_TIMEOUT_MS)):
        text = own.get(name, str(default))
        if not (text.isascii() and text.isdigit()):
            raise UnsupportedURL(masked(url), f"{name} needs a whole number, not {text!r}")
        values[name] = int(text)
    if values["replica_timeout_ms"] == 0:
        raise UnsupportedURL(masked(url), "replica_timeout_ms of 0 would wait for ever")
    if values["replicas"] == 0:
        return None
    return Replicas(count=values["replicas"], timeout_ms=values["replica_timeout_ms"])
