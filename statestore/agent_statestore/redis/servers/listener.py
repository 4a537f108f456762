"""Listening to many channels, whichever servers hold them: each write is published, and a reader waits for it."""

import selectors
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from redis.exceptions import AskError, NoPermissionError, ResponseError

from agent_statestore.contract.streams import PollingListener
from agent_statestore.errors import StoreUnavailable
from agent_statestore.redis.servers.connection import Connection
from agent_statestore.redis.servers.listening import ChannelConnection, News
from agent_statestore.redis.servers.node import Node

_SELECTOR: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)
# How soon a server is asked again that is away, or does not have the channel.
_RETRY_SECONDS: Final = 0.1


class RedisListener:
    """Listens to the streams of executions; see `StreamListener`.

    One connection to each server that holds some. Only the thread that waits uses them: the others tell it, and wake
    it, so that none of them waits for a server. A stream is named as soon as the server has confirmed that it is
    listened to, since something may have come between the call of `follow` and then: so after each loss of a connection
    and each move of a slot, too. It looks in intervals where the server's ACL forbids the user to listen.
    """

    def __init__(self, server: Connection, channel_of: Callable[[str], bytes]) -> None:
        self._server = server
        self._channel_of = channel_of
        # Held for moments only.
        self._lock = threading.Lock()
        self._names: dict[bytes, str] = {}
        self._joining: set[bytes] = set()
        self._leaving: set[bytes] = set()
        self._polling: PollingListener | None = None
        self._is_waiting = self._is_closed = False
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        # For the thread that waits.
        self._lines: dict[Node, ChannelConnection] = {}
        self._retry_at = 0.0
        self._away: StoreUnavailable | None = None

    def follow(self, execution_ids: Iterable[str]) -> None:
        """Listen to these; see `StreamListener`."""
        with self._lock:
            channels = {self._channel_of(execution_id): execution_id for execution_id in execution_ids}
            self._joining |= channels.keys() - self._names.keys()
            self._leaving -= channels.keys()
            self._names |= channels
            if self._polling is not None:
                self._polling.follow(channels.values())
            self._ring()

    def unfollow(self, execution_id: str) -> None:
        """Listen to it no more; see `StreamListener`."""
        channel = self._channel_of(execution_id)
        with self._lock:
            if self._names.pop(channel, None) is not None:
                self._joining.discard(channel)
                self._leaving.add(channel)
            if self._polling is not None:
                self._polling.unfollow(execution_id)

    def wait(self, timeout_seconds: float) -> frozenset[str]:
        """Return at the next event or after the timeout; see `StreamListener`."""
        with self._lock:
            self._is_waiting = True
        try:
            return self._wait(time.monotonic() + timeout_seconds)
        finally:
            with self._lock:
                self._is_waiting = False
                if self._is_closed:
                    self._free()

    def close(self) -> None:
        """Close the connections; see `StreamListener`."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._polling is not None:
                self._polling.close()
            if self._is_waiting:
                self._ring()
            else:
                self._free()

    # -- the thread that waits -----------------------------------------------------------------------------------------

    def _wait(self, give_up_at: float) -> frozenset[str]:
        while not self._is_closed and self._polling is None:
            self._away = None
            self._leave()
            self._join()
            told = {channel for node in [*self._lines] for channel in self._read(node)}
            with self._lock:
                names = frozenset(self._names[channel] for channel in told if channel in self._names)
            if names:
                return names
            if self._away is not None:
                raise self._away
            if time.monotonic() >= give_up_at:
                return names
            self._sleep(give_up_at)
        self._hang_up()
        if self._polling is None or self._is_closed:
            return frozenset()
        return self._polling.wait(give_up_at - time.monotonic())

    def _leave(self) -> None:
        with self._lock:
            leaving, self._leaving = self._leaving, set()
        for node in [*self._lines] if leaving else ():
            with suppress(StoreUnavailable), self._line(node) as line:
                line.leave(leaving)

    def _join(self) -> None:
        with self._lock:
            joining = self._joining if time.monotonic() >= self._retry_at else set()
            self._joining = self._joining - joining
        by_node: defaultdict[Node, set[bytes]] = defaultdict(set)
        for channel in joining:
            try:
                by_node[self._server.node_of(channel)].add(channel)
            except StoreUnavailable as error:
                self._away = error
                self._again([channel])
        for node, channels in by_node.items():
            try:
                with self._line(node) as line:
                    line.join(channels - line.channels)
            except StoreUnavailable as error:
                self._away = error
                self._again(channels)

    def _read(self, node: Node) -> set[bytes]:
        """Return the channels of which a server has told."""
        told, elsewhere = set(), []
        # Of a connection that is lost, the attempt to make it anew will tell.
        with suppress(StoreUnavailable), self._line(node) as line:
            for news, channel, error in line.read():
                if news in (News.MESSAGE, News.JOINED):
                    told.add(channel)
                else:
                    elsewhere.append(channel)
                    self._refused(node, error)
        if elsewhere:
            self._server.lose(node)
            self._again(elsewhere)
        return told

    def _refused(self, node: Node, error: ResponseError | None) -> None:
        if isinstance(error, NoPermissionError):
            with self._lock:
                self._polling = self._polling or PollingListener()
                self._polling.follow(self._names.values())
        elif error is not None and not isinstance(error, AskError):  # which says that it is elsewhere
            try:
                with self._server.on(node):
                    raise error
            except StoreUnavailable as away:
                self._away = away

    def _sleep(self, until: float) -> None:
        """Wait for something to read, for another thread, or for the time of the next attempt."""
        with self._lock:
            if self._joining:
                until = min(until, self._retry_at)
        with _SELECTOR() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            for node in [*self._lines]:
                try:
                    with self._line(node) as line:
                        until = min(until, line.look_at())
                        selector.register(line.socket, selectors.EVENT_READ)
                except StoreUnavailable:
                    return  # to make it anew
            selector.select(max(until - time.monotonic(), 0.0))
        with suppress(BlockingIOError):
            self._bell.recv(4096)

    @contextmanager
    def _line(self, node: Node) -> Iterator[ChannelConnection]:
        """Give the connection to a server, which is made if there is none, and lost at an error."""
        try:
            with self._server.on(node):
                line = self._lines.get(node)
                if line is None:
                    line = self._lines[node] = ChannelConnection(node.pool)
                yield line
        except StoreUnavailable:
            lost = self._lines.pop(node, None)
            if lost is not None:
                self._again(lost.channels)
                lost.close()
            raise

    def _again(self, channels: Iterable[bytes]) -> None:
        """Join these in a moment, wherever they are then."""
        with self._lock:
            self._joining = self._joining.union(channel for channel in channels if channel in self._names)
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _hang_up(self) -> None:
        while self._lines:
            self._lines.popitem()[1].close()

    # -- under the lock ------------------------------------------------------------------------------------------------

    def _ring(self) -> None:
        if not self._is_closed or self._is_waiting:
            # A full buffer wakes as well as one byte more would.
            with suppress(BlockingIOError):
                self._button.send(b"\0")

    def _free(self) -> None:
        self._hang_up()
        self._bell.close()
        self._button.close()
