"""Whoever watches a host knows of a death on it without asking a store, and asks when there was one."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celery_agents.host import owner
from celery_agents.host.recovery import deaths as deaths_module
from celery_agents.host.recovery.deaths import Deaths
from celery_agents.host.recovery.presence import Presence
from tests.services.commands import wait_until

URL = "redis://store"
NOTE = """
import os, sys, signal
from pathlib import Path
from celery_agents.host.recovery.presence import Presence
from celery_agents.host.recovery.deaths import Deaths
files = Presence(Path(sys.argv[1]))
files.note()
print(Deaths(sys.argv[2], files)._has_lock() if len(sys.argv) > 2 else "-", flush=True)
signal.pause()
"""


def process(root: Path, *lock_on: str) -> "subprocess.Popen[str]":
    """A process that has left its file behind, and has the lock of a store, if it got it."""
    child = subprocess.Popen([sys.executable, "-c", NOTE, str(root), *lock_on], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() in ("True", "-")
    return child


def end(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.communicate()


class Time:
    """Stands in for the module `time` of the watch."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(deaths_module, "time", time)
    return time


@pytest.fixture
def deaths(tmp_path: Path, time: Time) -> Iterator[Deaths]:
    deaths = Deaths(URL, Presence(tmp_path))
    assert deaths.are_to_be_asked_for(), "at the start"
    assert deaths.are_to_be_asked_for(), "until there is an answer"
    deaths.answered()
    assert not deaths.are_to_be_asked_for()
    yield deaths
    deaths._drop_lock()


def test_the_store_is_asked_after_a_death_and_only_then(tmp_path: Path, deaths: Deaths, time: Time) -> None:
    child = process(tmp_path)
    for _ in range(3):
        time.now += 1
        assert not deaths.are_to_be_asked_for()
    end(child)
    assert deaths.are_to_be_asked_for()
    time.now += 5  # while the store is away
    assert deaths.are_to_be_asked_for()
    assert [*Presence(tmp_path).processes()], "workers on other stores look at it, too"
    time.now += 60
    assert deaths.are_to_be_asked_for()
    deaths.answered()
    assert not deaths.are_to_be_asked_for()
    assert not [*Presence(tmp_path).processes()]


def test_a_claim_that_arrives_after_the_death_is_found(tmp_path: Path, deaths: Deaths, time: Time) -> None:
    child = process(tmp_path)
    end(child)
    assert deaths.are_to_be_asked_for()
    deaths.answered()
    time.now += 1
    assert deaths.are_to_be_asked_for()
    time.now += 5
    assert not deaths.are_to_be_asked_for()


def test_one_process_looks_for_a_host_and_another_when_it_dies(tmp_path: Path, deaths: Deaths) -> None:
    other = Deaths("redis://another", Presence(tmp_path))
    leading = process(tmp_path, "redis://another")
    assert not other._has_lock()
    end(leading)
    assert other._has_lock()
    assert deaths._has_lock(), "of another store"
    other._drop_lock()


def test_a_number_that_was_used_again_is_a_dead_process(tmp_path: Path, deaths: Deaths) -> None:
    files = Presence(tmp_path)
    files.note()
    (own,) = files.processes()
    own.file.with_name(own.file.name.rpartition("-")[0] + f"-{int(own.started) - 1}").touch()
    assert deaths.are_to_be_asked_for()


def test_what_others_put_there_is_passed_over(tmp_path: Path, deaths: Deaths) -> None:
    folder = tmp_path / f"celery-agents-{os.geteuid()}"
    for name in ("", "nonsense", "0123456789ab-1-1", f"{'0' * 12}-{'9' * 30}-1", "a" * 200):
        (folder / f"x{name}").touch()
        if name:
            (folder / name).touch()
    (tmp_path / "celery-agents-link").symlink_to("/")
    (tmp_path / "celery-agents-file").touch()
    shut = tmp_path / "celery-agents-9999"
    shut.mkdir(mode=0o000)
    assert not deaths.are_to_be_asked_for()
    shut.chmod(0o700)


def test_a_process_of_another_user_is_seen(tmp_path: Path, deaths: Deaths, time: Time) -> None:
    child = process(tmp_path)
    (present,) = Presence(tmp_path).processes()
    theirs = tmp_path / "celery-agents-1"
    theirs.mkdir()
    file = present.file.rename(theirs / present.file.name)
    assert not deaths.are_to_be_asked_for()
    end(child)
    assert deaths.are_to_be_asked_for()
    deaths.answered()
    for _ in range(3):
        time.now += 20
        assert not deaths.are_to_be_asked_for(), "once is enough, though the file stays"
    assert file.exists()


def test_without_a_folder_the_store_is_asked_again_and_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "root"
    root.touch()  # no folder at all
    cases = {"no root": root}
    cases["a link"] = tmp_path / "link"
    cases["a link"].mkdir()
    (cases["a link"] / f"celery-agents-{os.geteuid()}").symlink_to(tmp_path)
    for what, root in cases.items():
        caplog.clear()
        files = Presence(root)
        deaths = Deaths(URL, files)
        for _ in range(3):
            assert deaths.are_to_be_asked_for(), what
            deaths.answered()
            files.note()
        told = [record.levelname for record in caplog.records]
        assert told == ["WARNING", "WARNING"], (what, caplog.text)


def test_the_folder_is_this_users_to_write_to_and_all_to_read(tmp_path: Path) -> None:
    files = Presence(tmp_path)
    before = os.umask(0o077)
    try:
        files.note()
        files.folder.chmod(0o777)
        Presence(tmp_path).note()
    finally:
        os.umask(before)
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o755


def test_a_folder_that_somebody_cleared_is_made_again(tmp_path: Path, deaths: Deaths) -> None:
    child, files = process(tmp_path), Presence(tmp_path)
    assert not deaths.are_to_be_asked_for()
    files.note()
    for file in files.folder.iterdir():
        file.unlink()
    files.folder.rmdir()
    assert not deaths.are_to_be_asked_for()
    files.note()
    assert len([*files.processes()]) == 1
    end(child)
    assert deaths.are_to_be_asked_for(), "it was seen when it lived"


def test_a_fork_leaves_a_file_of_its_own(tmp_path: Path) -> None:
    files = Presence(tmp_path)
    files.note()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        files.note()
        os._exit(0)
    wait_until("both are there", lambda: {one.pid for one in files.processes()} == {os.getpid(), pid})
    os.waitpid(pid, 0)


def test_a_living_process_that_this_user_may_not_see_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc is mounted with `hidepid`."""

    def kill(pid: int, number: int) -> None:
        raise PermissionError(pid, number)

    gone = 1 << 30
    assert owner.is_gone(gone, "1")
    monkeypatch.setattr(os, "kill", kill)
    assert not owner.is_gone(gone, "1")
