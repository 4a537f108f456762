"""A forked command is a process like any other: its own id, session, environment, folder, log, signals and status."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.services.commands import Command, environment
from tests.services.machine import scaled
from tests.services.warm import WarmProcess

pytestmark = pytest.mark.crash

MODULE = """\
import os, sys
from celery import Celery
app = Celery("theirs", broker="memory://")
print("told", os.environ["TOLD"], os.getcwd(), os.getsid(0) == os.getpid(), sys.argv[0], "HOME" in os.environ)
"""


def test_it_is_what_it_was_told_to_be(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(MODULE)
    log = tmp_path / "log"
    process = WarmProcess(["-A", "theirs", "report"], cwd=tmp_path, env={"TOLD": "yes", "PYTHONPATH": ""}, log=log)
    assert process.wait(scaled(30)) == 0, log.read_text()
    assert log.read_text().splitlines()[0] == f"told yes {tmp_path} True celery False"
    assert "software -> celery" in log.read_text()


def test_its_exit_status_is_known(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = WarmProcess(["-A", "nowhere.to.be.found", "report"], cwd=tmp_path, env=environment(), log=log)
    assert process.wait(scaled(30)) == 2
    assert "nowhere.to.be.found" in log.read_text()


def test_signals_reach_it(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(MODULE)
    env = environment(TOLD="yes")
    for number, status in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        log = tmp_path / f"{number}.log"
        arguments = "celery -A theirs worker -P solo -l INFO --without-mingle --without-gossip"
        with Command(arguments, cwd=tmp_path, env=env, log=log, warm=True).wait_for("ready.") as worker:
            with pytest.raises(subprocess.TimeoutExpired):
                worker.process.wait(0.01)
            worker.send(number)
            assert worker.wait() == status, worker.output


def test_it_does_not_outlive_the_tests(tmp_path: Path) -> None:
    """Also where the tests' process has no time to clean up."""
    program = f"""
import sys, time
from pathlib import Path
from tests.services.commands import Command, environment
if __name__ == "__main__":
    folder = Path({str(tmp_path)!r})
    arguments = "celery -A theirs worker -P solo -l INFO --without-mingle --without-gossip"
    env = environment(TOLD="yes")
    command = Command(arguments, cwd=folder, env=env, log=folder / "log", warm=True).wait_for("ready.")
    print(command.process.pid, flush=True)
    time.sleep(600)
"""
    (tmp_path / "theirs.py").write_text(MODULE)
    (tmp_path / "main.py").write_text(program)
    tests = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert tests.stdout is not None
    pid = int(tests.stdout.readline())
    assert psutil.pid_exists(pid)
    tests.kill()
    tests.wait()
    tests.stdout.close()
    deadline = time.monotonic() + scaled(10)
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)
