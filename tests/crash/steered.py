"""A loop agent whose model answers slowly, piece by piece, and people who speak to it meanwhile."""

import asyncio
import json
import time
from typing import Any

import aiohttp

from agent_statestore.records import SayMode
from celery_agents import CallInterrupted, LoopContext, Respond, enqueue, loop_agent
from celery_agents.testing.llm import Conversation, ModelServer, Says
from tests.crash.scene import AgentsWorker, Scene
from tests.services.machine import scaled

WORDS = " ".join(f"word{number}" for number in range(20_000))


@loop_agent(name="crash.steered", input=str, max_steps=30)
async def steered(context: LoopContext) -> Any:
    """Ask the model whose address is the input."""
    pieces: list[str] = []
    asked = {"model": "m", "stream": True, "messages": list(context.messages)}
    try:
        async with aiohttp.ClientSession() as client, client.post(context.input, json=asked) as answer:
            async for line in answer.content:
                text = line.decode().strip().removeprefix("data: ")
                if text and text != "[DONE]":
                    pieces.append(json.loads(text)["choices"][0]["delta"].get("content") or "")
    except asyncio.CancelledError as error:
        raise CallInterrupted(text="".join(pieces)) from error
    return Respond(message="".join(pieces))


def answered(conversation: Conversation) -> Says:
    """Talk on and on, until somebody says to stop."""
    return Says("Stopped." if conversation.turns[-1].text == "stop" else WORDS)


def steer(scene: Scene, server: ModelServer) -> None:
    """Speak to it, kill its worker, and interrupt it on the next one."""

    def asked(times: int) -> Conversation | None:
        requests = server.requests
        return requests[times - 1].conversation if len(requests) >= times else None

    execution = enqueue(steered, f"{server.openai_url}/chat/completions", runtime=scene.runtime)
    scene.wait_until("the model is asked", lambda: asked(1))
    execution.say("hello", message_id="hello", sender="ada")
    owner = execution.summary().owner or ""
    _one_of(scene, owner).kill()
    again = scene.wait_until("the model is asked by another worker", lambda: asked(2))
    assert [turn.text for turn in again.turns[1:]] == ["hello"], "neither lost nor doubled"
    execution.say("hello", message_id="hello", sender="ada")
    time.sleep(0.2)  # it says something
    execution.say("stop", mode=SayMode.INTERRUPT)
    said_at = time.monotonic()
    scene.wait_until("the model is asked with the interruption", lambda: asked(3), seconds=5.0)
    took = time.monotonic() - said_at
    assert took < scaled(3.0), f"a renewal of the lease comes after ten seconds; this took {took:.1f}"
    assert execution.wait(timeout=scaled(30.0)) == "Stopped."
    context = execution.context()
    (_, hello, cut, *rest) = [(message.role, message.content) for message in context.memory.conversation_history]
    assert (hello, rest) == (("user", "hello"), [("user", "stop"), ("assistant", "Stopped.")])
    assert cut[0] == "assistant"
    assert WORDS.startswith(cut[1])
    assert len(cut[1]) < len(WORDS)
    assert context.signals == ()


def _one_of(scene: Scene, owner: str) -> AgentsWorker:
    return next(worker for worker in scene.workers if worker.name() in owner)
