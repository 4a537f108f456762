"""`agents settings`."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from agent_statestore.drivers.masking import masked
from celery_agents.cli.invocation import app_runtime
from celery_agents.cli.output import as_json
from celery_agents.host.runtime import Runtime
from celery_agents.settings import PREFIX, Settings

# The ready-made app reads these before there are settings. name: (default, the app's own name for it, description).
_OF_THE_READY_MADE_APP: Final = {
    "agents_home": (".agents", None, "Folder of the embedded broker, store and results."),
    "agents_imports": ("", "imports", "Modules that define agents, separated by commas."),
    "agents_broker_url": ("filesystem://localhost/", "broker_url", "Where messages go."),
    "agents_result_backend": (
        "agents_home, or the broker",
        "result_backend",
        "Where Celery keeps results.",
    ),
}


@click.command()
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def settings(ctx: click.Context, wants_json: bool) -> None:
    """Print all settings, with their values and defaults.

    Each is set by its name in capitals in the environment (AGENTS_LEASE_SECONDS), or else in Celery's configuration
    (app.conf.agents_lease_seconds). Passwords in URLs are not shown.

    \b
      celery -A celery_agents agents settings
    """
    runtime = app_runtime(ctx)
    rows = _rows(runtime)
    if wants_json:
        as_json.write(rows)
        return
    from rich.text import Text

    from celery_agents.cli.output.terminal import make_console

    console = make_console(ctx)
    for row in rows:
        origin = "" if row["source"] == "default" else f"  ({row['source']}; default {_shown(row['default'])})"
        line = Text(row["name"], style="bold") + Text(" = ", style="not bold")
        console.print(line + Text(_shown(row["value"]), style="not bold cyan") + Text(origin, style="not bold dim"))
        console.print(Text(f"    {row['description']}"))


def _rows(runtime: Runtime) -> list[dict[str, Any]]:
    app: Any = runtime.app
    rows = [
        _row(app, PREFIX + name, getattr(runtime.settings, name), field.get_default(), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    if runtime.app is getattr(sys.modules.get("celery_agents.celery"), "app", None):
        for name, (default, own_name, description) in _OF_THE_READY_MADE_APP.items():
            given = os.environ.get(name.upper())
            value = given or default if own_name is None else app.conf[own_name]
            rows.append(_row(app, name, value, default, description))
    return rows


def _row(app: Any, name: str, value: Any, default: Any, description: str) -> dict[str, Any]:
    configured: Mapping[str, Any] = app.conf.table(censored=False)
    sources = (("environment", name.upper() in os.environ), ("configuration", name in configured), ("default", True))
    source = next(source for source, applies in sources if applies)
    if isinstance(value, (tuple, list)):
        value = [masked(str(one)) for one in value]
    hidden = masked(value) if isinstance(value, str) else value
    return {"name": name, "value": hidden, "source": source, "default": default, "description": description}


def _shown(value: Any) -> str:
    if value is None or value in ("", []):
        return "(none)"
    return ", ".join(value) if isinstance(value, list) else str(value)
