"""An async agent: `run` is an `AsyncRun`, whose methods are awaited. It runs on the one event loop of its process.

While it waits on the network, it costs a thread that does nothing: a worker on the threads pool carries hundreds.
"""

import asyncio
from datetime import timedelta

from celery_agents import AsyncRun, StepTimeout, agent


@agent
async def reachable(run: AsyncRun, addresses: list[str]) -> dict[str, bool]:
    """Say which `host:port` addresses accept a connection; try all of them at once."""
    impatient = run.options(timeout=timedelta(seconds=5))

    async def look(address: str) -> bool:
        try:
            connected: bool = await impatient.step(f"connect {address}", connect, address)
        except StepTimeout:
            return False
        return connected

    found = await asyncio.gather(*(look(address) for address in addresses))
    return dict(zip(addresses, found, strict=True))


async def connect(address: str) -> bool:
    """Return whether somebody answers there."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
