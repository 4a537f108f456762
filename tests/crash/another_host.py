"""Imported by a worker: from here on it runs on a host of its own, whose processes no other worker can look at.

The owner of a lease names the host, so a worker then waits for the leases of the others to run out.
"""

import os
import socket

from tests.crash.ledger import WORKER_VARIABLE

_name = f"host-{os.environ[WORKER_VARIABLE]}"
socket.gethostname = lambda: _name
