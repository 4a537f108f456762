"""The agent: one durable step per installed distribution, a question to a person, and a report."""

import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt

from celery_agents import Run, agent, tool
from celery_agents.demo.environment_audit import inspection
from celery_agents.demo.environment_audit.inspection import Finding, Installed
from celery_agents.demo.environment_audit.ledger import note
from celery_agents.demo.environment_audit.report import render, write_once_complete

WRITE, DO_NOT_WRITE = "yes", "no"


class AuditRequest(BaseModel):
    """What to audit, and where to put the report.

    `search_path` lists the folders to look in; the default are those of the worker's own Python. `limit` audits only
    that many distributions. Every call of a step's function leaves a line in `ledger`, so that a reader can compare
    what ran with what was recorded. Each audit takes at least `seconds_per_audit`, so that a reader can follow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    report: Path
    ledger: Path | None = None
    search_path: list[str] | None = None
    limit: PositiveInt | None = None
    seconds_per_audit: NonNegativeFloat = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """The agent's output: `written` is None if the person did not want the report, whose hash is there in any case."""

    totals: inspection.Totals
    report_sha256: str
    written: Path | None


@agent(name="environment_audit", max_steps=100_000)
def environment_audit(run: Run, request: AuditRequest) -> AuditOutcome:
    """Audit a Python environment and write a report, if a person agrees."""
    installed = run.step("list distributions", list_distributions, request)
    required_by = run.step("map dependents", map_dependents, request)

    findings: list[Finding] = []
    for name in installed.names[: request.limit]:
        finding = run.step(f"audit {name}", audit, request, name, required_by.get(name, []))
        findings.append(finding)
        run.memory["totals"] = inspection.total(findings).as_json()
        if not finding.is_intact:
            run.say("assistant", f"{name}: {finding.integrity_in_words}")

    totals = inspection.total(findings)
    report = render(installed, findings)
    answer = run.ask(
        f"Audited {totals.in_words}. Write the report to {request.report.name}?", choices=[WRITE, DO_NOT_WRITE]
    )
    written = run.tool(write_report, request.report, report, request.ledger) if answer == WRITE else None
    return AuditOutcome(totals=totals, report_sha256=sha256(report.encode()).hexdigest(), written=written)


def list_distributions(request: AuditRequest) -> Installed:
    """List what there is to audit: it is recorded, so that a resumed execution audits the same."""
    note(request.ledger, "list distributions")
    return inspection.find_installed(request.search_path)


def map_dependents(request: AuditRequest) -> dict[str, list[str]]:
    """Say who requires whom, once for all distributions."""
    note(request.ledger, "map dependents")
    return inspection.find_dependents(request.search_path)


def audit(request: AuditRequest, name: str, required_by: list[str]) -> Finding:
    """Audit one distribution: the step that is taken for each."""
    note(request.ledger, f"audit {name}")
    time.sleep(request.seconds_per_audit)
    return inspection.inspect_distribution(name, required_by, request.search_path)


@tool
def write_report(path: Path, text: str, ledger: Path | None = None) -> Path:
    """Write the report: the one thing that this agent does to the world."""
    note(ledger, "write_report")
    write_once_complete(path, text)
    return path
