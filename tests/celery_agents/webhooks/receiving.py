"""A receiver of webhooks: a real server on this host, which answers by a script and checks every signature."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

from celery_agents.settings import WebhookSettings

SECRET = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"


@dataclass
class Got:
    """One request."""

    id: str
    payload: dict[str, Any]
    path: str

    @property
    def type(self) -> str:
        return str(self.payload["type"])

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = self.payload["data"]
        return data


@dataclass
class Receiver:
    """`script` are the statuses of the next answers, the last one for ever; "hang" holds one back until `let_go`."""

    port: int = 0
    script: list[int | str] = field(default_factory=lambda: [204])
    got: list[Got] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    let_go: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def settings(self, **options: Any) -> WebhookSettings:
        return WebhookSettings(**{"name": "hook", "url": self.url(), "secrets": SECRET} | options)

    def told(self) -> list[tuple[str, str]]:
        """What came, as (type, webhook id)."""
        return [(one.type, one.id) for one in self.got]

    def types(self) -> list[str]:
        return [one.type for one in self.got]

    def wait_for(self, count: int, seconds: float) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.got) >= count, seconds), f"got only {self.got}"


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            Webhook(SECRET).verify(body, dict(self.headers))
            with receiver.arrived:
                receiver.got.append(Got(self.headers["webhook-id"], json.loads(body), self.path))
                answer = receiver.script.pop(0) if len(receiver.script) > 1 else receiver.script[0]
                receiver.arrived.notify_all()
            if answer == "hang":
                receiver.let_go.wait()
                answer = 200
            self.send_response(int(answer))
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the base class looks for it

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        receiver.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield receiver
        receiver.let_go.set()
        server.shutdown()
        thread.join()
