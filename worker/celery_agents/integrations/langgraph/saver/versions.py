"""The versions of channels."""

import itertools
import os
import random
from typing import Final

_DIGITS: Final = 10

_process: str = ""
_count = itertools.count()


def _begin() -> None:
    """A process, and each that is forked from it, has versions of its own."""
    global _process, _count
    _process, _count = f"{random.SystemRandom().getrandbits(40):010x}", itertools.count()


_begin()
os.register_at_fork(after_in_child=_begin)


def next_version(current: str | None) -> str:
    """Return a version above `current`: a number of as many digits, and a part that tells those of forks apart.

    Versions are compared as texts, also with those of a thread that another saver has begun. Those of one process are
    alike in most of their characters, which makes a checkpoint smaller.
    """
    number, _, _ = str(current or "").partition(".")
    return f"{int(number or 0) + 1:0{len(number) or _DIGITS}}.{_process}{next(_count):x}"
