"""What comes from outside into the agent's code, and is nobody's failure."""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interrupts:
    """Tells what comes from outside from what the agent's code has raised itself.

    Attributes:
        types: what always comes from outside.
        is_exiting: returns whether somebody has asked the process to end.
    """

    types: tuple[type[BaseException], ...]
    is_exiting: Callable[[], bool]

    def include(self, error: BaseException | None) -> bool:
        """Return whether this came from outside, or unwinds the agent.

        `SystemExit` and `KeyboardInterrupt` do only if somebody has asked the process to end. Otherwise the agent's
        code raised them (an argument parser does): that is its own failure, and would be so on every attempt.
        """
        if isinstance(error, self.types):
            return True
        if not isinstance(error, SystemExit | KeyboardInterrupt):
            return False
        return self.is_exiting() or (isinstance(error, KeyboardInterrupt) and _may_be_a_persons())


def _may_be_a_persons() -> bool:
    """Return whether SIGINT raises `KeyboardInterrupt` here, as in a script or a test. In a worker it never does."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
