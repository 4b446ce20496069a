"""The measurements as the API shows them: one snapshot turned into its types.

Law: pure; devices are named by their site tokens, and a value that does not exist is None.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from gateway.api import operations as ops
from gateway.api import sources as api
from gateway.api.drifts import DriftBudget
from gateway.config.units import format_duration
from gateway.contract.schema import Contract
from gateway.measure import Snapshot
from gateway.measure.devices.devices import NO_DELAY
from gateway.measure.devices.hosts import HostView
from gateway.measure.estimates.views import ASSUMPTION, EstimateView
from gateway.measure.labels.accuracy import Estimate
from gateway.measure.snapshot import SeriesView, SloView
from gateway.measured.drifts import baselines, drifts, reported

SECOND_NS: Final = 1_000_000_000
# Without a word for this long a device counts as silent; it is the freshness objective.
SILENT_S: Final = 300.0


def measured(
    found: Snapshot,
    *,
    now_ns: int,
    contracts: Sequence[Contract],
    token: Callable[[str], str],
) -> api.MeasureSnapshot:
    """Turn a snapshot into what the API shows of it."""
    operations = found.operations
    return api.MeasureSnapshot(
        series=tuple(_series(each, found.now_ns) for each in found.series),
        slos=tuple(_slo(each) for each in found.slos),
        drift=tuple(drifts(found, contracts)),
        devices=tuple(_devices(found, now_ns, token)),
        fleets=tuple(
            ops.FleetState(
                model=each.model,
                expected=each.expected,
                silent=each.silent,
                threshold_s=each.threshold_s,
                oldest_age_s=each.oldest_age_s,
            )
            for each in operations.freshness
        ),
        accuracy=tuple(_accuracy(found)),
        costs=tuple(_costs(found)),
        bandwidth=tuple(
            ops.BandwidthState(
                model=each.model,
                slo=each.slo,
                allowance_bytes=each.allowance_bytes,
                spent_bytes=each.spent_bytes,
                start_ns=each.start_ns,
                end_ns=each.end_ns,
                pace_ratio=each.pace_ratio,
                exhausted_ns=each.exhausted_ns,
            )
            for each in operations.meters.allowances
        ),
        counts=_counts(found),
        baselines=tuple(baselines(found)),
        budget=DriftBudget(per=str(found.drifts.per), detectors=found.drifts.detectors),
        reported=reported(found.drifts),
    )


def _devices(
    found: Snapshot, now_ns: int, token: Callable[[str], str]
) -> Iterator[ops.DeviceState]:
    view, newest = found.devices, found.devices.newest
    hosts = {each.device: each for each in found.operations.hosts}
    for index, name in enumerate(view.names):
        heard_ns = int(view.last_arrival_ns[index])
        if not heard_ns:
            continue
        delay_ns, jitter_ns = int(view.least_delay_ns[index]), int(view.jitter_ns[index])
        inferred_ns = int(view.last_inference_ns[index])
        model, version = int(newest.model[index]), int(newest.version[index])
        accelerator = int(newest.accelerator[index])
        freshness_s = max(0.0, (now_ns - heard_ns) / SECOND_NS)
        host: HostView | None = hosts.get(name)
        yield ops.DeviceState(
            device=token(name),
            freshness_s=freshness_s,
            silent=freshness_s > SILENT_S,
            last_heard_ns=heard_ns,
            last_event_ns=int(view.last_event_ns[index]),
            last_inference_ns=inferred_ns or None,
            spans=int(view.spans[index]),
            items=int(view.items[index]),
            bytes=int(view.bytes[index]),
            clock_offset_s=None if delay_ns == NO_DELAY else -delay_ns / SECOND_NS,
            clock_jitter_s=None if jitter_ns == NO_DELAY else jitter_ns / SECOND_NS,
            invalid_spans=int(view.invalid[index]),
            future_spans=int(view.future[index]),
            model=newest.models[model] if model >= 0 else None,
            version=newest.versions[version] if version >= 0 else None,
            accelerator=newest.accelerators[accelerator] if accelerator >= 0 else None,
            headroom_ratio=host.headroom_ratio if host else None,
            readings=host.readings if host else None,
            conditions=host.conditions if host else (),
        )


def _accuracy(found: Snapshot) -> Iterator[ops.AccuracyState]:
    estimates = {(each.model, each.version): each for each in found.operations.estimates}
    for each in found.operations.labels.accuracy:
        estimate = estimates.get((each.model, each.version))
        yield ops.AccuracyState(
            model=each.model,
            version=each.version,
            right=each.right,
            wrong=each.wrong,
            day=_estimate(each.day),
            month=_estimate(each.month),
            all_time=_estimate(each.all_time),
            confusion=tuple(
                ops.Pair(predicted=pair.predicted, label=pair.label, count=pair.count)
                for pair in each.pairs
            ),
            estimated=None if estimate is None else _estimated(estimate),
        )


def _estimated(found: EstimateView) -> ops.EstimatedState:
    cbpe, window, calibration = found.cbpe, found.window, found.calibration
    return ops.EstimatedState(
        assumption=ASSUMPTION,
        reference=found.reference,
        reference_from_file=found.is_from_file,
        labelled_events=found.labelled,
        window_events=0 if window is None else window.events,
        reason=found.reason,
        cbpe=None
        if cbpe is None
        else ops.EstimatedAccuracy(
            accuracy_ratio=cbpe.value, low_ratio=cbpe.low, high_ratio=cbpe.high
        ),
        atc_ratio=found.atc,
        disagreement=found.disagrees,
        contradicted=found.is_contradicted,
        class_prior=found.prior,
        class_prior_reason=found.no_prior,
        mean_confidence_ratio=None if window is None else window.mean,
        saturated_ratio=None if window is None else window.saturated,
        low_confidence_ratio=None if window is None else window.unsure,
        class_entropy_nats=found.class_entropy_nats,
        calibration=ops.Calibration(
            log_evidence=calibration.evidence,
            log_evidence_bound=calibration.bound,
            surplus_ratio=calibration.surplus,
            error_ratio=calibration.error,
            alarm=calibration.is_alarmed,
        ),
    )


def _estimate(found: Estimate | None) -> ops.Estimate | None:
    if found is None:
        return None
    return ops.Estimate(
        labels=found.labels,
        accuracy_ratio=found.accuracy,
        low_ratio=found.low,
        high_ratio=found.high,
    )


def _costs(found: Snapshot) -> Iterator[ops.CostState]:
    for each in found.operations.meters.costs:
        yield ops.CostState(
            model=each.model,
            currency=each.currency,
            per_inference=each.per_inference,
            spent=each.spent,
            batch_jobs=sum(bill.cost for bill in each.bills),
            budget=each.budget,
            spent_ratio=each.spent_ratio,
            projected=each.projected,
            parts=tuple(
                ops.CostPart(
                    version=part.version,
                    feature=part.feature,
                    inferences=part.inferences,
                    cost=part.cost,
                )
                for part in each.parts
            ),
            months={month.month: month.cost for month in each.months},
        )


def _counts(found: Snapshot) -> ops.Counts:
    operations = found.operations
    labels = operations.labels
    return ops.Counts(
        labels=dict(labels.fates),
        labels_waiting=labels.waiting,
        label_sample_ratio=labels.probability,
        loads={each.model: (each.loaded, each.failed) for each in operations.loads},
        failed={
            (each.model, team.value): count
            for each in operations.causes
            for team, count in each.failed.items()
        },
        violations=operations.violations,
        latched=operations.latched,
        left_bytes={each.model: each.total for each in operations.meters.bytes},
        deployed={each.model: (each.succeeded, each.failed) for each in operations.rollouts.models},
        retrained={each.model: each.retrained for each in operations.rollouts.models},
        unusable={
            **{f"batch_job_{reason}": n for reason, n in operations.meters.refused},
            **{f"rollout_{reason}": n for reason, n in operations.rollouts.refused},
            **operations.unusable,
        },
        raised={(kind, model): count for kind, model, count in found.anomalies_raised},
        clock_skew=found.counters.clamped,
        invalid_durations=found.counters.invalid,
        drift_late=found.counters.drift_late,
        late=found.counters.late + found.counters.too_late,
    )


def _series(view: SeriesView, now_ns: int) -> api.Series:
    cumulative = view.latency.cumulative
    counts = [high - low for low, high in zip((0, *cumulative), cumulative, strict=False)]
    return api.Series(
        model=view.model,
        version=view.version,
        succeeded=view.ok,
        failed=view.failed,
        cold_starts=view.cold_starts,
        duration_s=api.Histogram(
            edges=view.latency.edges_s,
            counts=tuple(counts),
            sum=view.latency.sum_s,
            exemplars=tuple(
                None
                if each is None
                else api.Exemplar(trace_id=each.trace_id, value=each.value_s, time_s=now_ns / 1e9)
                for each in view.latency.exemplars
            ),
        ),
        recent=_quantiles(view.latency.recent_s),
        all_time=_quantiles(view.latency.all_time_s),
        classes={
            value: count
            for signal in view.signals
            for value, count in zip(signal.values, signal.counts, strict=False)
        },
        last_event_ns=now_ns,
        weights=None
        if view.weights is None
        else api.Weights(
            mean=view.weights.mean, effective_inferences=view.weights.effective_events
        ),
    )


def _quantiles(found_s: Sequence[float]) -> api.Quantiles | None:
    if not found_s:
        return None
    p50_s, p95_s, p99_s = found_s
    return api.Quantiles(p50_s=p50_s, p95_s=p95_s, p99_s=p99_s)


def _slo(view: SloView) -> api.SloState:
    return api.SloState(
        model=view.model,
        slo=view.slo,
        indicator=view.indicator,
        objective=view.objective,
        window_s=float(view.windows[-1].window_s),
        threshold_s=view.threshold_s,
        budget_remaining_ratio=view.budget_remaining_ratio,
        exhaustion_s=view.exhaustion_s,
        exhaustion_formula=view.formula,
        windows=tuple(
            api.SloWindow(
                window=format_duration(each.window_s),
                good=each.good,
                bad=each.bad,
                burn_rate=each.burn_rate,
            )
            for each in view.windows
        ),
    )
