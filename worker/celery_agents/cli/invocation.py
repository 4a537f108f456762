"""What the command line around a command gives it: the app's runtime, and how this very app is called."""

import getpass
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from agent_statestore.errors import ExecutionNotFound
from celery_agents.client.execution import Execution
from celery_agents.errors import ConfigurationError
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.host.urls.servers import check_broker_url
from celery_agents.lifecycle.decider import COMMAND_LINE, Decider
from celery_agents.settings import Settings


def app_runtime(ctx: click.Context) -> Runtime:
    """Return the runtime of the app given with `-A`. Raise `ConfigurationError`."""
    app: Any = ctx.obj.app
    try:
        return runtime_of(app)
    except ConfigurationError as error:
        raise ConfigurationError(
            "app", f"{error.reason}; for the ready-made app call `celery -A celery_agents agents ...`"
        ) from error


def shared_runtime(ctx: click.Context, *, creates: bool = False) -> Runtime:
    """Return `app_runtime`, but refuse a store that only this process would see. Raise `ConfigurationError`.

    Unless the command `creates` something, a SQLite store whose file is missing is refused too, and no file is made.
    """
    runtime = app_runtime(ctx)
    check_broker_url(runtime.app)
    missing = None if creates else missing_file(runtime)
    if missing is not None:
        raise ConfigurationError(
            "agents_store_url",
            f"there is no file {missing} yet, so there are no executions in it: is this the folder, or the store, that "
            "the workers use? (AGENTS_STORE_URL, AGENTS_ARCHIVE_URL, AGENTS_HOME)",
        )
    if not runtime.store.is_shared:
        raise ConfigurationError(
            "agents_store_url",
            f"the store {runtime.store.url} lives in one process, so this command cannot see any worker's executions: "
            "set AGENTS_STORE_URL to a shared store (sqlite:///agents.db, say)",
        )
    return runtime


def missing_file(runtime: Runtime) -> Path | None:
    """Return the first file of a SQLite store, or of a SQLite archive, that nothing was written to yet, if any."""
    files = (_file_of(url) for url in urls_of_stores(runtime.settings))
    return next((file for file in files if file is not None and not file.exists()), None)


def urls_of_stores(settings: Settings) -> list[str]:
    """Return the URLs of the store and of its archive, however the settings say them. Raise `UnsupportedURL`."""
    url = settings.store_url
    if url.startswith("hybrid:"):
        from agent_statestore.hybrid.opening import options_of

        options = options_of(url)
        return [options["hot"], options["cold"]]
    return [url, settings.archive_url] if settings.archive_url else [url]


def _file_of(url: str) -> Path | None:
    if not url.startswith("sqlite"):
        return None
    from agent_statestore.sql.settings import parse_url

    return Path(parse_url(url).url.database or "")


def nothing_there(runtime: Runtime, execution_id: str) -> str:
    """Return the sentence about an execution that does not exist, which names where it was looked for."""
    return f"{ExecutionNotFound(execution_id)} (looked at {runtime.store.url})"


def execution_of(ctx: click.Context, execution_id: str) -> Execution:
    """Return the handle of an execution; its first call shows whether the execution exists."""
    return Execution(execution_id.strip(), shared_runtime(ctx), COMMAND_LINE)


def command_line(ctx: click.Context, command: str, *arguments: str) -> str:
    """Return how the user would call another of these commands on the same app, ready to be copied."""
    root: Mapping[str, Any] = ctx.find_root().params
    app = root.get("app")
    words = ["celery", "-A", app if isinstance(app, str) else "celery_agents", "agents", command]
    return " ".join([*(shlex.quote(word) for word in words), *arguments])


def decider(sender: str | None, reason: str | None) -> Decider:
    """Return who calls: the name that was given, or else the system's user. Raise `InvalidRecord`."""
    return Decider(sender=sender or os_user(), reason=reason, channel=COMMAND_LINE)


def os_user() -> str | None:
    """Return the name of the user who calls; None where the system has no name for the user's number."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None
