"""A Redis with replicas and sentinels of the tests' own, each a process."""

from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis, RedisError

from tests.services.commands import wait_until
from tests.services.redis import RedisServer

SERVICE = "agents"
SENTINELS = 3
QUORUM = 2
FORMING_SECONDS = 60.0
FAIL_OVER_SECONDS = 60.0


class ReplicatedRedis(RedisServer):
    """A Redis that begins as a master, or as the replica of `master`, and afterwards is what the sentinels made it."""

    def __init__(self, binary: str, *, master: RedisServer | None = None, durable: bool = False) -> None:
        super().__init__(binary, durable=durable)
        self.master = master

    def prepare(self) -> None:
        # In a file, because the sentinels have the server write its new role there, and a restart must not undo that.
        role = "" if self.master is None else f"replicaof 127.0.0.1 {self.master.port}\n"
        self._settings.write_text(role)

    def command(self, port: int) -> list[str]:
        binary, *options = super().command(port)
        return [
            *(binary, str(self._settings)),
            *options,
            # A new replica gets its data at once; the default waits five seconds for further replicas.
            *("--repl-diskless-sync-delay", "0"),
        ]

    @property
    def _settings(self) -> Path:
        return self.folder / "redis.conf"


class SentinelServer(RedisServer):
    """One sentinel. A master without an answer for a second is taken for dead."""

    def __init__(self, binary: str, *, master: RedisServer) -> None:
        super().__init__(binary)
        self.master = master

    def prepare(self) -> None:
        # A sentinel keeps here what it has learnt.
        self._settings.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )

    def command(self, port: int) -> list[str]:
        return [
            *(self.binary, str(self._settings), "--sentinel"),
            *("--bind", "127.0.0.1"),
            *("--port", str(port)),
            *("--dir", str(self.folder)),
        ]

    @property
    def _settings(self) -> Path:
        return self.folder / "sentinel.conf"


class RedisSentinel:
    """One master, its replicas, and three sentinels that promote a replica when the master is dead.

    An acknowledged write is lost when the master is killed before it reached a replica; a test that must not lose it
    sends WAIT.
    """

    def __init__(self, binary: str, *, replicas: int = 1, durable: bool = False) -> None:
        first = ReplicatedRedis(binary, durable=durable)
        self.servers = [
            first,
            *(ReplicatedRedis(binary, master=first, durable=durable) for _ in range(replicas)),
        ]
        self.sentinels = [SentinelServer(binary, master=first) for _ in range(SENTINELS)]

    @property
    def url(self) -> str:
        """The sentinels, which tell who is the master, and the name that they know it by."""
        sentinels = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{sentinels}/0?service={SERVICE}"

    def start(self) -> Self:
        """Starts everything, and returns when the sentinels know each other and the replicas are in sync."""
        for server in (*self.servers, *self.sentinels):
            server.start()
        for sentinel in self.sentinels:
            # A returned master is made a replica after eight seconds otherwise, four times this period.
            with closing(_client(sentinel)) as client:
                client.execute_command("SENTINEL", "DEBUG", "publish-period", 500, "info-period", 1000)
        self.wait_until_healthy(seconds=FORMING_SECONDS)
        return self

    @property
    def master(self) -> RedisServer:
        """The master in the eyes of the sentinels; it may have been killed a moment ago."""
        running = next(sentinel for sentinel in self.sentinels if sentinel.is_running)
        port = _master_port(running)
        return next(server for server in self.servers if server.port == port)

    def kill_master(self) -> RedisServer:
        """Kills the master, and returns it. The sentinels notice some seconds later."""
        master = self.master
        master.kill()
        return master

    def wait_until_healthy(self, *, seconds: float = FAIL_OVER_SECONDS) -> None:
        """Waits until all running sentinels name the same running master, and all replicas are in sync with it."""
        wait_until("master, replicas and sentinels are healthy", self._is_healthy, seconds=seconds)

    def _is_healthy(self) -> bool:
        running = [server for server in self.servers if server.is_running]
        sentinels = [sentinel for sentinel in self.sentinels if sentinel.is_running]
        try:
            named = {_master_port(sentinel) for sentinel in sentinels}
            if len(named) != 1 or not named <= {server.port for server in running}:
                return False
            (port,) = named
            return all(_is_in_sync(server, port) for server in running) and all(
                _knows_everybody(sentinel, replicas=len(self.servers) - 1) for sentinel in sentinels
            )
        except RedisError:
            return False

    def close(self) -> None:
        """Kills everything and removes the folders."""
        for server in (*self.sentinels, *self.servers):
            server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _client(server: RedisServer) -> Redis:
    return Redis(port=server.port or 0, decode_responses=True, socket_timeout=5, socket_connect_timeout=5)


def _told_of_master(sentinel: SentinelServer) -> dict[str, str]:
    # In words of its own the command is answered as the server does, in every version of the driver: names and values
    # in turn, or a mapping.
    with closing(_client(sentinel)) as client:
        told = client.execute_command("SENTINEL", "MASTER", SERVICE)
    return told if isinstance(told, dict) else dict(zip(told[::2], told[1::2], strict=True))


def _master_port(sentinel: SentinelServer) -> int:
    return int(_told_of_master(sentinel)["port"])


def _knows_everybody(sentinel: SentinelServer, *, replicas: int) -> bool:
    told = _told_of_master(sentinel)
    return (
        told["flags"] == "master"
        and int(told["num-other-sentinels"]) == SENTINELS - 1
        and int(told["num-slaves"]) == replicas
    )


def _is_in_sync(server: RedisServer, master_port: int) -> bool:
    with closing(_client(server)) as client:
        told = client.info("replication")
    if server.port == master_port:
        return bool(told["role"] == "master")
    return bool(told["role"] == "slave" and told["master_port"] == master_port and told["master_link_status"] == "up")
