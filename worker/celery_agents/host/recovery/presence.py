"""Which processes of this host may hold leases, told without a store: each that claims leaves an empty file behind.

The name of a file says which process it is. A process that dies does not take its file along, so those that live see
that it is dead (`deaths`). The folders are in memory where the system has such a place, the same for all users and
services (`/dev/shm`), else where temporary files are. Each user has one that only this user can write to, and that all
can read. Processes that do not see each other's folders are in no danger: their leases run out.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from agent_statestore.plain_text import line_logger
from celery_agents.host import owner

log = line_logger(__name__)

_FOLDER: Final = "celery-agents-"
_NAME: Final = re.compile(r"([0-9a-f]{12})-([0-9]{1,10})-([0-9.]{1,30})")
# Of each user: what others put into their folders must not keep a worker busy.
_MOST: Final = 10_000


class Present(NamedTuple):
    """A process that may hold leases, dead or alive."""

    file: Path
    pid: int
    started: str


class Presence:
    """The files of one host. `root` is the folder of the users' folders; None for the usual one."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = usual_root() if root is None else root
        self.folder = self._root / f"{_FOLDER}{os.geteuid()}"
        self._own: tuple[int, str] | None = None
        self._has_failed = False

    def note(self) -> None:
        """Leave the file of the calling process behind, if it is not there. A failure is told once."""
        pid = os.getpid()
        try:
            if self._own is not None and self._own[0] == pid:
                try:
                    os.utime(self._own[1])  # so that nobody who removes old files takes it for one
                except FileNotFoundError:
                    pass
                else:
                    return
            self.prepare()
            file = str(self.folder / _name_of(owner.this_process()))
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
            self._own = pid, file
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                log.warning(
                    "other workers of this host will not see at once if this process dies: %s cannot be written (%s)",
                    self.folder,
                    error.strerror,
                )

    def prepare(self) -> None:
        """Make the folder. Raise `OSError` for one that is not this user's alone to write to."""
        try:
            self.folder.mkdir(mode=0o755)
        except FileExistsError:
            found = self.folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise NotADirectoryError(0, "it is no folder of this user", str(self.folder)) from None
            if stat.S_IMODE(found.st_mode) != 0o755:
                self.folder.chmod(0o755)
        else:
            self.folder.chmod(0o755)  # whatever the umask

    def processes(self) -> Iterator[Present]:
        """Return the processes of this host that have left a file, of all users. Raise `OSError`."""
        host = _host()
        for user in os.scandir(self._root):
            if not user.name.startswith(_FOLDER) or not user.is_dir(follow_symlinks=False):
                continue
            try:
                files = [*islice(os.scandir(user.path), _MOST)]
            except OSError:
                if user.path == str(self.folder):
                    raise
                continue  # another user's, who keeps it shut
            for file in files:
                parts = _NAME.fullmatch(file.name)
                if parts is not None and parts[1] == host:
                    yield Present(Path(file.path), int(parts[2]), parts[3])


def usual_root() -> Path:
    """Return where the folders of all users are."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _name_of(holder: str) -> str:
    _, pid, started = holder.rsplit("/", 2)
    return f"{_host()}-{pid}-{started}"


def _host() -> str:
    """Return what tells this host, boot and PID namespace from others that see the same folder."""
    return sha256(owner.host_prefix().encode()).hexdigest()[:12]


presence: Final = Presence()
