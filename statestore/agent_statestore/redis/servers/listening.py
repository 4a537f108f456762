"""One connection that listens to channels, and whether its server is still there."""

import time
from collections import Counter, deque
from collections.abc import Iterable
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import redis
from redis.exceptions import ResponseError

from agent_statestore.redis.servers.packing import pack

# A server that is gone without a word is noticed by its silence.
_SILENCE_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 5.0

_MESSAGES: Final = frozenset({b"message", b"smessage"})
_JOINED: Final = frozenset({b"subscribe", b"ssubscribe"})
_LEFT: Final = frozenset({b"unsubscribe", b"sunsubscribe"})


class Silence:
    """Whether a server that says nothing is there: it is asked after a while."""

    def __init__(self) -> None:
        self._heard_at = time.monotonic()
        self._asked_at: float | None = None

    def heard(self) -> None:
        """Note that the server has said something."""
        self._heard_at, self._asked_at = time.monotonic(), None

    def check(self, connection: Any) -> float:
        """Return when to look again at the latest. Ask a server that has been silent for long whether it is there.

        Raise `redis.TimeoutError` if it does not answer.
        """
        now = time.monotonic()
        if self._asked_at is not None:
            if now >= self._asked_at + _ANSWER_SECONDS:
                raise redis.TimeoutError("the server is silent")
            return self._asked_at + _ANSWER_SECONDS
        if now >= self._heard_at + _SILENCE_SECONDS:
            connection.send_command("PING", check_health=False)
            self._asked_at = now
            return now + _ANSWER_SECONDS
        return self._heard_at + _SILENCE_SECONDS


class News(Enum):
    """What the server says of a channel."""

    MESSAGE = auto()
    JOINED = auto()
    # The channel is at another server now.
    MOVED = auto()
    REFUSED = auto()


class ChannelNews(NamedTuple):
    """What the server said of one channel, and why it refused."""

    news: News
    channel: bytes
    error: ResponseError | None = None


class ChannelConnection:
    """Listens to any number of channels of one server, over one connection. For one thread.

    The methods raise the driver's errors once the connection is lost.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        self._connection: Any = pool.get_connection()
        self._silence = Silence()
        # Where the server knows no sharded channels, the scripts do not use them either (`publish.lua`).
        self._is_sharded = True
        # The channels that the server was asked to let this connection join and has not answered, in order.
        self._asked: deque[bytes] = deque()
        self._leaving: Counter[bytes] = Counter()
        self.channels: set[bytes] = set()

    @property
    def socket(self) -> Any:
        """The socket, to wait on when `read` has read all."""
        self._require_connected()
        sock = self._connection._sock
        if sock is None or sock.fileno() < 0:
            raise redis.ConnectionError("the connection is being closed")
        return sock

    def join(self, channels: Iterable[bytes]) -> None:
        """Ask to listen to these as well. `read` tells of the answers."""
        joining = list(channels)
        self.channels.update(joining)
        self._asked.extend(joining)
        self._send("SSUBSCRIBE" if self._is_sharded else "SUBSCRIBE", joining)

    def leave(self, channels: Iterable[bytes]) -> None:
        """Listen to these no more."""
        leaving = self.channels.intersection(channels)
        self.channels -= leaving
        # Those that were asked for are left when the answer has come, which may be that there is no such command.
        self._leave([channel for channel in leaving if channel not in self._asked])

    def look_at(self) -> float:
        """Return when to read again at the latest, to notice that the server is gone."""
        self._require_connected()
        return self._silence.check(self._connection)

    def read(self) -> list[ChannelNews]:
        """Return what has come; without waiting."""
        heard: list[ChannelNews] = []
        self._require_connected()
        while self._connection.can_read(0):
            try:
                answer = self._connection.read_response(disable_decoding=True, push_request=True)
            except ResponseError as error:
                self._silence.heard()
                heard += self._refused(error)
            else:
                self._silence.heard()
                if isinstance(answer, list):
                    heard += self._told(answer)
            self._require_connected()
        return heard

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()
        self._pool.release(self._connection)

    def _told(self, answer: list[Any]) -> Iterable[ChannelNews]:
        kind, channel = answer[0], answer[1]
        if kind in _MESSAGES:
            yield ChannelNews(News.MESSAGE, channel)
        elif kind in _JOINED:
            self._asked.popleft()
            if channel in self.channels:
                yield ChannelNews(News.JOINED, channel)
            elif channel not in self._asked:
                self._leave([channel])
        elif kind in _LEFT:
            if self._leaving[channel] > 0:
                self._leaving[channel] -= 1
            elif channel in self.channels:
                self.channels.discard(channel)
                yield ChannelNews(News.MOVED, channel)

    def _refused(self, error: ResponseError) -> Iterable[ChannelNews]:
        if not self._asked:
            raise redis.ConnectionError(f"the server refuses what it was not asked: {error}") from error
        channel = self._asked.popleft()
        if "unknown command" in str(error).lower():
            self._is_sharded = False
            if channel in self.channels:
                self.join([channel])
        elif channel in self.channels:
            self.channels.discard(channel)
            yield ChannelNews(News.REFUSED, channel, error)

    def _leave(self, channels: list[bytes]) -> None:
        self._leaving.update(channels)
        self._send("SUNSUBSCRIBE" if self._is_sharded else "UNSUBSCRIBE", channels)

    def _send(self, command: str, channels: list[bytes]) -> None:
        if channels:
            self._require_connected()
            # Each by itself: in a cluster, the channels of one command must have one slot.
            words = pack(*[(command, channel) for channel in channels])
            self._connection.send_packed_command((words,), check_health=False)

    def _require_connected(self) -> None:
        # The driver would make an unsubscribed connection of one that was closed from elsewhere.
        if not self._connection.is_connected:
            raise redis.ConnectionError("the connection was closed")
