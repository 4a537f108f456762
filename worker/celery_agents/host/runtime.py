"""The parts that belong together in one process: a Celery app, its settings, its registry and one store."""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from celery import Celery
from celery.backends.base import DisabledBackend

from agent_statestore.errors import StoreError
from agent_statestore.hybrid import HybridStore
from agent_statestore.opening import open_store
from agent_statestore.plain_text import line_logger
from agent_statestore.records import ExecutionSummary
from agent_statestore.store import Store
from celery_agents import store_guard
from celery_agents.define.registry import Registry
from celery_agents.engine.events import Subscriber
from celery_agents.engine.executor import Defaults, Executor
from celery_agents.engine.stream.writer import StreamWriter
from celery_agents.errors import ConfigurationError
from celery_agents.host import announcing, bell
from celery_agents.host.drain import DrainFlag
from celery_agents.host.exits import FROM_OUTSIDE, is_exiting
from celery_agents.host.home import home_of
from celery_agents.host.monitors.live_states import LiveStates
from celery_agents.host.monitors.switch import MonitorSwitch
from celery_agents.host.routes import check_queue
from celery_agents.lifecycle.assembly import make_executor
from celery_agents.lifecycle.ends import Ends
from celery_agents.lifecycle.services import Services
from celery_agents.settings import Settings

if TYPE_CHECKING:
    from celery_agents.webhooks.notes import Notes

log = line_logger(__name__)

_runtimes: "weakref.WeakKeyDictionary[Any, Runtime]" = weakref.WeakKeyDictionary()


class Runtime:
    """The parts of one installation. Each is made once, at first use; the store is safe to share with a fork.

    Parts that exist already are returned without the lock. A worker makes settings and store before its pool forks, so
    no child is born while the sweeper's thread holds the lock.

    Attributes:
        stand_in: what a test has put in the place of all stores and bells of this process.
    """

    stand_in: ClassVar[Services | None] = None

    def __init__(
        self, app: Celery, registry: Registry, drain: DrainFlag, subscribers: tuple[Subscriber, ...] = ()
    ) -> None:
        self.app = app
        self.registry = registry
        self.drain = drain
        self.subscribers = subscribers
        # Whether it is the app of this package, which takes no other messages than those that Celery itself makes.
        self.is_ready_made = False
        self.monitor_switch = MonitorSwitch()
        self._lock = threading.RLock()
        self._settings: Settings | None = None
        self._store: Store | None = None
        self._executor: Executor | None = None

    @property
    def settings(self) -> Settings:
        """The settings, read once when first needed: the app may be configured after `install`."""
        if self._settings is not None:
            return self._settings
        with self._lock:
            if self._settings is None:
                self._settings = Settings.load(
                    self.app.conf.table(censored=False), os.environ, namespace=self.app.namespace
                )
            return self._settings

    @property
    def store(self) -> Store:
        """The store of `agents_store_url`, with the store of `agents_archive_url` behind it."""
        if self.stand_in is not None:
            return self.stand_in.store
        if store_guard.check is not None:
            store_guard.check(self.settings.store_url)
        if self._store is not None:
            return self._store
        with self._lock:
            if self._store is None:
                settings = self.settings
                home = home_of(self.app)
                if home is not None:
                    home.prepare()
                self._store = _open(settings)
                if not self._store.is_shared and not str(self.app.conf.broker_url or "memory://").startswith("memory"):
                    log.warning(
                        "executions are kept in the memory of this process alone, while the broker is shared: set "
                        "agents_store_url, or AGENTS_STORE_URL"
                    )
            return self._store

    def ring(self, summary: ExecutionSummary) -> None:
        """Publish the bell of an execution that can go on at once; a sweeper makes up for a failure."""
        if self.stand_in is not None:
            self.stand_in.ring(summary)
        elif bell.ring(
            self.app,
            self.settings,
            execution_id=summary.execution_id,
            agent_id=summary.agent_id,
            queue=summary.queue,
            priority=summary.priority,
        ):
            bell.mark_rung(self.store, self.settings, [(summary.execution_id, summary.attempt)])

    def ring_first(self, summaries: Sequence[ExecutionSummary]) -> None:
        """Publish the first bells of executions, which were created as if that had been done; see `Services`."""
        if self.stand_in is not None:
            self.stand_in.ring_first(summaries)
        elif summaries and not bell.ring_alike(self.app, self.settings, summaries):
            try:
                bell.mark_due(self.store, summaries)
            except StoreError as error:
                log.warning("bells of new executions are rung by a sweeper: %s", error)

    def check_queue(self, queue: str | None) -> None:
        """Raise `InvalidRecord` for a queue on which no bell could ever be rung. None is the default queue."""
        queue = queue or self.settings.queue
        if queue is not None:
            check_queue(self.app, queue)

    def after_commit(self, connection: Any, hook: Callable[[], object]) -> None:
        """Call the hook after the commit of the caller's transaction."""
        if self.stand_in is not None:
            self.stand_in.after_commit(connection, hook)
            return
        from agent_statestore.sql.callers import caller_of  # SQLAlchemy, for those who have it anyway

        caller_of(connection).after_commit(hook)

    def forget_result(self, execution_id: str) -> None:
        """Remove what Celery's result backend keeps of an execution. Raise `ResultBackendUnavailable`."""
        if self.stand_in is None:
            announcing.forget(self.app, execution_id)

    def keeps_results(self) -> bool:
        """Whether Celery's result backend is told of ends: there is one, and results are not ignored."""
        task = self.app.tasks[bell.TASK_NAME]
        is_ignored = task.ignore_result and not task.store_errors_even_if_ignored
        return not is_ignored and not isinstance(self.app.backend, DisabledBackend)

    def load_agents(self) -> None:
        """Import the modules that the app is configured to import; they define the agents."""
        self.app.loader.import_default_modules()

    @property
    def ends(self) -> Ends:
        """The `Ends` of this installation, which tells of the ends of executions."""
        return Ends(
            store=self.store,
            registry=self.registry,
            ring=self.ring,
            announce_within=self.settings.lease,
            tell_outside=None if self.webhook_notes is None else self.webhook_notes.tell_outside,
        )

    @property
    def webhook_notes(self) -> "Notes | None":
        """What notes that receivers are to be told; None where the settings name none."""
        if not self.settings.webhooks:
            return None
        from celery_agents.webhooks.notes import Notes  # for those who have receivers

        return Notes(self.store, self.settings.webhooks)

    def tells_ends(self) -> bool:
        """Whether anybody is told of each end: a result backend, or a receiver of webhooks."""
        return bool(self.settings.webhooks) or self.keeps_results()

    @property
    def executor(self) -> Executor:
        """The executor, which runs executions in this process."""
        if self._executor is not None:
            return self._executor
        with self._lock:
            if self._executor is None:
                settings = self.settings
                self._executor = make_executor(
                    store=self.store,
                    registry=self.registry,
                    limits=Defaults(
                        lease=settings.lease,
                        max_steps=settings.max_steps,
                        max_attempts=settings.max_attempts,
                        inline_wait_seconds=settings.inline_wait_seconds,
                        max_retries=settings.max_retries,
                        max_depth=settings.max_depth,
                        max_descendants=settings.max_descendants,
                        first_ring=timedelta(seconds=settings.ring_seconds),
                        announce_within=timedelta(seconds=settings.lease_seconds),
                    ),
                    streams=StreamWriter(self.store, most_events=settings.stream_events) if settings.streams else None,
                    is_draining=self.drain.is_set,
                    is_announced=self.drain.announces_end,
                    tells_ends=self.tells_ends,
                    before_pause=None if self.webhook_notes is None else self.webhook_notes.before_pause,
                    subscribers=(
                        *((LiveStates(self.app, self.monitor_switch),) if settings.events else ()),
                        *self.subscribers,
                    ),
                    interrupts=FROM_OUTSIDE,
                    is_exiting=is_exiting,
                    ring=self.ring,
                    ring_first=self.ring_first,
                    check_queue=self.check_queue,
                )
            return self._executor


def _open(settings: Settings) -> Store:
    store = open_store(settings.store_url, max_value_bytes=settings.max_value_bytes)
    if settings.archive_after_seconds and not settings.archive_url:
        raise ConfigurationError(
            "agents_archive_after_seconds",
            "there is no agents_archive_url; in a hybrid: URL write archive_after=SECONDS",
        )
    if settings.archive_url:
        if isinstance(store, HybridStore):
            raise ConfigurationError(
                "agents_archive_url", "agents_store_url has an archive already: set one of the two"
            )
        cold = open_store(settings.archive_url, max_value_bytes=settings.max_value_bytes)
        store = HybridStore(store, cold, archive_after=settings.archive_after)
    store.max_mailbox, store.max_context_bytes = settings.max_mailbox, settings.max_context_bytes
    if isinstance(store, HybridStore):
        store.archive_in_background()
    return store


def bind(app: Celery, runtime: Runtime) -> None:
    """Make this the runtime of the app."""
    _runtimes[app] = runtime


def runtime_of(app: Celery) -> Runtime:
    """Return the runtime of an app. Raise `ConfigurationError` if `install` was never called on it."""
    found = _runtimes.get(app)
    if found is None:
        raise ConfigurationError("app", f"celery_agents.install(app) was not called on the Celery app {app.main!r}")
    return found


def find_runtime(app: Celery) -> Runtime | None:
    """Return the runtime of an app; None if `install` was never called on it."""
    return _runtimes.get(app)


def installed_runtimes() -> list[Runtime]:
    """Return the runtimes of all apps that `install` was called on."""
    return list(_runtimes.values())
