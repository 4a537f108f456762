"""The URLs of the Redis store: what they lead to, what is refused, and that no message shows a password."""

import pytest

from agent_statestore import open_store
from agent_statestore.drivers.masking import masked
from agent_statestore.errors import UnknownScheme, UnsupportedURL
from agent_statestore.redis import RedisStore
from agent_statestore.redis.servers.cluster import Cluster
from agent_statestore.redis.servers.connection import connect
from agent_statestore.redis.servers.node import Address
from agent_statestore.redis.servers.topology import OneServer, Sentinels, Topology


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h", OneServer),
        ("redis://u:secret@h:1/3?socket_timeout=2", OneServer),
        ("rediss://:secret@[::1]:1/0?ssl_cert_reqs=none", OneServer),
        ("valkey://h/0?replicas=1&replica_timeout_ms=50", OneServer),
        ("redis+sentinel://h1,h2:1/3?service=m", Sentinels),
        (
            "redis+sentinel://u:secret@h1:26379,[::1]:2/0?service=m&sentinel_username=s&sentinel_password=secret",
            Sentinels,
        ),
        ("rediss+sentinel://h1?service=m&ssl_ca_certs=/f", Sentinels),
        ("valkey+sentinel://h1?service=m&key_prefix=p:&completed_ttl=60", Sentinels),
        ("redis+cluster://u:secret@h1:1,h2:2", Cluster),
        ("redis+cluster://h1/0?key_prefix=p:&failed_ttl=none&replicas=2", Cluster),
        ("rediss+cluster://h1:1,h2:2?ssl_cert_reqs=none", Cluster),
        ("valkey+cluster://h1", Cluster),
    ],
)
def test_a_url_is_understood_without_a_connection(url: str, kind: type[Topology]) -> None:
    with open_store(url) as store:
        assert isinstance(store, RedisStore)
        assert isinstance(store._connection._topology, kind)
        assert store.url.startswith(url.partition("://")[0])
        assert "secret" not in store.url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+sentinel://u:secret@h1:1,h2/0", "service"),
        ("redis+sentinel://h1/0?service=", "service"),
        ("redis+sentinel://:secret@?service=m", "host is missing"),
        ("redis+sentinel://u:secret@h1,,h2?service=m", "host is missing"),
        ("redis+sentinel://u:secret@h1:x?service=m", "host or port"),
        ("redis+sentinel://u:secret@h1:99999?service=m", "host or port"),
        ("redis+sentinel://u:secret@[h1?service=m", "host or port"),
        ("redis+sentinel://u:secret@h1/x?service=m", "database must be a number"),
        ("redis+cluster://u:secret@h1:1,h2/1", "only database 0"),
        ("redis+cluster://u:secret@h1?db=1", "only database 0"),
        ("redis+cluster://u:secret@", "host is missing"),
        ("redis+cluster://u:secret@h1?service=m", "service belongs to"),
        ("redis+cluster://h1?sentinel_password=secret", "sentinel_password belongs to"),
        ("redis+cluster://h1?sevrice=m&password=secret", "unknown option"),
        ("redis://u:secret@h1,h2", "several servers"),
        ("redis://u:secret@h1/x", "database must be a number"),
        ("redis://u:secret@h1?replicas=few", "replicas needs a whole number"),
        ("redis://u:secret@h1?replicas=-1", "replicas needs a whole number"),
        ("redis://u:secret@h1?replicas=1&replica_timeout_ms=0", "wait for ever"),
        ("redis://u:secret@h1?replicas=1&replica_timeout_ms=5000", "shorter than socket_timeout"),
        ("redis+cluster://u:secret@h1?replicas=1&socket_timeout=0.5", "shorter than socket_timeout"),
        ("redis+other://u:secret@h1", "scheme must be one of"),
        ("redis://u:secret/with/slash@h1", "host or port"),
        ("redis://u:secret#hash@h1", "%23"),
        ("redis+cluster://u:sec?ret@h1:1,h2:2", "%3F"),
    ],
)
def test_a_malformed_url_is_refused(url: str, problem: str) -> None:
    with pytest.raises((UnsupportedURL, UnknownScheme), match=problem) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)
    assert "ret@" not in str(refused.value)
    assert "secret" not in repr(refused.value.__cause__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+cluster://u:secret@h1:1,h2:2", "redis+cluster://u:***@h1:1,h2:2"),
        ("redis+sentinel://:secret@h1,h2/0?service=m", "redis+sentinel://:***@h1,h2/0?service=m"),
        (
            "redis+sentinel://h1?sentinel_password=secret&service=m",
            "redis+sentinel://h1?sentinel_password=***&service=m",
        ),
        ("redis+cluster://u:secr@et@h1:1,h2:2/0", "redis+cluster://u:***@h1:1,h2:2/0"),
        ("redis://u:123,secret@h1:1", "redis://u:***@h1:1"),
        ("redis://u:secret/a?b#c@h:1/0", "redis://u:***@h:1/0"),
        ("redis://[secret", "redis://[secret"),
        ("redis://h:6379/0?key_prefix=a@b", "redis://h:6379/0?key_prefix=a@b"),
        ("redis+cluster://h1:1,h2:2?key_prefix=a@b", "redis+cluster://h1:1,h2:2?key_prefix=a@b"),
        ("sqlite:///home/a:b@c/f.db", "sqlite:///home/a:b@c/f.db"),
    ],
)
def test_passwords_are_masked_whatever_else_is_there(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_users_and_tls_go_where_they_belong() -> None:
    topology = connect(
        "rediss+sentinel://u:pw%40@h1/3?service=m&sentinel_username=s&sentinel_password=spw&ssl_cert_reqs=none"
    ).topology
    assert isinstance(topology, Sentinels)
    server = topology._server_pool(Address("h", 1)).connection_kwargs
    sentinel = topology._sentinel_pool(Address("h", 1)).connection_kwargs
    assert (server["username"], server["password"], server["db"]) == ("u", "pw@", 3)
    assert (sentinel["username"], sentinel["password"], sentinel.get("db")) == ("s", "spw", None)
    assert server["ssl_cert_reqs"] == sentinel["ssl_cert_reqs"] == "none"
