"""What the records refuse by themselves, before any store is asked."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent_statestore import AgentState, Checkpoint, InvalidRecord, NewExecution, Wait, WaitKind
from agent_statestore.testing.kit.builders import done

LAST = datetime(2255, 6, 5, 23, 47, 34, 740990, tzinfo=UTC)
FAR = [LAST + timedelta(microseconds=1), datetime.max.replace(tzinfo=UTC)]


@pytest.mark.parametrize("moment", FAR)
def test_no_bell_can_be_rung_beyond_what_every_store_can_keep(moment: datetime) -> None:
    """One such execution on Redis would make every list of executions fail."""
    with pytest.raises(InvalidRecord, match="start_at"):
        NewExecution(agent_id="a", start_at=moment)
    waiting = Wait(kind=WaitKind.TIMER, key="t", asked_at=LAST, wake_at=moment)
    with pytest.raises(InvalidRecord, match="wake_at"):
        Checkpoint(state=AgentState.WAITING, waits=(waiting,))


def test_a_delay_of_more_than_a_hundred_years_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="first_ring"):
        NewExecution(agent_id="a", first_ring=timedelta.max)
    with pytest.raises(InvalidRecord, match="announce_within"):
        Checkpoint(state=AgentState.COMPLETED, announce_within=timedelta.max)


def test_the_last_moment_is_taken() -> None:
    assert NewExecution(agent_id="a", start_at=LAST).start_at == LAST


@pytest.mark.parametrize(
    "amount", [-1, math.nan, math.inf, 10**400, pytest.param(10**5000, id="longest"), 10**16, True, "1", None]
)
def test_a_step_refuses_to_have_spent_what_is_no_amount(amount: Any) -> None:
    with pytest.raises(InvalidRecord, match="needs a number"):
        replace(done(1), spent={"tokens": amount})
