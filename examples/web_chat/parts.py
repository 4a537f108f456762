"""The processes of the demo: a worker that comes back when it dies, and the web server."""

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import uvicorn
from fastapi import FastAPI

from celery_agents.demo.workers import WorkerProcess

_LOOK_SECONDS: Final = 0.1


class KeptWorker:
    """A Celery worker that is started again whenever it dies, as systemd or Kubernetes would do."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self.starts = 0
        self._worker = self._start()
        self._keeper = threading.Thread(target=self._keep, name="worker-keeper")
        self._keeper.start()

    @property
    def pid(self) -> int:
        """The process that is running now."""
        with self._lock:
            return self._worker.pid

    def kill(self) -> int:
        """Send SIGKILL to the worker and its pool; return its id. It is started again soon."""
        with self._lock:
            pid = self._worker.pid
            with suppress(ProcessLookupError):
                self._worker.kill()
        return pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._keeper.join()
        self._worker.stop()

    def _start(self) -> WorkerProcess:
        self.starts += 1
        return WorkerProcess(f"worker {self.starts}", self._home).start()

    def _keep(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            with self._lock:
                if self._worker.exit_code is not None:
                    self._worker.stop()  # what is left of its pool
                    self._worker = self._start()


class WebServer:
    """uvicorn, in a thread of this process."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._server = uvicorn.Server(
            # A browser with an open stream must not hold up the end.
            uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, name="web-server")

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self._server.servers[0].sockets[0].getsockname()[:2]
        return f"http://{host}:{port}/"

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise SystemExit("the web server cannot start: is the port taken? Choose another one with --port")
            self._thread.join(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
