"""Loads the Lua scripts: one file per primitive, put together with the shared parts that it asks for."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from agent_statestore.codec import NEVER_US
from agent_statestore.envelope import FORMAT
from agent_statestore.states import OVER, PAUSED, WORKING, AgentState


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name by which a server that has seen it knows it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return the script of that name. Its first line may say "-- uses: <part> <part>"."""
    return _made(name, *_parts_and_body(name))


@cache
def together(name: str) -> Script:
    """Return the script that runs the script of that name on several partitions, one after the other, in one call.

    KEYS are the keys of each call, ARGV[1] and ARGV[2] the numbers of keys and arguments of a call, and the arguments
    of each call follow. It returns the list of answers. One server must hold all keys.
    """
    *parts, body = _parts_and_body(name)
    return _made(name, *parts, "local function one(KEYS, ARGV)", body, "end", _read("together"))


def _made(name: str, *pieces: str) -> Script:
    text = "\n".join(pieces)
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _parts_and_body(name: str) -> list[str]:
    body = _read(name)
    first_line = body.partition("\n")[0]
    parts = first_line.removeprefix("-- uses:").split() if first_line.startswith("-- uses:") else []
    return [*(_states() if part == "states" else _read(part) for part in parts), body]


def _read(name: str) -> str:
    return (files("agent_statestore.redis") / "scripts" / f"{name}.lua").read_text(encoding="utf-8")


def _states() -> str:
    """Return what the scripts know of the states, taken from their declaration.

    These are comparisons instead of tables: a table would be built anew at each call of each script.
    """
    numbers = ", ".join(f"{state.value} = {number}" for number, state in enumerate(AgentState, 1))
    return "\n".join(
        [
            _predicate("is_over", OVER),
            _predicate("is_paused", PAUSED),
            _predicate("is_working", WORKING),
            f"local function state_number(state) return ({{{numbers}}})[state] end",
            # The states that are over come last: the keys of their indexes are counted from here.
            f"local BEFORE_OVER = {len(AgentState) - len(OVER)}",
            f"local NEVER_US = '{NEVER_US}'",
            f"local NEWEST_FORMAT = {FORMAT}",
        ]
    )


def _predicate(name: str, states: Iterable[AgentState]) -> str:
    condition = " or ".join(f"state == '{state.value}'" for state in sorted(states))
    return f"local function {name}(state) return {condition} end"
