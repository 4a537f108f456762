"""What a run left out because a service is missing, in one line at its very end."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

# What `absent` says when it skips.
_ABSENT: Final = re.compile(r"(?:Skipped: )?no (?P<service>[^:]+): (?P<hint>.+)", re.DOTALL)


def left_out(reasons: Iterable[str]) -> str:
    """One line that names each missing service, how many tests need it, and how to have it. Empty if none is missing.

    `reasons` are those of all skipped tests.
    """
    counted = Counter(
        (found["service"], found["hint"]) for reason in reasons if (found := _ABSENT.fullmatch(reason)) is not None
    )
    if not counted:
        return ""
    parts = (f"{number} without {service} ({hint})" for (service, hint), number in counted.most_common())
    return f"Tests left out on this machine, which CI does not accept: {'; '.join(parts)}"
