"""Settings that Celery and Flower show, without the passwords in their URLs.

Celery prints an app's whole configuration: in `celery report`, and in `celery inspect conf`, whose answer Flower's page
of a worker shows. It hides settings whose names sound secret, and the passwords of broker and result backend. That
leaves out `agents_store_url`, any URL that is a setting of the project's, and in an app with a namespace the broker's
too, because the name is then another. A URL that it cannot take apart is shown whole, or makes the command fail.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

from celery.app import utils

from agent_statestore.drivers.masking import masked

_filter_of_celery: Final[Callable[[Mapping[Any, Any]], dict[Any, Any]]] = utils.filter_hidden_settings
# Celery 5.6 has kombu's function of another name in this place.
_SANITIZER: Final = "sanitize_url" if hasattr(utils, "sanitize_url") else "maybe_sanitize_url"
_sanitize_of_celery: Final[Callable[..., Any]] = getattr(utils, _SANITIZER)

# Its URLs and keys are secrets, behind names that do not say so. What Celery shows in their place.
_RECEIVERS: Final = "agents_webhooks"
_HIDDEN: Final = "********"


def censor_urls() -> None:
    """Mask the passwords of all URLs among the settings that Celery shows, in every app of this process.

    Celery has no setting for this. Both functions are looked up in their module at each use; what they hide stays
    hidden. The settings themselves do not change.
    """
    utils.filter_hidden_settings = _filter_hidden_settings
    setattr(utils, _SANITIZER, _sanitize_url)


def censor_statistics() -> None:
    """Hide the same in what a worker tells of its connection (`celery inspect stats`, Flower's page of a worker).

    Its transport options hold the logins of Sentinels, say. Only a worker has the class that tells it.
    """
    from celery.worker.consumer.connection import Connection

    if not hasattr(Connection.info, "__wrapped__"):
        Connection.info = _censored(Connection.info)


def _censored(info: Callable[[Any, Any], dict[str, Any]]) -> Callable[[Any, Any], dict[str, Any]]:
    @functools.wraps(info)
    def shown(step: Any, consumer: Any) -> dict[str, Any]:
        return {
            key: _filter_hidden_settings(told) if isinstance(told, Mapping) else told
            for key, told in info(step, consumer).items()
        }

    return shown


@functools.wraps(_filter_of_celery)
def _filter_hidden_settings(conf: Mapping[Any, Any]) -> dict[Any, Any]:
    shown: dict[Any, Any] = {}
    for key, value in conf.items():
        if value and str(key).lower().endswith(_RECEIVERS):
            shown[key] = _HIDDEN
            continue
        safe = _without_passwords(value)
        try:
            shown.update(_filter_of_celery({key: safe}))
        except Exception:  # noqa: BLE001 - kombu raises what its transports raise for a URL that they cannot read
            shown[key] = safe
    return shown


@functools.wraps(_sanitize_of_celery)
def _sanitize_url(url: Any, *args: Any, **options: Any) -> Any:
    safe = _without_passwords(url)
    try:
        return _sanitize_of_celery(safe, *args, **options)
    except ValueError:  # that of Celery 5.6, for a URL that it cannot take apart
        return safe


def _without_passwords(value: Any) -> Any:
    """Return the value with the passwords masked in every URL that it is or holds."""
    match value:
        case str():
            return masked(value)
        case bytes():
            return masked(value.decode(errors="replace"))
        case Mapping():
            return {key: _without_passwords(held) for key, held in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_without_passwords(held) for held in value]
        case _:
            return value
