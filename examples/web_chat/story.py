"""The demo: its processes, until somebody ends it; or a check of what it claims, over HTTP and without a browser."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from celery_agents.demo.display import relative
from celery_agents.testing.llm import ModelServer
from examples.web_chat.app import build
from examples.web_chat.model import SCRIPTED, URL
from examples.web_chat.parts import KeptWorker, WebServer
from examples.web_chat.script import script


@contextmanager
def running(home: Path, host: str, port: int, pace: float) -> Iterator[tuple[WebServer, KeptWorker]]:
    """Run all parts with their files in `home`; each answer of the scripted model takes `pace` seconds for a word."""
    with ExitStack() as stack:
        if not (os.environ.get("OPENAI_API_KEY") or os.environ.get(URL)):
            model = stack.enter_context(ModelServer({SCRIPTED: script}, pace_seconds=pace))
            os.environ[URL] = model.openai_url
        worker = stack.enter_context(KeptWorker(home))
        server = stack.enter_context(WebServer(build(worker.kill), host, port))
        yield server, worker


def serve(home: Path, host: str, port: int, pace: float, is_over: threading.Event) -> None:
    """Run the demo until `is_over`."""
    with running(home, host, port, pace) as (server, worker):
        print(f"\n  {server.url}\n", flush=True)
        print(f"Open it in a browser. The worker is process {worker.pid}: kill it whenever you like.")
        print(f"All files of this demo: {relative(home)}   (Ctrl-C ends it)", flush=True)
        while not is_over.wait(0.5):
            continue
        print("The worker and the server stop.", flush=True)


def check(home: Path, pace: float) -> int:
    """Play the traveller; return the exit code."""
    from examples.web_chat.check import play

    with running(home, "127.0.0.1", 0, pace) as (server, worker):
        return play(server.url, worker.kill)
