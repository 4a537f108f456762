"""A process is taken for dead only where that can be seen."""

import os
import subprocess
import sys

import psutil
import pytest

from celery_agents.host.owner import host_prefix, is_dead, owner_of, pid_of, this_process, worker_text


def test_the_own_process_lives() -> None:
    assert this_process().startswith(host_prefix())
    assert not is_dead(this_process())


def test_a_process_that_was_killed_is_dead_even_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = owner_of(child.pid)
    assert not is_dead(owner)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert is_dead(owner)
    child.communicate()
    assert is_dead(owner)


def test_another_process_under_the_same_number_is_not_the_owner() -> None:
    host, pid, started = this_process().rsplit("/", 2)
    assert is_dead(f"{host}/{pid}/{int(started) - 1}")


def test_setting_the_clock_makes_nobody_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = owner_of(child.pid)
    monkeypatch.setattr("psutil.Process.create_time", lambda _: 0.0)
    assert not is_dead(owner)
    child.communicate()


def test_a_process_of_another_host_is_never_taken_for_dead() -> None:
    assert not is_dead("elsewhere-0123456789ab/1/0.00")


def test_an_owner_differs_on_both_sides_of_a_fork() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, this_process().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() != this_process()


def test_an_owner_names_its_worker_for_people() -> None:
    for node in ("celery@web-1", "a/b@c", "x" * 300):
        owner = this_process(node)
        assert owner.startswith(host_prefix())
        assert (pid_of(owner), is_dead(owner)) == (os.getpid(), False), node
        assert worker_text(owner) == f"{node[:100]} (process {os.getpid()})"
    assert worker_text("web-1-0123456789ab/7/99") == "web-1 (process 7)"
    for foreign in ("", "host", "host:7"):
        assert worker_text(foreign) == foreign
