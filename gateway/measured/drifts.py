"""Drift and baselines as the API shows them.

Law: pure; a value that does not exist is None.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from gateway.api import drifts as api
from gateway.contract.schema import Contract
from gateway.measure import Snapshot
from gateway.measure.drift.baseline import baseline_id
from gateway.measure.drift.rates import EVENT_RATE
from gateway.measure.snapshot import (
    BaselineState,
    BesideView,
    FleetView,
    RateView,
    SeriesView,
    SignalView,
)

DAY_S: Final = 86_400


def drifts(found: Snapshot, contracts: Sequence[Contract]) -> Iterator[api.DriftState]:
    """List every signal against its baseline, then the event rates of models."""
    tolerances = {each.model: each.drift.tolerance for each in contracts}
    for series in found.series:
        for signal in series.signals:
            drift = signal.drift
            yield api.DriftState(
                model=series.model,
                version=series.version,
                signal=signal.signal,
                baseline=_baseline_id(series, signal, drift.baseline_digest)
                if drift
                else str(signal.state),
                alarm=drift.is_alarmed if drift else False,
                tolerance=tolerances.get(series.model, 0.0),
                psi=drift.psi if drift else None,
                psi_debiased=drift.psi_debiased if drift else None,
                psi_debiased_low=drift.psi_debiased_low if drift else None,
                psi_debiased_high=drift.psi_debiased_high if drift else None,
                log_evidence_bound=drift.log_evidence_bound if drift else None,
                calibrated=drift.is_calibrated if drift else None,
                log_evidence=drift.log_evidence if drift else None,
                relative_drift_index=drift.relative_index if drift else None,
                bins=drift.bins if drift else (),
                expected=drift.expected if drift else (),
                current=drift.current if drift else (),
                history=drift.history if drift else (),
                indices=drift.distances if drift else {},
                superseded=_maybe_superseded(series, signal),
                attribution=_attribution(series, signal),
            )
    yield from map(_rate, found.rates)


def _maybe_superseded(series: SeriesView, signal: SignalView) -> api.SupersededState | None:
    """Show what a superseded baseline says in the shadow, None when it says nothing any more."""
    beside = signal.superseded
    if beside is None or beside.shadow is None:
        return None
    shadow = beside.shadow
    return api.SupersededState(
        id=_baseline_id(series, signal, beside.digest),
        events=beside.events,
        until_ns=shadow.until_ns,
        log_evidence=shadow.log_evidence,
        log_evidence_bound=shadow.log_evidence_bound,
        alarms=shadow.alarms,
        last_alarm_ns=shadow.last_alarm_ns,
    )


def _rate(view: RateView) -> api.DriftState:
    now = view.now
    return api.DriftState(
        model=view.model,
        version="",
        signal=EVENT_RATE,
        baseline=_rate_id(view, view.digest) or str(view.state),
        alarm=view.is_alarmed,
        tolerance=view.tolerance,
        psi=None,
        log_evidence=None if now is None else now.log_evidence,
        log_evidence_bound=None if now is None else now.log_bound,
        event_rate=api.EventRate(state=str(view.state))
        if now is None
        else api.EventRate(
            state=str(view.state),
            expected=now.expected_hz,
            low=now.low_hz,
            high=now.high_hz,
            now=now.now_hz,
            log_evidence=now.log_evidence,
            bound=now.log_bound,
        ),
    )


def reported(view: FleetView) -> api.DriftReport:
    """Say which signals have drifted, and how many of them may be false."""
    return api.DriftReport(
        promise=f"at most {100 * view.alpha:.0f} % of these are expected to be false,"
        f" over a patience of {view.patience_s / DAY_S:.0f} days",
        signals=tuple(
            api.ReportedSignal(
                model=each.model,
                version=each.version,
                signal=each.signal,
                log_evidence=each.log_evidence,
            )
            for each in view.reported
        ),
    )


def _rate_baselines(view: RateView) -> Iterator[api.BaselineState]:
    rows = [(view.state, view.digest, view.events)]
    if view.candidate is not None:
        rows.append((BaselineState.CANDIDATE, view.candidate.digest, view.candidate.events))
    for state, digest, events in rows:
        yield api.BaselineState(
            id=_rate_id(view, digest),
            model=view.model,
            version="",
            signal=EVENT_RATE,
            state=str(state),
            events=events,
            events_wanted=view.events_wanted,
        )


def _rate_id(view: RateView, digest: str) -> str:
    return baseline_id(view.model, "", EVENT_RATE, digest) if digest else ""


def _attribution(series: SeriesView, signal: SignalView) -> dict[str, float]:
    found = series.attribution
    if found is None or found.signal != signal.signal:
        return {}
    return {"class": found.of_class, "confidence_given_class": found.given_class}


def baselines(found: Snapshot) -> Iterator[api.BaselineState]:
    """List the baselines of all signals, then those of event rates."""
    for series in found.series:
        for signal in series.signals:
            # A class that hardly comes collects for ever; its row among the drifts says so.
            if signal.drift is not None or not signal.part_of:
                yield from _baselines_of(series, signal, found.labelled)
    for each in found.rates:
        yield from _rate_baselines(each)


def _baselines_of(
    series: SeriesView, signal: SignalView, labelled: Mapping[tuple[str, str, str], int]
) -> Iterator[api.BaselineState]:
    """List a signal's baseline, then its candidate and what was superseded if there are any."""
    drift = signal.drift
    rows = [
        (signal.state, BesideView(digest="", events=signal.collected, is_calibrated=None))
        if drift is None
        else (
            signal.state,
            BesideView(
                digest=drift.baseline_digest,
                events=drift.baseline_events,
                is_calibrated=drift.is_calibrated,
                hours=drift.baseline_hours,
            ),
        )
    ]
    for state, beside in (
        (BaselineState.CANDIDATE, signal.candidate),
        (BaselineState.SUPERSEDED, signal.superseded),
    ):
        if beside is not None:
            rows.append((state, beside))
    for state, each in rows:
        is_from_file = signal.is_from_file and state is BaselineState.FROZEN
        key = (series.model, series.version, signal.signal)
        yield api.BaselineState(
            id=_baseline_id(series, signal, each.digest) if each.digest else "",
            model=series.model,
            version=series.version,
            signal=signal.signal,
            state=str(state),
            events=each.events,
            events_wanted=signal.wanted,
            calibrated=each.is_calibrated,
            source="file" if is_from_file else "site",
            hours=each.hours,
            labelled=labelled.get(key, 0) if is_from_file else 0,
            superseded=_maybe_superseded(series, signal)
            if state is BaselineState.SUPERSEDED
            else None,
        )


def _baseline_id(series: SeriesView, signal: SignalView, digest: str) -> str:
    return baseline_id(series.model, series.version, signal.signal, digest)
