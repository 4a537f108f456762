"""What the demo claims: each claim is checked against the store's records, the ledgers of calls, and the files.

Nothing in here trusts what the demo itself saw while it ran.
"""

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_statestore import AgentContext, AgentState

QUESTION: Final = "ask"
SIDE_EFFECT: Final = "write_report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One execution after its end: what the store says, which step functions were called, and the file it wrote."""

    context: AgentContext
    calls: Sequence[str]
    report: Path

    @property
    def names(self) -> list[str]:
        """Return the recorded steps, by number."""
        return [step.name for step in self.context.steps]

    @property
    def is_report_wanted(self) -> bool:
        """Return whether the person wants the report."""
        return any(step.name == QUESTION and step.result and step.result.output == "yes" for step in self.context.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim, whether it holds, and what shows it."""

    claim: str
    holds: bool
    evidence: str


def prove(killed: Ran, undisturbed: Ran, *, recorded_at_kill: int, exit_code: int | None) -> list[Check]:
    """Return all claims. `recorded_at_kill` is the number of steps in the store once the worker was dead."""
    return [
        _killed_in_the_middle(killed, recorded_at_kill, exit_code),
        _taken_over(killed, recorded_at_kill),
        _no_recorded_step_ran_again(killed, recorded_at_kill),
        _only_the_step_in_flight_repeated(killed, recorded_at_kill),
        _each_recorded_once(killed, undisturbed),
        _side_effect_once(killed),
        _same_report(killed, undisturbed),
    ]


def _killed_in_the_middle(killed: Ran, recorded: int, exit_code: int | None) -> Check:
    asked = killed.names.index(QUESTION) if QUESTION in killed.names else len(killed.names)
    how = "by SIGKILL" if exit_code == -signal.SIGKILL else f"with exit code {exit_code}"
    return Check(
        claim="killed in the middle",
        holds=exit_code == -signal.SIGKILL and 0 < recorded < asked,
        evidence=f"after step {recorded} of {len(killed.names)}, {how}",
    )


def _taken_over(killed: Ran, recorded: int) -> Check:
    before = {step.attempt for step in killed.context.steps[:recorded]}
    after = {step.attempt for step in killed.context.steps[recorded:]}
    return Check(
        claim="another worker went on",
        holds=killed.context.state is AgentState.COMPLETED and before == {1} and bool(after) and min(after) > 1,
        evidence=f"steps 1-{recorded} in attempt {_listed(before)}, the rest in {_listed(after)}",
    )


def _no_recorded_step_ran_again(killed: Ran, recorded: int) -> Check:
    called = Counter(killed.calls)
    wrong = [name for name in killed.names[:recorded] if called[name] != 1]
    return Check(
        claim="no recorded step ran again",
        holds=not wrong,
        evidence=_called(wrong, called) or f"{recorded} steps were recorded, each called once",
    )


def _only_the_step_in_flight_repeated(killed: Ran, recorded: int) -> Check:
    called = Counter(killed.calls)
    later = [name for name in killed.names[recorded:] if name != QUESTION]
    in_flight = later[0] if later else None
    wrong = [name for name in later if not 1 <= called[name] <= (2 if name == in_flight else 1)]
    wrong += sorted(set(called) - set(killed.names))
    times = "twice" if in_flight and called[in_flight] == 2 else "once"
    return Check(
        claim="one step lost at most",
        holds=not wrong and in_flight is not None,
        evidence=_called(wrong, called) or f"step {recorded + 1}: called {times}, recorded once",
    )


def _each_recorded_once(killed: Ran, undisturbed: Ran) -> Check:
    steps = killed.context.steps
    faults = []
    if [step.step_number for step in steps] != list(range(1, len(steps) + 1)):
        faults.append("their numbers have gaps")
    if len(set(killed.names)) != len(steps):
        faults.append("some are there twice")
    if not all(step.result is not None and step.result.success for step in steps):
        faults.append("some have no good result")
    if killed.names != undisturbed.names:
        faults.append("undisturbed they are others")
    return Check(
        claim="every step recorded once",
        holds=not faults,
        evidence=f"{len(steps)} steps: {', '.join(faults) or 'no gap, same as undisturbed'}",
    )


def _side_effect_once(killed: Ran) -> Check:
    times = Counter(killed.calls)[SIDE_EFFECT]
    wanted, exists = killed.is_report_wanted, killed.report.is_file()
    return Check(
        claim="the side effect once" if wanted else "no side effect",
        holds=(times, exists) == ((1, True) if wanted else (0, False)),
        evidence=f"{SIDE_EFFECT}: {times} call{'s' * (times != 1)}, file {'there' if exists else 'not there'}",
    )


def _same_report(killed: Ran, undisturbed: Ran) -> Check:
    """Compare the hashes of the texts, and if the files were wanted compare those byte by byte."""
    digests = [(ran.context.output or {}).get("report_sha256") for ran in (killed, undisturbed)]
    holds = digests[0] is not None and digests[0] == digests[1]
    evidence = f"same sha256 in both: {str(digests[0])[:12]}..."
    if holds and killed.is_report_wanted:
        written = [ran.report.read_bytes() if ran.report.is_file() else None for ran in (killed, undisturbed)]
        holds = written[0] is not None and written[0] == written[1]
        evidence = f"{len(written[0] or b'')} bytes, identical in both"
    return Check(claim="report as if undisturbed", holds=holds, evidence=evidence if holds else "the two differ")


def _called(wrong: Sequence[str], called: Counter[str]) -> str:
    """Return how often the steps were called that were not called as they should be."""
    shown = ", ".join(f"{name}: {called[name]} calls" for name in wrong[:2])
    return shown + (f", and {len(wrong) - 2} more" if len(wrong) > 2 else "")


def _listed(attempts: set[int]) -> str:
    return " and ".join(map(str, sorted(attempts))) or "none"
