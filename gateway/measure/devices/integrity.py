"""Violations of integrity: something was not what it claimed to be.

Law: zero tolerance. The first violation of a model pages at once and stays until a person has
acknowledged that very page; what comes before that is counted in it, the next one after it is a
new page under the next number. Nothing here is suppressed, sampled or aged out.
Bounded: one open page per model; each names some traces and devices, and counts all.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, NO_SERIES, AnomalyKind, Batch, Evidence, Json, Severity, Team
from gateway.contract.plan import Plan
from gateway.measure.devices.causes import team_for
from gateway.measure.episodes import anomaly_id
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, pack_json, unpack_json
from gateway.measure.trouble import Trouble
from gateway.otlp.columns import booleans

VIOLATION_KEY: Final = "edgeai.integrity.violation"
EVIDENCE_MAX: Final = 32
DEVICES_MAX: Final = 256
# A violation that is told late began when it says; further back its clock is not believed.
LATE_NS_MAX: Final = 86_400 * SECOND_NS
SPAN_REASON: Final = "violated integrity"


@dataclass(slots=True, kw_only=True)
class _Page:
    """An open page. Units: onset_ns Unix nanoseconds; count of violations."""

    number: int
    version: str
    onset_ns: int
    count: int = 0
    device_side: int = 0  # of which have a cause that device-ops can mend
    devices: list[str] = field(default_factory=list)
    evidence: list[list[str]] = field(default_factory=list)  # trace id, device, reason


class Integrity:
    """Violations by model; those of no contract are those of the site, under an empty name."""

    def __init__(self, plan: Plan) -> None:
        self._slot = plan.slot_of[VIOLATION_KEY]
        self._models = tuple(contract.model for contract in plan.contracts)
        self._pages: dict[str, _Page] = {}
        self._numbers: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()

    def add(
        self,
        batch: Batch,
        *,
        contract: Array,
        series: Array,
        series_names: Sequence[tuple[str, str]],
        device: Array,
        devices: Sequence[str],
        event_ns: Int64,
    ) -> Int64:
        """Count the spans that say so, and return their rows.

        Shape: contract, series, device and event_ns (spans,); NO_CONTRACT and NO_SERIES for what is
        none. The page names the version of its first span.
        """
        if not np.count_nonzero(batch.slots[self._slot] >= 0):
            return np.zeros(0, dtype=np.int64)
        rows = np.flatnonzero(booleans(batch, self._slot) == 1)
        for index in np.unique(contract[rows]).tolist():
            some = rows[contract[rows] == index]
            first = int(series[some[0]])
            page = self._page(
                self._models[index] if index != NO_CONTRACT else "",
                series_names[first][1] if first != NO_SERIES else "",
                int(event_ns[some].min()),
                batch.arrival_ns,
                len(some),
            )
            for each in np.unique(device[some]).tolist():
                _add_device(page, devices[each])
            for row in some[: EVIDENCE_MAX - len(page.evidence)].tolist():
                span = batch.spans[row]
                trace = f"{int(span['trace_hi']):016x}{int(span['trace_lo']):016x}"
                page.evidence.append([trace, devices[int(device[row])], SPAN_REASON])
        return rows

    def violated(
        self, *, model: str, version: str, error: str, device: str, at_ns: int, arrival_ns: int
    ) -> int:
        """Count a violation that was declared; `error` is what was violated.

        Returns the contract that it counts for, NO_CONTRACT when its model has none.
        """
        known = model if model in self._models else ""
        page = self._page(known, version if known else "", at_ns, arrival_ns, 1)
        page.device_side += team_for(error) is Team.DEVICE_OPS
        _add_device(page, device)
        return self._models.index(known) if known else NO_CONTRACT

    def _page(self, model: str, version: str, at_ns: int, arrival_ns: int, count: int) -> _Page:
        page = self._pages.get(model)
        if page is None:
            self._numbers[model] += 1
            onset_ns = min(max(at_ns, arrival_ns - LATE_NS_MAX), arrival_ns)
            page = _Page(number=self._numbers[model], version=version, onset_ns=onset_ns)
            self._pages[model] = page
        page.count += count
        self.violations[model] += count
        return page

    def acknowledge(self, anomaly: str) -> bool:
        """Close the page with this anomaly id; False when there is none."""
        for model, page in list(self._pages.items()):
            if anomaly == self.anomaly(model, page):
                del self._pages[model]
                return True
        return False

    @staticmethod
    def anomaly(model: str, page: _Page) -> str:
        """Return the id of the anomaly that a page becomes."""
        return anomaly_id(AnomalyKind.INTEGRITY, model, page.version, _subject(page), page.onset_ns)

    @property
    def latched(self) -> tuple[str, ...]:
        """Models whose page is open."""
        return tuple(self._pages)

    def troubles(self) -> list[Trouble]:
        """List all open pages."""
        return [
            Trouble(
                kind=AnomalyKind.INTEGRITY,
                severity=Severity.PAGE,
                team=Team.DEVICE_OPS
                if page.device_side > page.count - page.device_side
                else Team.ML_ENGINEERING,
                contract=self._models.index(model) if model else NO_CONTRACT,
                model=model,
                version=page.version,
                subject=_subject(page),
                summary=f"integrity of {model or 'something without a contract'} was violated "
                f"{page.count} times; this stays open until somebody acknowledges it",
                onset_ns=page.onset_ns,
                numbers={
                    "violations": page.count,
                    "violations_total": self.violations[model],
                    "devices": len(page.devices),
                },
                evidence=tuple(
                    Evidence(trace_id=trace, device=device, reason=reason)
                    for trace, device, reason in page.evidence
                ),
            )
            for model, page in self._pages.items()
        ]

    def state(self) -> State:
        """Write everything as text."""
        return _written(self._pages, self._numbers, self.violations)

    def restore(self, state: Mapping[str, Array]) -> None:
        """Read everything back; a page of a model without a contract becomes one of the site."""
        pages, self._numbers, self.violations = _read(state)
        for model, page in pages.items():
            if model in self._models or not model:
                self._pages[model] = page
            else:
                self._pages[""] = _joined(self._pages[""], page) if "" in self._pages else page
                self._numbers[""] = max(self._numbers[""], page.number)


def _subject(page: _Page) -> str:
    return f"violation {page.number}"


def _add_device(page: _Page, name: str) -> None:
    if name and name not in page.devices and len(page.devices) < DEVICES_MAX:
        page.devices.append(name)


def _joined(first: _Page, second: _Page) -> _Page:
    earlier = min(first, second, key=lambda page: (page.onset_ns, page.version))
    devices = sorted({*first.devices, *second.devices})[:DEVICES_MAX]
    evidence = sorted([*first.evidence, *second.evidence])[:EVIDENCE_MAX]
    return _Page(
        number=max(first.number, second.number),
        version=earlier.version,
        onset_ns=earlier.onset_ns,
        count=first.count + second.count,
        device_side=first.device_side + second.device_side,
        devices=devices,
        evidence=evidence,
    )


def _written(pages: Mapping[str, _Page], numbers: Counter[str], total: Counter[str]) -> State:
    text: Json = {
        "pages": {model: dataclasses.asdict(page) for model, page in pages.items()},
        "numbers": dict(numbers),
        "violations": dict(total),
    }
    return {"text": pack_json(text)}


def _read(state: Mapping[str, Array]) -> tuple[dict[str, _Page], Counter[str], Counter[str]]:
    text = unpack_json(state["text"])
    pages = {model: _Page(**page) for model, page in text["pages"].items()}
    return pages, Counter(text["numbers"]), Counter(text["violations"])


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states by model; two open pages of a model become one."""
    one, numbers, total = _read(first)
    two, more_numbers, more = _read(second)
    pages = {
        model: _joined(one[model], two[model])
        if model in one and model in two
        else one.get(model) or two[model]
        for model in sorted({*one, *two})
    }
    return _written(pages, numbers | more_numbers, total + more)
