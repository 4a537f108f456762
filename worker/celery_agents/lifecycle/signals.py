"""What people send to an execution: answers, approvals, refusals, events. It is checked and put into the mailbox.

The checks help the person. The store decides whose answer was first, and the engine checks what it finds in the mailbox
against the code once more.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent_statestore.envelope import dump
from agent_statestore.errors import AlreadyAnswered, ExecutionNotFound, ExecutionOver, InvalidRecord, QuestionNotAsked
from agent_statestore.plain_text import line_logger
from agent_statestore.records import (
    ExecutionSummary,
    JSONValue,
    SignalKind,
    Wait,
    WaitKind,
    require_name,
    without_voter,
)
from agent_statestore.store import Store
from celery_agents.define import types
from celery_agents.define.answers import expected_by
from celery_agents.define.names import check_event_name
from celery_agents.engine.pauses.approval import Ruling
from celery_agents.errors import AgentsError, InvalidAnswer, InvalidArguments, InvalidEvent, NoApprovalAsked
from celery_agents.lifecycle.decider import Decider
from celery_agents.lifecycle.services import Services
from celery_agents.lifecycle.voting import key_of_decision

log = line_logger(__name__)

# The bytes that the record of a step holds besides its values: names, times, counts.
_STEP_ROOM_BYTES: Final = 512
# This sets events apart from the signals that executions send to each other, whose ids are no secret.
_EVENT_ID: Final = "event {}"
_LONGEST_EVENT_ID: Final = 255 - len(_EVENT_ID.format(""))


class NoQuestionAsked(QuestionNotAsked):
    """The execution does not wait for this answer. `doing` says what it does instead."""

    def __init__(self, execution_id: str, key: str, doing: str) -> None:
        super().__init__(execution_id, key)
        self.args = (execution_id, key, doing)
        self.doing = doing

    def __str__(self) -> str:
        what = f'an answer to "{self.key}"' if self.key else "an answer"
        return f"execution {self.execution_id} does not wait for {what}: {self.doing}"


class SeveralAsked(AgentsError):
    """Several answers, or decisions, are waited for, and nothing says which one is meant. `keys` are their keys."""

    def __init__(self, execution_id: str, what: str, keys: Sequence[str]) -> None:
        super().__init__(execution_id, what, list(keys))
        self.execution_id = execution_id
        self.what = what
        self.keys = list(keys)

    def __str__(self) -> str:
        keys = ", ".join(f'"{key}"' for key in self.keys)
        return f"execution {self.execution_id} waits for {len(self.keys)} {self.what}; say by its key which one: {keys}"


def questions_of(summary: ExecutionSummary) -> tuple[Wait, ...]:
    """Return the questions whose answers an execution waited for when it was looked at."""
    return _waiting_for(summary, WaitKind.INPUT)


def question_of(summary: ExecutionSummary) -> Wait | None:
    """Return the first of them; None if it waited for none."""
    return next(iter(questions_of(summary)), None)


def approvals_of(summary: ExecutionSummary) -> tuple[Wait, ...]:
    """Return the approvals that an execution waited for when it was looked at."""
    return _waiting_for(summary, WaitKind.APPROVAL)


def approval_of(summary: ExecutionSummary) -> Wait | None:
    """Return the first of them; None if it waited for none."""
    return next(iter(approvals_of(summary)), None)


def _waiting_for(summary: ExecutionSummary, kind: WaitKind) -> tuple[Wait, ...]:
    return tuple(wait for wait in summary.waits if wait.kind is kind)


def the_question(summary: ExecutionSummary, key: str | None) -> Wait | None:
    """Return the question of this key, or else the only one; None if there is none. Raise `SeveralAsked`."""
    questions = questions_of(summary)
    if key is not None:
        return next((wait for wait in questions if wait.key == key), None)
    if len(questions) > 1:
        raise SeveralAsked(summary.execution_id, "answers", [wait.key for wait in questions])
    return next(iter(questions), None)


def the_approval(summary: ExecutionSummary, key: str | None, digest: str | None) -> Wait | None:
    """Return the approval of this key and digest, or else the only one; None if there is none. Raise `SeveralAsked`."""
    approvals = approvals_of(summary)
    if key is None and digest is None and len(approvals) > 1:
        raise SeveralAsked(summary.execution_id, "decisions", [wait.key for wait in approvals])
    fitting = (wait for wait in approvals if key in (None, wait.key) and digest in (None, _digest_of(wait)))
    return next(fitting, None)


def what_it_does(summary: ExecutionSummary) -> str:
    """Return, as half a sentence, what an execution does instead of waiting for what somebody wants to give it."""
    if not summary.waits:
        return f"it is {summary.state.value}"
    return f"it waits for {', '.join(map(_what_it_waits_for, summary.waits))}"


def _what_it_waits_for(wait: Wait) -> str:
    if wait.kind is WaitKind.INPUT:
        return f'the answer to "{wait.key}"'
    if wait.kind is WaitKind.APPROVAL:
        return f'"{wait.key}" to be approved or rejected'
    return f'{wait.kind.value} "{wait.key}"'


def answer(
    services: Services,
    summary: ExecutionSummary,
    value: JSONValue,
    *,
    key: str | None,
    round: int | None = None,  # noqa: A002 - the field's name
    by: Decider,
) -> None:
    """Answer a question; see `Execution.resume`."""
    _require_alive(summary)
    asked = the_question(summary, key)
    if key is None:
        if asked is None:
            raise NoQuestionAsked(summary.execution_id, "", what_it_does(summary))
        key = asked.key
    if asked is not None and round in (None, asked.round):
        round = asked.round  # noqa: A001 - likewise
        check_answer(services, summary, asked, value)
    try:
        _send(services, summary, SignalKind.ANSWER, key, value, round=1 if round is None else round, by=by)
    except QuestionNotAsked as error:
        raise NoQuestionAsked(summary.execution_id, key, what_it_does(summary)) from error


def approve(
    services: Services,
    summary: ExecutionSummary,
    *,
    key: str | None,
    digest: str | None,
    arguments: Mapping[str, JSONValue] | None,
    by: Decider,
) -> str:
    """Approve a tool call and return the key of its approval; see `Execution.approve`."""
    asked = _asked(services.store, summary, key, digest)
    edited = None if arguments is None else _edited(services, asked, arguments)
    _decide(services, summary, asked, approved=True, arguments=edited, by=by)
    return asked.key


def reject(
    services: Services,
    summary: ExecutionSummary,
    *,
    key: str | None,
    digest: str | None,
    by: Decider,
) -> str:
    """Reject a tool call and return the key of its approval; see `Execution.reject`."""
    asked = _asked(services.store, summary, key, digest)
    _decide(services, summary, asked, approved=False, arguments=None, by=by)
    return asked.key


def send_event(
    services: Services, execution_id: str, name: str, payload: JSONValue, *, event_id: str | None, by: Decider
) -> None:
    """Send an event; see `Execution.send_event`."""
    check_event_name(name)
    if event_id is not None:
        require_name("event_id", event_id)
        if len(event_id) > _LONGEST_EVENT_ID:
            raise InvalidRecord("event_id", f"needs a text of 1 to {_LONGEST_EVENT_ID} characters")
    # The payload will stand in the record of the step that takes it. The key and the input of that step are the event's
    # name.
    dump([payload, name, name], "payload", _room(services))
    signal_id = None if event_id is None else _EVENT_ID.format(event_id)
    _check_event(services, execution_id, name, payload, signal_id)
    signal = by.signal(SignalKind.EVENT, name, payload, signal_id=signal_id)
    if services.store.send(execution_id, signal).woke:
        summary = services.store.get_summary(execution_id)
        if summary is None:
            raise ExecutionNotFound(execution_id)
        services.ring(summary)


def _check_event(services: Services, execution_id: str, name: str, payload: JSONValue, signal_id: str | None) -> None:
    """Raise `InvalidEvent` for a payload that does not fit what the execution waits for under this name right now."""
    summary = services.store.get_summary(execution_id)
    for awaited in () if summary is None else summary.waits:
        if summary is not None and (awaited.kind, awaited.key) == (WaitKind.EVENT, name):
            problems = _problems_of_value(services, summary, awaited, payload, "payload")
            if problems and not _was_sent(services.store, execution_id, signal_id):
                raise InvalidEvent(name, problems)


def _was_sent(store: Store, execution_id: str, signal_id: str | None) -> bool:
    """Return whether the execution remembers this signal: a repetition changes nothing, whatever is waited for now."""
    exported = None if signal_id is None else store.export(execution_id)
    return exported is not None and any(signal.signal_id == signal_id for signal in exported.signals)


# -- approvals ---------------------------------------------------------------------------------------------------------


def _asked(store: Store, summary: ExecutionSummary, key: str | None, digest: str | None) -> Wait:
    """Return the approval that is meant: the one that is asked for, if it is the one that the person looked at."""
    _require_alive(summary)
    asked = the_approval(summary, key, digest)
    if asked is not None:
        return asked
    decided = _decided(store, summary, key, digest)
    if decided is not None:
        raise AlreadyAnswered(summary.execution_id, decided)
    others = [f'"{wait.key}"' for wait in approvals_of(summary) if key in (None, wait.key)]
    if others:
        asks = "asks" if len(others) == 1 else "ask"
        raise NoApprovalAsked(
            summary.execution_id, f"what {', '.join(others)} {asks} for now is not what was looked at"
        )
    what = "an approval" if key is None else f'the approval "{key}"'
    raise NoApprovalAsked(summary.execution_id, f"it does not wait for {what}: {what_it_does(summary)}")


def _decided(store: Store, summary: ExecutionSummary, key: str | None, digest: str | None) -> str | None:
    """Return the key of an earlier decision under this key, or else on this digest; None if there was none."""
    for entry in store.get_audit(summary.execution_id):
        signal = entry.signal
        if signal is None or signal.kind is not SignalKind.APPROVAL:
            continue
        payload = signal.payload
        on = payload.get("digest") if isinstance(payload, dict) else None
        of = without_voter(signal.key)
        if (of == key) if key is not None else (digest is not None and on == digest):
            return of
    return None


def _decide(
    services: Services,
    summary: ExecutionSummary,
    asked: Wait,
    *,
    approved: bool,
    arguments: dict[str, JSONValue] | None,
    by: Decider,
) -> None:
    key = key_of_decision(summary.execution_id, asked, by.sender)
    if key != asked.key and arguments is not None and shown(asked).get("quorum", 1) > 1:
        raise InvalidArguments(str(shown(asked)["tool"]), ["where several decide, nobody changes the arguments"])
    decision = Ruling(approved=approved, digest=_digest_of(asked), arguments=arguments)
    # The record of the step holds a refusal twice: as a sentence, and as the error's arguments.
    dump([shown(asked)["arguments"], arguments, [by.sender, by.reason] * 2], "decision", _room(services))
    try:
        _send(services, summary, SignalKind.APPROVAL, key, decision.model_dump(), round=asked.round, by=by)
    except AlreadyAnswered as error:
        raise AlreadyAnswered(summary.execution_id, asked.key) from error
    except QuestionNotAsked as error:
        raise NoApprovalAsked(summary.execution_id, f'it does not wait for the approval "{asked.key}" any more') from (
            error
        )


def shown(asked: Wait) -> dict[str, Any]:
    """Return what a person is shown of a call that needs approval: `tool`, `description`, `arguments`, `digest`."""
    prompt = asked.prompt if isinstance(asked.prompt, dict) else {}
    return {"tool": asked.key, "description": "", "arguments": {}, "digest": ""} | prompt


def _digest_of(asked: Wait) -> str:
    return str(shown(asked)["digest"])


def _edited(services: Services, asked: Wait, arguments: Mapping[str, JSONValue]) -> dict[str, JSONValue]:
    """Return, as JSON, the arguments to call the tool with instead. Raise `InvalidArguments`."""
    name = str(shown(asked)["tool"])
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise InvalidArguments(name, [f"arguments: needs all of them by name, not {arguments!r:.80}"])
    try:
        edited: dict[str, JSONValue] = types.lossless(dict(arguments))
        dump(edited, "arguments", services.store.max_value_bytes)
    except InvalidRecord:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(name, [f"an argument has no JSON form: {error}"]) from error
    if asked.schema is not None:
        problems = _problems(asked.schema, edited, "arguments")
        if problems:
            raise InvalidArguments(name, problems)
    for tool in services.registry.tools:
        # The execution may ask for another tool of this name: for another version, or for one that a function made
        # anew.
        if tool.name == name and asked.schema in (None, tool.json_schema):
            problems = tool.problems(edited)  # where the tool is known, check also what JSON Schema cannot say
            if problems:
                raise InvalidArguments(name, problems)
    return edited


# -- all of them -------------------------------------------------------------------------------------------------------


def check_answer(services: Services, summary: ExecutionSummary, asked: Wait, value: JSONValue) -> None:
    """Raise `InvalidAnswer` or `ValueTooLarge` for what does not answer a question."""
    # The record of the step holds both. Refuse here what would not fit there.
    dump([asked.prompt, value], "answer", _room(services))
    problems = _problems_of_value(services, summary, asked, value, "answer")
    if problems:
        raise InvalidAnswer(asked.key, problems)


def _require_alive(summary: ExecutionSummary) -> None:
    if summary.state.is_over:
        raise ExecutionOver(summary.execution_id, summary.state.value)


def _room(services: Services) -> int:
    """Return how many bytes of JSON the values of one step may have."""
    return services.store.max_value_bytes - _STEP_ROOM_BYTES


def _send(
    services: Services,
    summary: ExecutionSummary,
    kind: SignalKind,
    key: str,
    payload: JSONValue,
    *,
    round: int,  # noqa: A002 - the field's name
    by: Decider,
) -> None:
    if services.store.send(summary.execution_id, by.signal(kind, key, payload, round=round)).woke:
        services.ring(summary)


def _problems_of_value(
    services: Services, summary: ExecutionSummary, asked: Wait, value: JSONValue, what: str
) -> list[str]:
    """Return what is wrong with what is sent: by the worker's own check where the agent is known, else by the schema.

    `what` names the value.
    """
    if asked.answer_type is not None and services.registry.find(summary.agent_id) is None:
        try:
            services.load_agents()
        except Exception as error:  # noqa: BLE001 - users' modules raise what they raise, where they cannot be imported
            log.warning("the %s is checked by its JSON Schema alone, as the agents cannot be imported: %s", what, error)
    agent = services.registry.find(summary.agent_id)
    if agent is not None and asked.answer_type is not None:
        expected = expected_by(asked.answer_type, asked.schema, agent.names())
        if expected is not None:
            return expected.problems(value, what)
    return [] if asked.schema is None else _problems(asked.schema, value, what)


def _problems(schema: Mapping[str, JSONValue], value: JSONValue, what: str) -> list[str]:
    """Return what is wrong with a value, one sentence per fault; an empty list if it fits."""
    from celery_agents.define import json_schema  # here: every celery command imports this module, and few need it

    return json_schema.problems(schema, value, what)
