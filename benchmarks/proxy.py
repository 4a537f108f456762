"""A TCP proxy that counts round trips between a client and a server, whatever protocol they speak."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 1 << 16


class CountingProxy:
    """Stands between clients and one server.

    A turn begins when a client sends something after the server's last word (or first of all). Everything that a client
    sends without waiting for an answer, such as a pipeline or an extended query, is one turn.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._turns = 0
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def turns(self) -> int:
        """Round trips of all connections so far."""
        with self._lock:
            return self._turns

    def close(self) -> None:
        """End all connections."""
        self._listener.close()
        with self._lock:
            for end in self._sockets:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [client, server]
            # True: it is the client's turn to speak, and its first words begin a round trip.
            clients_turn = threading.Event()
            clients_turn.set()
            for source, sink, is_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, sink, is_client, clients_turn), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_client: bool, clients_turn: threading.Event) -> None:
        with suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                if not is_client:
                    # Set before the answer is passed on: the client answers only to what it has received.
                    clients_turn.set()
                elif clients_turn.is_set():
                    clients_turn.clear()
                    with self._lock:
                        self._turns += 1
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
