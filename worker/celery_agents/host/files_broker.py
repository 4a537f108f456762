"""kombu's `filesystem://` broker, with files that are never seen half-written.

kombu creates a message's file under its final name and then writes it. A reader that comes in between gets an empty
message, and a worker ends on it with "Unrecoverable error: JSONDecodeError". The tables of the queues' bindings are
written in the same way: if two processes start at once, one may lose its binding, and with it all revokes or all
events. Here files appear whole, by a rename, and tables change under a lock.
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import Any, Final

from kombu.transport import filesystem, virtual
from kombu.utils.json import dumps

from celery_agents.host.home import make_private_folder
from celery_agents.host.incoming.shapes import NO_JSON, tell_of_misshapen

# A transport option: the folders that are made, each before those in it, and entered by this user alone.
PRIVATE_FOLDERS: Final = "private_folders"

_Table = list[list[str]]


class Channel(filesystem.Channel):
    """A channel on files that appear whole."""

    def _make_folders(self) -> None:
        """Make what is not there, and not before something is read or written: to look at an app makes nothing."""
        if not self._is_made:
            for folder in self.transport_options.get(PRIVATE_FOLDERS, ()):
                make_private_folder(Path(folder))
            Path(self.control_folder).mkdir(parents=True, exist_ok=True)
            self._is_made = True

    _is_made = False

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        self._make_folders()
        # Names must sort by age as text: hence the zeros. A file is hidden from readers until it is renamed, because no
        # queue is called `part`.
        name = f"{time.monotonic_ns() // 1_000_000:020d}_{uuid.uuid4()}"
        _write_whole(Path(self.data_folder_out), f"{name}.{queue}.msg", dumps(payload))

    def _get(self, queue: str) -> Any:
        self._make_folders()
        try:
            return super()._get(queue)
        except NO_JSON as error:
            # Not one of our messages. It is gone by now, so an error would gain nothing.
            tell_of_misshapen(error)
            raise Empty from error

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        binding = [routing_key or "", pattern or "", queue or ""]
        self._change_table(exchange, lambda table: table if binding in table else [binding, *table])

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *_: Any, **__: Any) -> None:
        self._purge(queue)
        binding = [routing_key or "", pattern or "", queue or ""]
        self._change_table(exchange, lambda table: [other for other in table if other != binding])

    def _size(self, queue: str) -> int:
        self._make_folders()
        return int(super()._size(queue))

    def _purge(self, queue: str) -> int:
        self._make_folders()
        return int(super()._purge(queue))

    def _change_table(self, exchange: str, change: Callable[[_Table], _Table]) -> None:
        self._make_folders()
        path: Path = self._exchange_file(exchange)
        with _locked(path.with_suffix(".lock")):
            table = [list(binding) for binding in self.get_table(exchange)]
            changed = change(table)
            if changed != table or not path.exists():
                _write_whole(path.parent, path.name, json.dumps(changed))


class Transport(filesystem.Transport):
    """`filesystem://` with `Channel`: `celery_agents.celery` puts it in kombu's table of transports."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The folder has the bindings. What one connection remembers of them is not told to others: they may have
        # another folder, whose messages would then be bound to nothing and lost.
        self.state = virtual.BrokerState()


def _write_whole(folder: Path, name: str, content: str) -> None:
    hidden = folder / f"{uuid.uuid4().hex}.part"
    with os.fdopen(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(content)
    hidden.replace(folder / name)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
