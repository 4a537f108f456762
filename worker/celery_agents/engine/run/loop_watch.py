"""Tells of code that blocks the event loop, and with it every async execution of the process."""

import asyncio
import sys
import threading
import time
import traceback

from agent_statestore.plain_text import line_logger

log = line_logger(__name__)

# How long the loop may take to answer. Tests shorten it.
blocked_after_seconds = 2.0
# What a process that was frozen as a whole needs to catch up, before its loop is blamed.
_CATCH_UP_SECONDS = 0.2
# How much of the stack is told: the call that blocks, and what called it.
_FRAMES = 6


def start(loop: asyncio.AbstractEventLoop) -> None:
    """Watches the loop of the calling thread, in a thread of its own."""
    running = threading.current_thread()
    try:
        threading.Thread(target=_watch, args=(loop, running), name="agents-loop-watch", daemon=True).start()
    except RuntimeError as error:  # no more threads are to be had
        log.warning("nobody will tell of code that blocks the event loop: %s", error)


def _watch(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Asks the loop, which runs in that thread, again and again, and logs each time that it does not answer."""
    while not loop.is_closed():
        asked_at, answered = time.monotonic(), threading.Event()
        loop.call_soon_threadsafe(answered.set)
        if answered.wait(blocked_after_seconds) or answered.wait(_CATCH_UP_SECONDS):
            time.sleep(blocked_after_seconds / 2)
            continue
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame, _FRAMES)).rstrip()
        log.warning(
            "the event loop is blocked, and with it every async execution of this process: give what blocks to "
            "run.step as a plain function, or await it\n%s",
            stack,
        )
        answered.wait()
        log.info("the event loop goes on, after %.1f s", time.monotonic() - asked_at)
