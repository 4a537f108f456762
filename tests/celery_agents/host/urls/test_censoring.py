"""No URL shows its password, in whatever prints settings or says what is wrong with one."""

import json
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from celery.worker import control
from celery.worker.consumer.connection import Connection as ConnectionStep
from click.testing import CliRunner

from agent_statestore import StoreError, open_store
from agent_statestore.testing.kit.matrix import cells
from celery_agents import install
from celery_agents.cli import agents
from celery_agents.errors import ConfigurationError
from celery_agents.host.urls.censoring import censor_statistics
from celery_agents.settings import Settings

HOST = "127.0.0.1:1"
ODD = [f"hunter{odd}rosebud" for odd in ("", "@", "#", "/", "?", ":", ";", ",", " ", "@/", "/@", "#@?", "?x=y&", "%40")]
PLAIN = "hunterrosebud"
URLS = [
    *(f"redis://u:{password}@{HOST}/0" for password in ODD),
    f"redis://:{PLAIN}@{HOST}",
    f"redis://{PLAIN}@{HOST}/0",
    f"rediss://{PLAIN}@127.0.0.1",
    f"redis://:6379/{PLAIN}@{HOST}",
    f"redis:u:{PLAIN}@{HOST}/0",
    f"redis:/u:{PLAIN}@{HOST}/0",
    f"u:{PLAIN}@{HOST}/0",
    f":{PLAIN}@{HOST}/0",
    f"redis://u:{PLAIN}",
    f"redis://u:{PLAIN}@127.0.0.1:port/0",
    f"redis://u:{PLAIN}@127.0.0.1:99999/0",
    f"rediss://{HOST}/0?password={PLAIN}",
    f"redis+sentinel://u:{PLAIN}@{HOST},127.0.0.1:2/0?service=m&sentinel_password={PLAIN}",
    f"sentinel://u:{PLAIN}@{HOST};sentinel://u:{PLAIN}@127.0.0.1:2",
    f"redis+cluster://u:{PLAIN}@{HOST},u:{PLAIN}@127.0.0.1:2",
    f"postgresql+psycopg://u:hunter@rosebud@{HOST}/d",
    f"postgresql+psycopg://u:{PLAIN}@127.0.0.1:port/d",
    f"postgresql://{HOST}/d?user=u&password={PLAIN}",
    f"mysql+pymysql://u:hunter@rosebud@{HOST}/d",
    f"db+postgresql://u:{PLAIN}@{HOST}/d",
    f"amqp://u:{PLAIN}@{HOST}//,amqp://u:{PLAIN}@127.0.0.1:2//",
    f"hybrid:///?hot={quote(f'redis://:{PLAIN}@{HOST}')}&cold={quote(f'redis://:{PLAIN}@{HOST}', safe='')}",
    f"azureblockblob://DefaultEndpointsProtocol=https;AccountName=a;AccountKey={PLAIN};EndpointSuffix=x",
]
# All settings that are URLs: Celery's, ours, and some of the project's.
NAMES = (
    "broker_url",
    "broker_read_url",
    "broker_write_url",
    "result_backend",
    "cache_backend",
    "agents_store_url",
    "agents_archive_url",
    "shop_url",
)


def as_celery_shows_it(settings: dict[str, Any], namespace: str | None = None) -> str:
    """`celery inspect conf`, which Flower's page of a worker shows, and `celery report`."""
    app = install(Celery("shop", set_as_current=False))
    app.config_from_object(settings, namespace=namespace)
    shown = "\n".join((json.dumps(control.conf(SimpleNamespace(app=app))), app.bugreport()))
    assert {name: app.conf[name] for name in settings} == settings, "a setting is changed"
    assert all(name in shown for name in settings)
    app.close()
    return shown


Told = Callable[[str, object], None]


@cells(url={url: url for url in URLS})
def test_celery_shows_no_password(url: str, record_property: Told) -> None:
    record_property("attacked", ("urls", len(URLS)))
    shown = as_celery_shows_it(dict.fromkeys(NAMES, url))

    assert "hunter" not in shown
    assert "rosebud" not in shown


@cells(
    form={"text": str, "list": lambda url: [url, url], "options": lambda url: {"url": url, "all": (url,)}},
    namespace={"no namespace": None, "namespace": "CELERY"},
)
def test_celery_shows_no_password_in_whatever_form(form: Callable[[str], Any], namespace: str | None) -> None:
    prefix = "" if namespace is None else "CELERY_"
    settings = {f"{prefix}SHOP_URL_{number}": form(url) for number, url in enumerate(URLS)}
    settings |= {prefix + (name.upper() if prefix else name): form(URLS[0]) for name in NAMES}

    shown = as_celery_shows_it(settings, namespace)

    assert "hunter" not in shown
    assert "rosebud" not in shown


def test_the_statistics_of_a_worker_show_no_password() -> None:
    """What `celery inspect stats` sends, and Flower's page of a worker shows: how the broker is connected to."""
    app = install(Celery("shop", set_as_current=False))
    app.conf.broker_url = [f"sentinel://u:{PLAIN}@{HOST}", f"sentinel://u:{PLAIN}@127.0.0.1:2"]
    app.conf.broker_transport_options = {
        "master_name": "m",
        "sentinel_kwargs": {"password": PLAIN, "username": "u"},
        "sentinels": [f"redis://u:{PLAIN}@{HOST}"],
        "confirm_publish": True,
    }
    censor_statistics()  # as a worker's first step does
    with app.connection_for_read() as connection:
        shown = ConnectionStep(SimpleNamespace()).info(SimpleNamespace(connection=connection))["broker"]

    assert (shown["transport_options"]["master_name"], shown["transport_options"]["confirm_publish"]) == ("m", True)
    assert shown["alternates"]
    assert "hunter" not in json.dumps(shown, default=repr)
    app.close()


def said_by_store(url: str) -> str:
    try:
        with open_store(url) as store:
            return f"{store.url} {store!r} {connected(store.check)}"
    except StoreError as error:
        return told(error)


def connected(check: Callable[[], None]) -> str:
    try:
        check()
    except StoreError as error:
        return told(error)
    raise AssertionError("something answers")


def told(error: Exception) -> str:
    return f"{error!r} {error} {''.join(traceback.format_exception(error))}"


def said_by_settings(url: str) -> str:
    settings = Settings.load({"agents_store_url": url, "agents_archive_url": url}, {})
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({"agents_store_url": [url]}, {})
    return f"{settings!r} {settings} {told(refused.value)}"


def said_by_commands(url: str) -> str:
    app = install(Celery("shop", broker="memory://", set_as_current=False))
    app.conf.update(agents_store_url=url, agents_archive_url=url)
    said = []
    for arguments in (["settings"], ["settings", "--json"], ["list"], ["copy", "--from", "memory://", "--to", url]):
        result = CliRunner().invoke(agents, arguments, obj=SimpleNamespace(app=app, no_color=True))
        assert isinstance(result.exception, SystemExit | None), arguments
        said.append(result.output)
    app.close()
    return "\n".join(said)


@cells(url={url: url for url in URLS[1::6]})
def test_commands_show_no_password(url: str) -> None:
    said = said_by_commands(url)

    assert "hunter" not in said
    assert "rosebud" not in said


@pytest.mark.full  # each command waits for a server that is not there
@cells(url={url: url for url in URLS})
def test_commands_show_no_password_of_any_url(url: str, record_property: Told) -> None:
    record_property("attacked", ("urls", len(URLS)))
    said = said_by_commands(url) + said_by_check(url)

    assert "hunter" not in said
    assert "rosebud" not in said


@cells(url={url: url for url in URLS[::8]})
def test_agents_check_shows_no_password(url: str) -> None:
    said = said_by_check(url)

    assert "hunter" not in said
    assert "rosebud" not in said


def said_by_check(url: str) -> str:
    app = install(Celery("shop", broker=url, set_as_current=False))
    app.conf.agents_store_url = url
    result = CliRunner().invoke(agents, ["check"], obj=SimpleNamespace(app=app, no_color=True))
    app.close()

    assert isinstance(result.exception, SystemExit)
    return result.output


@cells(url={url: url for url in URLS}, output={"store": said_by_store, "settings": said_by_settings})
def test_what_we_say_of_a_url_shows_no_password(url: str, output: Callable[[str], str], record_property: Told) -> None:
    record_property("attacked", ("urls", len(URLS)))
    said = output(url)

    assert "hunter" not in said
    assert "rosebud" not in said
