"""Which files of both packages a call enters, in whichever thread: how far a reader has to walk to follow it.

A frame is a Python function of ours that is called. A change is a frame in another file than the frame before it in the
same thread. Both are counted, not timed, and are the same in every run.
"""

import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Final

from celery import Celery

import agent_statestore
import celery_agents
from agent_statestore import NewExecution, open_store
from benchmarks.report import Table
from benchmarks.servers import Servers
from benchmarks.sizes import Sizes
from celery_agents import current
from celery_agents.decorators import agent
from celery_agents.define.registry import Registry
from celery_agents.engine.executor import Defaults
from celery_agents.engine.run.run import Run
from celery_agents.host.install import install
from celery_agents.host.runtime import runtime_of
from celery_agents.lifecycle.assembly import make_executor

_ROOTS: Final = tuple(
    f"{Path(package.__file__).parent}/" for package in (celery_agents, agent_statestore) if package.__file__
)
# How many files a call may enter, and how many changes of file it may make.
GOALS: Final[dict[str, tuple[int, int | None]]] = {
    "run.step on Redis": (25, 60),
    "claim, one step, end on Redis": (36, None),
    "enqueue to PostgreSQL": (20, None),
}
_LEASE: Final = timedelta(minutes=30)
_OWNER: Final = "benchmark/1/0"
# What comes once (connecting, loading scripts, preparing statements) is over by then.
_WARM_UP: Final = 3


@dataclass(slots=True)
class Way:
    """The frames of one call in their order, by thread; each is the name of its file."""

    frames: dict[int, list[str]] = field(default_factory=dict)
    calls: int = 0

    @property
    def files(self) -> dict[str, int]:
        """How many frames each file has, in the order in which they were first entered."""
        counted: dict[str, int] = {}
        for frames in self.frames.values():
            for name in frames:
                counted[name] = counted.get(name, 0) + 1
        return counted

    @property
    def changes(self) -> int:
        """How many frames are in another file than the one before."""
        return sum(one != other for frames in self.frames.values() for one, other in itertools.pairwise(frames))


class Watch:
    """Notes the frames that are entered while a way is watched. It has to be begun before threads of ours are."""

    def __init__(self) -> None:
        self._way: Way | None = None

    @contextmanager
    def in_all_threads(self) -> Iterator[None]:
        """Watches this thread, and all that are started in this block."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def way_of(self, function: Callable[..., Any], *args: Any) -> Way:
        """Calls the function; returns the way that the call took."""
        way = self._way = Way()
        try:
            function(*args)
        finally:
            self._way = None
        return way

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        del argument
        way = self._way
        if way is None or event != "call":
            return
        name = frame.f_code.co_filename
        if not name.startswith(_ROOTS):
            if name != __file__:
                way.calls += 1
            return
        way.calls += 1
        way.frames.setdefault(threading.get_ident(), []).append(_short(name))


def measure(servers: Servers, sizes: Sizes) -> list[Table]:
    """The files that a step, a whole claim and an enqueue enter."""
    del sizes
    watch = Watch()
    with watch.in_all_threads():
        ways = {
            "run.step on Redis": _step(watch, servers.store_url("Redis")),
            "claim, one step, end on Redis": _claim(watch, servers.store_url("Redis")),
            "enqueue to PostgreSQL": _enqueue(watch, servers.store_url("PostgreSQL")),
        }
    table = Table(
        name="files_entered",
        title="Files that a call enters",
        note=(
            "Files: of both packages. Changes: frames in another file than the frame before. Calls: of any Python code."
        ),
        rows=[
            {
                "call": name,
                "files": len(way.files),
                "at most": GOALS[name][0],
                "changes of file": way.changes,
                "changes at most": GOALS[name][1],
                "Python calls": way.calls,
            }
            for name, way in ways.items()
        ],
    )
    return [table, *(_files_of(name, way) for name, way in ways.items())]


def _files_of(call: str, way: Way) -> Table:
    return Table(
        name=f"files_of_{call.partition(' ')[0].strip(',').replace('.', '_')}",
        title=f"Files of {call}",
        note="In the order in which they are first entered.",
        rows=[{"file": name, "frames": frames} for name, frames in way.files.items()],
    )


def _short(name: str) -> str:
    """The file's name from its package on."""
    for root in _ROOTS:
        if name.startswith(root):
            return f"{Path(root).name}/{name.removeprefix(root)}"
    return name


def _nothing() -> str:
    return "done"


def _step(watch: Watch, url: str) -> Way:
    ways: list[Way] = []
    registry = Registry()

    @agent(name="benchmarks.files", registry=registry)
    def steps(run: Run, input: None) -> None:  # noqa: A002 - the field's standard name
        del input
        ways.extend(watch.way_of(run.step, "step", _nothing) for _ in range(_WARM_UP + 1))

    with open_store(url) as store:
        executor = make_executor(store=store, registry=registry, limits=Defaults(lease=_LEASE))
        executor.execute(store.create(NewExecution(agent_id=steps.name)).execution_id, _OWNER)
    return ways[-1]


def _claim(watch: Watch, url: str) -> Way:
    registry = Registry()

    @agent(name="benchmarks.files", registry=registry)
    def one_step(run: Run, input: None) -> None:  # noqa: A002 - the field's standard name
        del input
        run.step("step", _nothing)

    with open_store(url) as store:
        executor = make_executor(store=store, registry=registry, limits=Defaults(lease=_LEASE))
        for _ in range(_WARM_UP + 1):
            execution_id = store.create(NewExecution(agent_id=one_step.name)).execution_id
            way = watch.way_of(executor.execute, execution_id, _OWNER)
    return way


def _enqueue(watch: Watch, url: str) -> Way:
    registry = Registry()

    @agent(name="benchmarks.files", registry=registry)
    def nothing(run: Run, input: None) -> None:  # noqa: A002 - the field's standard name
        del run, input

    with ExitStack() as stack:
        app = Celery("benchmarks.files", broker="memory://", set_as_current=False)
        app.conf.agents_store_url = url
        install(app, registry=registry)
        runtime = runtime_of(app)
        stack.callback(lambda: runtime.store.close())
        for _ in range(_WARM_UP + 1):
            way = watch.way_of(lambda: current.enqueue(nothing, None, runtime=runtime))
    return way
