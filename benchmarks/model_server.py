"""A local model that takes its time, in a process of its own: `python -m benchmarks.model_server SECONDS`.

It calls the tool `note` until it has done so as often as the prompt says, and then answers. It says where it listens,
and ends with its standard input.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.workers import ROOT
from celery_agents.testing.llm import Call, Calls, Conversation, ModelServer, Says


def _script(conversation: Conversation) -> Says | Calls:
    turns = int(conversation.prompt)
    return Calls(Call("note", {"number": conversation.turn})) if conversation.turn < turns else Says("done")


def main() -> None:
    """Serve until the standard input ends."""
    with ModelServer({"model": _script}, delay_seconds=float(sys.argv[1])) as server:
        print(server.openai_url, flush=True)
        sys.stdin.read()


@contextmanager
def model_server(seconds: float) -> Iterator[str]:
    """Start one whose answers take `seconds`, and give the URL for OpenAI's client."""
    command = [sys.executable, "-m", "benchmarks.model_server", str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


if __name__ == "__main__":
    main()
