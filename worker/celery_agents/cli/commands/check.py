"""`agents check`."""

from typing import Any, Final

import click

from agent_statestore.drivers.masking import masked
from agent_statestore.errors import StoreError
from agent_statestore.opening import open_store
from celery_agents.cli.invocation import app_runtime, missing_file, urls_of_stores
from celery_agents.cli.output import as_json
from celery_agents.cli.output.text import one_line
from celery_agents.errors import AgentsError, ConfigurationError
from celery_agents.host.home import home_of
from celery_agents.host.runtime import Runtime
from celery_agents.host.urls.servers import check_broker_url, shown_url

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
        missing = missing_file(runtime)
        if missing is not None and (missing.parent.is_dir() or home_of(runtime.app) is not None):
            urls = urls_of_stores(runtime.settings)
            url = " over ".join(masked(each) for each in urls)
            for each in urls:
                if not each.startswith("sqlite"):  # a look at a file that is not there would make it
                    with open_store(each) as other:
                        other.check()
            return {
                "ok": True,
                "url": url,
                "error": None,
                "warning": f"there is no file {missing} yet: the first worker or client makes it",
            }
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
    url, error = shown_url(runtime.app.conf.broker_write_url), None
    try:
        check_broker_url(runtime.app)
        with runtime.app.connection_for_write(connect_timeout=_CONNECT_SECONDS) as connection:
            url = url or connection.as_uri()
            connection.ensure_connection(max_retries=1, timeout=_CONNECT_SECONDS)
    except ConfigurationError as fault:
        error = str(fault)
    except ValueError:
        # It is about the URL, and repeats what may be a piece of a password.
        error = "the URL is malformed"
    except Exception as fault:  # noqa: BLE001 - a transport raises what its driver raises, and kombu for an unknown one
        error = f"{type(fault).__name__}: {masked(one_line(str(fault)))}".removesuffix(": ")
    return {"ok": error is None, "url": url, "error": error, "warning": None}
