"""Laws of objectives: what each indicator needs, and alerts that can fire and mean something.

Law: an objective is judged by the same rules wherever it was written, in a contract or in an
OpenSLO document; each finding stands at the key that a person would change. Refused are a pair that
could never fire (f·B >= 1, with f the burn factor and B the error budget), one that fires while the
objective is kept (f < 0.9), and one that the rings cannot count. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

from gateway.batch import Severity
from gateway.config.marks import Document, Path
from gateway.config.rules import FindingRule
from gateway.config.units import DAY, MINUTE, format_duration
from gateway.config.validate import Checked, dotted
from gateway.contract.form import AlertForm, ContractForm, LabelForm, SloForm
from gateway.contract.schema import BurnWindow, Indicator, Slo
from gateway.contract.slo import (
    FACTOR_MIN,
    SHORT_SLOTS_MIN,
    budget_of,
    objective_min,
    slot_s_of,
    undetectable,
)

# What promises no share of good events, and so has neither a budget nor a burn rate.
BUDGETLESS: Final = frozenset({Indicator.INTEGRITY, Indicator.BANDWIDTH})
PERCENT: Final = 100


class Bounds(NamedTuple):
    """Thresholds of an indicator. Units: seconds; `default` is None where one must be written."""

    default: float | None
    low: float
    high: float
    what: str


THRESHOLDS: Final = {
    Indicator.LATENCY: Bounds(None, 0.0, DAY, "longest good duration"),
    # A device is judged once a minute.
    Indicator.FRESHNESS: Bounds(5 * MINUTE, MINUTE, DAY, "oldest good age"),
    Indicator.LABEL_LAG: Bounds(DAY, MINUTE, 30 * DAY, "longest good wait"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One objective and where it was written: `at` leads to it in `document`.

    `is_sound` tells of a key whether what was written there could be read.
    """

    slo: SloForm
    document: Document
    at: Path
    title: str
    is_sound: Callable[[str], bool]

    @property
    def indicator(self) -> Indicator:
        """What it counts."""
        return Indicator(self.slo.indicator)

    def add(
        self, path: Path, rule: FindingRule, message: str, instead: str, *, of_key: bool = False
    ) -> None:
        """Note a finding at a path below the objective."""
        self.document.add((*self.at, *path), rule, message, instead, of_key=of_key)

    def name(self, *path: str | int) -> str:
        """Write the path of a key for a message."""
        return dotted((*self.at, *path))


def written_in(
    checked: Checked[ContractForm] | None, form: ContractForm, document: Document
) -> list[Written]:
    """List the objectives of a contract file; without `checked`, of one that is sound."""

    def sound(index: int) -> Callable[[str], bool]:
        return lambda key: checked is None or checked.is_sound("slos", index, key)

    return [
        Written(
            slo=slo,
            document=document,
            at=("slos", index),
            title=f"slos[{index}]",
            is_sound=sound(index),
        )
        for index, slo in enumerate(form.slos)
    ]


def check_objectives(written: Sequence[Written], labels: LabelForm | None) -> None:
    """Check the objectives of one model, alone and against each other."""
    check_distinct(written)
    for each in written:
        check_objective(each)
        check_labelled(each, labels)


def check_distinct(written: Sequence[Written]) -> None:
    """Refuse two objectives of one name, and two that count the same events."""
    names: dict[str, Written] = {}
    subjects: dict[tuple[Indicator, float | None], Written] = {}
    for each in written:
        twin = names.setdefault(each.slo.name, each)
        if twin is not each:
            message = f"the name {each.slo.name!r} is that of {twin.title} too"
            each.add(("name",), FindingRule.DUPLICATE_NAME, message, "write another name")
        twin = subjects.setdefault((each.indicator, threshold_of(each.slo)), each)
        if twin is not each:
            message = f"{twin.title} counts the same events already"
            each.add((), FindingRule.DUPLICATE_NAME, message, "keep one of them")


def check_objective(written: Written) -> None:
    """Check one objective alone."""
    _check_threshold(written)
    _check_allowance(written)
    objective = _sound_objective(written)
    if written.slo.alerts:
        _check_alerts(written, objective)
    elif not written.slo.page:
        message = f"{written.name('page')}: the standard alerts page"
        advice = "delete page, or write alerts with severity: ticket alone"
        written.add(("page",), FindingRule.SLO_ALERTS, message, advice, of_key=True)
    elif objective is not None:
        _check_standard(written, objective)


def check_labelled(written: Written, labels: LabelForm | None) -> None:
    """Check that label lag has labels to wait for."""
    if written.indicator is not Indicator.LABEL_LAG:
        return
    if labels is None:
        message = "label lag is counted of labels that are due, and the contract expects none"
        advice = "add to the contract: labels: {signal: class, within: 24h, expect: 0.01}"
        written.add((), FindingRule.SLO_LABELS, message, advice)
        return
    if labels.expect == 0:
        message = "label lag is counted of labels that are due, and no trace owes one"
        advice = "write labels: {…, expect: 0.01}, the share of the traces that owe a label"
        written.add((), FindingRule.SLO_LABELS, message, advice)
    threshold = written.slo.threshold
    if threshold is not None and threshold > labels.within:
        waited = format_duration(labels.within)
        message = (
            f"a label is waited for {waited} (labels.within), and could never be later than "
            f"{format_duration(threshold)}"
        )
        advice = f"write threshold: {waited}, or a longer labels.within"
        written.add(("threshold",), FindingRule.SLO_LABELS, message, advice)


def threshold_of(slo: SloForm) -> float | None:
    """Tell the threshold of an objective in seconds, with the default of its indicator."""
    bounds = THRESHOLDS.get(Indicator(slo.indicator))
    return bounds.default if bounds is not None and slo.threshold is None else slo.threshold


def slo_of(form: SloForm, labels: LabelForm | None) -> Slo:
    """Convert an objective without findings; pairs are ordered fastest first.

    A label that is not told how long it may take is late, at the latest, when nobody waits for it
    any longer.
    """
    threshold = threshold_of(form)
    if threshold is not None and labels is not None and form.indicator == "label_lag":
        threshold = min(threshold, labels.within)
    pairs = [
        BurnWindow(
            long_s=pair.long,
            short_s=pair.short,
            factor=pair.factor,
            severity=Severity(pair.severity),
        )
        for pair in form.alerts
    ]
    return Slo(
        name=form.name,
        indicator=Indicator(form.indicator),
        objective=1.0 if form.objective is None else form.objective,
        window=form.window,
        threshold=threshold,
        allowance=form.allowance,
        pairs=tuple(sorted(pairs, key=lambda pair: (pair.long_s, pair.short_s))),
    )


def _check_threshold(written: Written) -> None:
    indicator, threshold = written.indicator, written.slo.threshold
    bounds = THRESHOLDS.get(indicator)
    if bounds is None:
        if threshold is not None:
            message = f"{_a(indicator)} objective has no threshold"
            having = ", ".join(THRESHOLDS)
            advice = f"delete it, or write one of the indicators that have one: {having}"
            written.add(("threshold",), FindingRule.SLO_THRESHOLD, message, advice, of_key=True)
    elif threshold is None:
        if bounds.default is None and written.is_sound("threshold"):
            message, advice = "a latency objective needs a threshold", "write threshold: 100ms"
            written.add((), FindingRule.SLO_THRESHOLD, message, advice)
    elif not bounds.low <= threshold <= bounds.high:
        low, high = format_duration(bounds.low), format_duration(bounds.high)
        message = (
            f"{written.name('threshold')}: the {bounds.what} lies between {low} and {high}, "
            f"not at {format_duration(threshold)}"
        )
        example = format_duration(bounds.default or 0.1)
        written.add(("threshold",), FindingRule.OUT_OF_RANGE, message, f"write {example}")


def _check_allowance(written: Written) -> None:
    allowance = written.slo.allowance
    if written.indicator is Indicator.BANDWIDTH:
        if allowance is None and written.is_sound("allowance"):
            message = "bandwidth needs the bytes that may leave in each window"
            written.add((), FindingRule.SLO_ALLOWANCE, message, "write allowance: 1GiB")
    elif allowance is not None:
        message = f"{_a(written.indicator)} objective has no allowance"
        advice = "delete it, or write indicator: bandwidth"
        written.add(("allowance",), FindingRule.SLO_ALLOWANCE, message, advice, of_key=True)


def _sound_objective(written: Written) -> float | None:
    """Check the objective; answer it where it leaves a budget that alerts can be judged by."""
    indicator, objective = written.indicator, written.slo.objective
    at: Path = ("objective",)
    if indicator in BUDGETLESS:
        instead, why = "", ""
        if indicator is Indicator.BANDWIDTH and objective is not None:
            why, instead = "bandwidth is measured against its allowance", "delete objective"
        elif objective not in (None, 1.0):
            why, instead = "integrity has zero tolerance", "delete objective, or write 1"
        if why:
            message = f"{written.name(*at)}: {why}, not against {objective:g}"
            written.add(at, FindingRule.SLO_OBJECTIVE, message, instead)
        return None
    if objective is None:
        if written.is_sound("objective"):
            message = f"{written.name(*at)} is missing"
            advice = "write the share of good events, such as 0.999"
            written.add((), FindingRule.MISSING, message, advice, of_key=True)
        return None
    if 0 < objective < 1:
        return objective
    message, advice = _told_share(objective)
    written.add(at, FindingRule.OUT_OF_RANGE, f"{written.name(*at)}: {message}", advice)
    return None


def _told_share(objective: float) -> tuple[str, str]:
    """Say what is wrong with an objective outside (0, 1), and what to write."""
    if objective in (1, PERCENT):
        return (
            f"{objective:g} leaves no error budget, so that nothing could be judged",
            "write a share below 1, such as 0.9999, or indicator: integrity for what must never be",
        )
    if 1 < objective < PERCENT:
        share = float(Fraction(repr(objective)) / PERCENT)
        return f"{objective:g} is a percentage, not a share", f"write {share:.12g}"
    if objective == 0:
        return "0 asks for nothing", "write a share above 0 and below 1, such as 0.999"
    return f"{objective:g} is no share", "write a share above 0 and below 1, such as 0.999"


def _check_standard(written: Written, objective: float) -> None:
    """Check that the pairs of the indicator's table can fire."""
    indicator, period_s = written.indicator, written.slo.window
    window = undetectable(indicator, period_s, objective)
    if window is not None:
        needed = window.factor * budget_of(objective)
        written.add(
            ("objective",),
            FindingRule.SLO_UNDETECTABLE,
            f"at {objective:g} the {format_duration(window.long_s)} alert would need "
            f"{needed:.0%} bad events and could never fire",
            f"write an objective above {objective_min(indicator, period_s):.4f}",
        )


def _check_alerts(written: Written, objective: float | None) -> None:
    slo = written.slo
    if written.indicator in BUDGETLESS:
        message = f"{written.name('alerts')}: {written.indicator} has no burn rate"
        written.add(("alerts",), FindingRule.SLO_ALERTS, message, "delete alerts", of_key=True)
        return
    seen: dict[tuple[float, float, str], int] = {}
    for index, pair in enumerate(slo.alerts):
        twin = seen.setdefault((pair.long, pair.short, pair.severity), index)
        if twin != index:
            message = f"{written.name('alerts', index)} has the windows of alerts[{twin}]"
            advice = "keep the one with the lower factor"
            written.add(("alerts", index), FindingRule.SLO_ALERTS, message, advice)
        _check_windows(written, index, pair)
        _check_factor(written, index, pair, objective)
    pages = [index for index, pair in enumerate(slo.alerts) if pair.severity == "page"]
    if not pages and slo.page:
        message = f"{written.name('alerts')}: none of them pages"
        advice = "write severity: page for the fastest, or page: false if a ticket is enough"
        written.add(("alerts",), FindingRule.SLO_ALERTS, message, advice, of_key=True)
    if pages and not slo.page:
        message = f"{written.name('alerts', pages[0])} pages against page: false"
        advice = "write severity: ticket, or delete page: false"
        written.add(("alerts", pages[0], "severity"), FindingRule.SLO_ALERTS, message, advice)


def _check_windows(written: Written, index: int, pair: AlertForm) -> None:
    """Check the lengths of one pair: against each other, the period and the rings."""

    def add(key: str, message: str, advice: str) -> None:
        path: Path = ("alerts", index, key)
        written.add(path, FindingRule.SLO_ALERTS, f"{written.name(*path)}: {message}", advice)

    if pair.short >= pair.long:
        message = f"{format_duration(pair.short)} is no part of {format_duration(pair.long)}"
        add("short", message, f"write {format_duration(max(50.0, pair.long / 12))}, a twelfth")
    if pair.long > written.slo.window and written.is_sound("window"):
        period = format_duration(written.slo.window)
        message = f"{format_duration(pair.long)} is longer than the period of {period}"
        add("long", message, f"write a window of at most {period}")
    for key, window_s in (("long", pair.long), ("short", pair.short)):
        width = slot_s_of(window_s)
        slots = Fraction(window_s) / Fraction(width)
        told = f"{format_duration(window_s)} is counted in slots of {format_duration(width)}"
        if slots < SHORT_SLOTS_MIN:
            message = f"{told}, of which a window needs {SHORT_SLOTS_MIN}"
            add(key, message, f"write {format_duration(SHORT_SLOTS_MIN * width)} or longer")
        elif slots.denominator != 1:
            add(key, told, f"write a multiple of {format_duration(width)}")


def _check_factor(written: Written, index: int, pair: AlertForm, objective: float | None) -> None:
    path: Path = ("alerts", index, "factor")
    if pair.factor < FACTOR_MIN:
        message = f"{written.name(*path)}: {pair.factor:g} fires while the objective is kept"
        advice = f"write a factor of at least {FACTOR_MIN:g}"
        written.add(path, FindingRule.SLO_WINDOW, message, advice)
    if objective is None:
        return
    budget = budget_of(objective)
    if pair.factor * budget >= 1:
        message = (
            f"{written.name(*path)}: at {objective:g} the {format_duration(pair.long)} alert "
            f"would need {pair.factor * budget:.0%} bad events and could never fire"
        )
        advice = f"write a factor below {1 / budget:g}"
        written.add(path, FindingRule.SLO_UNDETECTABLE, message, advice)


def _a(indicator: Indicator) -> str:
    article = "an" if indicator is Indicator.INTEGRITY else "a"
    return f"{article} {indicator}"
