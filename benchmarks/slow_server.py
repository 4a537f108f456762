"""A local HTTP server that takes its time: `GET /SECONDS` is answered after that. `python -m benchmarks.slow_server`.

It says on which port it listens, and ends with its standard input. It is barely more than a socket, so that the
measurements show the clients that wait for it.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.workers import ROOT

_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
_END: Final = b"\r\n\r\n"


class _Slow(asyncio.Protocol):
    """One connection, kept alive; requests have no body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while _END in self._received:
            request, _, self._received = self._received.partition(_END)
            seconds = float(request.split(b" ", 2)[1].lstrip(b"/"))
            asyncio.get_running_loop().call_later(seconds, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Slow, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def slow_server() -> Iterator[str]:
    """Yield the URL of a server in a separate process."""
    command = [sys.executable, "-m", "benchmarks.slow_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.communicate()


if __name__ == "__main__":
    asyncio.run(_serve())
