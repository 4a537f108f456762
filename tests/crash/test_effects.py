"""What the crash policies promise: the process of a call is killed at each place, and an outside counts the effects."""

import itertools
import time
from collections.abc import Iterable
from typing import Final

import pytest

from agent_statestore import AgentState
from agent_statestore.query import Query
from agent_statestore.records import WaitKind
from agent_statestore.states import ACTIVE
from celery_agents import CrashPolicy, Execution, enqueue
from tests.crash.effects import LOOKED, Doing, Outside, Shape, agent_of
from tests.crash.effects_dying import Place, Role
from tests.crash.scene import Cell, Scene

pytestmark = pytest.mark.worker(imports=["tests.crash.effects"])

# With this broker a killed process of the pool is replaced at once.
REDIS: Final = Cell("redis", "redis", "prefork")
SQLITE: Final = Cell("redis", "sqlite", "prefork")
# Hundreds of processes die and are replaced, which takes its time on a busy machine.
PATIENCE_SECONDS: Final = 150.0

# How many effects a call has had in the end whose process died once, by where, in the order of `Place`. A person who is
# asked, and a function that looks, know what the outside has.
PROMISED: Final = {
    CrashPolicy.RETRY: (1, 1, 1, 2, 2, 1),
    CrashPolicy.ASK: (1, 1, 1, 1, 1, 1),
    CrashPolicy.FAIL: (1, 0, 0, 1, 1, 1),
    CrashPolicy.RECONCILE: (1, 1, 1, 1, 1, 1),
}
# Where the intent is recorded and the result is not.
IN_DOUBT: Final = tuple(Place)[1:5]


def effects_promised(doing: Doing, role: Role, deaths: int) -> int:
    """How many effects a call has had in the end."""
    if role is Role.DONE:
        return 1
    place, deaths = (doing.place, deaths) if role is Role.STRUCK else (Place.AFTER_EFFECT, 1)
    promised = PROMISED[doing.policy][list(Place).index(place)]
    return 1 + deaths if promised == 2 else promised


def doubtful_roles(doing: Doing) -> list[Role]:
    """The calls of which nobody knows after the death whether they took effect."""
    is_in_doubt = {Role.DONE: False, Role.STRUCK: doing.place in IN_DOUBT, Role.BESIDE: True}
    return [role for role in doing.shape.roles if is_in_doubt[role]]


def be_the_person(scene: Scene, executions: dict[Execution, Doing], outside: Outside) -> dict[Execution, list[str]]:
    """Answers what is asked after looking at the outside, until all executions are over; returns who was asked what."""
    asked: dict[Execution, list[str]] = {execution: [] for execution in executions}
    answered: set[tuple[str, str]] = set()  # a question is shown until the execution has gone on from it

    def are_all_over() -> bool:
        left = scene.runtime.store.find(Query(states=ACTIVE, limit=len(executions))).items
        for summary in left:
            question = summary.waiting
            if (
                question is not None
                and question.kind is WaitKind.INPUT
                and (summary.execution_id, question.key) not in answered
            ):
                answered.add((summary.execution_id, question.key))
                execution, step = Execution(summary.execution_id, scene.runtime), question.prompt["step"]
                asked[execution].append(step)
                tokens = outside.tokens(f"{execution.id}/{step}")
                execution.resume({"output": tokens[0]} if tokens else "retry", key=question.key, sender="a person")
        time.sleep(0.1)
        return not left

    try:
        scene.wait_until("all executions are over", are_all_over, PATIENCE_SECONDS)
    except AssertionError as error:
        left = scene.runtime.store.find(Query(states=ACTIVE, limit=len(executions))).items
        stuck = [f"{executions[Execution(one.execution_id, scene.runtime)]!r}: {one}" for one in left]
        raise AssertionError("\n".join(["not over:", *stuck, str(error)])) from None
    return asked


def check(scene: Scene, execution: Execution, doing: Doing, outside: Outside, asked: list[str]) -> None:
    """Raises AssertionError unless the execution ended as its policy promises."""
    context = execution.context()
    about = f"{doing.shape}, {doing.policy}, {doing.place}"
    assert context.state is AgentState.COMPLETED, f"{about}: {context.error}"
    deaths = sum(1 for _ in scene.ledger.rows(doing.place, execution.id))
    assert 1 <= deaths <= doing.deaths, f"{about}: {deaths} deaths"
    doubtful = doubtful_roles(doing)
    assert set(asked) == set(doubtful if doing.policy is CrashPolicy.ASK else ()), f"{about}: asked about {asked}"
    looked = [list(Role)[row.number] for row in scene.ledger.rows(LOOKED, execution.id)]
    expected = doubtful if doing.policy is CrashPolicy.RECONCILE else ()
    assert set(looked) == set(expected), f"{about}: looked at {looked}"
    for found in (asked, looked):
        assert all(found.count(role) <= deaths for role in found), f"{about}: more questions than deaths: {found}"
    for role in doing.shape.roles:
        tokens = outside.tokens(f"{execution.id}/{role}")
        promised = effects_promised(doing, role, deaths)
        assert len(tokens) == promised, f"{about}: {len(tokens)} effects of the call {role}, not {promised}"
        result = context.output[role]
        if doing.policy is CrashPolicy.FAIL and role in doubtful:
            assert result == "StepInterrupted", f"{about}: {result}"
        else:
            assert result == tokens[-1], f"{about}: the result of the call {role} is another's"
    assert all(step.result is not None for step in context.steps), f"{about}: an intent without a result is left"


def enqueue_all(scene: Scene, doings: list[Doing]) -> dict[Execution, Doing]:
    return {enqueue(agent_of(doing.shape), doing, runtime=scene.runtime): doing for doing in doings}


def each(shapes: Iterable[Shape], places: Iterable[Place] = Place, *, deaths: int = 1) -> list[Doing]:
    """These calls under every policy, dying at each of the places."""
    combinations = itertools.product(shapes, CrashPolicy, places)
    return [Doing(shape=shape, policy=policy, place=place, deaths=deaths) for shape, policy, place in combinations]


# On every commit one kind of call dies everywhere, and each other where nobody knows whether it took effect.
SOME: Final = [
    *each([Shape.TOOL]),
    *each([shape for shape in Shape if shape is not Shape.TOOL], [Place.AFTER_EFFECT]),
    *each([Shape.TOOL, Shape.ASYNC_AGENT], [Place.AFTER_EFFECT], deaths=2),
]
MANY: Final = each([Shape.TOOL, Shape.PARALLEL, Shape.ASYNC_PARALLEL])
ALL: Final = [*each(Shape), *each([Shape.TOOL, Shape.ASYNC_AGENT], deaths=2)]


@pytest.mark.timeout(2 * PATIENCE_SECONDS)
@pytest.mark.parametrize(
    ("cell", "doings"),
    [
        pytest.param(SQLITE, SOME, id=f"{SQLITE}-some"),
        pytest.param(SQLITE, MANY, id=f"{SQLITE}-many", marks=pytest.mark.full),
        pytest.param(REDIS, ALL, id=f"{REDIS}-all", marks=pytest.mark.full),
    ],
    indirect=["cell"],
)
def test_the_outside_has_as_many_effects_as_the_policy_promises(scene: Scene, doings: list[Doing]) -> None:
    outside = Outside(scene.ledger.folder)
    executions = enqueue_all(scene, doings)
    asked = be_the_person(scene, executions, outside)
    for execution, doing in executions.items():
        check(scene, execution, doing, outside, asked[execution])


@pytest.mark.worker(imports=["tests.crash.effects", "tests.crash.effects_without_intents"])
@pytest.mark.parametrize("cell", [SQLITE], ids=str, indirect=True)
def test_effects_are_repeated_without_the_intent(scene: Scene) -> None:
    """What is shown above is seen to fail where nothing is recorded before a call."""
    outside = Outside(scene.ledger.folder)
    doings = [
        Doing(shape=shape, policy=policy, place=Place.AFTER_EFFECT)
        for shape in Shape
        for policy in CrashPolicy
        if policy is not CrashPolicy.RETRY
    ]
    executions = enqueue_all(scene, doings)
    asked = be_the_person(scene, executions, outside)
    for execution, doing in executions.items():
        assert len(outside.tokens(f"{execution.id}/{Role.STRUCK}")) == 2
        with pytest.raises(
            AssertionError, match=r"asked about \[\]|looked at \[\]|2 effects of the call struck, not 1"
        ):
            check(scene, execution, doing, outside, asked[execution])
