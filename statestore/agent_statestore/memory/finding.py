"""Searches among the executions in memory."""

from collections.abc import Iterable

from agent_statestore.codec import decode_listed
from agent_statestore.memory.execution import StoredExecution
from agent_statestore.query import Cursor, Query, encode_cursor
from agent_statestore.records import Page
from agent_statestore.rules.leases import Header
from agent_statestore.states import AgentState


def find_page(executions: Iterable[StoredExecution], query: Query) -> Page:
    """Return one page of executions; see `StorePrimitives.find`."""
    behind = query.behind
    found = []
    for execution in executions:
        place = _place(execution.header)
        if _matches(query, execution.header) and (
            behind is None or (place > behind if query.oldest_first else place < behind)
        ):
            found.append((place, execution.header))
    found.sort(key=lambda item: item[0], reverse=not query.oldest_first)
    items = found[: query.limit]
    return Page(
        items=tuple(decode_listed(header) for _, header in items),
        next_cursor=encode_cursor(items[-1][0]) if len(found) > query.limit else None,
    )


def find_ended(
    executions: Iterable[StoredExecution], after_us: int, before_us: int, among: frozenset[AgentState], limit: int
) -> tuple[str, ...]:
    """Return the ids of executions that were over; see `StorePrimitives.find_ended`."""
    ended = [
        (header["ended_us"], header["execution_id"])
        for header in (execution.header for execution in executions)
        if header["ended_us"] is not None
        and after_us <= header["ended_us"] < before_us
        and header["due_us"] is None
        and header["state"] in among
    ]
    return tuple(execution_id for _, execution_id in sorted(ended)[:limit])


def find_due(executions: Iterable[StoredExecution], now_us: int, limit: int) -> list[StoredExecution]:
    """Return the due executions, longest due first."""
    due = [
        execution
        for execution in executions
        if execution.header["due_us"] is not None and execution.header["due_us"] <= now_us
    ]
    due.sort(key=lambda execution: (execution.header["due_us"], execution.header["execution_id"]))
    return due[:limit]


def _matches(query: Query, header: Header) -> bool:
    after_us, before_us = query.created_after_us, query.created_before_us
    return (
        all(header[name] == value for name, value in query.equal.items())
        and (query.among is None or header["state"] in query.among)
        and (after_us is None or header["created_us"] >= after_us)
        and (before_us is None or header["created_us"] < before_us)
    )


def _place(header: Header) -> Cursor:
    return Cursor(header["created_us"], header["execution_id"])
