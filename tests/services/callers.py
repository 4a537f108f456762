"""Applications with transactions of their own on a store's database: SQLAlchemy's and Django's."""

import importlib
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import django
from django.conf import settings
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

if not settings.configured:
    settings.configure(DATABASES={}, USE_TZ=True)
    django.setup()

_ENGINES = {
    "sqlite": "django.db.backends.sqlite3",
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
}
_numbers = itertools.count()


class Rollback(Exception):
    """Ends a transaction without a commit."""


class App(Protocol):
    """An application."""

    def transaction(self) -> AbstractContextManager[Any]:
        """A transaction, as what the application would give away of it; `Rollback` ends it without a commit."""

    def write(self, connection: Any, name: str) -> None:
        """Writes a row of the application's own."""

    def nested(self, connection: Any) -> AbstractContextManager[Any]:
        """A savepoint."""


@dataclass
class SQLAlchemyApp:
    """With a connection, or a session."""

    url: URL
    with_session: bool = False
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.engine = create_engine(self.url, **(self.options or {}))
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS orders (name VARCHAR(64))"))

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        try:
            with Session(self.engine) if self.with_session else self.engine.connect() as connection, connection.begin():
                yield connection
        except Rollback:
            pass

    def write(self, connection: Any, name: str) -> None:
        connection.execute(text("INSERT INTO orders VALUES (:name)"), {"name": name})

    def nested(self, connection: Any) -> AbstractContextManager[Any]:
        nested: AbstractContextManager[Any] = connection.begin_nested()
        return nested

    def orders(self) -> list[str]:
        with self.engine.connect() as connection:
            return [name for (name,) in connection.execute(text("SELECT name FROM orders ORDER BY name"))]

    def close(self) -> None:
        self.engine.dispose()


@dataclass
class DjangoApp:
    """With a database of Django's under an alias."""

    url: URL
    alias: str

    def __post_init__(self) -> None:
        db = importlib.import_module("django.db")
        url = self.url
        db.connections.settings[self.alias] = db.connections.configure_settings(
            {
                "default": {},
                self.alias: {
                    "ENGINE": _ENGINES[url.get_backend_name().replace("mariadb", "mysql")],
                    "NAME": url.database,
                    "USER": url.username or "",
                    "PASSWORD": url.password or "",
                    "HOST": url.query.get("host", url.host) or "",
                    "PORT": url.port or "",
                },
            }
        )[self.alias]
        self.connection = db.connections[self.alias]
        with self.connection.cursor() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS orders (name VARCHAR(64))")

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        atomic = importlib.import_module("django.db.transaction").atomic
        try:
            with atomic(using=self.alias):
                yield self.connection
        except Rollback:
            pass

    def write(self, connection: Any, name: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO orders VALUES (%s)", [name])

    def nested(self, connection: Any) -> AbstractContextManager[Any]:
        assert connection is self.connection
        nested: AbstractContextManager[Any] = importlib.import_module("django.db.transaction").atomic(using=self.alias)
        return nested

    def orders(self) -> list[str]:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT name FROM orders ORDER BY name")
            return [name for (name,) in cursor.fetchall()]

    def close(self) -> None:
        self.connection.close()


@contextmanager
def apps_on(store_url: str) -> Iterator[dict[str, Any]]:
    """All kinds of applications on the database of a store's URL."""
    url = make_url(store_url)
    url = url.difference_update_query(["busy_timeout_ms"])
    kind = url.get_backend_name()
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}.get(kind, "mysql+pymysql")
    found: dict[str, Any] = {
        "connection": SQLAlchemyApp(url.set(drivername=driver)),
        "session": SQLAlchemyApp(url.set(drivername=driver), with_session=True),
    }
    if kind == "postgresql":
        found["psycopg2"] = SQLAlchemyApp(url.set(drivername="postgresql+psycopg2"))
    if kind in ("sqlite", "postgresql"):
        found["django"] = DjangoApp(url, f"theirs-{next(_numbers)}")
    try:
        yield found
    finally:
        for app in found.values():
            app.close()
