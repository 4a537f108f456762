"""`run.recall` and `run.remember` with a scope: what outlives the execution.

Written once for plain and async runs: a generator that yields what is to be called with the run, whose result the one
returns and the other awaits.
"""

from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter

from agent_statestore.documents.codec import encode_operation
from agent_statestore.errors import InvalidRecord
from agent_statestore.recall.facts import Fact, Facts, Scope, ScopeKind, key_of
from agent_statestore.recall.recall import Recall, Recalled
from agent_statestore.records import JSONValue
from celery_agents.define.long_term_memory import (
    BufferMemory,
    LongTermMemory,
    Recollection,
    VectorMemory,
    parts_of,
)
from celery_agents.engine.attempt import Attempt
from celery_agents.engine.journal.outgoing import puts_entry
from celery_agents.errors import RegistrationError

RECALL: Final = "recall"
SUMMARISE: Final = "summarise"

_FOUND: Final = TypeAdapter(list[Recalled])

Request: TypeAlias = Callable[[Any], Any]
Recalling: TypeAlias = Generator[Request, Any, Recollection]


def recalling(attempt: Attempt, question: str, k: int, entity: str | None) -> Generator[Request, Any, Recollection]:
    """Yield what is to be done with the run, and return what was found."""
    memory: LongTermMemory | None = attempt.environment.memory
    if memory is None:
        raise RegistrationError(
            attempt.context.agent_id, "run.recall needs @agent(memory=...): BufferMemory, VectorMemory, HybridMemory"
        )
    buffer, vector = parts_of(memory)
    found = Recollection()
    if buffer is not None:
        found = yield from _buffered(buffer)
    if vector is not None:
        if not attempt.journal.has(attempt.journal.upcoming_key(RECALL)):
            # What was remembered since the last checkpoint is to be found, too.
            yield lambda run: run._write_pending()
        facts = yield lambda run: run.options(returns=list).step(RECALL, _search, attempt, vector, question, k, entity)
        found = Recollection(summary=found.summary, messages=found.messages, facts=tuple(_FOUND.validate_python(facts)))
    return found


def remember(
    attempt: Attempt,
    text: str,
    scope: str | Scope,
    *,
    data: JSONValue,
    entity: str | None,
    valid_from: datetime | None,
    valid_until: datetime | None,
) -> None:
    """Have the next checkpoint carry a fact. Raise `InvalidRecord`, `NotSerialisable` or `ValueTooLarge`."""
    context = attempt.context
    whose = scope_of(attempt, scope)
    if whose is None:
        raise InvalidRecord("scope", f"this execution has no {scope}: give it one at enqueue")
    last = max(attempt.journal, key=lambda step: step.step_number, default=None)
    fact = Fact(
        key=key_of(text, entity, context.execution_id),
        text=text,
        data=data,
        entity=entity,
        execution_id=context.execution_id,
        agent_id=context.agent_id,
        step=None if last is None else last.name,
        said_at=attempt.now(),
        valid_from=valid_from,
        valid_until=valid_until,
    )
    attempt.memory.check_value([text, data], "fact")
    documents = attempt.recorder.store.documents
    operations = Facts(documents, whose).remembering(fact)
    for operation in operations:
        encode_operation(operation, documents.max_document_bytes)  # refused here, where it is given, or never
    attempt.memory.outbox.put_document(puts_entry(operations))


def scope_of(attempt: Attempt, scope: str | Scope) -> Scope | None:
    """Return whose facts are meant; None for what this execution does not have. Raise `InvalidRecord`."""
    if isinstance(scope, Scope):
        return scope
    context = attempt.context
    ids = {
        ScopeKind.USER.value: context.user_id,
        ScopeKind.SESSION.value: context.session_id,
        ScopeKind.AGENT.value: context.agent_id,
    }
    if scope not in ids:
        raise InvalidRecord("scope", f"is 'user', 'session', 'agent' or a Scope, not {scope!r:.80}")
    identity = ids[scope]
    return None if identity is None else Scope(ScopeKind(scope), identity)


def _buffered(buffer: BufferMemory) -> Generator[Request, Any, Recollection]:
    session = yield lambda run: run.session
    messages, summary = session.messages, None if session.summary is None else session.summary.content
    # What this execution says itself is never summed up by it.
    left_out = min(buffer.fitting(messages), len(session.history))
    if left_out and buffer.summarise is not None:
        function, older = buffer.summarise, messages[:left_out]
        summary = yield lambda run: run.options(returns=str).step(SUMMARISE, function, summary, older)
        session.summarise(summary, up_to=older[-1].number)
    return Recollection(summary=summary, messages=messages[left_out:])


def _search(attempt: Attempt, memory: VectorMemory, question: str, k: int, entity: str | None) -> list[Any]:
    store = attempt.recorder.store
    recall = Recall(store.documents, memory.embed, model=memory.model, index=memory.index or store.vectors)
    scopes: Sequence[Scope | None] = [scope_of(attempt, scope) for scope in memory.scopes]
    known = [scope for scope in scopes if scope is not None]
    found = recall.search(question, known, limit=k, at=attempt.now(), entity=entity, least=memory.least)
    return list(_FOUND.dump_python(found, mode="json"))
