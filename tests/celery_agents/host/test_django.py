"""Agents in a Django project on PostgreSQL: no step leaves a connection of Django's open."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from celery_agents.host.runtime import Runtime
from tests.celery_agents.their_workers import client_of, start, worker
from tests.services.commands import wait_until
from tests.services.machine import scaled
from tests.services.postgresql import driver_url

SETTINGS = """
SECRET_KEY = "for tests"
INSTALLED_APPS = []
USE_TZ = True
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "NAME": {url.database!r},
        "HOST": {url.host!r},
        "PORT": {url.port!r},
        "USER": {url.username!r},
        "PASSWORD": {url.password!r},
        "CONN_MAX_AGE": 600,
        "OPTIONS": {{"application_name": "shop"}},
    }}
}}
"""
AGENTS = """
import asyncio
from datetime import timedelta
from celery_agents import agent

def look() -> int:
    from django.db import connection
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_sleep(0.05)")
        return cursor.fetchone()[0]

@agent
def beside(run, input: None) -> list[int]:
    return run.parallel([look] * 8)

@agent
def timed(run, input: None) -> list[int]:
    return [run.options(timeout=timedelta(minutes=1)).step("look", look) for _ in range(8)]

@agent
async def gathered(run, input: None) -> list[int]:
    return list(await asyncio.gather(*(run.step("look", look) for _ in range(8))))

@agent
async def to_thread(run, input: None) -> list[int]:
    async def looks() -> list[int]:
        return list(await asyncio.gather(*(asyncio.to_thread(look) for _ in range(8))))
    return await run.step("looks", looks)
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    with client_of(tmp_path, AGENTS, monkeypatch) as client:
        yield client


def test_no_step_leaves_a_connection_of_django_open(
    client: Runtime, tmp_path: Path, postgresql_database_url: str
) -> None:
    (tmp_path / "shop_settings.py").write_text(SETTINGS.format(url=make_url(postgresql_database_url)))
    with (
        psycopg.connect(driver_url(postgresql_database_url), autocommit=True) as watching,
        worker(tmp_path, "-P prefork -c 1", DJANGO_SETTINGS_MODULE="shop_settings") as running,
    ):

        def is_closed() -> bool:
            found = watching.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shop'").fetchone()
            return found == (0,)

        for name in ("beside", "timed", "gathered", "to_thread"):
            execution = start(client, name, None)
            assert execution.wait(scaled(60)) == [1] * 8, running.output
            wait_until(f"the connections of {name} are closed", is_closed, seconds=5)
