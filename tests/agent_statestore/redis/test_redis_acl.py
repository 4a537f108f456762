"""Who may do what, and behind TLS: the Redis store with the least rights, and over an encrypted connection."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from agent_statestore import open_store
from agent_statestore.errors import StoreUnavailable
from agent_statestore.redis import RedisStore
from agent_statestore.redis.acl import COMMANDS, VECTOR_COMMANDS, acl_rules
from agent_statestore.redis.servers.connection import _READING
from tests.agent_statestore.redis.redis_life import claimed, live
from tests.services.redis import RedisTLSServer

READING_COMMANDS = {
    "EXISTS",
    "HGET",
    "HGETALL",
    "HMGET",
    "LLEN",
    "LRANGE",
    "PTTL",
    "TIME",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZSCORE",
} | {"ZRANGEBYLEX", "ZREVRANGEBYLEX"}
SCRIPTS = Path(__file__).parents[3] / "statestore" / "agent_statestore" / "redis" / "scripts"


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def user(raw: redis.Redis, redis_prefix: str) -> Iterator[str]:
    """The name of a user that does not exist yet, and not any more afterwards."""
    name = redis_prefix.strip(":").replace(":", "-")
    yield name
    raw.acl_deluser(name)


def as_user(url: str, user: str, prefix: str) -> str:
    """The URL of a store for a user, whose password is "secret"."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}:secret@{rest}{'&' if '?' in rest else '?'}key_prefix={quote(prefix)}"


class TestACL:
    def test_the_listed_rights_are_enough(self, redis_url: str, raw: redis.Redis, redis_prefix: str, user: str) -> None:
        prefix = f"{redis_prefix}[a]*:"
        raw.execute_command("ACL", "SETUSER", user, "on", ">secret", *acl_rules(prefix))
        raw.execute_command("ACL", "LOG", "RESET")
        raw.script_flush()
        with open_store(as_user(redis_url, user, prefix)) as store:
            assert isinstance(store, RedisStore)
            store.check()
            store.durability_warning()
            live(store)
        denied = {entry["object"] for entry in raw.acl_log() if entry["username"] == user}
        assert denied <= {"client|setinfo"}

    def test_they_reach_no_further_than_the_prefix(
        self, redis_url: str, raw: redis.Redis, redis_prefix: str, user: str
    ) -> None:
        raw.execute_command("ACL", "SETUSER", user, "on", ">secret", *acl_rules(f"{redis_prefix}[a]*:"))
        with open_store(as_user(redis_url, user, f"{redis_prefix}a:")) as store, pytest.raises(StoreUnavailable):
            store.create_context("a")

    def test_every_command_of_a_script_is_listed(self) -> None:
        used = set()
        for path in SCRIPTS.glob("*.lua"):
            used |= {name.lower() for name in re.findall(r"redis\.p?call\(\s*'(\w+)'", path.read_text())}
        assert len(used) > 20
        assert used <= {*COMMANDS, *VECTOR_COMMANDS}

    def test_just_what_writes_nothing_is_said_to_write_nothing(self) -> None:
        texts = {path.stem: path.read_text() for path in SCRIPTS.glob("*.lua")}
        first_lines = [text.partition("\n")[0] for text in texts.values()]
        parts = {part for line in first_lines for part in line.removeprefix("-- uses:").split()}
        used = {
            name: set(re.findall(r"redis\.p?call\(\s*'(\w+)'", texts[name]))
            for name in texts.keys() - parts - {"together"}
        }
        assert {name for name, commands in used.items() if commands <= READING_COMMANDS} == _READING

    @pytest.mark.parametrize("lacking", ["evalsha", "hset"])
    def test_a_lacking_right_is_said(
        self, redis_url: str, raw: redis.Redis, redis_prefix: str, user: str, lacking: str
    ) -> None:
        raw.execute_command("ACL", "SETUSER", user, "on", ">secret", *acl_rules(redis_prefix), f"-{lacking}")
        with (
            open_store(as_user(redis_url, user, redis_prefix)) as store,
            pytest.raises(StoreUnavailable, match=f"ACL denies.*{lacking}") as caught,
        ):
            store.create_context("a")
        assert "secret" not in str(caught.value)

    def test_a_wrong_password_is_said_and_not_shown(self, redis_url: str, raw: redis.Redis, user: str) -> None:
        raw.execute_command("ACL", "SETUSER", user, "on", ">other")
        with open_store(as_user(redis_url, user, "p:")) as store, pytest.raises(StoreUnavailable) as caught:
            store.check()
        assert "password" in caught.value.reason
        assert "secret" not in str(caught.value)

    def test_on_a_cluster_the_same_rights_are_enough(self, redis_cluster_url: str, redis_prefix: str) -> None:
        clients = [
            redis.Redis.from_url(f"redis://{address}", decode_responses=True)
            for address in redis_cluster_url.removeprefix("redis+cluster://").split(",")
        ]
        try:
            for client in clients:
                client.execute_command("ACL", "SETUSER", "least", "on", ">secret", *acl_rules(redis_prefix))
                client.execute_command("ACL", "LOG", "RESET")
            with open_store(as_user(redis_cluster_url, "least", redis_prefix)) as store:
                assert isinstance(store, RedisStore)
                store.check()
                store.durability_warning()
                live(store)
            denied = {entry["object"] for client in clients for entry in client.acl_log()}
            assert denied <= {"client|setinfo"}
        finally:
            for client in clients:
                client.acl_deluser("least")
                client.close()


class TestTLS:
    def test_a_trusted_server(self, redis_tls_server: RedisTLSServer) -> None:
        with open_store(redis_tls_server.url) as store:
            assert isinstance(store, RedisStore)
            live(store)
            execution_id = store.create_context("a").execution_id
            redis_tls_server.restart()
            # The idle connection was closed: noticed before anything is sent, also behind TLS.
            claimed(store, execution_id)
            assert store.take_due(1, timedelta(0)) == ()

    def test_an_untrusted_server_gets_nothing(self, redis_tls_server: RedisTLSServer) -> None:
        url = redis_tls_server.url.partition("?")[0].replace("rediss://", "rediss://:secret@")
        with open_store(url) as store, pytest.raises(StoreUnavailable, match=r"(?i)certificate") as caught:
            store.check()
        assert "secret" not in str(caught.value)

    def test_a_client_without_tls_is_told(self, redis_tls_server: RedisTLSServer) -> None:
        url = redis_tls_server.url.partition("?")[0].replace("rediss://", "redis://")
        with open_store(url) as store, pytest.raises(StoreUnavailable):
            store.create_context("a")
