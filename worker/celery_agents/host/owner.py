"""The process that holds a lease, and whether it can be seen to be dead.

An owner is `host/node/pid/started`, or `host/pid/started` outside of a worker. The host part also names the boot and
the PID namespace, so that a process id is only looked up where it has a meaning: two containers on one machine do not
take each other for dead. The node is Celery's name of the worker, for people.
"""

import os
import socket
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import psutil

_SEPARATOR = "/"
_LONGEST_NODE = 100
# Where only the wall clock tells the start of a process, that start moves when the clock is set. No process id is used
# again within so short a time.
_CLOCK_STEP_SECONDS = 5.0
# In what Linux tells of a process: the states of one that has ended, and the place of its start.
_ENDED = ("Z", "X")
_STARTED = 19


def this_process(node: str | None = None) -> str:
    """Return the owner string of the calling process, also after a fork. `node` names the worker that it belongs to."""
    return owner_of(os.getpid(), node)


@lru_cache(maxsize=8)
def owner_of(pid: int, node: str | None = None) -> str:
    """Return the owner string of a live process of this host."""
    ticks = _start_in_ticks(pid)
    named = (node[:_LONGEST_NODE],) if node else ()
    return _SEPARATOR.join((_host(), *named, str(pid), ticks or f"{psutil.Process(pid).create_time():.2f}"))


def worker_text(owner: str) -> str:
    """Return an owner for people: its worker's name, or else its host's, and the process id."""
    head, *process = owner.rsplit(_SEPARATOR, 2)
    if len(process) < 2:
        return owner  # of a holder that is no process of ours
    host, _, node = head.partition(_SEPARATOR)
    return f"{node or host.rpartition('-')[0] or host} (process {process[0]})"


def host_prefix() -> str:
    """Return the prefix of all owners of this host, boot and PID namespace."""
    return f"{_host()}{_SEPARATOR}"


def pid_of(owner: str) -> int:
    """Return the process id that an owner of this host names."""
    return int(owner.rsplit(_SEPARATOR, 2)[1])


def is_dead(owner: str) -> bool:
    """Return whether an owner on this host is certainly gone; False for other hosts, and wherever it is unknown."""
    if not owner.startswith(host_prefix()):
        return False
    _, pid, started = owner.rsplit(_SEPARATOR, 2)
    return is_gone(int(pid), started)


def is_gone(pid: int, started: str) -> bool:
    """Return whether the process of this host that has this id and start, as owners name them, is certainly gone."""
    fields = _stat_fields(pid)
    if fields:
        return fields[0] in _ENDED or fields[_STARTED] != started
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return abs(process.create_time() - float(started)) > _CLOCK_STEP_SECONDS
    except psutil.NoSuchProcess:
        return not _is_hidden(pid)
    except psutil.Error:
        return False


def _is_hidden(pid: int) -> bool:
    """Return whether a process lives that this user may not see, as where /proc is mounted with `hidepid`."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _start_in_ticks(pid: int) -> str | None:
    """Return when a process started, in clock ticks since the boot (Linux only). Setting the clock does not move it."""
    fields = _stat_fields(pid)
    return fields[_STARTED] if fields else None


def _stat_fields(pid: int) -> list[str]:
    """Return what Linux tells of a process, from its state on; nothing where there is no such process or no /proc.

    These are the fields from 3 on of /proc/PID/stat, see proc(5). The name in field 2 may contain anything, but no
    parenthesis follows its end.
    """
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields if len(fields) > _STARTED else []


@lru_cache(maxsize=1)
def _host() -> str:
    parts = [socket.gethostname(), _read("/proc/sys/kernel/random/boot_id")]
    try:
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        parts.append("")
    digest = sha256("\n".join(parts).encode()).hexdigest()[:12]
    return f"{parts[0][:100]}-{digest}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
