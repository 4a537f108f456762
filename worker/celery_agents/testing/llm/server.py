"""The HTTP server: reads a request by its protocol, asks the script, and answers whole or as a stream."""

import hashlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from celery_agents.testing.llm import anthropic_messages, openai_chat, openai_responses
from celery_agents.testing.llm.conversation import Conversation
from celery_agents.testing.llm.replies import BreaksOff, Call, Calls, Refuses, Reply, Says, Script, reply_of

_PROTOCOLS: Final = {
    **dict.fromkeys(openai_chat.PATHS, openai_chat),
    **dict.fromkeys(openai_responses.PATHS, openai_responses),
    **dict.fromkeys(anthropic_messages.PATHS, anthropic_messages),
}
_LARGEST_REQUEST: Final = 64 * 1024 * 1024
# The last word of what breaks off, which nobody gets.
_UNSAID: Final = "__unsaid__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that the server has got: `path` and conversation, what was answered, and a digest of what was asked.

    Two requests of one digest ask the same model the same thing: whoever pays for them pays twice.
    """

    path: str
    conversation: Conversation
    reply: Reply
    digest: str


class ModelServer:
    """Serves models by name, each with its script, on a port of this host until it is closed.

    `delay_seconds` is how long each answer takes, and `pace_seconds` how long each piece of a streamed one takes.
    `hung_up` counts the answers that the client did not wait for. Thread-safe. A request for an unknown model, or past
    the end of its script, is answered with a 404 or a 400 that says so, and kept in `faults`.
    """

    def __init__(
        self,
        models: Mapping[str, Script],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        delay_seconds: float = 0.0,
        pace_seconds: float = 0.0,
    ) -> None:
        self.models = dict(models)
        self.delay_seconds = delay_seconds
        self.pace_seconds = pace_seconds
        self.hung_up = 0
        self.faults: list[str] = []
        self._requests: list[Request] = []
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = _Server((host, port), _Handler)
        self._server.models = self
        self._thread = threading.Thread(target=self._server.serve_forever, name="model-server", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it is: `http://host:port`. This is the `base_url` of Anthropic's client."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def openai_url(self) -> str:
        """The `base_url` of OpenAI's client."""
        return f"{self.url}/v1"

    @property
    def requests(self) -> list[Request]:
        """What has been asked so far, in the order in which it came."""
        with self._lock:
            return list(self._requests)

    def repeated(self) -> list[Request]:
        """Return the requests that had come before: what was paid for more than once."""
        seen: set[str] = set()
        return [request for request in self.requests if request.digest in seen or seen.add(request.digest)]  # type: ignore[func-returns-value]

    def reply(self, path: str, conversation: Conversation, digest: str) -> Reply:
        """Return the answer to a request, and keep both. Raise `LookupError` if there is none."""
        with self._lock:
            self._times[digest] += 1
            conversation = replace(conversation, times=self._times[digest])
            script = self.models.get(conversation.model)
        if script is None:
            raise LookupError(f"no model {conversation.model!r} here; there are {sorted(self.models)}")
        reply = reply_of(script, conversation)
        with self._lock:
            self._requests.append(Request(path=path, conversation=conversation, reply=reply, digest=digest))
        return reply


def _digest(path: str, body: Mapping[str, Any]) -> str:
    """Return what is alike of two requests that ask the same model the same thing, in any of the protocols."""
    told = body.get("system") or body.get("instructions")
    asked = body["messages"] if "messages" in body else body["input"]
    return hashlib.sha256(json.dumps([path, body["model"], told, asked]).encode()).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    models: ModelServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle of an answer is what these tests are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body of an answer leave in one packet, or a client waits for the second: 40 ms, by Nagle's algorithm.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        """Answer a request."""
        models = self.server.models
        size = int(self.headers.get("content-length") or 0)
        if size > _LARGEST_REQUEST:
            self.close_connection = True
            self._send(413, {"error": {"message": "too large"}})
            return
        raw = self.rfile.read(size)
        if len(raw) < size:  # the client went away in the middle of it
            self.close_connection = True
            return
        path = self.path.partition("?")[0]
        protocol = _PROTOCOLS.get(path)
        if protocol is None:
            self._send(404, {"error": {"message": f"nothing is served at {path}"}})
            return
        try:
            body = json.loads(raw)
            conversation = protocol.read(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._fault(protocol, 400, f"not a request of this protocol: {type(error).__name__}: {error}")
            return
        digest = _digest(path, body)
        try:
            reply = models.reply(path, conversation, digest)
        except LookupError as error:
            self._fault(protocol, 404 if conversation.model not in models.models else 400, str(error))
            return
        time.sleep(models.delay_seconds)
        if isinstance(reply, BreaksOff):
            self._break_off(protocol, reply, body, f"answer-{digest[:16]}")
            return
        if isinstance(reply, Refuses):
            self._send(reply.status, protocol.error(reply), reply.headers)
            return
        calls = tuple(
            Call(call.tool, call.arguments, call.id or f"call_{digest[:12]}_{number}")
            for number, call in enumerate(reply.calls if isinstance(reply, Calls) else ())
        )
        if body.get("stream"):
            self._stream(protocol.stream(reply, calls, body, f"answer-{digest[:16]}"))
        else:
            self._send(200, protocol.answer(reply, calls, body, f"answer-{digest[:16]}"))

    def _break_off(self, protocol: Any, reply: BreaksOff, body: dict[str, Any], request_id: str) -> None:
        error = reply.error
        if body.get("stream"):
            whole = protocol.stream(Says(f"{reply.text.rstrip()} {_UNSAID}"), (), body, request_id)
            said = itertools.takewhile(lambda event: _UNSAID not in event, whole)
            self._stream(said if error is None else (*said, protocol.error_event(error)), is_whole=error is not None)
        elif error is not None:
            self._send(error.status, protocol.error(error), error.headers)
        self.close_connection = True

    def _fault(self, protocol: Any, status: int, message: str) -> None:
        self.server.models.faults.append(message)
        self._send(status, protocol.error(Refuses(status=status, message=message)))

    def _send(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _stream(self, events: Iterable[str], *, is_whole: bool = True) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                data = event.encode()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.flush()
                time.sleep(self.server.models.pace_seconds)
            if is_whole:
                self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.server.models.hung_up += 1
            raise

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: `ModelServer.requests` has it all."""
