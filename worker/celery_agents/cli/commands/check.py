"""`agents check`."""

from typing import Any, Final

import click

from agent_statestore.errors import StoreError
from celery_agents.cli.invocation import app_runtime
from celery_agents.cli.output import as_json
from celery_agents.cli.output.masking import without_secrets
from celery_agents.cli.output.text import one_line
from celery_agents.errors import AgentsError
from celery_agents.host.runtime import Runtime

_CONNECT_SECONDS: Final = 5.0


@click.command()
@click.option("--json", "wants_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def check(ctx: click.Context, wants_json: bool) -> None:
    """Check that the store and the broker can be reached.

    Exit with 1 if one cannot. Warn about a store whose server forgets executions when it crashes.

    \b
      celery -A celery_agents agents check
    """
    runtime = app_runtime(ctx)
    found = {"store": _check_store(runtime), "broker": _check_broker(runtime)}
    if wants_json:
        as_json.write(found)
    else:
        for part, result in found.items():
            click.echo(f"{part:<8}{'ok' if result['ok'] else 'FAILED'}  {result['url']}")
            for kind in ("error", "warning"):
                if result[kind]:
                    click.echo(f"        {kind}: {result[kind]}")
    if not all(result["ok"] for result in found.values()):
        ctx.exit(1)


def _check_store(runtime: Runtime) -> dict[str, Any]:
    url, error, warning = "", None, None
    try:
        store = runtime.store
        url = store.url
        store.check()
        warning = store.durability_warning()
        if not store.is_shared:
            warning = "it lives in one process: what this process stores, no worker with a forking pool can see"
    except (StoreError, AgentsError) as fault:
        error = one_line(str(fault))
    return {"ok": error is None, "url": url, "error": error, "warning": warning}


def _check_broker(runtime: Runtime) -> dict[str, Any]:
    url, error = without_secrets(str(runtime.app.conf.broker_url or "")), None
    try:
        with runtime.app.connection_for_write(connect_timeout=_CONNECT_SECONDS) as connection:
            url = without_secrets(connection.as_uri(include_password=True))
            connection.ensure_connection(max_retries=1, timeout=_CONNECT_SECONDS)
    except Exception as fault:  # noqa: BLE001 - a transport raises what its driver raises, and kombu for an unknown one
        error = f"{type(fault).__name__}: {without_secrets(one_line(str(fault)))}".removesuffix(": ")
    return {"ok": error is None, "url": url, "error": error, "warning": None}
