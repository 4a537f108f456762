"""What replaces `sys.stderr` in a worker lets other programs be started.

Celery puts an object that logs in the place of `sys.stdout` and `sys.stderr` (`worker_redirect_stdouts`). It has no
`fileno`, so `subprocess.Popen(stderr=sys.stderr)` fails. The clients of MCP servers over stdio start them like that.
"""

import sys

from celery.utils.log import LoggingProxy


def give_a_descriptor() -> None:
    """Have Celery's object give the descriptor of the stream that it stands for, as any file does."""
    if not hasattr(LoggingProxy, "fileno"):
        LoggingProxy.fileno = _descriptor


def _descriptor(proxy: object) -> int:
    """Return the descriptor of the process's own standard error. Raise `OSError` if it has none."""
    del proxy
    if sys.__stderr__ is None:
        raise OSError("this process has no standard error")
    return sys.__stderr__.fileno()
