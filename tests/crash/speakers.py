"""An agent that says each of its texts in pieces, some of them more than once."""

import time
from datetime import timedelta

from celery_agents import Retry, Run, agent, current_step, current_stream

WORDS = 12
_failed: set[str] = set()


@agent(name="crash.speaking")
def speaking(run: Run, what: list[int]) -> list[str]:
    """Say a number of texts, and return them; `what` is a number of the execution's, and how many."""
    (number, parts), said = what, []
    for part in range(parts):
        run.emit([number, part])
        retry = Retry(retries=2, first_delay=timedelta(milliseconds=20))
        said.append(run.options(retry=retry).step("say", say, number, part))
    return said


def say(number: int, part: int) -> str:
    """Say a text in pieces. Some first tries fail in the middle, in this process."""
    stream, key = current_stream(), f"{number}.{part}.{current_step()}"
    words = []
    for word in range(WORDS):
        piece = f"{number}.{part}.{word} "
        stream.text(piece)
        words.append(piece)
        time.sleep(0.02)
        if word == WORDS // 2 and (number + part) % 3 == 0 and key not in _failed:
            _failed.add(key)
            raise ConnectionError("the provider has hung up")
    return "".join(words)
