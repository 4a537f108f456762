"""`install(app)`, which makes a Celery app run agents."""

from collections.abc import Iterable
from typing import Any, Final

from celery import Celery, signals, states

from celery_agents.define.registry import Registry, default_registry
from celery_agents.define.types import is_async
from celery_agents.engine.events import Subscriber
from celery_agents.engine.thread_ends import at_thread_end
from celery_agents.errors import ConfigurationError
from celery_agents.host import django, tasks
from celery_agents.host.drain import DrainFlag
from celery_agents.host.runtime import Runtime, bind, runtime_of
from celery_agents.host.urls.censoring import censor_urls
from celery_agents.host.urls.servers import check_before_worker

# Named, not imported: they bring in Celery's worker and its pools, which a web process does not need.
_BOOTSTEPS: Final = "celery_agents.host.bootsteps"
_DRAIN_STEP: Final = "celery_agents.host.drain_watch:DrainStep"
_SHIELD: Final = "celery_agents.host.incoming.shield"


def install(app: Celery, *, registry: Registry | None = None, subscribers: Iterable[Subscriber] = ()) -> Celery:
    """Add agent executions to an existing Celery app, and return it.

    It registers the task, and gives every worker the sweeper and the drain on shutdown. Settings are read from the
    app's configuration and the environment when first needed; see `celery_agents.settings`. Agents are found in
    `registry`, by default the registry that `@agent` registers in.

    Each of the `subscribers` is called with every `Event` of the executions that this app's workers execute; `Event`
    says what it may rely on. Installing again replaces the earlier installation. Raise `ConfigurationError` for a
    subscriber that cannot be called.
    """
    subscribers = tuple(subscribers)
    for subscriber in subscribers:
        if not callable(subscriber) or is_async(subscriber):
            raise ConfigurationError("subscribers", f"needs plain functions of one Event, not {subscriber!r:.80}")
    runtime = Runtime(app, registry or default_registry, DrainFlag(), subscribers)
    bind(app, runtime)
    censor_urls()
    check_before_worker(app)
    tasks.register(app)
    at_thread_end(django.close_connections)
    app.steps["worker"].update((f"{_BOOTSTEPS}:Preflight", _DRAIN_STEP))
    consumer_steps = (f"{_BOOTSTEPS}:{name}" for name in ("LostConnection", "FollowMonitors", "SweeperStep"))
    app.steps["consumer"].update((*consumer_steps, f"{_SHIELD}:Shield"))
    _rank_revoked_over_custom_states()

    def drain(**_: Any) -> None:
        runtime_of(app).drain.set()  # looked up now: a second `install` replaces the runtime

    signals.worker_shutting_down.connect(drain, weak=False, dispatch_uid=f"agents-drain-{id(app)}")
    return app


def _rank_revoked_over_custom_states() -> None:
    """Rank REVOKED above the custom states. Monitors merge events by rank, and Celery ranks it below every one of them.

    A cancelled execution would otherwise go on to show as THINKING. Celery has no setting for this. The list and its
    look-up are documented module constants, changed here in every process that loads the app, including Flower's.
    """
    if states.PRECEDENCE.index("REVOKED") < states.PRECEDENCE.index(None):
        return
    states.PRECEDENCE.remove("REVOKED")
    states.PRECEDENCE.insert(states.PRECEDENCE.index(None), "REVOKED")
    states.PRECEDENCE_LOOKUP.update({state: rank for rank, state in enumerate(states.PRECEDENCE)})
    states.NONE_PRECEDENCE = states.PRECEDENCE_LOOKUP[None]
