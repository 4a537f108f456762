"""A pool's child that is born while the sweeper's thread rings can ring, too."""

import subprocess
import sys

import pytest

from tests.services.commands import ROOT, environment
from tests.services.machine import scaled

# The first bells make kombu's parts, each under a lock; a child that inherits such a lock waits for it for ever.
PROGRAM = """
import os, signal, sys, threading
from celery import Celery
from celery_agents import Registry, install
from celery_agents.host import bell
from celery_agents.host.runtime import runtime_of

app = install(Celery("forking", broker="memory://"), registry=Registry())
settings = runtime_of(app).settings

def ring():
    bell.ring(app, settings, execution_id="x", agent_id="a", queue="q", priority=None)

def ring_on():
    while True:
        ring()

for _ in range(2):
    threading.Thread(target=ring_on, daemon=True).start()
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        ring()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        print("a child hangs")
        os._exit(1)
print("fine")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("number", range(4))
def test_a_child_that_is_born_while_a_thread_rings_can_ring(number: int) -> None:
    env = environment() | {"AGENTS_STORE_URL": "memory://"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, "15"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )
    assert ran.stdout.strip() == "fine", f"{number}: {ran.stdout}{ran.stderr}"
