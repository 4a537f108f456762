"""Options in a store's URL: what a driver cannot take is refused by name, and never a fault of the driver's."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pymysql
import pytest
from psycopg.pq import Conninfo
from redis import Connection, ConnectionPool, SSLConnection

from agent_statestore import StoreConfigurationError, StoreUnavailable, UnsupportedURL, open_store

VALUES = ("x", "1", "-1")


def parameters(*functions: object) -> set[str]:
    """What the functions take by name."""
    taken = {name for function in functions for name in inspect.signature(function).parameters}  # type: ignore[arg-type]
    return taken - {"self", "args", "kwargs", "connection_kwargs"}


def urls(folder: Path) -> Iterator[tuple[str, str]]:
    """Every option that a driver could know, and one that none knows, with values of all kinds; nobody listens."""
    libpq = {option.keyword.decode() for option in Conninfo.get_defaults()} - {"service", "hostaddr"}
    redis = parameters(Connection.__init__, SSLConnection.__init__, ConnectionPool.__init__)
    tls = {name for name in redis if name.startswith("ssl")}
    every = {
        "postgresql://u:p@127.0.0.1:1/d": libpq | parameters(psycopg.Connection.connect),
        # pymysql leaves a socket open if there is no server behind a path.
        "mysql://u:p@127.0.0.1:1/d": parameters(pymysql.Connection.__init__) - {"unix_socket"},
        f"sqlite:///{folder}/f.db": {"uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "vfs"},
        "redis://127.0.0.1:1/0": redis,
        "rediss://127.0.0.1:1/0": tls,
        "redis+cluster://127.0.0.1:1": tls,
    }
    for url, names in every.items():
        for name in sorted(names | {"unheard_of"}):
            for value in VALUES:
                yield f"{url}?{name}={value}", name


SPELLINGS = {
    "postgres://u@h/d": "postgresql://",
    "postgres+psycopg2://u@h/d": "postgresql://",
    "postgresql+psycopg2://u@h/d": "postgresql+psycopg://",
    "postgresql+asyncpg://u@h/d": "postgresql+psycopg://",
    "mysql+mysqldb://u@h/d": "mysql+pymysql://",
    "sqlite+aiosqlite:///f.db": "sqlite://",
    "sentinel://h1:26379;sentinel://h2:26379": "redis+sentinel://host1:26379,host2:26379/0?service=",
    "redis+sentinel://h1:26379;h2:26379/0?service=m": "redis+sentinel://host1:26379,host2:26379/0?service=",
    "redis+sentinel://h1,redis+sentinel://h2/0?service=m": "redis+sentinel://host1:26379,host2:26379/0?service=",
    "redis+sentinel://h1,h2/0?master_name=m": "service=NAME",
    "redis+cluster://h1:6379;h2:6379": "redis+cluster://host1:6379,host2:6379",
    "rediss://h/0?ssl_cert_reqs=CERT_NONE": "none, optional or required",
    "redis://h/0?ssl_cert_reqs=none": "rediss://",
    "redis+sentinel://h/0?service=m&ssl_ca_certs=f": "rediss+sentinel://",
    "redis://h/0?decode_responses=true": "leave it out",
    "redis://h/0?max_connections=0": "at least 1",
    "postgresql://u@h/d?pgbouncer=true": "prepare_threshold=none",
    "postgresql://u@h/d?statement_cache_size=0": "prepare_threshold=none",
    "postgresql://u@h/d?ssl=true": "sslmode=require",
    "postgresql://u@h/d?row_factory=dict_row": "leave it out",
    "postgresql://u@h/d?connect_timeout=soon": "whole number",
    "postgresql://u@h/d?connect_timeout=1&connect_timeout=2": "2 times",
    "mysql://u@h/d?read_timeout=5": "answer_timeout_ms",
    "mysql://u@h/d?charset=latin1": "utf8mb4",
    "mysql://u@h/d?ssl_ca=/no/such/file": "no file",
    "sqlite:///f.db?timeout=5": "busy_timeout_ms",
    "sqlite:///f.db?vfs=unix": "unknown option 'vfs'",
}


def test_a_refusal_has_the_right_spelling() -> None:
    wrong = []
    for url, spelling in SPELLINGS.items():
        try:
            open_store(url).close()
        except StoreConfigurationError as error:
            if spelling not in str(error):
                wrong.append(f"{url}: {error}")
        else:
            wrong.append(f"{url} was taken")
    assert not wrong, "\n".join(wrong)


def test_options_of_the_drivers_are_taken(tmp_path: Path) -> None:
    (tmp_path / "authority.pem").touch()
    for url in (
        "postgresql://u@/d?host=a:5432&host=b:5433&target_session_attrs=read-write&sslmode=verify-full",
        "postgresql://u@h/d?application_name=agents&connect_timeout=3&options=-c%20work_mem%3D8MB",
        "mysql://u@h/d?charset=utf8mb4&connect_timeout=3&max_allowed_packet=100&ssl_verify_cert=true",
        f"mysql://u@h/d?ssl_ca={tmp_path}/authority.pem",
        f"sqlite:///file:{tmp_path}/f.db?uri=true&nolock=1",
        "rediss://h/0?ssl_cert_reqs=none&socket_timeout=2.5&max_connections=7",
    ):
        open_store(url).close()


@pytest.mark.full
def test_no_option_is_a_fault_of_the_drivers(tmp_path: Path) -> None:
    wrong = []
    for url, name in urls(tmp_path):
        try:
            with open_store(url) as store:
                store.get_summary("any")
        except UnsupportedURL as error:
            if name not in str(error).replace(url, ""):
                wrong.append(f"{url}: does not name it: {error}")
        except StoreUnavailable:
            pass
        except Exception as error:  # noqa: BLE001 - any other is what this test looks for
            wrong.append(f"{url}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
