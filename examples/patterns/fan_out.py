"""Many at once, and a merge, in two ways.

`run.parallel` takes steps side by side in one process: it is for calls that wait for something else. `run.spawn` starts
separate executions on all workers, each with its own steps, retries and limits: it is for work.
"""

from collections import Counter
from functools import partial

from celery_agents import Run, agent


@agent
def count_words(run: Run, documents: list[str]) -> dict[str, int]:
    """Count the words of several documents, as steps of one execution."""
    counts = run.parallel([partial(count, document) for document in documents])
    return run.step("merge", merge, counts)


@agent
def count_words_on_all_workers(run: Run, documents: list[str]) -> dict[str, int]:
    """Count the words of several documents, with one execution for each."""
    children = [run.spawn(count_document, document) for document in documents]
    return run.step("merge", merge, run.gather(*children))


@agent
def count_document(run: Run, document: str) -> dict[str, int]:
    """Count the words of one document."""
    return run.step("count", count, document)


def count(document: str) -> dict[str, int]:
    """Return how often each word occurs."""
    return dict(Counter(document.lower().split()))


def merge(counts: list[dict[str, int]]) -> dict[str, int]:
    """Return the sums, with the most frequent word first."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total.most_common())
