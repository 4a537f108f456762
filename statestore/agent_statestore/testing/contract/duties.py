"""`take_duty`: what one process at a time does for all."""

from datetime import timedelta
from functools import partial

import pytest

from agent_statestore.clock import ManualClock
from agent_statestore.contract import Duty
from agent_statestore.errors import InvalidRecord
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import INSTANT
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import all_succeeded, together

TTL = timedelta(seconds=10)
NONE = timedelta(0)
THREADS = 4


class DutyConformance(Suite):
    """Who has a duty, and until when."""

    def test_a_duty_has_one_owner_until_its_time_is_over(self, store: Store, clock: ManualClock) -> None:
        assert store.take_duty("sweep", "a", TTL) == Duty(owner="a", left=TTL)
        assert store.take_duty("other", "b", TTL) == Duty(owner="b", left=TTL)
        clock.advance(TTL - INSTANT)
        assert store.take_duty("sweep", "b", TTL) == Duty(owner="a", left=INSTANT)
        clock.advance(INSTANT)
        assert store.take_duty("sweep", "b", TTL) == Duty(owner="b", left=TTL)
        assert store.take_duty("sweep", "a", TTL) == Duty(owner="b", left=TTL)

    def test_an_owner_keeps_its_duty_by_taking_it_again(self, store: Store, clock: ManualClock) -> None:
        store.take_duty("sweep", "a", TTL)
        for _ in range(3):
            clock.advance(TTL - INSTANT)
            assert store.take_duty("sweep", "a", TTL) == Duty(owner="a", left=TTL)
            assert store.take_duty("sweep", "b", TTL) == Duty(owner="a", left=TTL)
        clock.advance(TTL)
        assert store.take_duty("sweep", "a", TTL) == Duty(owner="a", left=TTL)

    def test_a_duty_that_is_given_up_is_free_at_once(self, store: Store) -> None:
        assert store.take_duty("sweep", "a", NONE) == Duty(owner="a", left=NONE)
        store.take_duty("sweep", "b", TTL)
        assert store.take_duty("sweep", "a", NONE) == Duty(owner="b", left=TTL), "it is not a's to give up"
        assert store.take_duty("sweep", "b", NONE) == Duty(owner="b", left=NONE)
        assert store.take_duty("sweep", "a", TTL) == Duty(owner="a", left=TTL)

    def test_a_duty_can_be_taken_from_its_owner(self, store: Store) -> None:
        assert store.take_duty("sweep", "a", TTL, instead=True) == Duty(owner="a", left=TTL)
        assert store.take_duty("sweep", "b", TTL, instead=True) == Duty(owner="b", left=TTL)
        assert store.take_duty("sweep", "a", TTL) == Duty(owner="b", left=TTL)

    def test_any_text_names_a_duty_and_its_owner(self, store: Store) -> None:
        for name in ("a:b", "é/1", "x" * 255, "A", "a", "1 "):
            store.take_duty(name, name, TTL)
            assert store.take_duty(name, "another", TTL) == Duty(owner=name, left=TTL), name

    def test_one_of_several_gets_a_duty(self, store: Store) -> None:
        for _ in range(3):
            calls = [partial(store.take_duty, "sweep", f"owner-{number}", TTL) for number in range(THREADS)]
            taken = all_succeeded(together(*calls))
            assert len({duty.owner for duty in taken}) == 1, taken
            assert store.take_duty("sweep", taken[0].owner, NONE).left == NONE

    def test_clear_makes_duties_free(self, store: Store) -> None:
        store.take_duty("sweep", "a", TTL)
        store.clear()
        assert store.take_duty("sweep", "b", TTL) == Duty(owner="b", left=TTL)

    def test_what_is_no_duty_is_refused(self, store: Store) -> None:
        for duty, owner, ttl in (("", "a", TTL), ("sweep", "", TTL), ("sweep", "a", -INSTANT), ("a\0", "a", TTL)):
            with pytest.raises(InvalidRecord):
                store.take_duty(duty, owner, ttl)
