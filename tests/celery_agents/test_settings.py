"""A wrong setting is refused at start-up, by name."""

from typing import Any

import pytest

from celery_agents.errors import ConfigurationError
from celery_agents.settings import Settings


def test_the_defaults_hold_where_nothing_is_set() -> None:
    settings = Settings.load({}, {})
    assert (settings.store_url, settings.lease_seconds, settings.sweep_seconds) == ("memory://", 15.0, 5.0)


def test_the_environment_wins_over_celerys_configuration() -> None:
    settings = Settings.load(
        {"agents_lease_seconds": 30, "agents_max_steps": 7, "broker_url": "x"},
        {"AGENTS_LEASE_SECONDS": "45.5", "PATH": "/bin", "agents_max_steps": "not read in lower case"},
    )
    assert (settings.lease_seconds, settings.max_steps) == (45.5, 7)


@pytest.mark.parametrize(
    ("configured", "environ", "name"),
    [
        ({"agents_lease_seconds": 0}, {}, "agents_lease_seconds"),
        ({}, {"AGENTS_MAX_STEPS": "many"}, "agents_max_steps"),
        ({}, {"AGENTS_MAX_STEPS": "0"}, "agents_max_steps"),
        ({"agents_max_attempts": -1}, {}, "agents_max_attempts"),
        ({"agents_lease_secnods": 3}, {}, "agents_lease_secnods"),
        ({}, {"AGENTS_STORE": "redis://"}, "agents_store"),
        ({"agents_store_url": 5}, {}, "agents_store_url"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(configured: dict[str, Any], environ: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.load(configured, environ)


@pytest.mark.parametrize(
    ("environ", "meant"),
    [
        ({"AGENTS_LEASE_SECOND": "5"}, "did you mean agents_lease_seconds"),
        ({"AGENTS_STORE": "redis://"}, "did you mean agents_store_url"),
        ({"AGENTS_IMPORT": "research"}, "did you mean agents_imports"),
        ({"AGENTS_COLOUR": "red"}, "there are agents_store_url, agents_archive_url"),
    ],
)
def test_a_misspelt_name_is_told_what_was_meant(environ: dict[str, str], meant: str) -> None:
    with pytest.raises(ConfigurationError, match=meant):
        Settings.load({}, environ)


def test_an_empty_store_url_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="agents_store_url: '' is no URL"):
        Settings.load({}, {"AGENTS_STORE_URL": ""})


@pytest.mark.parametrize(
    "name",
    [
        "AGENTS_PORT",
        "AGENTS_SERVICE_HOST",
        "AGENTS_SERVICE_PORT_HTTP",
        "AGENTS_PORT_80_TCP",
        "AGENTS_PORT_80_TCP_ADDR",
        "AGENTS_WEB_API_SERVICE_PORT",
        "AGENTS_WEB_API_PORT_5555_TCP_PROTO",
    ],
)
def test_a_kubernetes_service_called_agents_stops_no_worker(name: str) -> None:
    assert Settings.load({}, {name: "tcp://10.0.0.1:80"}) == Settings.load({}, {})


def test_the_ready_made_apps_own_variables_are_no_settings() -> None:
    Settings.load(
        {}, {"AGENTS_HOME": "x", "AGENTS_BROKER_URL": "y", "AGENTS_IMPORTS": "z", "AGENTS_RESULT_BACKEND": "w"}
    )


def test_names_with_the_apps_namespace_and_in_upper_case_are_read_and_checked() -> None:
    configured = {"CELERY_AGENTS_STORE_URL": "redis://h", "CELERY_BROKER_URL": "x", "AGENTS_MAX_STEPS": 3}
    settings = Settings.load(configured, {}, namespace="CELERY")
    assert (settings.store_url, settings.max_steps) == ("redis://h", 3)
    with pytest.raises(ConfigurationError, match="agents_lease_second"):
        Settings.load({"CELERY_AGENTS_LEASE_SECOND": 3}, {}, namespace="CELERY")


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())
