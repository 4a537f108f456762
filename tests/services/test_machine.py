"""How slow the machine is decides how long is waited, and nothing else does."""

import subprocess
import sys

import pytest

from tests.services import machine as module
from tests.services.machine import USUAL_START_SECONDS, Machine, Patience, scaled, time_of_a_start, wait_for_exit


def test_a_worker_is_started_once_to_find_out(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = iter([(4 * USUAL_START_SECONDS, USUAL_START_SECONDS)])
    monkeypatch.setattr(module, "time_of_a_start", lambda: next(starts))
    machine = Machine()
    assert not machine.is_measured
    assert [machine.slowness, machine.slowness] == [4.0, 4.0]


def test_a_fast_machine_has_the_usual_limits() -> None:
    machine = Machine()
    machine.note_start(USUAL_START_SECONDS / 10)
    assert machine.slowness == 1.0


def test_what_is_noted_within_a_test_counts_from_the_next_one_on() -> None:
    machine = Machine()
    machine.note_start(USUAL_START_SECONDS)
    assert machine.slowness == 1.0
    machine.note_start(3 * USUAL_START_SECONDS)
    assert (machine.slowness, machine.latest) == (1.0, 3.0)
    machine.begin_test()
    assert machine.slowness == pytest.approx(3.0)


def test_a_load_that_is_over_is_forgotten() -> None:
    machine = Machine()
    machine.note_start(5 * USUAL_START_SECONDS)
    for _ in range(module.REMEMBERED):
        machine.note_start(USUAL_START_SECONDS)
    machine.begin_test()
    assert machine.slowness == 1.0


def test_a_process_that_a_test_starts_is_told() -> None:
    machine = Machine("2.5")
    machine.note_start(100 * USUAL_START_SECONDS)
    machine.begin_test()
    assert (machine.is_measured, machine.slowness, machine.latest) == (True, 2.5, 2.5)


def test_a_limit_is_stretched_and_the_usual_time_needs_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    patience = Patience(10)
    monkeypatch.setattr(module, "machine", None)  # asking it would fail
    now[0] += 9
    assert not patience.is_over
    monkeypatch.setattr(module, "machine", Machine("3"))
    now[0] += 20
    assert not patience.is_over
    now[0] += 2
    assert patience.is_over
    assert (str(patience), scaled(2)) == ("30 s", 6.0)


def test_a_process_that_does_not_end_is_told_apart_from_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "machine", Machine("2"))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            wait_for_exit(process, 0.1)
        process.kill()
        assert wait_for_exit(process, 10) == -9


@pytest.mark.crash
def test_a_worker_s_start_is_timed_whatever_the_settings_around_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTS_BROKER_URL", "amqp://nowhere")
    first, second = time_of_a_start(), time_of_a_start()
    assert first[0] > 0.01
    assert second[0] > 0.01
    assert second[1] == module.USUAL_WARM_START_SECONDS


def test_a_warm_start_is_held_against_its_own_usual_time() -> None:
    machine = Machine()
    machine.note_start(USUAL_START_SECONDS)
    machine.note_start(3 * module.USUAL_WARM_START_SECONDS, module.USUAL_WARM_START_SECONDS)
    assert machine.slowness == pytest.approx(3.0)
