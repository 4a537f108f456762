"""A worker is killed in the middle of a model's answer: who follows ends with exactly the recorded text."""

import threading
from pathlib import Path
from typing import Final

from celery_agents.testing.llm import Conversation, ModelServer, Reply, Says
from tests.integrations.killing import Place, start
from tests.integrations.streams import Viewer
from tests.services.commands import wait_until
from tests.services.machine import scaled

_WORDS: Final = 40


def speaker(conversation: Conversation) -> Reply:
    """A model that says much, and another thing each time, as models do."""
    return Says(" ".join(f"{conversation.times}.{number}" for number in range(_WORDS)))


def check_killed_amid_a_text(module: str, folder: Path, server: ModelServer, *, pool: str = "prefork") -> None:
    """Follows an execution whose worker dies when some words are seen."""
    place = Place(folder=folder, module=module, server=server, pool=pool)
    server.pace_seconds = 0.1
    viewer = Viewer()
    with place.client() as client:
        execution = start(client, "Speak.", agent="speaker")

        def follow() -> None:
            viewer.see(execution.events(timeout=scaled(90)))

        worker = place.start_worker()
        following = threading.Thread(target=follow, daemon=True)
        following.start()
        try:
            wait_until("some words are seen", lambda: "1.3" in viewer.transcript.text)
            worker.kill()
            assert not execution.state.is_over
            server.pace_seconds = 0.0
            worker = place.start_worker()
            output = execution.wait(scaled(60))
            following.join(scaled(30))
        except BaseException as error:
            error.add_note(f"{execution.summary()}\n{place.last_words()}")
            raise
        finally:
            worker.kill()
    assert output == " ".join(f"2.{number}" for number in range(_WORDS))
    kinds = [str(event.kind) for event in viewer.events]
    assert kinds.count("recovered") == 1, kinds
    assert viewer.texts() == {"speaker model": output}
    assert "1.3" in "".join(str(event.data) for event in viewer.events), "the first words were seen, and are void"
