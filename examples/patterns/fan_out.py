"""Many at once, and a merge, in two ways.

`run.parallel` takes steps side by side, in one process: for calls that wait for something else. `run.spawn` starts
executions of their own, on all workers there are, each with its own steps, retries and limits: for work.
"""

from collections import Counter
from functools import partial

from celery_agents import Run, agent


@agent
def count_words(run: Run, documents: list[str]) -> dict[str, int]:
    """Counts the words of several documents, as steps of one execution."""
    counts = run.parallel([partial(count, document) for document in documents])
    return run.step("merge", merge, counts)


@agent
def count_words_on_all_workers(run: Run, documents: list[str]) -> dict[str, int]:
    """Counts the words of several documents, one execution for each."""
    children = [run.spawn(count_document, document) for document in documents]
    return run.step("merge", merge, run.gather(*children))


@agent
def count_document(run: Run, document: str) -> dict[str, int]:
    """Counts the words of one document."""
    return run.step("count", count, document)


def count(document: str) -> dict[str, int]:
    """How often each word occurs."""
    return Counter(document.lower().split())


def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    """The sums, the most frequent word first."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total.most_common())
