"""Copy live state into the snapshot.

Law: reads only, but for staged counts that move to where they belong.
"""

from typing import Final

import numpy as np

from gateway.measure.devices.devices import Devices
from gateway.measure.drift.fleet import PATIENCE_S, REPORT_ALPHA, reported
from gateway.measure.drift.grid import GridKind
from gateway.measure.drift.ratebaseline import EVENTS_MIN
from gateway.measure.drift.rates import Rates
from gateway.measure.drift.streams import Streams
from gateway.measure.explain import drift_numbers
from gateway.measure.latency import Latency, quantiles_s
from gateway.measure.settings import SECOND_NS
from gateway.measure.slo.burn import budget_remaining, burn_rate
from gateway.measure.slo.objectives import Objectives
from gateway.measure.snapshot import (
    BaselineState,
    BesideView,
    DevicesView,
    DriftView,
    Exemplar,
    FleetView,
    LatencyView,
    RateView,
    ReportedView,
    ShadowView,
    SignalView,
    SloView,
    WindowView,
)

# The index counts as gone when its upper end is below the tolerance or below this many standard
# errors of what an unchanged signal shows.
NOISE_SD: Final = 3.0


def is_back(streams: Streams, number: int) -> bool:
    """Say whether a stream's recent window is within what is benign."""
    baseline, against = streams.baselines[number], streams.against(number)
    window, size = streams.bank.window(np.array([number]))
    independent = max(float(size[0]), 1.0)
    numbers = drift_numbers(
        window[0, : baseline.bins], independent, baseline, against.shares, against.events
    )
    k = 1 / against.events + 1 / independent
    noise = NOISE_SD * float(np.sqrt(2 * (baseline.bins - 1))) * k
    return numbers["psi_debiased_high"] < max(against.benign**2, noise)


def _superseded(streams: Streams, number: int) -> BesideView | None:
    superseded, shadow = streams.superseded.get(number), streams.shadows.maybe_of(number)
    if superseded is None:
        return None
    if shadow is None:
        return BesideView(digest=superseded.digest, events=superseded.events, is_calibrated=None)
    bank = streams.shadows.bank
    return BesideView(
        digest=superseded.digest,
        events=superseded.events,
        is_calibrated=streams.is_large_enough(number, shadow.baseline),
        hours=shadow.baseline.hours_seen,
        shadow=ShadowView(
            until_ns=shadow.until_ns,
            log_evidence=max(0.0, float(bank.evidence[shadow.slot])),
            log_evidence_bound=float(bank.own_log_bound[shadow.slot]),
            alarms=shadow.alarms,
            last_alarm_ns=shadow.last_alarm_ns,
        ),
    )


def signal_view(streams: Streams, number: int, drift: DriftView | None) -> SignalView:
    """Copy one signal; `drift` is how it stands, None while it has no baseline."""
    item, grid = streams.items[number], streams.grid(number)
    if number in streams.inherited:
        state = BaselineState.INHERITED
    elif number in streams.baselines:
        state = BaselineState.FROZEN
    else:
        state = BaselineState.COLLECTING
    candidate = streams.candidates.get(number)
    is_classes = grid.kind is GridKind.CLASSES
    return SignalView(
        signal=item.signal,
        part_of=item.part_of,
        grid=grid.name,
        edges=() if is_classes else tuple(grid.edges().tolist()),
        values=grid.values,
        counts=tuple(streams.counts(number).tolist()),
        state=state,
        collected=int(streams.lanes[item.lane].seen[item.row]),
        wanted=streams.events_wanted(number),
        is_from_file=streams.maybe_given(number) is not None,
        candidate=None
        if candidate is None
        else BesideView(
            digest=candidate.digest,
            events=candidate.events,
            is_calibrated=streams.is_large_enough(number, candidate),
            hours=candidate.hours_seen,
        ),
        superseded=_superseded(streams, number),
        drift=drift,
    )


def rate_views(rates: Rates) -> tuple[RateView, ...]:
    """Copy the event rates of all models that have one judged."""
    views = []
    for row, model in enumerate(rates.models):
        baseline, candidate = rates.baselines.get(row), rates.maybe_candidate(row)
        views.append(
            RateView(
                model=model,
                state=BaselineState.COLLECTING if baseline is None else BaselineState.FROZEN,
                digest="" if baseline is None else baseline.digest,
                events=rates.collected(row),
                events_wanted=EVENTS_MIN,
                candidate=None
                if candidate is None
                else BesideView(
                    digest=candidate.digest, events=candidate.events, is_calibrated=None
                ),
                tolerance=rates.tolerance(row),
                phi=1.0 if baseline is None else baseline.phi,
                now=rates.maybe_now(row),
                is_alarmed=bool(rates.alarmed[row]),
            )
        )
    return tuple(views)


def fleet_view(streams: Streams) -> FleetView:
    """Copy what holds for all drift detectors together, and report those that surely drift.

    A baseline that is too small for its tolerance is not reported, but its detector counts.
    """
    running = np.array(sorted(streams.baselines), dtype=np.int64)
    detectors = max(streams.budget.detectors, len(running))
    log_m = np.full(detectors, -np.inf)
    log_m[: len(running)] = streams.bank.lasting[running]
    patience_ticks = streams.bank.patience_ticks
    # Less than this is never reported, however many are.
    for at in np.flatnonzero(log_m >= np.log(patience_ticks / REPORT_ALPHA)).tolist():
        number = int(running[at])
        if not streams.is_large_enough(number, streams.baselines[number]):
            log_m[at] = -np.inf
    listed = []
    for at in reported(log_m, patience_ticks, REPORT_ALPHA).tolist():
        model, version, signal = streams.items[int(running[at])].key
        evidence = float(log_m[at])
        listed.append(
            ReportedView(model=model, version=version, signal=signal, log_evidence=evidence)
        )
    return FleetView(
        per=streams.budget.per,
        detectors=detectors,
        alpha=REPORT_ALPHA,
        patience_s=PATIENCE_S,
        reported=tuple(listed),
    )


def latency_view(latency: Latency, series: int) -> LatencyView:
    """Copy the latencies of one series."""
    exemplars = tuple(
        Exemplar(trace_id=f"{hi:016x}{lo:016x}", value_s=value / SECOND_NS) if value >= 0 else None
        for (hi, lo), value in zip(
            latency.exemplar_id[series].tolist(), latency.exemplar_ns[series].tolist(), strict=True
        )
    )
    return LatencyView(
        edges_s=tuple((latency.edges_ns / SECOND_NS).tolist()),
        cumulative=tuple(np.cumsum(latency.histogram[series]).tolist()),
        sum_s=int(latency.sum_ns[series]) / SECOND_NS,
        exemplars=exemplars,
        recent_s=quantiles_s(latency.recent(series)),
        all_time_s=quantiles_s(latency.all_time(series)),
    )


def slo_views(objectives: Objectives) -> tuple[SloView, ...]:
    """Copy the windows of all SLOs, with all events."""
    totals = objectives.totals()
    views = []
    for index, item in enumerate(objectives.items):
        windows = []
        for window_s in item.windows_s:
            good, bad = totals[window_s][index].tolist()
            windows.append(
                WindowView(
                    window_s=window_s,
                    good=good,
                    bad=bad,
                    burn_rate=burn_rate(bad, good + bad, item.budget),
                )
            )
        period = windows[-1]
        # At the rates of the window in which a page would look.
        recent_s = item.pairs[0].long_s if item.pairs else item.windows_s[0]
        outlook = objectives.outlook(index, recent_s)
        views.append(
            SloView(
                model=item.model,
                slo=item.slo.name,
                indicator=item.slo.indicator.value,
                objective=item.slo.objective,
                threshold_s=item.slo.threshold,
                windows=tuple(windows),
                budget_remaining_ratio=budget_remaining(
                    period.bad, period.good + period.bad, item.budget
                ),
                exhaustion_s=outlook.exhaustion_s,
                formula=outlook.formula.value,
            )
        )
    return tuple(views)


def devices_view(devices: Devices) -> DevicesView:
    """Copy the devices."""
    count = len(devices)
    return DevicesView(
        names=devices.names,
        last_event_ns=devices.last_event_ns[:count].copy(),
        last_arrival_ns=devices.last_arrival_ns[:count].copy(),
        spans=devices.spans[:count].copy(),
        bytes=devices.bytes[:count].copy(),
        least_delay_ns=devices.offsets_ns(),
        jitter_ns=devices.jitter_ns(),
        last_inference_ns=devices.last_inference_ns[:count].copy(),
        items=devices.items[:count].copy(),
        invalid=devices.invalid[:count].copy(),
        future=devices.future[:count].copy(),
        invalid_readings=devices.invalid_readings[:count].copy(),
        newest=devices.models.newest(count),
    )
