"""Which process holds a lease, and whether that process can be seen to be dead.

An owner is `host/pid/started`. The host part also names the boot and the PID namespace, so that a process id is only
ever looked up where it means something: two containers on one machine do not take each other for dead.
"""

import os
import socket
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import psutil

_SEPARATOR = "/"
# A process's start is counted from the boot time, which moves when the host's clock is set. A process id is not used
# again within so short a time.
_CLOCK_STEP_SECONDS = 5.0


def this_process() -> str:
    """The owner string of the calling process, also after a fork."""
    return _owner_of(os.getpid())


def host_prefix() -> str:
    """What all owners of this host, boot and PID namespace start with."""
    return f"{_host()}{_SEPARATOR}"


def is_dead(owner: str) -> bool:
    """Whether an owner on this host is certainly gone. False for other hosts, and whenever it cannot be told."""
    if not owner.startswith(host_prefix()):
        return False
    _, pid, started = owner.rsplit(_SEPARATOR, 2)
    try:
        process = psutil.Process(int(pid))
        is_another = abs(process.create_time() - float(started)) > _CLOCK_STEP_SECONDS
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


@lru_cache(maxsize=1)
def _host() -> str:
    parts = [socket.gethostname(), _read("/proc/sys/kernel/random/boot_id")]
    try:
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        parts.append("")
    digest = sha256("\n".join(parts).encode()).hexdigest()[:12]
    return f"{parts[0][:100]}-{digest}"


@lru_cache(maxsize=8)
def _owner_of(pid: int) -> str:
    return _SEPARATOR.join((_host(), str(pid), f"{psutil.Process(pid).create_time():.2f}"))


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
