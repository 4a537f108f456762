"""`agents webhooks`: what was told, what was given up, and trying that anew."""

import json
from collections.abc import Iterator

import pytest

from tests.celery_agents.cli.cli_driving import CLI
from tests.celery_agents.webhooks.receiving import SECRET, Receiver, receiving

PATH = "/T0/secret-path"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver that the environment names: it is to be made before the command line."""
    with receiving() as receiver:
        hook = {"name": "hook", "url": receiver.url(PATH), "secrets": SECRET}
        monkeypatch.setenv("AGENTS_WEBHOOKS", json.dumps([hook]))
        yield receiver


def test_what_is_given_up_is_shown_and_tried_anew(receiver: Receiver, cli: CLI) -> None:
    receiver.script = [410, 204]
    execution_id = cli.enqueue("refund", "7")
    cli.execute(execution_id)
    assert "Tried: 1." in cli("webhooks", "deliver").output
    listed = cli("webhooks", "list", "--status", "dead", "--execution", execution_id).output
    assert "execution.approval_requested" in listed or "execution.asked" in listed
    assert "dead after try 1, answered 410: it wants no more of this" in listed
    (dead,) = map(json.loads, cli("webhooks", "list", "--json").stdout.splitlines())
    assert (dead["status"], dead["receiver"], dead["webhook_id"]) == ("dead", "hook", receiver.got[0].id)
    assert "It will be tried anew." in cli("webhooks", "retry", dead["key"]).output
    assert "only a dead one" in cli("webhooks", "retry", dead["key"]).output
    assert "there is no delivery" in cli("webhooks", "retry", "x").output
    assert "Will be tried anew: 0." in cli("webhooks", "retry", "--all").output
    assert "Tried: 1." in cli("webhooks", "deliver").output
    assert "delivered after try 1, answered 204" in cli("webhooks", "list").output
    assert len({one.id for one in receiver.got}) == 1
    shown = cli("settings").output + cli("settings", "--json").output + cli("webhooks", "list").output
    assert "http://127.0.0.1" in shown
    assert PATH not in shown
    assert SECRET not in shown
    assert SECRET.removeprefix("whsec_") not in shown
