"""What objectives can detect, how soon and at what cost, for people and for programs.

Law: pure; every figure follows from the objective alone, starting from clean windows: the error
share needed is f·B, the time until a pair fires f·B·W/e at an error share e, the budget spent by
then f·W/P, and one bad event is above the factor among fewer than 1/(f·B) events. Figures are of
the plain condition; a page needs statistical support as well, without which it is a ticket.
Complexity: linear in the alerts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.batch import Severity
from gateway.config.units import DAY, HOUR, MINUTE, format_duration, format_size
from gateway.contract.schema import Contract, Indicator, Slo
from gateway.contract.slo import Detection, budget_of, detections

# A total breach that is found later than this is worth a sentence.
PAGE_S_MAX: Final = 15 * MINUTE
# A device or label that is late counts as bad only after its threshold.
_DELAYED: Final = frozenset({Indicator.FRESHNESS, Indicator.LABEL_LAG})
# Devices of a rollout are few: so many bad ones are hardly chance when the exact binomial
# probability of at least so many is below this.
COUNT_PROBABILITY_MAX: Final = 0.01
COUNT_BAD_MIN: Final = 2
COUNT_SIZES: Final = (10, 100, 1000)
# Units of times in texts, each up to so many of it.
_SPANS: Final = ((1.0, "s", 0), (MINUTE, "min", 1), (HOUR, "h", 1))
_SPAN_MAX: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one objective can detect.

    Units: delay_s seconds until an event counts as bad, part of every time here; `counts` holds
    devices of a rollout and how many bad ones of them page.
    """

    model: str
    slo: Slo
    delay_s: float
    alerts: tuple[Detection, ...]
    counts: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]


def tell(contracts: Sequence[Contract]) -> tuple[Told, ...]:
    """Work out for each objective of contracts what it can detect."""
    return tuple(_tell(contract.model, slo) for contract in contracts for slo in contract.slos)


def _tell(model: str, slo: Slo) -> Told:
    delay_s = (slo.threshold or 0.0) if slo.indicator in _DELAYED else 0.0
    alerts: tuple[Detection, ...] = ()
    counts: tuple[tuple[int, int], ...] = ()
    if slo.indicator not in (Indicator.INTEGRITY, Indicator.BANDWIDTH):
        alerts = tuple(
            replace(each, total_s=each.total_s + delay_s, tenth_s=each.tenth_s + delay_s)
            for each in detections(slo, slo.pairs or None)
        )
    if slo.indicator is Indicator.DEPLOYMENT:
        counts = tuple((size, count_of(size, slo.objective)) for size in COUNT_SIZES)
        # The count rule alone pages.
        alerts = tuple(
            replace(each, window=replace(each.window, severity=Severity.TICKET)) for each in alerts
        )
    notes = tuple(_notes(slo, delay_s, alerts))
    return Told(model=model, slo=slo, delay_s=delay_s, alerts=alerts, counts=counts, notes=notes)


def count_of(size: int, objective: float) -> int:
    """Find how many bad ones of `size` are hardly chance at an objective.

    The smallest b of at least COUNT_BAD_MIN with P(X >= b | size, B) < COUNT_PROBABILITY_MAX, X
    binomial; `size` + 1 when not even all are. Source: slo-alerting-dashboards.md section 4.
    """
    budget = budget_of(objective)
    tail = 1.0
    for bad in range(size + 1):
        if bad >= COUNT_BAD_MIN and tail < COUNT_PROBABILITY_MAX:
            return bad
        log_ways = math.lgamma(size + 1) - math.lgamma(bad + 1) - math.lgamma(size - bad + 1)
        tail -= math.exp(log_ways + bad * math.log(budget) + (size - bad) * math.log1p(-budget))
    return size + 1


def _notes(slo: Slo, delay_s: float, alerts: Sequence[Detection]) -> list[str]:
    notes: list[str] = []
    if slo.indicator is Indicator.FRESHNESS:
        notes.append(
            f"a silent device is bad after {format_duration(delay_s)}, and counts once a minute"
        )
    if slo.indicator is Indicator.LABEL_LAG:
        notes.append(f"a label is bad {format_duration(delay_s)} after its inference, not before")
    if slo.indicator in (Indicator.INTEGRITY, Indicator.BANDWIDTH, Indicator.DEPLOYMENT):
        return notes
    pages = [each.total_s for each in alerts if each.window.severity is Severity.PAGE]
    # What a label's own deadline takes no alert can save.
    saved_s = delay_s if slo.indicator is Indicator.LABEL_LAG else 0.0
    if not pages:
        notes.append("a total breach never pages")
    elif min(pages) - saved_s > PAGE_S_MAX:
        notes.append(
            f"a total breach pages {_span(min(pages))}, later than "
            f"{format_duration(PAGE_S_MAX)}: alerts of its own with shorter windows or lower "
            "factors find it sooner"
        )
    return notes


def slos_text(told: Sequence[Told]) -> str:
    """Write for each objective what its alerts need, how soon they fire and what that costs."""
    lines: list[str] = []
    for one in told:
        lines.append(f"{one.model} {one.slo.name}: {_subject(one.slo)}")
        lines += [f"    {line}" for line in _lines(one)]
        lines += [f"    note: {note}" for note in one.notes]
    return "\n".join(lines) + "\n" if lines else ""


def _subject(slo: Slo) -> str:
    over = f"over {format_duration(slo.window)}"
    if slo.indicator is Indicator.INTEGRITY:
        return "integrity, zero tolerance"
    if slo.indicator is Indicator.BANDWIDTH:
        return f"bandwidth, {format_size(slo.allowance or 0)} {over}"
    within = f" within {format_duration(slo.threshold)}" if slo.threshold is not None else ""
    return f"{slo.indicator}{within}, {slo.objective:g} {over}"


def _lines(one: Told) -> list[str]:
    slo = one.slo
    if slo.indicator is Indicator.INTEGRITY:
        return ["page   at the first event, until it is acknowledged"]
    if slo.indicator is Indicator.BANDWIDTH:
        rate = round((slo.allowance or 0) / slo.window)
        half = format_duration(slo.window / 2)
        return [
            f"projected from the bytes that leave: {rate} B/s last the whole window, "
            f"twice as many {half}"
        ]
    lines = [f"page   when {bad} devices of {size} fail" for size, bad in one.counts if bad <= size]
    for each in one.alerts:
        lines.append(
            f"{each.window.severity:6} {format_duration(each.window.long_s):>3}"
            f" at {each.window.factor:.4g}x: needs {each.error_ratio:.2%} bad,"
            f" finds total failure {_span(each.total_s)},"
            f" one tenth {_span(each.tenth_s)},"
            f" at {each.budget_ratio:.2%} of the budget;"
            f" one bad event of up to {each.single_event_count} fires it"
        )
    return lines


def _span(duration_s: float) -> str:
    if math.isinf(duration_s):
        return "never"
    for unit_s, unit, digits in _SPANS:
        if duration_s < unit_s * _SPAN_MAX:
            return f"in {duration_s / unit_s:.{digits}f} {unit}"
    return f"in {duration_s / DAY:.1f} d"


def slos_json(told: Sequence[Told]) -> list[dict[str, Any]]:
    """Write the same as plain data; null for what never happens. Units: as the keys say."""
    return [
        {
            "model": one.model,
            "slo": one.slo.name,
            "indicator": one.slo.indicator.value,
            "objective": one.slo.objective,
            "window_s": one.slo.window,
            "threshold_s": one.slo.threshold,
            "allowance_bytes": one.slo.allowance,
            "delay_s": one.delay_s,
            "pages_at_first_event": one.slo.indicator is Indicator.INTEGRITY,
            "alerts": [
                {
                    "severity": each.window.severity.value,
                    "long_s": each.window.long_s,
                    "short_s": each.window.short_s,
                    "factor": each.window.factor,
                    "error_ratio_min": each.error_ratio,
                    "total_failure_s": _finite(each.total_s),
                    "tenth_failure_s": _finite(each.tenth_s),
                    "budget_ratio": each.budget_ratio,
                    "single_event_count": each.single_event_count,
                }
                for each in one.alerts
            ],
            "counts": [{"devices": size, "bad": bad} for size, bad in one.counts if bad <= size],
            "notes": list(one.notes),
        }
        for one in told
    ]


def _finite(duration_s: float) -> float | None:
    return duration_s if math.isfinite(duration_s) else None
