"""Waits that are not begun yet, for `run.wait_all` and `run.wait_any`.

    approved, (which, value) = run.wait_all(
        waits.approval("pay", {"amount": 30}), waits.question("Which account?", name="account")
    )
    first, result = run.wait_any(answer := waits.question("Go on?"), waits.timer(timedelta(hours=1)))

What each function takes means what it means for the method of `Run` of that kind. What is wrong with an argument is
said here; how large a prompt may be, the store says when it is waited for.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from agent_statestore.envelope import dump
from agent_statestore.records import JSONValue
from celery_agents.define.voting import Voting
from celery_agents.engine.pauses.approval import AskedApproval, asked_approval
from celery_agents.engine.pauses.child import AwaitedChild, Child, check_child
from celery_agents.engine.pauses.event import AwaitedEvent, awaited_event
from celery_agents.engine.pauses.question import MISSING, Question
from celery_agents.engine.pauses.question import question as asked_question
from celery_agents.engine.pauses.sleep import Sleep
from celery_agents.engine.pauses.together import AnyWait

__all__ = ["AnyWait", "approval", "child", "event", "question", "timer"]


def question(
    prompt: JSONValue,
    *,
    name: str = "ask",
    schema: Any = MISSING,
    choices: Sequence[JSONValue] | None = None,
    timeout: timedelta | None = None,
    default: Any = MISSING,
) -> Question:
    """Return a question to a person; see `Run.ask`. Raise `NotSerialisable` for what JSON cannot carry."""
    dump(prompt, "prompt")
    return asked_question(name, prompt, schema, choices, timeout, default, None)


def approval(
    tool: str,
    arguments: Mapping[str, Any],
    *,
    description: str = "",
    schema: Mapping[str, JSONValue] | None = None,
    timeout: timedelta | None = None,
    name: str | None = None,
    approvers: Iterable[str] = (),
    quorum: int = 1,
    rejections: int = 1,
) -> AskedApproval:
    """Return an approval of a call; see `Run.approve`. Its result is the arguments that were approved."""
    voting = Voting.of(approvers, quorum, rejections)
    return asked_approval(tool, arguments, description, schema, timeout, name, voting=voting)


def event(
    name: str, *, schema: Any = MISSING, timeout: timedelta | None = None, default: Any = MISSING
) -> AwaitedEvent:
    """Return a wait for an event; see `Run.wait_for`. Raise `InvalidRecord` for an invalid name."""
    return awaited_event(name, schema, timeout, default)


def timer(when: timedelta | float | datetime, *, name: str = "timer") -> Sleep:
    """Return a timer: for a while (a number is in seconds), or until a moment with a time zone. Its result is None.

    A while begins when the execution comes to the wait. Raise `InvalidRecord` for anything else.
    """
    return Sleep(name=name, until=when) if isinstance(when, datetime) else Sleep.of(name, when)


def child(child: Child) -> AwaitedChild:
    """Return a wait for the end of what `run.spawn` has started. Its result is the output, or `ChildFailed`."""
    check_child("waits.child", child)
    return AwaitedChild(child=child)
