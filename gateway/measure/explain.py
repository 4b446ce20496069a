"""Make an anomaly of an alarm: numbers, words, and the traces that show it.

Law: an explanation reads state and changes none. Device names stand in evidence only, never in the
summary, the numbers and the subject, which leave the site; nor do values, ranges and classes of a
signal that the contract does not export.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import Anomaly, AnomalyKind, Evidence, Severity, Team
from gateway.contract.schema import Indicator
from gateway.measure.cohorts import Traits, maybe_cohort
from gateway.measure.drift.baseline import Baseline
from gateway.measure.drift.counting import Stream
from gateway.measure.drift.detector import Alarm, Bank
from gateway.measure.drift.fleet import Budget
from gateway.measure.drift.indices import (
    Z_95,
    jeffreys,
    js,
    psi_null,
    psi_sd,
    psi_terms,
    relative_drift,
)
from gateway.measure.drift.seasons import Against
from gateway.measure.episodes import anomaly_id
from gateway.measure.evidence import NO_BIN, Sample, spread
from gateway.measure.settings import SECOND_NS, FalseAlarms
from gateway.measure.slo.burn import Formula, Rule, burn_rate, wilson_lower
from gateway.measure.slo.judge import Burn
from gateway.measure.slo.objectives import Objectives
from gateway.measure.slo.windows import DAY_S
from gateway.measure.state import Array, Int64
from gateway.tables import Bool, Float64

# A drift whose debiased PSI is surely above this wakes a person.
PAGE_PSI_MIN: Final = 0.1
# Bins that carry this share of the over-representation are the ones evidence is taken from.
BINS_SHARE: Final = 0.8
# So many bins are told with their shares, those that add most to the index.
BINS_TOLD: Final = 5
INDICES: Final = ("psi", "psi_debiased", "psi_debiased_low", "psi_debiased_high", "js_nats")
RELATIVE_INDEX: Final = "relative_drift_index"
# A device carries a drift when it shows those bins surely more often than the baseline, this many
# times as often, and not far less often than the worst device.
DEVICE_RATIO_MIN: Final = 2.0
DEVICE_SHARE_OF_WORST: Final = 0.25
DEVICE_ROWS_MIN: Final = 3
MAIN_VERSION_SHARE: Final = 0.8
PERIOD_S: Final = 30 * DAY_S
_REMARKS: Final = {
    Rule.UNSUPPORTED: " (few events, low confidence)",
    Rule.EARLY: " (half of what pages)",
    Rule.BACKFILL: " (spent by late events within an hour)",
    Rule.COUNT: " (more than chance allows)",
}

# What most often is behind it, where no class of error tells.
_TEAM_OF: Final[Mapping[Indicator, Team]] = {
    Indicator.LATENCY: Team.DEVICE_OPS,
    Indicator.COLD_START: Team.DEVICE_OPS,
    Indicator.FRESHNESS: Team.DEVICE_OPS,
    Indicator.DEPLOYMENT: Team.DEVICE_OPS,
    Indicator.LABEL_LAG: Team.ML_ENGINEERING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cohort:
    """Words on the devices that carry a change, for the summary and for evidence."""

    summary: str = ""
    evidence: str = ""


def drift_numbers(
    counts: Float64,
    size: float,
    baseline: Baseline,
    shares: Float64,
    reference: float | None = None,
) -> dict[str, float]:
    """Return the indices of a window against shares of a baseline's bins.

    `size` and `reference` count the independent events of the window and behind the shares, which
    are all events of the baseline when None. Only the noise of an unchanged signal is subtracted:
    `psi_interval`, of the same width, goes to second order, which needs bins that expect several
    events, and an alarm's window may have fewer.
    """
    n0 = baseline.events / baseline.phi if reference is None else reference
    k = 1 / n0 + 1 / max(size, 1.0)
    q = jeffreys(counts)
    raw = float(psi_terms(q, shares).sum())
    debiased = raw - float(psi_null(baseline.bins, k))
    margin = Z_95 * float(psi_sd(q, shares, max(size, 1.0), n0))
    values = (raw, debiased, debiased - margin, debiased + margin, float(js(q, shares)))
    relative = float(relative_drift(debiased, baseline.bins, k, baseline.noise))
    return {**dict(zip(INDICES, values, strict=True)), RELATIVE_INDEX: relative}


def drift_anomaly(
    alarm: Alarm,
    *,
    stream: Stream,
    bank: Bank,
    budget: Budget,
    baseline: Baseline,
    against: Against,
    since_onset: Against,
    may_leave: bool,
    owner: str,
    tolerance: float,
    tick_s: float,
    sample: Sample,
    device_names: Sequence[str],
    traits_of: Callable[[Int64], Traits],
) -> Anomaly:
    """Explain a drift alarm.

    `sample` are recent rows of the stream's series; `traits_of` tells what is known of devices.
    `may_leave` says whether the contract exports the signal's values; evidence shows them always.
    """
    shares = since_onset.shares
    since = bank.since(alarm.row, alarm.onset_ns)[: baseline.bins]
    size = float(since.sum()) / baseline.phi
    numbers = drift_numbers(since.astype(np.float64), size, baseline, shares, since_onset.events)
    window, window_size = bank.window(np.array([alarm.row]))
    recent = drift_numbers(
        window[0, : baseline.bins],
        float(window_size[0]),
        baseline,
        against.shares,
        against.events,
    )
    rate = PERIOD_S / tick_s / float(np.exp(bank.own_log_bound[alarm.row]))
    numbers |= {
        "psi_ewma": recent["psi"],
        "psi_ewma_debiased": recent["psi_debiased"],
        "log_evidence": alarm.log_evidence,
        "log_evidence_bound": float(bank.log_bound(np.array([alarm.row]))[0]),
        "delta": against.delta,
        "phi": baseline.phi,
        "window_events": float(since.sum()),
        "baseline_events": float(baseline.events),
        "baseline_is_large_enough": float(baseline.events >= baseline.events_needed(tolerance)),
        "false_alarms_per_30d": rate,
        "budget_is_site": float(budget.per is FalseAlarms.SITE),
        "detectors": float(budget.detectors),
    }
    q = jeffreys(since.astype(np.float64))
    over = _over_represented(q, shares)
    if may_leave:
        numbers |= _strongest_bins(q, shares, baseline)
    seen = _of_stream(sample, stream)
    held, devices, cohort = _carriers(
        seen, stream, baseline, over, float(shares[over].sum()), traits_of
    )
    evidence = _drift_evidence(stream, held, baseline, shares, device_names, cohort)
    most = ", ".join(
        f"{baseline.describe(each)} went from {shares[each]:.1%} to {q[each]:.1%}"
        for each in over[:3].tolist()
    )
    change = (f": {most}", alarm.bet) if may_leave else ("", alarm.bet_kind)
    is_page = numbers["psi_debiased_low"] >= PAGE_PSI_MIN
    return Anomaly(
        id=anomaly_id(
            AnomalyKind.DRIFT, stream.model, stream.version, stream.signal, alarm.onset_ns
        ),
        kind=AnomalyKind.DRIFT,
        severity=Severity.PAGE if is_page else Severity.TICKET,
        owner=owner,
        model=stream.model,
        version=stream.version,
        subject=stream.signal,
        summary=(
            f"{stream.signal} of {stream.model} {stream.version} has drifted from its baseline"
            f"{change[0]}{cohort.summary} (dominant change: {change[1]}; {_promise(budget, rate)})"
        ),
        onset_ns=alarm.onset_ns,
        raised_ns=alarm.end_ns,
        numbers=numbers | devices,
        evidence=evidence,
    )


def _promise(budget: Budget, rate: float) -> str:
    """Say which budget of false alarms is in force."""
    whose = "this signal"
    if budget.per is FalseAlarms.SITE:
        whose = f"all {budget.detectors} drift detectors of the site together"
    return f"false alarms allowed: {rate:.3g} in 30 days for {whose}"


def _strongest_bins(q: Float64, shares: Float64, baseline: Baseline) -> dict[str, float]:
    """Return the shares then and now of the bins that add most to the index, and what they add."""
    terms = psi_terms(q, shares)
    numbers: dict[str, float] = {}
    for each in np.argsort(-terms, kind="stable")[:BINS_TOLD].tolist():
        words = baseline.describe(each)
        numbers[f"psi_of:{words}"] = float(terms[each])
        numbers[f"expected_of:{words}"] = float(shares[each])
        numbers[f"current_of:{words}"] = float(q[each])
    return numbers


def _over_represented(q: Float64, shares: Float64) -> Int64:
    """Return the bins that carry most of the excess, largest first; at least one."""
    terms = np.where(q > shares, psi_terms(q, shares), 0.0)
    order = np.argsort(-terms, kind="stable")
    before = np.cumsum(terms[order]) - terms[order]
    used = (before < BINS_SHARE * terms.sum()) & (terms[order] > 0)
    chosen: Int64 = order[used] if used.any() else order[:1]
    return chosen


def _bins(sample: Sample, stream: Stream) -> Array:
    """Return the bin of each row on the grid of a stream. Shape: (rows,)."""
    bins: Array = sample.inclusion if stream.place < 0 else sample.bins[:, stream.place]
    return bins


def _of_stream(sample: Sample, stream: Stream) -> Sample:
    """Return the rows whose events a stream counts."""
    counted = _bins(sample, stream) != NO_BIN
    if stream.given is not None:
        place, code = stream.given
        counted &= sample.bins[:, place] == code
    return sample.take(counted)


def _carriers(
    known: Sample,
    stream: Stream,
    baseline: Baseline,
    over: Int64,
    expected: float,
    traits_of: Callable[[Int64], Traits],
) -> tuple[Sample, dict[str, float], _Cohort]:
    """Return the rows in those bins of the devices that carry the change, counts, and their cohort.

    Devices of which too little was seen count for no cohort.
    """
    is_over = np.isin(baseline.group[_bins(known, stream)], over)
    devices, of_row = np.unique(known.device, return_inverse=True)
    rows = np.bincount(of_row, minlength=len(devices))
    hits = np.bincount(of_row, weights=is_over, minlength=len(devices))
    share = hits / np.maximum(rows, 1)
    limit = min(DEVICE_RATIO_MIN * expected, (1 + expected) / 2)
    carries = (share >= limit) & (rows >= DEVICE_ROWS_MIN)
    carries &= wilson_lower(hits, rows) > expected
    carries &= share >= DEVICE_SHARE_OF_WORST * share[carries].max(initial=0.0)
    cohort = _Cohort()
    if carries.any():
        enough = rows >= DEVICE_ROWS_MIN
        cohort = _cohort(carries[enough], traits_of(devices[enough]))
        is_over = is_over & carries[of_row]
    counts = {
        "devices_seen": float(len(devices)),
        "devices_carrying": float(carries.sum()),
        "device_share_ratio_max": float(share.max(initial=0.0)),
        "baseline_share_ratio": expected,
    }
    return known.take(is_over), counts, cohort


def _cohort(carries: Bool, traits: Traits) -> _Cohort:
    """Say which devices carry a change, where they surely share what the others have not."""
    shared = maybe_cohort(carries, traits.value)
    if shared is None:
        return _Cohort()
    words = f"only devices with {traits.what} {traits.names[shared]}"
    return _Cohort(summary=f"; {words}" if traits.may_leave else "", evidence=f"; {words}")


def _drift_evidence(
    stream: Stream,
    held: Sample,
    baseline: Baseline,
    shares: Float64,
    device_names: Sequence[str],
    cohort: _Cohort,
) -> tuple[Evidence, ...]:
    reasons: dict[int, str] = {}
    evidence = []
    bins = _bins(held, stream)
    for at in spread(held).tolist():
        fine = int(bins[at])
        if fine not in reasons:
            now, before = baseline.group[fine], shares[baseline.group[fine]]
            reasons[fine] = (
                f"{stream.signal} is {baseline.grid.describe(fine)}; "
                f"{before:.2%} of the baseline lies in {baseline.describe(int(now))}"
                f"{cohort.evidence}"
            )
        evidence.append(_evidence(held, at, device_names, reasons[fine]))
    return tuple(evidence)


def _evidence(sample: Sample, at: int, device_names: Sequence[str], reason: str) -> Evidence:
    hi, lo = sample.ids[at].tolist()
    device = device_names[int(sample.device[at])]
    return Evidence(trace_id=f"{hi:016x}{lo:016x}", device=device, reason=reason)


def burn_anomaly(
    burn: Burn,
    objectives: Objectives,
    samples: Sequence[tuple[str, Sample]],
    device_names: Sequence[str],
    failed_for: Team,
) -> Anomaly:
    """Explain a burning SLO. `samples` are the bad rows of each version of the model.

    `failed_for` is who can mend most of what failed lately.
    """
    item = objectives.items[burn.objective]
    long_good, long_bad = objectives.counts(burn.objective, burn.pair.long_s)
    short_good, short_bad = objectives.counts(burn.objective, burn.pair.short_s)
    long_rate = burn_rate(long_bad, long_good + long_bad, item.budget) or 0.0
    short_rate = burn_rate(short_bad, short_good + short_bad, item.budget) or 0.0
    outlook = objectives.outlook(burn.objective, burn.pair.short_s)
    numbers = {
        "burn_rate_long": long_rate,
        "burn_rate_short": short_rate,
        "factor": burn.pair.factor,
        "long_window_s": float(burn.pair.long_s),
        "short_window_s": float(burn.pair.short_s),
        "long_bad": float(long_bad),
        "long_events": float(long_good + long_bad),
        "short_bad": float(short_bad),
        "short_events": float(short_good + short_bad),
        "is_confident": float(burn.confident),
    }
    if outlook.remaining_ratio is not None:
        numbers["budget_remaining_ratio"] = outlook.remaining_ratio
    if outlook.exhaustion_s is not None:
        numbers["seconds_to_exhaustion"] = outlook.exhaustion_s
        numbers["is_period_full"] = float(outlook.formula is Formula.ROLLING)
    if burn.rule is Rule.BACKFILL:
        late_good, late_bad = objectives.late_counts(burn.objective)
        numbers |= {"late_bad": float(late_bad), "late_events": float(late_good + late_bad)}
    version, evidence, devices = _bad_rows(burn, objectives, samples, device_names)
    numbers["devices_failing"] = float(devices)
    onset_ns = objectives.onset_ns(burn)
    return Anomaly(
        id=anomaly_id(AnomalyKind.SLO_BURN, item.model, version, item.slo.name, onset_ns),
        kind=AnomalyKind.SLO_BURN,
        severity=Severity.PAGE if burn.pages else Severity.TICKET,
        owner=item.owner,
        team=_TEAM_OF.get(item.slo.indicator, failed_for),
        model=item.model,
        version=version,
        subject=item.slo.name,
        summary=(
            f"SLO {item.slo.name} of {item.model} burns its error budget at "
            f"{long_rate:.1f} times the allowed rate over {burn.pair.long_s / 60:.0f} min: "
            f"{long_bad} of {long_good + long_bad} bad" + _REMARKS.get(burn.rule, "")
        ),
        onset_ns=onset_ns,
        raised_ns=burn.at_ns,
        numbers=numbers,
        evidence=evidence,
    )


def _bad_rows(
    burn: Burn,
    objectives: Objectives,
    samples: Sequence[tuple[str, Sample]],
    device_names: Sequence[str],
) -> tuple[str, tuple[Evidence, ...], int]:
    """Return the version that most bad rows have, "" if none, evidence, and count of devices."""
    by_status = objectives.items[burn.objective].slo.indicator is Indicator.SUCCESS
    bad = [
        (
            version,
            sample.take(objectives.bad(burn.objective, sample.failed, sample.duration_ns)),
        )
        for version, sample in samples
    ]
    total = sum(len(sample.device) for _, sample in bad)
    if not total:
        return "", (), 0
    version, most = max(bad, key=lambda each: len(each[1].device))
    joined = Sample(
        **{
            name: np.concatenate([getattr(sample, name) for _, sample in bad])
            for name in Sample.__slots__
        }
    )
    joined = joined.take(np.argsort(-joined.event_ns, kind="stable"))
    evidence = tuple(
        _evidence(
            joined,
            at,
            device_names,
            "failed" if by_status else f"took {joined.duration_ns[at] / SECOND_NS:.3f} s",
        )
        for at in spread(joined).tolist()
    )
    is_main = len(most.device) >= MAIN_VERSION_SHARE * total
    return version if is_main else "", evidence, len(np.unique(joined.device))
