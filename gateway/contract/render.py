"""Findings as text, JSON and SARIF 2.1.0, and beside them what objectives can detect.

Law: pure; the same findings give the same bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from gateway.config.rules import DESCRIPTIONS, FindingRule
from gateway.contract.release import Prediction, releases_json, releases_text
from gateway.contract.tell import Told, slos_json, slos_text
from gateway.errors import Finding

FORMATS: Final = ("text", "json", "sarif")
SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What a check tells beside its findings: notes, objectives, and releases when one was named.

    A note says what is odd in a file and refuses nothing.
    """

    notes: Sequence[Finding] = ()
    slos: Sequence[Told] = ()
    releases: Sequence[Prediction] | None = None


def render(
    findings: Sequence[Finding], form: str, version: str = "", beside: Beside | None = None
) -> str:
    """Render findings, and what is told beside them, in one of FORMATS.

    SARIF has no place for objectives and releases. Raises: ValueError for another format.
    """
    if form == "text":
        parts = [render_text(findings)]
        if beside is not None:
            parts.append("".join(f"{line}\n" for line in _lines(beside.notes, "note: ")))
            parts += [slos_text(beside.slos), releases_text(beside.releases or ())]
        return "\n".join(part for part in parts if part)
    if form == "json":
        return render_json(findings, beside)
    if form == "sarif":
        return render_sarif(findings, version, () if beside is None else beside.notes)
    raise ValueError(f"write one of: {', '.join(FORMATS)}")


def render_text(findings: Sequence[Finding]) -> str:
    """Write one line per finding, with what to write instead below it."""
    lines = _lines(findings)
    count = len(findings)
    lines.append("no findings" if not count else f"{count} finding{'s' if count > 1 else ''}")
    return "\n".join(lines) + "\n"


def _lines(findings: Sequence[Finding], word: str = "") -> list[str]:
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{word}{_where(finding)}: {finding.message} [{finding.rule}]")
        if finding.instead:
            lines.append(f"    {finding.instead}")
    return lines


def _where(finding: Finding) -> str:
    if finding.line <= 0:
        return finding.file or "all files"
    return f"{finding.file}:{finding.line}:{finding.column}"


def render_json(findings: Sequence[Finding], beside: Beside | None = None) -> str:
    """Write an object with the list of findings, and what is told beside them."""
    told: dict[str, Any] = {"findings": _plain(findings)}
    if beside is not None:
        told["notes"] = _plain(beside.notes)
        told["slos"] = slos_json(beside.slos)
        if beside.releases is not None:
            told["releases"] = releases_json(beside.releases)
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def _plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
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


def render_sarif(
    findings: Sequence[Finding], version: str = "", notes: Sequence[Finding] = ()
) -> str:
    """Write a SARIF log; notes have the level of one. Source: OASIS SARIF 2.1.0."""
    rules = sorted({each.rule for each in (*findings, *notes)})
    driver: dict[str, Any] = {
        "name": "weir check",
        "rules": [{"id": rule, "shortDescription": {"text": _description(rule)}} for rule in rules],
    }
    if version:
        driver["version"] = version
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(each, rules.index(each.rule), level)
            for level, listed in (("error", findings), ("note", notes))
            for each in listed
        ],
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _description(rule: str) -> str:
    known = {each.value for each in FindingRule}
    return DESCRIPTIONS[FindingRule(rule)] if rule in known else rule


def _result(finding: Finding, rule_index: int, level: str) -> dict[str, Any]:
    text = f"{finding.message} ({finding.instead})" if finding.instead else finding.message
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": rule_index,
        "level": level,
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
