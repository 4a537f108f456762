"""What the scripted model says: it asks for the place, looks, proposes, books when somebody agrees, and says goodbye.

It goes by the conversation alone, so whoever asks again after a crash gets the same answer again.
"""

from collections.abc import Sequence
from typing import Final

from celery_agents.testing.llm import Call, Calls, Conversation, Reply, Says, Turn

_PLACES: Final = ("Lisbon", "Porto", "Faro")
_COMPARED: Final = (
    "I found three houses that are small, close to the water and away from the main road.\n\n"
    "Casa do Mar stands above the beach of Ericeira; you hear the waves, and nothing else, and the bakery next door "
    "opens at seven. Pensão Aurora is in a lane of Cascais where no car may go, the simplest of the three and the "
    "cheapest. Quinta das Dunas lies among pines on the coast of Sintra, with a garden, and breakfast is included.\n\n"
)


def script(conversation: Conversation) -> Reply:
    """Answer as a sensible model would."""
    now = _since_last_answer(conversation.turns)
    wishes = " ".join(turn.text for turn in now if turn.role == "user").lower()
    results = _results(now)
    booking = results.get("book_stay", "")
    if booking.startswith("booked"):
        return Says(f"Done: I have {booking}. The confirmation is on its way to you. Have a good rest by the sea.")
    if "ApprovalDenied" in booking:
        return Says("I have booked nothing, as you wish. Tell me what you would like instead.")
    if "search_stays" in results:
        return _proposal(wishes)
    told = f"{wishes} {results.get('ask_traveller', '')}".lower()
    place = next((each for each in _PLACES if each.lower() in told), None)
    if place is None:
        question = {"question": "Near which town shall I look?", "choices": list(_PLACES)}
        return Calls(
            Call("ask_traveller", question), text="With pleasure. There is one thing that I have to know first."
        )
    return Calls(
        Call("search_stays", {"place": place, "nights": 3}),
        text=f"Let me see what is free by the sea near {place}, for three nights.",
    )


def _proposal(wishes: str) -> Reply:
    stay, why = "Casa do Mar", "for its view and its silence"
    if "cheap" in wishes:
        stay, why = "Pensão Aurora", "as it should be cheaper"
    breakfast = "breakfast" in wishes
    also = ", with breakfast as you said" if breakfast else ""
    booking = {"stay": stay, "nights": 3, "guests": 2, "breakfast": breakfast, "note": "a quiet room, please"}
    text = f"{_COMPARED}I would take {stay}, {why}{also}. Please look at the booking before I send it."
    return Calls(Call("book_stay", booking), text=text)


def _since_last_answer(turns: Sequence[Turn]) -> list[Turn]:
    """Return what came after the last answer that called for nothing."""
    ends = [place for place, turn in enumerate(turns) if turn.role == "assistant" and not turn.calls]
    return list(turns[ends[-1] + 1 if ends else 0 :])


def _results(turns: Sequence[Turn]) -> dict[str, str]:
    """Return what each tool has returned last, by its name."""
    results: dict[str, str] = {}
    called: list[str] = []
    for turn in turns:
        if turn.role == "assistant":
            called = list(turn.calls)
        elif turn.role == "tool" and called:
            results[called.pop(0)] = turn.text
    return results
