"""The pytest plug-in: the fixture `agents`, and no test of a Django project that writes into a real store.

pytest imports this file wherever the package is installed, used or not. So it imports nothing of weight by itself.
"""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from celery_agents import store_guard

if TYPE_CHECKING:
    from celery_agents.testing.installed import InstalledAgents

_ALLOWED = "agents_test_stores"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option that allows stores."""
    parser.addini(
        _ALLOWED, type="linelist", help="stores (agents_store_url) that tests may write to, beside the test's database"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Watch over the store, if pytest-django has set Django up. Its test databases are not made yet."""
    config = session.config
    if not config.pluginmanager.hasplugin("django"):
        return
    conf = sys.modules.get("django.conf")
    if conf is not None and conf.settings.configured:
        store_guard.check = _DjangoGuard(config.getini(_ALLOWED), conf.settings.DATABASES)


def pytest_sessionfinish() -> None:
    """Leave no check behind."""
    store_guard.check = None


@pytest.fixture
def agents() -> "Iterator[InstalledAgents]":
    """The installed apps with a store in memory and no broker, and the test's own hands to run executions."""
    from celery_agents.testing.installed import InstalledAgents

    with InstalledAgents() as installed:
        yield installed


class _DjangoGuard:
    """Refuses, during a test, a store that is not in one of the test databases of Django."""

    def __init__(self, allowed: list[str], databases: dict[str, dict[str, Any]]) -> None:
        self._allowed = allowed
        self._real_names = {alias: str(one.get("NAME")) for alias, one in databases.items()}

    def __call__(self, url: str) -> None:
        if "PYTEST_CURRENT_TEST" not in os.environ or url in self._allowed or url.startswith("memory:"):
            return
        from celery_agents.testing.django_databases import check_test_database

        check_test_database(url, self._real_names, _ALLOWED)
