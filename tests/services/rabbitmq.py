"""A RabbitMQ of the tests' own."""

import os
import shutil
import subprocess
from pathlib import Path

import amqp

from tests.services.process import ServerProcess, free_port, unprivileged_user

# Debian's own name runs as the system's service and nothing else.
_BINARIES = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server")


def find_rabbitmq() -> str | None:
    """The server's script, with an Erlang to run it, or None."""
    if shutil.which("erl") is None or shutil.which("epmd") is None:
        return None
    return next((binary for binary in _BINARIES if Path(binary).exists()), shutil.which("rabbitmq-server"))


class RabbitMQServer(ServerProcess):
    """A RabbitMQ with its usual guest, and with an Erlang port mapper that nobody else knows of."""

    def __init__(self, binary: str) -> None:
        super().__init__()
        self.binary = binary
        self.mapper_port = free_port()
        self.node_port = free_port()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def user(self) -> str | None:
        return unprivileged_user("rabbitmq")

    def prepare(self) -> None:
        for name in ("home", "data", "logs"):
            self.make_folder(name)
        # Scheduling for two cores, and nothing that listens besides.
        (self.folder / "home" / "advanced.config").write_text("[{rabbit, [{loopback_users, []}]}].\n")
        (self.folder / "home" / "plugins").write_text("[].\n")

    def command(self, port: int) -> list[str]:
        home = self.folder / "home"
        settings = {
            "HOME": home,
            "ERL_EPMD_PORT": self.mapper_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"agents{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_DIST_PORT": self.node_port,
            "RABBITMQ_MNESIA_BASE": self.folder / "data",
            "RABBITMQ_LOG_BASE": self.folder / "logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": home / "plugins",
            "RABBITMQ_ADVANCED_CONFIG_FILE": home / "advanced.config",
            "RABBITMQ_PID_FILE": home / "pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
        }
        return ["env", *(f"{name}={value}" for name, value in settings.items()), self.binary]

    def is_ready(self) -> bool:
        try:
            with amqp.Connection(f"127.0.0.1:{self.port}", "guest", "guest", connect_timeout=2):
                return True
        except (OSError, amqp.exceptions.AMQPError):
            return False

    def close(self) -> None:
        super().close()
        # The mapper makes itself a process of the system's.
        subprocess.run(
            ["epmd", "-port", str(self.mapper_port), "-kill"],
            env=os.environ | {"ERL_EPMD_RELAXED_COMMAND_CHECK": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
