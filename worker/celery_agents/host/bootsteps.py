"""The parts of every worker: a check before it starts, and sweeper and housekeeper in its parent process."""

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click
from celery import bootsteps
from celery.worker import state as worker_state
from kombu import serialization

from agent_statestore.errors import StoreError, StoreUnavailable
from agent_statestore.hybrid import HybridStore
from agent_statestore.plain_text import line_logger
from agent_statestore.store import Store
from celery_agents.errors import AgentsError
from celery_agents.host import pool_pipes, streams
from celery_agents.host.owner import this_process
from celery_agents.host.recovery.duty import SweepDuty
from celery_agents.host.recovery.housekeeper import Housekeeper
from celery_agents.host.recovery.rounds import Rounds
from celery_agents.host.recovery.sweeper import Sweeper
from celery_agents.host.runtime import Runtime, runtime_of
from celery_agents.host.slots import FORKING_POOLS
from celery_agents.host.urls.censoring import censor_statistics
from celery_agents.settings import Settings

log = line_logger(__name__)

# How late the processes of a pool may hear that monitors have come, or gone.
_LOOK_AT_SWITCH_SECONDS: Final = 1.0

# The pools in which one greenlet that does not yield holds up all others, the one that renews leases included.
_GREEN_POOLS = ("celery.concurrency.gevent", "celery.concurrency.eventlet")


class Preflight(bootsteps.StartStopStep):  # type: ignore[misc] # Celery carries no types
    """Refuses to start a worker that could not work, with one sentence that says what to change."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        pool_pipes.use_own_pipes()  # before any step makes the pool
        streams.give_a_descriptor()
        censor_statistics()
        runtime = runtime_of(parent.app)
        runtime.monitor_switch.share()
        try:
            self._check(runtime, parent)
        except (AgentsError, StoreError) as error:
            raise click.ClickException(str(error)) from error
        runtime.drain.clear()

    def close(self, parent: Any) -> None:
        """Drain, also where no signal tells of the shutdown (`app.control.shutdown()`): the pool is stopped next."""
        runtime_of(parent.app).drain.set()

    @staticmethod
    def _check(runtime: Runtime, worker: Any) -> None:
        store = runtime.store
        pool = worker.pool_cls.__module__
        if pool in _GREEN_POOLS and not runtime.settings.allow_green:
            raise click.ClickException(
                f"agents are not made for the {pool.rpartition('.')[2]} pool: a step that computes keeps leases "
                "from being renewed, so it may run twice, and no call can be interrupted. Use --pool=threads, prefork "
                "or solo (async agents wait without a thread each), or set agents_allow_green"
            )
        if not store.is_shared and worker.pool_cls.__module__ in FORKING_POOLS:
            raise click.ClickException(
                f"agents_store_url is {store.url}, which lives in one process, but the worker's pool forks: set "
                "AGENTS_STORE_URL to a shared store (sqlite:///agents.db, say), or run with --pool=threads or solo"
            )
        if runtime.settings.webhooks:
            from celery_agents.webhooks import sending  # noqa: F401 - says which packages it needs, if they are missing

        Preflight._check_serializer(worker.app.conf.task_serializer, worker.app.conf.accept_content)
        for part in Preflight._checked(store):
            warning = part.durability_warning()
            if warning:
                log.warning("%s", warning)
        names = [agent.name for agent in runtime.registry.agents]
        if names:
            log.info("agents: %s", ", ".join(names))
        else:
            log.warning(
                "this worker knows no agent, and leaves every execution to others: name the modules that define them "
                "in AGENTS_IMPORTS, or import them with your own app (imports, autodiscover_tasks)"
            )

    @staticmethod
    def _check_serializer(name: str, accepted: Iterable[str] | None) -> None:
        """Refuse a worker that would not read the bells that processes with the same configuration ring."""
        known = serialization.registry.name_to_type
        kind = known.get(name)
        if kind is None:
            raise click.ClickException(f"there is no serializer {name!r} (task_serializer)")
        if kind not in {known.get(one, one) for one in accepted or ()}:
            raise click.ClickException(
                f"accept_content must contain {name}: task_serializer says that bells are {name}"
            )

    @staticmethod
    def _checked(store: Store) -> Iterator[Store]:
        """Yield the stores that answer. Executions run even without an archive; a wrong schema there is refused."""
        if not isinstance(store, HybridStore):
            store.check()
            yield store
            return
        store.hot.check()
        yield store.hot
        try:
            store.cold.check()
        except StoreUnavailable as error:
            log.warning(
                "the archive of finished executions is away; they stay in %s until it is back: %s", store.hot.url, error
            )
        else:
            yield store.cold


class SweeperStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Runs sweeper and housekeeper beside the worker's main loop, from start to shutdown."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._stopping: threading.Event | None = None

    def start(self, parent: Any) -> None:
        """Start the threads. Celery calls this after every (re)connection to the broker."""
        self.stop(parent)
        runtime = runtime_of(parent.app)
        settings = runtime.settings
        self._stopping = threading.Event()
        duty = SweepDuty(
            runtime.store,
            this_process(parent.hostname),
            lease_seconds=settings.lease_seconds,
            sweep_seconds=settings.sweep_seconds,
        )
        sweeper = Sweeper(runtime, parent.hostname)
        rounds = Rounds(settings, sweeper, duty)
        for name, loop, arguments in (
            ("agents-sweeper", _sweep, (runtime, sweeper, rounds)),
            ("agents-housekeeper", _keep_house, (settings, Housekeeper(runtime), duty)),
        ):
            threading.Thread(target=loop, args=(*arguments, self._stopping), name=name, daemon=True).start()
        if settings.webhooks:
            told = (runtime, duty, self._stopping)
            threading.Thread(target=_deliver, args=told, name="agents-webhooks", daemon=True).start()

    def stop(self, parent: Any) -> None:
        """Tell the threads to stop. Celery may call this twice."""
        del parent
        if self._stopping is not None:
            self._stopping.set()
            self._stopping = None


class FollowMonitors(bootsteps.StartStopStep):  # type: ignore[misc]
    """Keeps the processes of the pool informed of whether monitors want to hear of tasks."""

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._entry: Any = None

    def start(self, parent: Any) -> None:
        """Begin to look every second. Celery calls this after every (re)connection to the broker."""
        self.stop(parent)
        switch = runtime_of(parent.app).monitor_switch

        def look() -> None:
            switch.take_over(parent.event_dispatcher)

        look()
        self._entry = parent.timer.call_repeatedly(_LOOK_AT_SWITCH_SECONDS, look)

    def stop(self, parent: Any) -> None:
        """Stop looking. Celery may call this twice."""
        del parent
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


class LostConnection(bootsteps.StartStopStep):  # type: ignore[misc]
    """Lets a worker outlive a Redis broker that goes away while messages wait in the worker for a free slot.

    celery 5.7.0 closes a lost connection twice. The first time, channels lose the connection's address, because their
    messages cannot be put back. The second close needs that address, and so does anyone who acknowledges such a message
    later. The AttributeError ends the worker.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, parent: Any) -> None:
        """Make the connection close once. Celery calls this for every connection to the broker."""
        connection = parent.connection
        transport, close = connection.transport, connection.close

        def close_once() -> None:
            if transport.client is None:
                transport.client = connection
            else:
                close()

        connection.close = close_once


def _sweep(runtime: Runtime, sweeper: Sweeper, rounds: Rounds, stopping: threading.Event) -> None:
    """Watch and sweep in a separate thread: they wait for store and broker, which the worker's event loop must not."""
    pause_seconds = 0.0
    while not stopping.wait(pause_seconds):
        if runtime.drain.is_set():  # a bell rung now might be fetched by this worker, and lost with it
            break
        try:
            pause_seconds = rounds.go(time.monotonic(), set(worker_state.revoked))
        except Exception:
            log.exception("the sweeper failed; it goes on with the next round")
            pause_seconds = runtime.settings.watch_seconds
        while sweeper.void_revokes:
            execution_id = sweeper.void_revokes.pop()
            worker_state.revoked.discard(execution_id)
            log.info("execution %s: it was over when its task was revoked, which means nothing then", execution_id)
    if runtime.drain.is_set():  # and not only another connection to the broker
        rounds.end()


def _deliver(runtime: Runtime, duty: SweepDuty, stopping: threading.Event) -> None:
    """Deliver webhooks in another thread, because receivers may be slower than bells can wait."""
    from celery_agents.webhooks.deliverer import Deliverer  # for those who have receivers

    deliverer = Deliverer.of(runtime.store, runtime.settings)
    while not stopping.is_set():
        try:
            asyncio.run(deliverer.run(stopping.is_set, lambda: duty.is_held, runtime.settings.watch_seconds))
        except Exception:
            log.exception("the delivery of webhooks failed; it goes on")
            stopping.wait(runtime.settings.watch_seconds)


def _keep_house(settings: Settings, housekeeper: Housekeeper, duty: SweepDuty, stopping: threading.Event) -> None:
    """Keep house in another thread, because the archive may be slower than bells can wait."""
    while not stopping.wait(settings.sweep_seconds):
        if not duty.is_held:
            continue  # whoever sweeps keeps house as well
        try:
            housekeeper.keep_house()
        except Exception:
            log.exception("housekeeping failed; it goes on with the next round")
