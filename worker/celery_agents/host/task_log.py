"""What Celery logs of our tasks: the errors in it say what agents, models and users wrote."""

import logging
from typing import Final

from agent_statestore.plain_text import PLAIN
from celery_agents.host import bell, cron

_NAMES: Final = frozenset({bell.TASK_NAME, cron.TASK_NAME})


class _OfOurTasks(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        task = getattr(record, "data", None)
        if isinstance(task, dict) and task.get("name") in _NAMES:
            PLAIN.filter(record)
        return True


_OURS: Final = _OfOurTasks()


def keep_plain() -> None:
    """Have Celery log our tasks so that no error's text forges an entry; other tasks are logged as ever."""
    logging.getLogger("celery.app.trace").addFilter(_OURS)
