"""The URLs of broker and result backend, checked before Celery takes them apart.

Celery finds a bad port, or a password that was not escaped, deep inside: with a traceback, whose message repeats what
may be a piece of the password.
"""

from typing import Any, Final

from celery import Celery, signals

from agent_statestore.drivers.masking import masked
from celery_agents.errors import ConfigurationError
from celery_agents.host.home import home_of

_FAULT: Final = "a host or port is malformed; a password needs %40 for @, %2F for /, %23 for #, %3F for ?"


def check_broker_url(app: Celery) -> None:
    """Raise `ConfigurationError` for a broker's URL that cannot be read. Connect to nothing."""
    for name, connect in (("broker_read_url", app.connection_for_read), ("broker_write_url", app.connection_for_write)):
        url = getattr(app.conf, name)
        setting = "broker_url" if url == app.conf.broker_url else name
        _check_scheme(setting, url)
        try:
            connect().as_uri()
        except ValueError:
            raise ConfigurationError(setting, f"{shown_url(url)}: {_FAULT}") from None


def check_result_backend(app: Celery) -> None:
    """Raise `ConfigurationError` for a result backend's URL that cannot be read.

    A database is connected to, if Celery is to create its tables at once; no other server is.
    """
    url = app.conf.result_backend
    _check_scheme("result_backend", url)
    try:
        app.backend.as_uri()
    except ValueError:
        raise ConfigurationError("result_backend", f"{shown_url(url)}: {_FAULT}") from None


def shown_url(url: Any) -> str:
    """Return the URL, or several, without their passwords; "" for None."""
    return masked(url) if isinstance(url, str) else masked(", ".join(map(str, url or ())))


def _check_scheme(setting: str, url: Any) -> None:
    # kombu takes all of it for the name of a host, and shows that in its messages.
    if isinstance(url, str) and "@" in url and "://" not in url:
        raise ConfigurationError(setting, f"{shown_url(url)}: it needs :// after the scheme, as in redis://host:6379/0")


def check_before_worker(app: Celery) -> None:
    """Have every worker of the app end with one sentence for such a URL, before it shows its banner."""

    def check(instance: Any = None, **_: Any) -> None:
        if getattr(instance, "app", None) is not app:
            return
        try:
            check_broker_url(app)
            home = home_of(app)
            if home is not None:
                # A result backend on a database creates its tables here. In a folder that is not there yet it would
                # try that for seconds.
                home.prepare()
            check_result_backend(app)
        except ConfigurationError as error:
            # Of the receivers of a signal Celery logs every error, and goes on.
            raise SystemExit(f"Error: {error}") from error

    signals.celeryd_init.connect(check, weak=False, dispatch_uid=f"agents-urls-{id(app)}")
