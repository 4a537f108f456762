"""The driver's options in a store URL: which there are, and of what kind their values must be.

A driver takes an unknown option, or a text for a number, up to the first connection, and then raises whatever comes of
it. Here it is refused by name, before anything is connected to.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import URL

from agent_statestore.errors import UnsupportedURL

_NUMBER: Final = "[0-9]{1,9}"
_SWITCH: Final = "true|false|1|0|yes|no|on|off"
_TEXT: Final = "(?s:.+)"

# Of libpq's options those whose values it would refuse at the connection only; it knows the names of all itself.
_LIBPQ: Final = {
    "connect_timeout": _NUMBER,
    "keepalives": "0|1",
    "keepalives_count": _NUMBER,
    "keepalives_idle": _NUMBER,
    "keepalives_interval": _NUMBER,
    "load_balance_hosts": "disable|random",
    "port": "[0-9]{0,5}(,[0-9]{0,5})*",
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "target_session_attrs": "any|read-write|read-only|primary|standby|prefer-standby",
    "tcp_user_timeout": _NUMBER,
}
_PYMYSQL: Final = {
    "bind_address": _TEXT,
    "charset": "utf8mb4",
    "collation": "utf8mb4_[a-z0-9_]+",
    "connect_timeout": "[1-9][0-9]{0,6}",
    "init_command": _TEXT,
    "max_allowed_packet": _NUMBER,
    "program_name": _TEXT,
    "read_default_file": _TEXT,
    "read_default_group": _TEXT,
    "server_public_key": _TEXT,
    "ssl_ca": _TEXT,
    "ssl_capath": _TEXT,
    "ssl_cert": _TEXT,
    "ssl_check_hostname": _SWITCH,
    "ssl_cipher": _TEXT,
    "ssl_disabled": _SWITCH,
    "ssl_key": _TEXT,
    "ssl_key_password": _TEXT,
    "ssl_verify_cert": _SWITCH,
    "ssl_verify_identity": _SWITCH,
    "unix_socket": _TEXT,
}
# Those that SQLAlchemy hands to pymysql as the text that they are in the URL.
_PYMYSQL_NUMBERS: Final = ("max_allowed_packet",)
_PYMYSQL_FILES: Final = ("read_default_file", "server_public_key", "ssl_ca", "ssl_cert", "ssl_key")
_PYMYSQL_SWITCHES: Final = ("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity")

_SETS_ITSELF: Final = "the store sets it itself: leave it out"
_HINTS: Final[Mapping[str, Mapping[str, str]]] = {
    "sqlite": {
        "timeout": "write busy_timeout_ms=10000, in milliseconds",
        **dict.fromkeys(("cached_statements", "check_same_thread", "detect_types", "isolation_level"), _SETS_ITSELF),
    },
    "postgresql": {
        **dict.fromkeys(("autocommit", "context", "cursor_factory", "replication", "row_factory"), _SETS_ITSELF),
        **dict.fromkeys(("client_encoding", "isolation_level"), _SETS_ITSELF),
        **dict.fromkeys(
            ("pgbouncer", "prepared_statement_cache_size", "prepared_statements", "statement_cache_size"),
            "write prepare_threshold=none for a pooler in transaction mode",
        ),
        **dict.fromkeys(("ssl", "ssl_mode"), "write sslmode=require, or another mode of libpq's"),
        "currentSchema": "write schema=NAME",
        "pool_timeout": "a call waits 30 seconds for a connection of the pool",
    },
    "mysql": {
        **dict.fromkeys(("read_timeout", "write_timeout"), "write answer_timeout_ms=30000, in milliseconds"),
        **dict.fromkeys(
            ("autocommit", "client_flag", "conv", "cursorclass", "local_infile", "sql_mode", "use_unicode"),
            _SETS_ITSELF,
        ),
        **dict.fromkeys(("ssl", "ssl_mode", "sslmode"), "write ssl_ca=FILE, or other ssl_ options of pymysql's"),
    },
}


def check_file_options(url: URL, shown: str, own: Collection[str]) -> None:
    """Raise `UnsupportedURL` for an option that sqlite3 would ignore. With `uri=true` SQLite itself gets the rest."""
    _check_switch(url, shown, "uri")
    if not _is_on(url.query.get("uri", "false")):
        _check(url, shown, own, {"uri": _SWITCH}, "sqlite")
    else:
        _check(url, shown, own, {**dict.fromkeys(url.query.keys() - _HINTS["sqlite"].keys(), _TEXT)}, "sqlite")


def check_libpq_options(url: URL, shown: str, own: Collection[str]) -> None:
    """Raise `UnsupportedURL` for an option that libpq does not know, or a value that it does not take."""
    from psycopg.pq import Conninfo

    known = {option.keyword.decode(): _TEXT for option in Conninfo.get_defaults()} | _LIBPQ
    _check(url, shown, own, {name: known[name] for name in known.keys() - _HINTS["postgresql"].keys()}, "postgresql")


def check_pymysql_options(url: URL, shown: str, own: Collection[str]) -> None:
    """Raise `UnsupportedURL` for an option that pymysql does not know, or a value that it does not take."""
    _check(url, shown, own, _PYMYSQL, "mysql")
    _check_files(url, shown)


def _check_files(url: URL, shown: str) -> None:
    for name in _PYMYSQL_FILES:
        file = url.query.get(name)
        if file is not None and not Path(str(file)).is_file():
            raise UnsupportedURL(shown, f"{name}: there is no file {str(file)!r}")


def pymysql_arguments(url: URL) -> dict[str, Any]:
    """Return the options that pymysql does not take as texts."""
    numbers = {name: int(str(url.query[name])) for name in _PYMYSQL_NUMBERS if name in url.query}
    return numbers | {name: _is_on(url.query[name]) for name in _PYMYSQL_SWITCHES if name in url.query}


def _check(url: URL, shown: str, own: Collection[str], known: Mapping[str, str], dialect: str) -> None:
    for name, value in url.query.items():
        if name not in known:
            hint = _HINTS[dialect].get(name) or f"the store's own options are {', '.join(sorted(own))}"
            raise UnsupportedURL(shown, f"unknown option {name!r}: {hint}")
        if isinstance(value, tuple) and name != "host":
            raise UnsupportedURL(shown, f"{name} is given {len(value)} times")
        if isinstance(value, str) and re.fullmatch(known[name], value, re.IGNORECASE) is None:
            raise UnsupportedURL(shown, f"{value!r} is no {name}{_wanted(known[name])}")


def _check_switch(url: URL, shown: str, name: str) -> None:
    value = url.query.get(name)
    if value is not None and (not isinstance(value, str) or re.fullmatch(_SWITCH, value, re.IGNORECASE) is None):
        raise UnsupportedURL(shown, f"{value!r} is no {name}{_wanted(_SWITCH)}")


def _wanted(pattern: str) -> str:
    if pattern in (_TEXT, ""):
        return ""
    if re.fullmatch("[a-z0-9|-]+", pattern):
        return f", which is {pattern.replace('|', ', ')}"
    return ", which is a whole number" if "[0-9]" in pattern else ""


def _is_on(value: str | tuple[str, ...]) -> bool:
    return str(value).lower() in ("true", "1", "yes", "on")
