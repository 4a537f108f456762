"""The ready-made app: `celery -A celery_agents worker`, `... flower`, `... agents`.

Without any setting it needs no server: kombu's filesystem broker and SQLite for executions and results all live in the
folder `AGENTS_HOME` (default `.agents`), which is made when something is first written. `AGENTS_BROKER_URL`,
`AGENTS_STORE_URL` and `AGENTS_RESULT_BACKEND` choose others; with a Redis as the broker, results go there too.
`AGENTS_IMPORTS` lists the modules that define agents, separated by commas. With `AGENTS_SENT_EVENT=1` whoever enqueues
tells monitors of the execution, so that they show it before a worker has received it.
"""

import os
import sys
from pathlib import Path

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from celery_agents.host.files_broker import PRIVATE_FOLDERS, Transport
from celery_agents.host.home import Home, OverwritingConnection, give_home
from celery_agents.host.install import install
from celery_agents.host.runtime import runtime_of


def make_app() -> Celery:
    """Return an app configured from the environment."""
    # An empty URL, as a `.env` file leaves it, counts as unset: Celery would take it for a RabbitMQ on this host.
    home = Path(os.environ.get("AGENTS_HOME") or ".agents").absolute()
    broker_url = os.environ.get("AGENTS_BROKER_URL") or "filesystem://localhost/"
    store_url = os.environ.get("AGENTS_STORE_URL", f"sqlite:///{home}/executions.db")
    result_backend = os.environ.get("AGENTS_RESULT_BACKEND") or _results_beside(broker_url, home)
    app = Celery("agents")
    app.conf.update(
        broker_url=broker_url,
        result_backend=result_backend,
        agents_store_url=store_url,
        imports=tuple(name.strip() for name in os.environ.get("AGENTS_IMPORTS", "").split(",") if name.strip()),
        accept_content=["json"],
        task_track_started=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_send_sent_event=os.environ.get("AGENTS_SENT_EVENT", "").lower() in {"1", "true", "yes", "on"},
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=True,
    )
    if broker_url.startswith("filesystem://"):
        # Use kombu's own name: the worker's banner, Flower and error messages show it.
        TRANSPORT_ALIASES["filesystem"] = f"{Transport.__module__}:{Transport.__name__}"
        app.conf.broker_transport_options = _folders(home / "broker")
        # This transport has no event loop. With these locks, a prefork worker without a free slot would block on the
        # next message that it receives. Meanwhile it would hear no revoke and send no heartbeat.
        app.conf.worker_pool_putlocks = False
    # Agents live in the user's project. Celery itself puts that on the path only for its commands. It comes last:
    # a file in the current folder must not take the place of a module that is installed.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    install(app)
    runtime = runtime_of(app)
    runtime.is_ready_made = True
    if result_backend.startswith("db+sqlite:"):
        options = {"connect_args": {"factory": OverwritingConnection}}
        app.conf.database_engine_options = (app.conf.database_engine_options or {}) | options
    urls = {"executions.db": store_url, "results.db": result_backend}
    give_home(app, Home(home, tuple(name for name, url in urls.items() if url.endswith(f"sqlite:///{home}/{name}"))))
    return app


def _results_beside(broker_url: str, home: Path) -> str:
    """Return where results go unless something else is said: to the broker's server, if it can hold them.

    Files beside each worker would be of no use where the broker is a server: no other host could read them.
    """
    scheme = broker_url.partition("://")[0]
    if scheme == "filesystem":
        return f"db+sqlite:///{home}/results.db"
    return broker_url if scheme in {"redis", "rediss", "sentinel"} else "disabled://"


def _folders(broker: Path) -> dict[str, object]:
    """Return options for kombu's filesystem transport: one folder, which every process both reads and writes."""
    messages, control = broker / "messages", broker / "control"
    return {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(control),
        PRIVATE_FOLDERS: [str(folder) for folder in (broker.parent, broker, messages, control)],
        "polling_interval": 0.1,
    }


app = make_app()
