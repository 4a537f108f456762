"""Whether a store is in a test database of Django."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from agent_statestore.drivers.masking import masked
from celery_agents.errors import ConfigurationError

_PORTS: Final = {"postgresql": 5432, "mysql": 3306}
_LOCAL: Final = ("", "localhost", "127.0.0.1", "::1")


def check_test_database(url: str, real_names: Mapping[str, str], option: str) -> None:
    """Raise `ConfigurationError` for the URL of a store that is in no test database.

    `real_names` are the names of the databases by alias, from before the test databases were made.
    """
    try:
        parsed: URL | None = make_url(url)
    except ArgumentError:
        parsed = None
    connections = import_module("django.db").connections
    test_databases = []
    for alias in connections:
        settings = connections[alias].settings_dict
        name = str(settings["NAME"])
        if name != real_names.get(alias) or name == settings.get("TEST", {}).get("NAME"):
            test_databases.append(name)
            if parsed is not None and _is_same(parsed, connections[alias].vendor, settings):
                return
    found = f"the test's database is {' or '.join(test_databases)}" if test_databases else "the test has no database"
    raise ConfigurationError(
        "agents_store_url",
        f"a test must not write to {masked(url)}: {found}. Take the fixture `agents`, or name the store in pytest's "
        f"option {option}",
    )


def _is_same(url: URL, vendor: str, settings: Mapping[str, Any]) -> bool:
    kind = url.get_backend_name().replace("mariadb", "mysql")
    if kind != vendor or not url.database:
        return False
    if kind == "sqlite":
        return Path(url.database).resolve() == Path(settings["NAME"]).resolve()
    hosts = {str(settings.get("HOST") or ""), str(url.query.get("host", url.host) or "")}
    ports = {int(settings.get("PORT") or _PORTS[kind]), int(url.port or _PORTS[kind])}
    is_same_host = len(hosts) == 1 or hosts <= set(_LOCAL)
    return url.database == str(settings["NAME"]) and is_same_host and len(ports) == 1
