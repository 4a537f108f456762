"""`take_rate`: how often something may start."""

import random
from datetime import timedelta

import pytest

from agent_statestore.clock import ManualClock
from agent_statestore.errors import InvalidRecord
from agent_statestore.records import Turn
from agent_statestore.rules.rates import LONGEST_LINE, BucketState, asked
from agent_statestore.store import Store
from agent_statestore.testing.kit.builders import INSTANT, create
from agent_statestore.testing.kit.suite import Suite
from agent_statestore.testing.kit.together import all_succeeded, together

MINUTE = timedelta(minutes=1)
GAP = timedelta(seconds=6)  # between two turns of ten a minute
NONE = timedelta(0)
TAKEN = Turn(wait=NONE, is_taken=True)
THREADS = 4


def promised(wait: timedelta) -> Turn:
    """Return a promise."""
    return Turn(wait=wait, is_taken=False, is_promised=True)


class RateConformance(Suite):
    """Turns and lines."""

    def test_turns_are_evenly_spaced(self, store: Store, clock: ManualClock) -> None:
        assert store.take_rate("mail", 10, MINUTE) == TAKEN
        clock.advance(GAP - INSTANT)
        assert store.take_rate("mail", 10, MINUTE) == promised(INSTANT)
        clock.advance(INSTANT)
        assert store.take_rate("mail", 10, MINUTE, promised=True) == TAKEN
        clock.advance(GAP)
        assert store.take_rate("mail", 10, MINUTE) == TAKEN

    def test_a_period_that_the_limit_does_not_divide_never_has_one_more(self, store: Store, clock: ManualClock) -> None:
        second = timedelta(seconds=1)
        assert store.take_rate("mail", 3, second) == TAKEN
        clock.advance(second // 3)
        assert store.take_rate("mail", 3, second) == promised(INSTANT)

    def test_who_comes_too_early_is_promised_a_time_behind_all_others(self, store: Store, clock: ManualClock) -> None:
        store.take_rate("mail", 10, MINUTE)
        assert [store.take_rate("mail", 10, MINUTE) for _ in range(3)] == [promised(GAP * n) for n in (1, 2, 3)]
        clock.advance(GAP)
        assert store.take_rate("mail", 10, MINUTE) == promised(GAP * 3)
        assert store.take_rate("mail", 10, MINUTE, promised=True) == TAKEN

    def test_a_turn_that_comes_soon_enough_is_taken_before_its_time(self, store: Store, clock: ManualClock) -> None:
        store.take_rate("mail", 10, MINUTE)
        assert store.take_rate("mail", 10, MINUTE, within=GAP - INSTANT) == promised(GAP)
        store.clear()
        store.take_rate("mail", 10, MINUTE)
        assert store.take_rate("mail", 10, MINUTE, within=GAP) == Turn(wait=GAP, is_taken=True)
        assert store.take_rate("mail", 10, MINUTE, within=GAP * 2) == Turn(wait=GAP * 2, is_taken=True)
        clock.advance(GAP * 2)
        assert store.take_rate("mail", 10, MINUTE) == promised(GAP)

    def test_a_newcomer_does_not_pass_those_who_were_promised_a_time(self, store: Store, clock: ManualClock) -> None:
        store.take_rate("mail", 10, MINUTE)
        store.take_rate("mail", 10, MINUTE)
        clock.advance(GAP)
        assert store.take_rate("mail", 10, MINUTE, within=MINUTE) == promised(GAP)

    def test_those_who_come_late_follow_each_other_at_the_distance_of_turns(
        self, store: Store, clock: ManualClock
    ) -> None:
        for _ in range(4):
            store.take_rate("mail", 10, MINUTE)
        clock.advance(GAP * 3)
        late = [store.take_rate("mail", 10, MINUTE, promised=True, within=GAP) for _ in range(3)]
        assert late[:2] == [TAKEN, Turn(wait=GAP, is_taken=True)]
        # The last one's turn would be two gaps from now, which is not soon enough: it goes to the end of the line.
        assert late[2] == promised(GAP * 2)

    def test_a_line_whose_members_do_not_come_ends(self, store: Store, clock: ManualClock) -> None:
        for _ in range(3):
            store.take_rate("mail", 10, MINUTE)
        clock.advance(GAP * 3)
        assert store.take_rate("mail", 10, MINUTE) == TAKEN

    def test_nothing_is_promised_beyond_the_longest_line(self, store: Store, clock: ManualClock) -> None:
        gap = LONGEST_LINE / 2
        store.take_rate("mail", 2, LONGEST_LINE)
        assert [store.take_rate("mail", 2, LONGEST_LINE) for _ in range(2)] == [promised(gap), promised(gap * 2)]
        full = Turn(wait=LONGEST_LINE, is_taken=False)
        assert [store.take_rate("mail", 2, LONGEST_LINE) for _ in range(2)] == [full, full]
        clock.advance(INSTANT)
        assert store.take_rate("mail", 2, LONGEST_LINE) == full
        clock.advance(gap)
        assert store.take_rate("mail", 2, LONGEST_LINE) == promised(LONGEST_LINE - INSTANT)

    def test_turns_further_apart_than_the_longest_line_are_promised(self, store: Store) -> None:
        day = timedelta(days=1)
        store.take_rate("mail", 1, day)
        assert store.take_rate("mail", 1, day) == promised(day)
        assert store.take_rate("mail", 1, day) == Turn(wait=day, is_taken=False)

    def test_buckets_know_nothing_of_each_other(self, store: Store) -> None:
        names = ["mail", "Mail", "mail ", "mäil", "a:b", "{p00}", "x" * 255]
        assert [store.take_rate(name, 1, MINUTE) for name in names] == [TAKEN] * len(names)
        assert [store.take_rate(name, 1, MINUTE) for name in names] == [promised(MINUTE)] * len(names)

    def test_every_answer_is_that_of_the_rule(self, store: Store, clock: ManualClock) -> None:
        chance, line = random.Random(4), None
        for _ in range(200):
            question = {
                "limit": chance.choice([1, 2, 7]),
                "per": chance.choice([timedelta(seconds=1), MINUTE, timedelta(hours=1)]),
                "within": chance.choice([NONE, timedelta(milliseconds=300), timedelta(seconds=5)]),
                "promised": chance.random() < 0.5,
            }
            expected: Turn
            line, expected = asked("mail", **question).answer(line, clock.now_us())  # type: ignore[arg-type]
            assert isinstance(line, BucketState)
            assert store.take_rate("mail", **question) == expected  # type: ignore[arg-type]
            clock.advance(timedelta(microseconds=chance.randrange(3_000_000)))

    @pytest.mark.parametrize(
        ("bucket", "limit", "per", "within"),
        [
            ("", 1, MINUTE, NONE),
            ("x" * 256, 1, MINUTE, NONE),
            ("a\0b", 1, MINUTE, NONE),
            ("mail", 0, MINUTE, NONE),
            ("mail", True, MINUTE, NONE),
            ("mail", 1.5, MINUTE, NONE),
            ("mail", 1, NONE, NONE),
            ("mail", 1, 60, NONE),
            ("mail", 1, MINUTE, -INSTANT),
        ],
    )
    def test_what_is_no_rate_is_refused(
        self, store: Store, bucket: str, limit: int, per: timedelta, within: timedelta
    ) -> None:
        with pytest.raises(InvalidRecord):
            store.take_rate(bucket, limit, per, within=within)

    def test_a_clock_that_was_ahead_and_is_set_back_stops_nobody(self, store: Store, clock: ManualClock) -> None:
        clock.advance(timedelta(days=1))
        assert store.take_rate("mail", 10, MINUTE) == TAKEN
        assert store.take_rate("mail", 10, MINUTE) == promised(GAP)
        clock.advance(-timedelta(days=1))
        assert store.take_rate("mail", 10, MINUTE) == TAKEN
        assert store.take_rate("mail", 10, MINUTE) == promised(GAP)
        clock.advance(-MINUTE)
        assert store.take_rate("mail", 10, MINUTE) == promised(MINUTE + GAP * 2)

    def test_clearing_and_tidying_forget_rates(self, store: Store, clock: ManualClock) -> None:
        create(store)
        store.take_rate("mail", 1, MINUTE)
        store.take_rate("mail", 1, MINUTE)
        assert store.clear() == 1
        assert store.take_rate("mail", 1, MINUTE) == TAKEN
        store.tidy()
        assert store.take_rate("mail", 1, MINUTE) == promised(MINUTE)
        clock.advance(MINUTE * 3)
        store.tidy()
        assert store.take_rate("mail", 1, MINUTE) == TAKEN

    def test_of_many_threads_each_gets_a_turn_of_its_own(self, store: Store) -> None:
        for number in range(5):
            calls = [lambda name=f"mail {number}": store.take_rate(name, 10, MINUTE) for _ in range(THREADS)]
            turns = all_succeeded(together(*calls))
            assert sorted(turn.wait for turn in turns) == [GAP * n for n in range(THREADS)]
            assert [turn.is_taken for turn in turns].count(True) == 1
