"""The declared state machine."""

from agent_statestore.states import ACTIVE, OVER, PAUSED, TRANSITIONS, AgentState, may_move, sources_of


def test_every_state_has_its_arrows_declared() -> None:
    assert TRANSITIONS.keys() == set(AgentState)


def test_every_state_is_either_active_or_over() -> None:
    assert set(AgentState) == ACTIVE | OVER
    assert not ACTIVE & OVER
    assert PAUSED < ACTIVE
    assert {state for state in AgentState if state.is_over} == OVER
    assert {state for state in AgentState if state.is_paused} == PAUSED


def test_an_active_state_may_be_written_over_itself() -> None:
    assert all(may_move(state, state) for state in ACTIVE)


def test_nothing_leads_back_to_idle_except_the_release_of_a_failed_execution() -> None:
    assert sources_of(AgentState.IDLE) == {AgentState.IDLE, AgentState.FAILED}


def test_completed_and_cancelled_are_final() -> None:
    assert TRANSITIONS[AgentState.COMPLETED] == TRANSITIONS[AgentState.CANCELLED] == frozenset()
    assert TRANSITIONS[AgentState.FAILED] == {AgentState.IDLE}


def test_every_active_state_may_end_in_any_way() -> None:
    assert all(TRANSITIONS[state] >= OVER for state in ACTIVE)


def test_the_sources_are_the_arrows_read_backwards() -> None:
    for new in AgentState:
        assert sources_of(new) == {current for current in AgentState if may_move(current, new)}
