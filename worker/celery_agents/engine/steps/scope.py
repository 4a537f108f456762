"""What the code that runs right now is inside of: a step's function, or steps that are taken beside each other."""

from asyncio import Future
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Final, NamedTuple, TypeAlias

from agent_statestore.records import Wait
from celery_agents.misuse import MemoryInGroup, MemoryInParallel


class Opened(NamedTuple):
    """A wait that the execution is to be paused on, and the key of the step that waits."""

    step: str
    wait: Wait


PutOff: TypeAlias = list[Opened]

# (id of the nesting, key) of the step whose function runs in this thread or coroutine.
_inside: Final[ContextVar[tuple[int, str] | None]] = ContextVar("inside_step", default=None)
# (id of the nesting, what is waited for beside something else).
_put_off: Final[ContextVar[tuple[int, PutOff] | None]] = ContextVar("put_off", default=None)

# What the code was inside of before it entered a step.
Around: TypeAlias = tuple[Token[tuple[int, str] | None], str | None]

# The execution whose agent the code that runs right now belongs to, in its steps and on its event loop, too.
_execution_around: Final[ContextVar[str | None]] = ContextVar("execution_around", default=None)

# The run of that agent.
_run_around: Final[ContextVar[object]] = ContextVar("run_around", default=None)

# (id of the nesting, the group whose function runs in this thread or coroutine).
_group: Final[ContextVar[tuple[int, "Group"] | None]] = ContextVar("inside_group", default=None)

# How much of the names of steps an error shows.
_NAMES: Final = 100


@contextmanager
def executing(execution_id: str) -> Iterator[None]:
    """The code of this execution's agent runs in this block."""
    token = _execution_around.set(execution_id)
    try:
        yield
    finally:
        _execution_around.reset(token)


def execution_around() -> str | None:
    """Return the id of the execution whose agent's code calls this; None outside of every agent."""
    return _execution_around.get()


@contextmanager
def running(run: object) -> Iterator[None]:
    """The agent's code that this run was made for runs in this block."""
    token = _run_around.set(run)
    try:
        yield
    finally:
        _run_around.reset(token)


def run_around() -> object:
    """Return the run of the agent whose code, or whose step, calls this; None outside of every agent."""
    return _run_around.get()


class StepWaits(BaseException):
    """Unwinds what waits, and has others beside it. The execution pauses when those have come to rest."""


class Group:
    """A step that takes steps itself, while its function runs.

    `keys` are those of the groups around it, and its own. `in_flight` are the steps that an async agent's code takes in
    it, those too that nobody awaits any more.
    """

    def __init__(self, key: str, around: "Group | None") -> None:
        self.keys: tuple[str, ...] = (key,) if around is None else (*around.keys, key)
        self.is_over = False
        self.in_flight: set[Future[Any]] = set()
        self._around = around

    def hold(self, step: "Future[Any]") -> None:
        """This group, and those around it, do not end before this step has."""
        self.in_flight.add(step)
        step.add_done_callback(self._has_ended)
        if self._around is not None:
            self._around.hold(step)

    def _has_ended(self, step: "Future[Any]") -> None:
        self.in_flight.discard(step)
        if not step.cancelled():
            step.exception()  # whoever awaited it may have been cancelled, and asyncio would complain


class Nesting:
    """Where the code of one attempt is. `is_concurrent` says that steps may be taken beside each other."""

    def __init__(self) -> None:
        self.is_concurrent = False
        # Whether there has been any group: for those who would look, as most agents have none.
        self.has_groups = False
        self._inside: str | None = None

    @property
    def step_around(self) -> str | None:
        """The key of the step whose function this is called from, if any."""
        inside = _inside.get()  # not by `step_of_context`, as every step comes here
        return inside[1] if inside is not None and inside[0] == id(self) else self._inside

    @property
    def step_of_context(self) -> str | None:
        """Likewise, as far as the context knows: not in a thread that the step's function has started itself."""
        inside = _inside.get()
        return inside[1] if inside is not None and inside[0] == id(self) else None

    @property
    def group(self) -> Group | None:
        """The group whose function this is called from, if any; the innermost."""
        group = _group.get() if self.has_groups else None
        return group[1] if group is not None and group[0] == id(self) else None

    @contextmanager
    def inside_group(self, key: str) -> Iterator[Group]:
        """The function of the group of this key runs in this block."""
        group = Group(key, self.group)
        self.has_groups = True
        token = _group.set((id(self), group))
        try:
            yield group
        finally:
            group.is_over = True
            _group.reset(token)

    def check_may_write_memory(self) -> None:
        """Raises `MemoryInParallel` inside a step that others run beside: whose write came last would be chance.

        Raises `MemoryInGroup` inside a group: once that is recorded, its function is not called again.
        """
        if self.has_groups and (group := self.group) is not None:
            raise MemoryInGroup(group.keys[-1])
        if self.is_concurrent:
            inside = self.step_around
            if inside is not None:
                raise MemoryInParallel(inside)

    @contextmanager
    def inside_step(self, key: str) -> Iterator[None]:
        """The step's own function runs in this block."""
        around = self.enter_step(key)
        try:
            yield
        finally:
            self.leave_step(around)

    def enter_step(self, key: str) -> Around:
        """The step's own function runs until `leave_step` is called with what this returns."""
        around = _inside.set((id(self), key)), self._inside
        if not self.is_concurrent:
            self._inside = key  # also for threads that the function starts
        return around

    def leave_step(self, around: Around) -> None:
        """The step's function has ended."""
        token, inside = around
        if not self.is_concurrent:
            self._inside = inside
        _inside.reset(token)

    @contextmanager
    def beside_each_other(self, keys: Sequence[str]) -> Iterator[PutOff]:
        """Steps are taken beside each other in this block, and nothing else by the agent's function, which waits."""
        was = self.is_concurrent, self._inside
        self.is_concurrent, self._inside = True, ", ".join(keys)[:_NAMES]
        try:
            with self.putting_pauses_off() as waits:
                yield waits
        finally:
            self.is_concurrent, self._inside = was

    @contextmanager
    def putting_pauses_off(self) -> Iterator[PutOff]:
        """What has to wait in this block keeps nothing beside it from going on: what it waits for is collected."""
        waits: PutOff = []
        token = _put_off.set((id(self), waits))
        try:
            yield waits
        finally:
            _put_off.reset(token)

    @property
    def put_off(self) -> PutOff | None:
        """Where it is collected what is waited for here; None if whoever waits is to pause by itself."""
        put_off = _put_off.get()
        return put_off[1] if put_off is not None and put_off[0] == id(self) else None
