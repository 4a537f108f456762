"""`install(app)`: makes a Celery app run agents."""

from collections.abc import Iterable
from typing import Any, Final

from celery import Celery, signals, states

from celery_agents.define.registry import Registry, default_registry
from celery_agents.define.types import is_async
from celery_agents.engine.events import Subscriber
from celery_agents.errors import ConfigurationError
from celery_agents.host import tasks
from celery_agents.host.drain import DrainFlag
from celery_agents.host.runtime import Runtime, bind, runtime_of

# Named, not imported: they bring Celery's worker and its pools with them, which a web process has no use for.
_BOOTSTEPS: Final = "celery_agents.host.bootsteps"


def install(app: Celery, *, registry: Registry | None = None, subscribers: Iterable[Subscriber] = ()) -> Celery:
    """Add agent executions to an existing Celery app, and return it.

    The task is registered, and every worker gets the sweeper and the drain on shutdown. Settings are read from the
    app's configuration and the environment when first needed; see `celery_agents.settings`. Agents are found in
    `registry`, by default the one that `@agent` registers in.

    Each of the `subscribers` is called with every `Event` of the executions that this app's workers execute; see there
    for what it may rely on. Installing again replaces what was installed. Raise `ConfigurationError` for a subscriber
    that cannot be called.
    """
    subscribers = tuple(subscribers)
    for subscriber in subscribers:
        if not callable(subscriber) or is_async(subscriber):
            raise ConfigurationError("subscribers", f"needs plain functions of one Event, not {subscriber!r:.80}")
    runtime = Runtime(app, registry or default_registry, DrainFlag(), subscribers)
    bind(app, runtime)
    tasks.register(app)
    app.steps["worker"].add(f"{_BOOTSTEPS}:Preflight")
    app.steps["consumer"].update((f"{_BOOTSTEPS}:LostConnection", f"{_BOOTSTEPS}:SweeperStep"))
    _rank_revoked_over_custom_states()

    def drain(**_: Any) -> None:
        runtime_of(app).drain.set()  # looked up: after a second `install` it is another one

    signals.worker_shutting_down.connect(drain, weak=False, dispatch_uid=f"agents-drain-{id(app)}")
    return app


def _rank_revoked_over_custom_states() -> None:
    """Monitors merge events by the rank of their states, and Celery ranks REVOKED below every custom state.

    A cancelled execution would go on to show as THINKING. Celery has no setting for it; the list and its look-up are
    documented module constants, changed here in every process that loads the app, Flower's included.
    """
    if states.PRECEDENCE.index("REVOKED") < states.PRECEDENCE.index(None):
        return
    states.PRECEDENCE.remove("REVOKED")
    states.PRECEDENCE.insert(states.PRECEDENCE.index(None), "REVOKED")
    states.PRECEDENCE_LOOKUP.update({state: rank for rank, state in enumerate(states.PRECEDENCE)})
    states.NONE_PRECEDENCE = states.PRECEDENCE_LOOKUP[None]
