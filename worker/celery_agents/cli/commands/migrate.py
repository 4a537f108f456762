"""`agents migrate`."""

import sys
from typing import Protocol, TextIO, runtime_checkable

import click

from agent_statestore.hybrid import HybridStore
from agent_statestore.store import Store
from celery_agents.cli.invocation import app_runtime


@runtime_checkable
class _Migratable(Protocol):
    """A store with a schema; see `agent_statestore.sql.SQLStore`."""

    url: str

    def migrate(self, revision: str = "head", *, sql: bool = False, output: TextIO | None = None) -> None: ...

    def downgrade(self, revision: str = "base") -> None: ...

    def leads_down(self, revision: str) -> bool: ...

    def revision(self) -> str | None: ...


@click.command()
@click.argument("revision", required=False)
@click.option("--sql", "sql_only", is_flag=True, help="Print the SQL instead, connecting to nothing.")
@click.option("--downgrade", is_flag=True, help="Go down: to REVISION, or to nothing, which drops all executions.")
@click.option("--yes", is_flag=True, help="Do not ask before going down.")
@click.pass_context
def migrate(ctx: click.Context, revision: str | None, sql_only: bool, downgrade: bool, yes: bool) -> None:
    """Bring a SQL store's schema to REVISION, by default the newest one.

    --sql prints the way there from an empty database, or with --downgrade from the newest revision. For a database with
    executions, give both ends as FROM:TO, up or down; "base" is an empty database.

    \b
      celery -A celery_agents agents migrate
      celery -A celery_agents agents migrate --sql > schema.sql
      celery -A celery_agents agents migrate 0001:head --sql > upgrade.sql
      celery -A celery_agents agents migrate --downgrade
    """
    target = revision or ("base" if downgrade else "head")
    if ":" in target:
        if not sql_only:
            raise click.UsageError(f"FROM:TO only says what to print, so {target} needs --sql")
        if downgrade:
            raise click.UsageError(f"{target} says itself whether it leads up or down: leave --downgrade out")
    elif target == "base" and not downgrade:
        raise click.UsageError("revision base drops all executions: add --downgrade if that is meant")
    elif sql_only and downgrade:
        target = f"head:{target}"
    store = app_runtime(ctx).store
    parts = [part for part in _parts(store) if isinstance(part, _Migratable)]
    if not parts:
        click.echo(f"The store {store.url} has no schema: there is nothing to migrate.")
    for part in parts:
        if sql_only:
            part.migrate(target, sql=True, output=sys.stdout)
        else:
            _migrate(part, target, downgrade, yes)


def _parts(store: Store) -> list[Store]:
    """Return the two stores of a hybrid store, otherwise the store itself."""
    return [*_parts(store.hot), *_parts(store.cold)] if isinstance(store, HybridStore) else [store]


def _migrate(store: _Migratable, target: str, downgrade: bool, yes: bool) -> None:
    before, goes_down = store.revision(), store.leads_down(target)
    if goes_down and not downgrade:
        raise click.UsageError(f"revision {target} is below {before}, and going down loses data: add --downgrade")
    if downgrade and not goes_down and before is not None:
        raise click.UsageError(f"revision {target} is not below {before}: leave --downgrade out")
    if goes_down and not yes:
        lost = "all executions" if target == "base" else f"what revision {target} knows nothing of (see docs/stores.md)"
        if not sys.stdin.isatty():
            raise click.UsageError(f"this drops {lost}, and there is no terminal to ask: add --yes")
        click.confirm(f"Drop {lost} in {store.url}?", abort=True)
    (store.downgrade if downgrade else store.migrate)(target)
    after = store.revision()
    if before == after:
        click.echo(f"The schema of {store.url} is at revision {after or 'none'} already.")
    else:
        click.echo(f"The schema of {store.url} went from revision {before or 'none'} to {after or 'none'}.")
