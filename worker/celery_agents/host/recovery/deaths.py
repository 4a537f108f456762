"""Whether a process of this host has died that may have held leases: seen each second, without asking a store."""

import fcntl
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from agent_statestore.plain_text import line_logger
from celery_agents.host import owner
from celery_agents.host.recovery.presence import Presence, Present, presence

log = line_logger(__name__)

# How long after a death the store is asked: a claim that was on its way when its process died may arrive later.
_ASK_SECONDS: Final = 3.0
# How long the file of a dead process stays: the workers on other stores look at it, too.
_KEEP_SECONDS: Final = 10.0


class Deaths:
    """Says when to ask a store for the leases of dead processes. One process per host, user and store looks; `url` is
    the store's. The others wait for its death, which ends its lock on a file.

    It says so at the start, after a death, and until the store has answered. Where the files cannot be used, it always
    says so.
    """

    def __init__(self, url: str, files: Presence = presence) -> None:
        self._files = files
        self._lock_name = f"watch-{sha256(url.encode()).hexdigest()[:12]}.lock"
        self._lock: int | None = None
        self._dead: dict[Path, float] = {}
        self._alive: dict[Path, Present] = {}
        self._is_unanswered = True
        self._ask_until = 0.0
        self._is_useless = False

    def are_to_be_asked_for(self) -> bool:
        """Return whether to ask the store now."""
        now = time.monotonic()
        try:
            if self._has_lock():
                self._look(now)
            if self._is_useless:
                self._is_useless = False
                log.info("dead processes of this host are seen in %s again", self._files.folder)
        except OSError as error:
            self._drop_lock()
            if not self._is_useless:
                self._is_useless = True
                log.warning(
                    "%s cannot be used (%s): the store is asked for leases of dead processes instead, again and again",
                    self._files.folder,
                    error.strerror,
                )
            return True
        return self._is_unanswered or now < self._ask_until

    def answered(self) -> None:
        """Note that the store has answered."""
        self._is_unanswered = False

    def _look(self, now: float) -> None:
        there = {process.file: process for process in self._files.processes()}
        dead: dict[Path, float] = {}
        alive: dict[Path, Present] = {}
        # Those that were seen before count as well: something may remove files that look forgotten.
        for file, process in (self._alive | there).items():
            since = self._dead.get(file)
            if since is None:
                if not owner.is_gone(process.pid, process.started):
                    alive[file] = process
                    continue
                since = now
                self._is_unanswered, self._ask_until = True, now + _ASK_SECONDS
            if file in there:
                dead[file] = since
                if now - since > _KEEP_SECONDS and file.parent == self._files.folder:
                    file.unlink(missing_ok=True)
        self._dead, self._alive = dead, alive

    def _has_lock(self) -> bool:
        """Return whether this process looks for all. The lock belongs to the process, and not to its forks."""
        if self._lock is None:
            self._files.prepare()
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock = os.open(self._files.folder / self._lock_name, flags, 0o644)
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # what systems say of a lock that another process has
            return False
        return True

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
