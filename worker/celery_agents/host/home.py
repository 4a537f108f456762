"""The folder of the embedded defaults, `.agents/`: made when something is first written, and private.

It holds inputs, outputs and messages. Whoever can write to the folder above could otherwise plant a link there, or a
folder of theirs, and so choose what is read and where it is written.
"""

import os
import sqlite3
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from celery import Celery

from celery_agents.errors import ConfigurationError

_SETTING: Final = "agents_home"


def make_private_folder(folder: Path) -> None:
    """Make a folder that only this user may enter; take away the rights of others from one that is there.

    Raise `ConfigurationError` for a link, for what is no folder, for the folder of another user, and where the system
    refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode):
                kind = "a link" if stat.S_ISLNK(found.st_mode) else "no folder"
                raise ConfigurationError(_SETTING, f"{folder} is {kind}: name another folder") from None
            if found.st_uid != os.geteuid():
                raise ConfigurationError(
                    _SETTING, f"{folder} belongs to another user (number {found.st_uid}): name another folder"
                ) from None
            if stat.S_IMODE(found.st_mode) & 0o077:
                folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            _SETTING,
            f"{folder} cannot be used ({error.strerror}): name another folder in AGENTS_HOME, or servers in "
            "AGENTS_BROKER_URL, AGENTS_STORE_URL and AGENTS_RESULT_BACKEND",
        ) from error


def make_private_file(file: Path) -> None:
    """Make an empty file that only this user may read, unless there is one. Raise `ConfigurationError` for a link."""
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        fault = "is a link" if file.is_symlink() else f"cannot be written ({error.strerror})"
        raise ConfigurationError(_SETTING, f"{file} {fault}: name another folder") from error


class OverwritingConnection(sqlite3.Connection):
    """A connection that overwrites what is deleted: the result of a purged execution is no longer in the file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA secure_delete=ON")


_homes: "weakref.WeakKeyDictionary[Celery, Home]" = weakref.WeakKeyDictionary()


def home_of(app: Celery) -> "Home | None":
    """Return the folder of an app that uses the embedded defaults; None for every other app."""
    return _homes.get(app)


def give_home(app: Celery, home: "Home") -> None:
    """Have the app use this folder, whichever installation it has."""
    _homes[app] = home


@dataclass(frozen=True, slots=True)
class Home:
    """The folder, with the files in it that an app uses. Nothing is made before `prepare`."""

    folder: Path
    files: tuple[str, ...]

    def prepare(self) -> None:
        """Make the folder and the files. Raise `ConfigurationError`."""
        if self.files:
            make_private_folder(self.folder)
        for name in self.files:
            make_private_file(self.folder / name)
