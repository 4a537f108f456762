"""What Flower's own pages lack for executions. `flowerconfig.py`, which Flower reads when it starts, calls it."""

from pathlib import Path
from typing import Final

from flower import urls
from tornado.template import DictLoader

from agent_statestore.states import AgentState

_PAGE: Final = "task.html"
_REVOCABLE: Final = 'task.state == "RECEIVED" or task.state == "RETRY"'


def show_revoke_for_live_states() -> bool:
    """Give the page of a task in a live state the Revoke button, which cancels the execution.

    Flower shows it only for Celery's own states. Return False if this version of Flower decides about the button in
    another way: its page then stays as it is, and its API still revokes.
    """
    folder = Path(urls.settings["template_path"])
    pages = {page.relative_to(folder).as_posix(): page.read_text() for page in folder.rglob("*.html")}
    if _REVOCABLE not in pages.get(_PAGE, ""):
        return False
    live = sorted(state.name for state in AgentState if not state.is_over and state is not AgentState.IDLE)
    pages[_PAGE] = pages[_PAGE].replace(_REVOCABLE, f"task.state in {('PENDING', 'RECEIVED', 'RETRY', *live)!r}")
    urls.settings["template_loader"] = DictLoader(pages)
    return True
