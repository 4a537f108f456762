"""`agents webhooks`."""

import asyncio
import json

import click

from agent_statestore.records import JSONValue
from celery_agents.cli.invocation import shared_runtime
from celery_agents.cli.output.text import one_line
from celery_agents.errors import ConfigurationError
from celery_agents.webhooks import Deliveries, Delivery, DeliveryStatus


@click.group()
def webhooks() -> None:
    """Show what receivers of webhooks were told or are still to be told, and repeat what was given up.

    \b
      celery -A celery_agents agents webhooks list --status dead
      celery -A celery_agents agents webhooks retry KEY
    """


@webhooks.command("list")
@click.option("--status", type=click.Choice([status.value for status in DeliveryStatus]), help="Only these.")
@click.option("--execution", "execution_id", metavar="ID", help="Only those of this execution.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each delivery.")
@click.pass_context
def list_deliveries(ctx: click.Context, status: str | None, execution_id: str | None, as_json: bool) -> None:
    """List the deliveries that are kept: pending ones, delivered ones for 7 days, dead ones for 30."""
    store, count = shared_runtime(ctx).store, 0
    wanted = None if status is None else DeliveryStatus(status)
    for delivery in Deliveries(store.documents).list(status=wanted, execution_id=execution_id):
        count += 1
        click.echo(json.dumps(_as_json(delivery), ensure_ascii=False) if as_json else _as_text(delivery))
    if not count and not as_json:
        click.echo(f"No such deliveries (looked at {store.url}).", err=True)


@webhooks.command()
@click.argument("key", required=False)
@click.option("--all", "are_all", is_flag=True, help="All that were given up.")
@click.pass_context
def retry(ctx: click.Context, key: str | None, are_all: bool) -> None:
    """Have a delivery that was given up tried anew, from the first try on; the KEY is in the list."""
    if (key is None) == (not are_all):
        raise click.UsageError("give the KEY of a delivery, or --all")
    store = shared_runtime(ctx).store
    deliveries, now = Deliveries(store.documents), store.now()
    if key is None:
        retried = sum(deliveries.retry(one, now) for one in list(deliveries.list(status=DeliveryStatus.DEAD)))
        click.echo(f"Will be tried anew: {retried}.")
        return
    delivery = deliveries.get(key)
    if delivery is None:
        raise click.ClickException(f"there is no delivery {one_line(key)} (looked at {store.url})")
    if not deliveries.retry(delivery, now):
        raise click.ClickException(f"the delivery is {delivery.status.value}: only a dead one is tried anew")
    click.echo("It will be tried anew.")


@webhooks.command()
@click.pass_context
def deliver(ctx: click.Context) -> None:
    """Deliver what is due, once, in this process: where no worker runs that could."""
    runtime = shared_runtime(ctx)
    if not runtime.settings.webhooks:
        raise ConfigurationError("agents_webhooks", "names no receivers")
    from celery_agents.webhooks.deliverer import Deliverer  # it needs an extra

    tried = asyncio.run(Deliverer.of(runtime.store, runtime.settings).deliver_due())
    click.echo(f"Tried: {tried}.")


def _as_text(delivery: Delivery) -> str:
    times = f"after try {delivery.tries}" if delivery.tries else "not tried yet"
    said = "" if delivery.last is None else f", {one_line(delivery.last)}"
    due = f", due {delivery.due_at.isoformat()}" if delivery.status is DeliveryStatus.PENDING else ""
    about = f" {one_line(delivery.asked.key)!r}" if delivery.asked is not None else f" ({delivery.state})"
    return f"{delivery.key}\n    {delivery.event.value}{about}: {delivery.status.value} {times}{said}{due}"


def _as_json(delivery: Delivery) -> dict[str, JSONValue]:
    asked = delivery.asked
    return {
        "key": delivery.key,
        "webhook_id": delivery.message_id,
        "event": delivery.event.value,
        "receiver": delivery.receiver,
        "execution_id": delivery.execution_id,
        "agent_id": delivery.agent_id,
        "at": delivery.at.isoformat(),
        "asked": None if asked is None else {"kind": asked.kind, "key": asked.key, "round": asked.round},
        "state": delivery.state,
        "reminder": delivery.reminder,
        "status": delivery.status.value,
        "tries": delivery.tries,
        "last": delivery.last,
        "due_at": delivery.due_at.isoformat() if delivery.status is DeliveryStatus.PENDING else None,
    }
