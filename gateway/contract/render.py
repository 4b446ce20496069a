"""Findings as text, JSON and SARIF 2.1.0, and what the objectives can detect as text.

Law: pure; the same findings give the same bytes.
"""

import json
import math
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from gateway.config.rules import DESCRIPTIONS, FindingRule
from gateway.config.units import format_duration
from gateway.contract.schema import Contract
from gateway.contract.slo import detections
from gateway.errors import Finding

FORMATS: Final = ("text", "json", "sarif")
SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def render(findings: Sequence[Finding], form: str, version: str = "") -> str:
    """Render findings in one of FORMATS. Raises: ValueError for another one."""
    if form == "text":
        return render_text(findings)
    if form == "json":
        return render_json(findings)
    if form == "sarif":
        return render_sarif(findings, version)
    raise ValueError(f"write one of: {', '.join(FORMATS)}")


def render_text(findings: Sequence[Finding]) -> str:
    """Write one line per finding, with what to write instead below it."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{_where(finding)}: {finding.message} [{finding.rule}]")
        if finding.instead:
            lines.append(f"    {finding.instead}")
    count = len(findings)
    lines.append("no findings" if not count else f"{count} finding{'s' if count > 1 else ''}")
    return "\n".join(lines) + "\n"


def _where(finding: Finding) -> str:
    if finding.line <= 0:
        return finding.file or "all files"
    return f"{finding.file}:{finding.line}:{finding.column}"


def render_json(findings: Sequence[Finding]) -> str:
    """Write an object with the list of findings."""
    content = [
        {
            "file": finding.file,
            "line": finding.line,
            "column": finding.column,
            "rule": finding.rule,
            "message": finding.message,
            "instead": finding.instead,
        }
        for finding in findings
    ]
    return json.dumps({"findings": content}, indent=2, ensure_ascii=False) + "\n"


def render_sarif(findings: Sequence[Finding], version: str = "") -> str:
    """Write a SARIF log. Source: OASIS SARIF 2.1.0."""
    rules = sorted({finding.rule for finding in findings})
    driver: dict[str, Any] = {
        "name": "weir check",
        "rules": [{"id": rule, "shortDescription": {"text": _description(rule)}} for rule in rules],
    }
    if version:
        driver["version"] = version
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, rules.index(finding.rule)) for finding in findings],
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _description(rule: str) -> str:
    known = {each.value for each in FindingRule}
    return DESCRIPTIONS[FindingRule(rule)] if rule in known else rule


def _result(finding: Finding, rule_index: int) -> dict[str, Any]:
    text = f"{finding.message} ({finding.instead})" if finding.instead else finding.message
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": "error",
        "message": {"text": text},
    }
    # Options and embedded defaults are no files: they have no place in an artifact.
    if finding.file and not finding.file.startswith(("--", "<")):
        location: dict[str, Any] = {"artifactLocation": {"uri": _uri(finding.file)}}
        if finding.line > 0:
            location["region"] = {"startLine": finding.line, "startColumn": finding.column}
        result["locations"] = [{"physicalLocation": location}]
    return result


def _uri(file: str) -> str:
    """Write a path as a URI reference: absolute as file:, relative as it is, percent-encoded."""
    absolute = PurePosixPath("/", file).as_uri()
    return absolute if file.startswith("/") else absolute.removeprefix("file:///")


def render_slos(contracts: Sequence[Contract]) -> str:
    """Write for each objective what its alerts need, how soon they fire and what that costs."""
    lines: list[str] = []
    for contract in contracts:
        for slo in contract.slos:
            window = format_duration(slo.window)
            lines.append(f"{contract.model} {slo.name}: {slo.objective:g} over {window}")
            for each in detections(slo):
                lines.append(
                    f"    {each.window.severity:6} {format_duration(each.window.long_s):>3}"
                    f" at {each.window.factor:g}x: needs {each.error_ratio:.2%} bad,"
                    f" finds total failure {_span(each.total_s)},"
                    f" one tenth {_span(each.tenth_s)},"
                    f" at {each.budget_ratio:.2%} of the budget;"
                    f" one bad event of {each.single_event_count} fires it"
                )
    return "\n".join(lines) + "\n" if lines else ""


def _span(duration_s: float) -> str:
    if math.isinf(duration_s):
        return "never"
    if duration_s < 60:
        return f"in {duration_s:.0f} s"
    return f"in {duration_s / 60:.1f} min"
