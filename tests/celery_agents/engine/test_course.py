"""The rules of an attempt's course, one by one."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from agent_statestore import Lease
from agent_statestore.records import Wait, WaitKind
from celery_agents.engine.course import Course
from celery_agents.engine.lease import HeldLease
from celery_agents.engine.outcome import Ending, ExecutionStopped, Outcome
from celery_agents.engine.steps.scope import Opened

WAIT = Wait(kind=WaitKind.EVENT, key="e", asked_at=datetime(2026, 1, 1, tzinfo=UTC))
OPENED = (Opened(WAIT.key, WAIT),)
PAUSED = Outcome(ending=Ending.PAUSED, waits=(WAIT,))


@pytest.fixture
def held() -> HeldLease:
    ttl = timedelta(hours=1)
    lease = Lease(execution_id="x", token=1, owner="host/1/0", ttl=ttl, expires_at=WAIT.asked_at + ttl)
    return HeldLease(lease, time.monotonic())


@pytest.fixture
def course(held: HeldLease) -> Course:
    return Course(held)


def ending_of(act: Callable[[], object]) -> Ending:
    with pytest.raises(ExecutionStopped) as stopped:
        act()
    return stopped.value.outcome.ending


def test_a_boundary_stops_for_good(course: Course, held: HeldLease) -> None:
    course.enter_boundary()
    held.mark_cancel_requested()
    assert ending_of(course.enter_boundary) is Ending.CANCELLED
    held.mark_lost()
    assert ending_of(course.enter_boundary) is Ending.CANCELLED
    assert ending_of(course.check_goes_on) is Ending.CANCELLED


@pytest.mark.parametrize(
    ("lost", "cancelled", "ending"),
    [(True, True, Ending.LOST), (False, True, Ending.CANCELLED), (False, False, Ending.DRAINED)],
)
def test_what_comes_first_at_a_boundary(held: HeldLease, lost: bool, cancelled: bool, ending: Ending) -> None:
    course = Course(held, is_draining=lambda: True)
    if lost:
        held.mark_lost()
    if cancelled:
        held.mark_cancel_requested()
    assert ending_of(course.enter_boundary) is ending


def test_a_pause_is_written_when_all_others_are_recorded(course: Course) -> None:
    began, may_end, order = threading.Event(), threading.Event(), list[str]()

    def step() -> None:
        with course.busy("beside"):
            began.set()
            assert may_end.wait(5)
            order.append("recorded")

    def write(opened: tuple[Opened, ...]) -> Outcome:
        order.append(f"waits for {opened[0].wait.key}")
        return PAUSED

    beside = threading.Thread(target=step)
    beside.start()
    assert began.wait(5)
    threading.Timer(0.05, may_end.set).start()
    with course.busy("asks"), course.lock:
        assert ending_of(lambda: course.pause(OPENED, write, in_step=True)) is Ending.PAUSED
    beside.join(5)
    assert order == ["recorded", "waits for e"]
    assert course.is_written
    assert course.has_come_to_rest


def test_while_it_is_pausing_only_what_was_expected_is_still_taken(course: Course) -> None:
    course.expect()
    pausing, seen = threading.Event(), list[object]()

    def expected() -> None:
        assert pausing.wait(5)
        with pytest.raises(ExecutionStopped):
            course.enter_boundary()
        with course.busy("expected", is_expected=True):
            course.enter_boundary(is_expected=True)
            seen.append("taken")

    def pause() -> None:
        with course.lock:
            threading.Timer(0.05, pausing.set).start()
            course.pause(OPENED, lambda _: PAUSED, in_step=False)

    taking = threading.Thread(target=expected)
    taking.start()
    assert ending_of(pause) is Ending.PAUSED
    taking.join(5)
    assert seen == ["taken"]
    with pytest.raises(ExecutionStopped):
        course.enter_boundary(is_expected=True)


def test_nothing_is_written_after_the_outcome(course: Course) -> None:
    course.write_last(lambda: None)
    course.abandon()
    assert ending_of(lambda: course.write(pytest.fail, "written")) is Ending.LOST


def test_an_interrupt_in_a_write_is_known_before_the_lease_counts_as_lost(course: Course, held: HeldLease) -> None:
    """Else a step beside it finds the lease lost, unwinds the agent, and the interrupt is swallowed."""
    known: list[BaseException | None] = []
    interrupt = SystemExit()

    def write() -> None:
        raise interrupt

    with held.telling(lambda: known.append(course.interrupted_by)), pytest.raises(SystemExit):
        course.write(write)
    assert known == [interrupt]


def test_an_interrupt_ends_the_attempt_even_if_the_agents_code_catches_it(held: HeldLease) -> None:
    course = Course(held, is_exiting=lambda: True)
    with pytest.raises(KeyboardInterrupt), course.abandoned_by_interrupts:
        raise KeyboardInterrupt
    assert isinstance(course.interrupted_by, KeyboardInterrupt)
    assert ending_of(course.enter_boundary) is Ending.LOST
