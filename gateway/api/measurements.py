"""Metrics of what is measured, read from one snapshot.

Law: a value that does not exist is no sample. Devices are named by tokens, at most DEVICES_MAX of
them, the stalest first; what belongs to no contract has the model NO_MODEL.
"""

from collections.abc import Iterator
from typing import Final

from gateway.api.declared import RolloutsStatus
from gateway.api.operations import EstimatedState
from gateway.api.sources import MeasureSnapshot, Sample

DEVICES_MAX: Final = 1_000  # the API lists all
NO_MODEL: Final = "~none"


def measured(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    """Read the metrics that come from the measurements."""
    yield from _series(snapshot)
    yield from _slos(snapshot)
    yield from _drift(snapshot)
    yield from _devices(snapshot)
    yield from _labels(snapshot)
    yield from _costs(snapshot)
    yield from _counts(snapshot)
    yield from _events(snapshot)


def _series(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    for series in snapshot.series:
        labels = {"model": series.model, "version": series.version}
        for outcome, count in (("success", series.succeeded), ("failure", series.failed)):
            yield Sample(
                name="weir_inference_total", labels={**labels, "outcome": outcome}, value=count
            )
        yield Sample(name="weir_inference_duration_seconds", labels=labels, value=series.duration_s)
        if series.recent is not None:
            for quantile, value in (
                ("0.5", series.recent.p50_s),
                ("0.95", series.recent.p95_s),
                ("0.99", series.recent.p99_s),
            ):
                yield Sample(
                    name="weir_inference_duration_quantile_seconds",
                    labels={**labels, "quantile": quantile},
                    value=value,
                )
        yield Sample(name="weir_cold_starts_total", labels=labels, value=series.cold_starts)


def _slos(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    for slo in snapshot.slos:
        labels = {"model": slo.model, "slo": slo.slo}
        yield Sample(name="weir_slo_objective_ratio", labels=labels, value=slo.objective)
        if slo.budget_remaining_ratio is not None:
            yield Sample(
                name="weir_slo_budget_remaining_ratio",
                labels=labels,
                value=slo.budget_remaining_ratio,
            )
        for window in slo.windows:
            place = {**labels, "window": window.window}
            if window.burn_rate is not None:
                yield Sample(name="weir_slo_burn_rate", labels=place, value=window.burn_rate)
            for outcome, count in (("good", window.good), ("bad", window.bad)):
                yield Sample(
                    name="weir_slo_window_events",
                    labels={**place, "outcome": outcome},
                    value=count,
                )
        if slo.exhaustion_s is not None:
            yield Sample(name="weir_slo_exhaustion_seconds", labels=labels, value=slo.exhaustion_s)


def _drift(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    listed = {(each.model, each.version, each.signal) for each in snapshot.reported.signals}
    for drift in snapshot.drift:
        labels = {"model": drift.model, "version": drift.version, "signal": drift.signal}
        if drift.psi is not None:
            yield Sample(name="weir_drift_psi", labels=labels, value=drift.psi)
        if drift.relative_drift_index is not None:
            yield Sample(
                name="weir_drift_relative_index", labels=labels, value=drift.relative_drift_index
            )
        if drift.log_evidence is not None:
            yield Sample(
                name="weir_drift_alarm_log_evidence", labels=labels, value=drift.log_evidence
            )
        if drift.superseded is not None:
            yield Sample(
                name="weir_drift_shadow_alarms_total",
                labels=labels,
                value=drift.superseded.alarms,
            )
        if drift.calibrated is not None:
            yield Sample(
                name="weir_drift_uncalibrated", labels=labels, value=int(not drift.calibrated)
            )
            is_reported = (drift.model, drift.version, drift.signal) in listed
            yield Sample(name="weir_drift_reported", labels=labels, value=int(is_reported))
    yield Sample(
        name="weir_drift_detectors",
        labels={"budget": snapshot.budget.per},
        value=snapshot.budget.detectors,
    )


def _devices(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    for fleet in snapshot.fleets:
        place = {"model": fleet.model or NO_MODEL}
        heard = fleet.expected - fleet.silent
        for state, count in (("heard", heard), ("silent", fleet.silent)):
            yield Sample(name="weir_devices", labels={**place, "state": state}, value=count)
    stalest = sorted(snapshot.devices, key=lambda device: -device.freshness_s)[:DEVICES_MAX]
    for device in stalest:
        labels = {"device": device.device}
        for name, value in (
            ("weir_device_freshness_seconds", device.freshness_s),
            ("weir_device_bytes_total", device.bytes),
            ("weir_device_clock_offset_seconds", device.clock_offset_s),
            ("weir_device_clock_jitter_seconds", device.clock_jitter_s),
            ("weir_device_headroom_ratio", device.headroom_ratio),
        ):
            if value is not None:
                yield Sample(name=name, labels=labels, value=value)
        for reading, value in (device.readings or {}).items():
            yield Sample(
                name="weir_device_reading", labels={**labels, "reading": reading}, value=value
            )


def _labels(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    for each in snapshot.accuracy:
        if each.month is None:
            continue
        for bound, value in (
            ("estimate", each.month.accuracy_ratio),
            ("low", each.month.low_ratio),
            ("high", each.month.high_ratio),
        ):
            yield Sample(
                name="weir_accuracy_ratio",
                labels={"model": each.model, "version": each.version, "bound": bound},
                value=value,
            )
    for each in snapshot.accuracy:
        if each.estimated is not None:
            yield from _estimated(each.model, each.version, each.estimated)
    for result, count in snapshot.counts.labels.items():
        yield Sample(name="weir_labels_total", labels={"result": result}, value=count)
    yield Sample(name="weir_labels_waiting", value=snapshot.counts.labels_waiting)


def _estimated(model: str, version: str, found: EstimatedState) -> Iterator[Sample]:
    labels = {"model": model, "version": version}
    if found.cbpe is not None:
        for bound, value in (
            ("estimate", found.cbpe.accuracy_ratio),
            ("low", found.cbpe.low_ratio),
            ("high", found.cbpe.high_ratio),
        ):
            yield Sample(
                name="weir_estimated_accuracy_ratio", labels={**labels, "bound": bound}, value=value
            )
    if found.calibration.error_ratio is not None:
        evidence = found.calibration.log_evidence
        yield Sample(name="weir_calibration_log_evidence", labels=labels, value=evidence)


def _costs(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    for each in snapshot.costs:
        labels = {"model": each.model, "currency": each.currency}
        for name, value in (
            ("weir_cost_spent", each.spent),
            ("weir_cost_projected", each.projected),
            ("weir_cost_budget", each.budget),
        ):
            if value is not None:
                yield Sample(name=name, labels=labels, value=value)
        for part in each.parts:
            yield Sample(
                name="weir_cost_part",
                labels={**labels, "version": part.version, "feature": part.feature},
                value=part.cost,
            )
    for allowance in snapshot.bandwidth:
        labels = {"model": allowance.model, "slo": allowance.slo}
        for name, count in (
            ("weir_bandwidth_spent_bytes", allowance.spent_bytes),
            ("weir_bandwidth_allowance_bytes", allowance.allowance_bytes),
        ):
            yield Sample(name=name, labels=labels, value=count)


def _counts(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    counts = snapshot.counts
    for model, count in counts.left_bytes.items():
        yield Sample(name="weir_left_bytes_total", labels={"model": model or NO_MODEL}, value=count)
    for model, (loaded, failed) in counts.loads.items():
        for outcome, count in (("success", loaded), ("failure", failed)):
            yield Sample(
                name="weir_model_loads_total",
                labels={"model": model or NO_MODEL, "outcome": outcome},
                value=count,
            )
    for (model, owner), count in counts.failed.items():
        yield Sample(
            name="weir_failed_inferences_total",
            labels={"model": model or NO_MODEL, "owner": owner},
            value=count,
        )
    # Who has none shows 0: a series that begins with the first violation would show no increase.
    for model in sorted({fleet.model for fleet in snapshot.fleets} | counts.violations.keys()):
        labels = {"model": model or NO_MODEL}
        count = counts.violations.get(model, 0)
        yield Sample(name="weir_integrity_violations_total", labels=labels, value=count)
        yield Sample(
            name="weir_integrity_latched", labels=labels, value=int(model in counts.latched)
        )
    for model, (succeeded, failed) in counts.deployed.items():
        for outcome, count in (("success", succeeded), ("failure", failed)):
            yield Sample(
                name="weir_rollout_devices",
                labels={"model": model, "outcome": outcome},
                value=count,
            )
    for model, count in counts.retrained.items():
        yield Sample(name="weir_retrains", labels={"model": model}, value=count)
    for reason, count in counts.unusable.items():
        yield Sample(
            name="weir_unusable_declarations_total", labels={"reason": reason}, value=count
        )


def _events(snapshot: MeasureSnapshot) -> Iterator[Sample]:
    counts = snapshot.counts
    for (kind, model), count in counts.raised.items():
        labels = {"kind": kind, "model": model}
        yield Sample(name="weir_anomalies_total", labels=labels, value=count)
    for name, count in (
        ("weir_clock_skew_events_total", counts.clock_skew),
        ("weir_invalid_durations_total", counts.invalid_durations),
        ("weir_drift_late_events_total", counts.drift_late),
        ("weir_late_events_total", counts.late),
    ):
        yield Sample(name=name, value=count)


def rolled_out(status: RolloutsStatus) -> Iterator[Sample]:
    """Read the metrics of the rollouts that have not ended."""
    for each in status.rollouts:
        if each.end_ns is not None:
            continue
        for spend in each.spends:
            labels = {"model": each.model, "rollout": each.id, "slo": spend.slo}
            yield Sample(name="weir_rollout_spent_ratio", labels=labels, value=spend.spent_ratio)
            yield Sample(
                name="weir_rollout_allocation_ratio", labels=labels, value=spend.allocation_ratio
            )
