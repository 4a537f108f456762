"""What chat models within a step say, told to the stream of the execution; and what its nodes write into the graph's.

A handler of callbacks has all chat models that are called in the step answer in pieces, as LangGraph's own
`stream_mode="messages"` does.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langchain_core.tracers.context import register_configure_hook
from langgraph.constants import TAG_NOSTREAM

from agent_statestore.errors import NotSerialisable, ValueTooLarge
from agent_statestore.plain_text import line_logger
from celery_agents.engine.run.current_run import current_stream
from celery_agents.integrations.feeding import Feed, feed
from celery_agents.integrations.langgraph.values import as_json

log = line_logger(__name__)

# Where the configuration of a node has what its code gets: the writer, for one.
_RUNTIME: Final = "__pregel_runtime"
_OWN: Final = "configurable"


@dataclass(slots=True)
class _Answer:
    """One answer: whether anything of it was told, and the calls in it by their place: id and tool."""

    is_told: bool = False
    calls: dict[Any, tuple[Any, Any]] = field(default_factory=dict)


class TellingHandler(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
    """Tells the answers of chat models, by pieces where they have any."""

    run_inline = True

    def __init__(self, stream: Feed) -> None:
        self._stream = stream
        self._answers: dict[UUID, _Answer] = {}

    def tap_output_aiter(self, run_id: UUID, output: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """See the protocol."""
        del run_id
        return output

    def tap_output_iter(self, run_id: UUID, output: Iterator[Any]) -> Iterator[Any]:
        """See the protocol."""
        del run_id
        return output

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        **_: Any,
    ) -> None:
        """A model is called; if it is tagged so, in silence."""
        del serialized, messages
        if TAG_NOSTREAM not in (tags or ()):
            self._answers[run_id] = _Answer()

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **_: Any) -> None:
        """It says something."""
        answer = self._answers.get(run_id)
        if answer is not None and isinstance(chunk, ChatGenerationChunk):
            self._tell(answer, chunk.message)
        elif answer is not None:
            answer.is_told = True
            self._stream.text(token)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """It has said everything."""
        answer = self._answers.pop(run_id, None)
        message = getattr(response.generations[0][0], "message", None) if response.generations else None
        if answer is None or not isinstance(message, BaseMessage):
            return
        if not answer.is_told:
            self._tell(answer, message)
        elif getattr(message, "usage_metadata", None) is None:
            _say_without_usage(message)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """It has failed."""
        del error
        self._answers.pop(run_id, None)

    def _tell(self, answer: _Answer, message: BaseMessage) -> None:
        content, stream = message.content, self._stream
        answer.is_told = answer.is_told or bool(content)
        for block in [content] if isinstance(content, str) else content:
            if isinstance(block, str):
                stream.text(block)
            elif block.get("type") == "text":
                stream.text(block.get("text"))
            elif block.get("type") in ("thinking", "reasoning"):
                stream.thinking(_thought(block))
        stream.thinking(message.additional_kwargs.get("reasoning_content"))
        pieces = getattr(message, "tool_call_chunks", None)
        for piece in getattr(message, "tool_calls", ()) if pieces is None else pieces:
            answer.is_told = True
            place = piece.get("index")
            if piece.get("id") is not None:
                answer.calls[place] = piece["id"], piece["name"]
            if place in answer.calls:
                stream.call(*answer.calls[place], piece["args"])


def _thought(block: dict[str, Any]) -> str:
    summary = block.get("summary") or ()
    told = block.get("thinking") or block.get("reasoning") or ""
    return told or "".join(part.get("text", "") for part in summary if isinstance(part, dict))


_telling: Final[ContextVar[TellingHandler | None]] = ContextVar("celery_agents_telling", default=None)
register_configure_hook(_telling, inheritable=True)


@contextmanager
def telling(*, is_model: bool) -> Iterator[None]:
    """Tell what all chat models that are called within the block say, if somebody could follow.

    Unless the block is the call of a model that we know (`is_model`), its models are the agent's own: some tell no
    usage with an answer in pieces, and nobody would see what they use.
    """
    stream = feed(may_miss_usage=not is_model)
    token = _telling.set(None if stream is None else TellingHandler(stream))
    try:
        yield
    finally:
        _telling.reset(token)


@contextmanager
def silent() -> Iterator[None]:
    """Tell nothing of what models say within the block."""
    token = _telling.set(None)
    try:
        yield
    finally:
        _telling.reset(token)


@contextmanager
def writing(config: RunnableConfig | None) -> Iterator[RunnableConfig | None]:
    """What is written in the block (`get_stream_writer`) is told to the stream of the execution as well.

    Yield the config that says so. Code that is not handed it has it from its context.
    """
    runtime = ((config or {}).get(_OWN) or {}).get(_RUNTIME)
    if config is None or runtime is None:
        yield config
        return
    write = runtime.stream_writer

    def written(value: Any) -> None:
        write(value)
        try:
            current_stream().emit(as_json(value))
        except (NotSerialisable, ValueTooLarge) as error:
            log.warning("a node has written what is not told to the stream of its execution: %s", error)

    own: RunnableConfig = {
        **config,
        "configurable": {**config["configurable"], _RUNTIME: runtime.override(stream_writer=written)},
    }
    token = var_child_runnable_config.set(own)
    try:
        yield own
    finally:
        var_child_runnable_config.reset(token)


_warned: Final[set[str]] = set()


def _say_without_usage(message: BaseMessage) -> None:
    model = str(message.response_metadata.get("model_name") or "a model")
    if model not in _warned:
        _warned.add(model)
        log.warning(
            "%s does not tell what an answer in pieces has used up, so limits of tokens and costs do not see it: make "
            "it with stream_usage=True, or have its step ask for whole answers with StepOptions(stream=False)",
            model,
        )
