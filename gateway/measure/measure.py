"""Measure every span of every batch, before anything is sampled.

Law: the state depends on the sequence of batches alone. An idle `advance` only does earlier what
the next batch would do first, so a replay without it comes to the same counts, ticks and
judgements. Everything that is counted is an integer and merges by adding.

Cost: about a hundred numpy calls for each batch, none of them per span in Python.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from gateway.batch import (
    NO_CONTRACT,
    NO_SERIES,
    Anomaly,
    AnomalyKind,
    Batch,
    Findings,
    Parcel,
    Upstream,
)
from gateway.contract.plan import Plan
from gateway.errors import CorruptDataError
from gateway.measure import views
from gateway.measure.devices.devices import PAUSE_NS, TIME_NS_MAX
from gateway.measure.drift.attribution import maybe_attribution, maybe_weights
from gateway.measure.drift.baseline import baseline_id
from gateway.measure.drift.compared import Compared, compare
from gateway.measure.drift.rates import Rates
from gateway.measure.drift.ratestate import load as load_rates
from gateway.measure.drift.ratestate import save as save_rates
from gateway.measure.drift.state import load as load_streams
from gateway.measure.drift.state import save as save_streams
from gateway.measure.drift.streams import Streams
from gateway.measure.driftviews import BinWords, drift_views
from gateway.measure.evidence import (
    BAD_ROWS,
    NO_BIN,
    RECENT_ROWS,
    ROWS_PER_BATCH,
    Ring,
    Sample,
    thinned,
)
from gateway.measure.latency import Latency
from gateway.measure.match import Matcher, inherit, versions
from gateway.measure.operations import Inferences, Operations
from gateway.measure.operationviews import operations_view
from gateway.measure.series import SeriesTable
from gateway.measure.settings import ADVANCE_GRACE_NS, SECOND_NS, MeasureSettings
from gateway.measure.slo.objectives import Objectives
from gateway.measure.snapshot import Counters, DriftView, SeriesView, Snapshot
from gateway.measure.state import (
    Array,
    Int64,
    State,
    part,
    prefixed,
)
from gateway.measure.watch import Watch
from gateway.otlp import columns, events
from gateway.otlp.threshold import upstream
from gateway.tables import Bool, Int16

COLD_START_KEY: Final = "edgeai.inference.cold_start"
STATUS_ERROR: Final = 2
FORMAT: Final = 2


class Measure:
    """All statistics of one plan.

    Raises: InvalidConfigError when a contract names a baseline file that does not fit it.
    """

    def __init__(self, plan: Plan, settings: MeasureSettings) -> None:
        self.plan = plan
        self.settings = settings
        self._ahead_ns = round(settings.clock_ahead_s * SECOND_NS)
        self._cold_slot = plan.slot_of[COLD_START_KEY]
        self._matcher = Matcher(plan)
        self.series = SeriesTable(plan, settings.series_max)
        self.latency = Latency(plan)
        self.objectives = Objectives(plan, settings)
        self.streams = Streams(plan, settings)
        self.rates = Rates(plan, settings, self.streams.budget)
        self.operations = Operations(
            plan, settings, self.objectives, self.series, self.streams, self.rates
        )
        self.devices = self.operations.devices
        self.rollouts = self.operations.rollouts
        self._recent = Ring(RECENT_ROWS, self.streams.places)
        self._bad = Ring(BAD_ROWS, self.streams.places)
        self._words = BinWords()
        self.watch = Watch(
            plan,
            settings,
            series=self.series,
            streams=self.streams,
            rates=self.rates,
            objectives=self.objectives,
            devices=self.devices,
            rollouts=self.rollouts,
            causes=self.operations.causes,
            recent=self._recent,
            bad=self._bad,
            turn=self.operations.judged,
            due=self.operations.due,
            troubles=self.operations.troubles,
        )
        self.now_ns = 0
        self.clamped = 0

    def observe(self, batch: Batch) -> Findings:
        """Count a batch and say what is known of each of its rows."""
        if any(events.is_start_notice(parcel) for parcel in batch.parcels):
            # Before the time in which nobody could be heard is judged.
            self.devices.resume(batch.arrival_ns)
            self.rates.resume(batch.arrival_ns)
        anomalies = self._turn(batch.arrival_ns)
        self.rates.heard(batch.arrival_ns)
        spans = batch.spans
        end_ns = _clipped(spans["end_ns"])
        start_ns = _clipped(spans["start_ns"])
        duration_ns = end_ns - start_ns
        invalid = duration_ns < 0
        duration_ns = np.maximum(duration_ns, 0)
        runs = self.devices.find(batch)
        self.devices.add(batch, runs, start_ns, end_ns)
        device = runs.rows(runs.device)
        arrival_ns = runs.rows(runs.arrival_ns)
        latest_ns = arrival_ns + self._ahead_ns
        event_ns = np.minimum(end_ns, latest_ns)
        self.clamped += int(np.count_nonzero(end_ns > latest_ns))
        failed = spans["status"] == STATUS_ERROR
        matched = self._matcher.contracts(batch)
        said = upstream(batch)
        series = np.full(len(spans), NO_SERIES, dtype=np.int32)
        rows = (matched != NO_CONTRACT).nonzero()[0]
        if len(rows):
            series[rows] = self._find_series(batch, matched, rows)
            whole = len(rows) == len(spans)
            at = slice(None) if whole else rows
            some = Inferences(
                rows=None if whole else rows,
                contract=matched[at].astype(np.int64),
                series=series[at].astype(np.int64),
                failed=failed[at],
                duration_ns=duration_ns[at],
                invalid=invalid[at],
                event_ns=event_ns[at],
                arrival_ns=arrival_ns[at],
                device=device[at],
            )
            self._count(batch, some, said)
            self.streams.learn()
        contract = inherit(batch, matched)
        if self.operations.infer(
            batch,
            runs,
            matched=matched,
            contract=contract,
            series=series,
            failed=failed,
            event_ns=event_ns,
        ):
            anomalies += self._tell_violations(batch.arrival_ns)
        return Findings(
            contract=contract,
            series=series,
            failed=failed,
            duration_ns=duration_ns.astype(np.uint64),
            event_ns=event_ns.astype(np.uint64),
            device=device.astype(np.int32),
            devices=self.devices.names,
            series_names=self.series.names,
            upstream=said,
            anomalies=tuple(anomalies),
        )

    def hear(self, parcel: Parcel) -> tuple[Anomaly, ...]:
        """Take what metrics and logs say, after the spans of their batch."""
        urgent = self.operations.hear(parcel)
        told = self.watch.promoted(urgent.promoted, parcel.arrival_ns)
        if urgent.violated:
            told += self._tell_violations(parcel.arrival_ns)
        return tuple(told)

    def take_shadow_alarms(self) -> list[tuple[str, str, str]]:
        """Return model, signal and id of superseded baselines that alarmed for the first time.

        Each is returned once, and it is no part of the state.
        """
        return [
            (key[0], key[2], baseline_id(*key, digest))
            for number, digest in self.streams.shadows.take_told()
            for key in [self.streams.items[number].key]
        ]

    def was_away(self, now_ns: int) -> bool:
        """Tell whether nobody has been heard for so long that a start has to be told.

        Where rates are judged a start is told after a single tick: silence is evidence there.
        """
        away_ns = self.settings.drift_tick_ns if self.rates.contracts else PAUSE_NS
        return 0 < self.devices.site_ns <= now_ns - away_ns

    def spent(self, contract_bytes: Int64, now_ns: int) -> None:
        """Count the encoded bytes that leave. Shape: (contracts + 1,), the default last."""
        self.operations.meters.spent(contract_bytes, now_ns)

    def _tell_violations(self, now_ns: int) -> list[Anomaly]:
        """Page at once: nothing about integrity waits for a watermark."""
        return self.watch.tell(self.operations.health.integrity.troubles(), now_ns)

    def contracts(self, batch: Batch) -> Int16:
        """Find the contract of each row without counting anything. Shape: (spans,)."""
        return inherit(batch, self._matcher.contracts(batch))

    def advance(self, now_ns: int) -> tuple[Anomaly, ...]:
        """Take the time into account when no batch comes; call it only when none is waiting."""
        return tuple(self._turn(now_ns - ADVANCE_GRACE_NS))

    def _find_series(self, batch: Batch, matched: Int16, rows: Int64) -> Array:
        version = versions(batch, self.plan, self.series.versions)
        found, made = self.series.find(matched[rows], version[rows])
        for index in made:
            contract = self.series.contract[index]
            if contract != NO_CONTRACT:
                self.streams.open_series(index, contract, *self.series.names[index])
        if made:
            count = len(self.series)
            self.latency.reserve(count)
            self._recent.reserve(count)
            self._bad.reserve(count)
        return found

    def _count(self, batch: Batch, some: Inferences, said: Upstream) -> None:
        """Count the inferences of a batch."""
        cold: Bool | None = None
        if np.count_nonzero(batch.slots[self._cold_slot] >= 0):
            cold = columns.booleans(batch, self._cold_slot) == 1
            cold = cold if some.rows is None else cold[some.rows]
        self.series.add(some.series, some.failed, cold)
        bucket = self.latency.add(some.series, some.duration_ns)
        bad = self.objectives.add(
            some.contract,
            some.event_ns,
            some.arrival_ns,
            some.failed,
            some.duration_ns,
            cold,
            some.invalid,
        )
        late = self.streams.seasons.maybe_late(some.contract, some.event_ns, some.arrival_ns)
        bins = self.streams.add(batch, some.rows, some.series, late)
        self.rates.add(some.contract, some.event_ns)
        self.operations.count(batch, some, cold, bins)
        weights = self.streams.maybe_weigh(said, some.rows, some.contract, some.series, late)
        count = len(self.series)
        chosen, rank = thinned(some.series, count, ROWS_PER_BATCH, batch.sequence)
        self._keep(self._recent, batch, some, chosen, rank, bins, weights, bucket)
        worst = np.flatnonzero(some.failed if bad is None else some.failed | bad)
        if len(worst):
            among, rank = thinned(some.series[worst], count, ROWS_PER_BATCH, batch.sequence)
            self._keep(self._bad, batch, some, worst[among], rank, bins, weights, bucket)

    def _keep(
        self,
        ring: Ring,
        batch: Batch,
        some: Inferences,
        chosen: Int64,
        rank: Int64,
        bins: list[Int64],
        weights: Int64 | None,
        bucket: Int64,
    ) -> None:
        """Keep chosen inferences as evidence and as exemplars."""
        spans = batch.spans.take(chosen if some.rows is None else some.rows[chosen])
        ids = np.stack((spans["trace_hi"], spans["trace_lo"]), axis=1)
        series = some.series[chosen]
        by_place = np.full((len(chosen), self.streams.places), NO_BIN, dtype=np.int16)
        for lane, found in zip(self.streams.readers, bins, strict=True):
            place = lane.places(series)
            held = (place >= 0).nonzero()[0]
            by_place[held, place[held]] = found[chosen[held]]
        inclusion = np.full(len(chosen), NO_BIN, dtype=np.int16)
        if weights is not None:
            inclusion[:] = weights[chosen]
        duration_ns = some.duration_ns[chosen]
        rows = Sample(
            ids=ids,
            device=some.device[chosen],
            event_ns=some.event_ns[chosen],
            duration_ns=duration_ns,
            failed=some.failed[chosen],
            bins=by_place,
            inclusion=inclusion,
        )
        ring.add(series, rank, rows)
        self.latency.show(series, bucket[chosen], ids, duration_ns)

    def _turn(self, now_ns: int) -> list[Anomaly]:
        """Do what is due at this time: generations, ticks, judgements."""
        if now_ns <= self.now_ns:
            return []
        self.now_ns = now_ns
        self.latency.turn(now_ns)
        told = self.watch.turn(now_ns)
        self.operations.turn(now_ns)
        return told

    def snapshot(self) -> Snapshot:
        """Copy everything that is shown; to be called where batches are observed."""
        alarmed = {
            (episode.anomaly.model, episode.anomaly.version, episode.anomaly.subject)
            for episode in self.watch.episodes.open.values()
            if episode.anomaly.kind is AnomalyKind.DRIFT
        }
        compared = compare(self.streams, sorted(self.streams.baselines))
        words = self._words.keep(self.streams)
        told = {each for each in compared.row_of if self.streams.items[each].key in alarmed}
        drifts = drift_views(self.streams, compared, words, told)
        return Snapshot(
            now_ns=self.now_ns,
            series=tuple(
                self._series_view(index, drifts, compared) for index in range(len(self.series))
            ),
            slos=views.slo_views(self.objectives),
            drifts=views.fleet_view(self.streams),
            devices=views.devices_view(self.devices),
            operations=operations_view(self.operations, self.now_ns),
            rates=views.rate_views(self.rates),
            counters=Counters(
                clamped=self.clamped,
                late=int(self.objectives.late.sum()),
                too_late=self.objectives.too_late,
                invalid=self.objectives.invalid,
                drift_late=self.streams.seasons.late_events,
                other_device_spans=self.devices.overflow_spans,
            ),
            labelled=self.operations.estimates.tables.labelled,
            open_anomalies=tuple(episode.anomaly for episode in self.watch.episodes.open.values()),
            anomalies_raised=tuple(
                (kind, model, count) for (kind, model), count in self.watch.episodes.raised.items()
            ),
        )

    def _series_view(
        self, index: int, drifts: Mapping[int, DriftView], compared: Compared
    ) -> SeriesView:
        model, version = self.series.names[index]
        ok, failed = self.series.outcomes[index].tolist()
        return SeriesView(
            model=model,
            version=version,
            ok=ok,
            failed=failed,
            cold_starts=int(self.series.cold_starts[index]),
            latency=views.latency_view(self.latency, index),
            signals=tuple(
                views.signal_view(self.streams, number, drifts.get(number))
                for number in self.streams.of_series(index)
            ),
            weights=maybe_weights(self.streams, index),
            attribution=maybe_attribution(self.streams, index, compared),
        )

    def state(self) -> State:
        """Copy everything that a restart needs."""
        count = len(self.series)
        return {
            "format": np.array([FORMAT], dtype=np.int64),
            "clock": np.array([self.now_ns, self.clamped], dtype=np.int64),
            **prefixed("series", self.series.state()),
            **prefixed("latency", self.latency.state(count)),
            **prefixed("operations", self.operations.state()),
            **prefixed("objectives", self.objectives.state()),
            **prefixed("streams", save_streams(self.streams)),
            **prefixed("rates", save_rates(self.rates)),
            **prefixed("episodes", self.watch.episodes.state()),
            **prefixed("recent", self._recent.state(count)),
            **prefixed("bad", self._bad.state(count)),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put a state back into a fresh instance; the plan may have changed.

        Raises: CorruptDataError when the state is not one of this format.
        """
        if "format" not in state or int(state["format"][0]) != FORMAT:
            raise CorruptDataError(f"the state of measure is not of format {FORMAT}")
        self.now_ns, self.clamped = state["clock"].tolist()
        self.series.restore(part("series", state))
        count = len(self.series)
        for ring in (self.latency, self._recent, self._bad):
            ring.reserve(count)
        for index, contract in enumerate(self.series.contract):
            if contract != NO_CONTRACT:
                names = self.series.names[index]
                self.streams.open_series(index, contract, *names, learn=False)
        self.latency.restore(part("latency", state))
        self.objectives.restore(part("objectives", state))
        load_streams(self.streams, part("streams", state))
        load_rates(self.rates, part("rates", state))
        self.operations.restore(part("operations", state))
        self.watch.episodes.restore(part("episodes", state))
        for name, kept in (("recent", self._recent), ("bad", self._bad)):
            # A merged state has no rows: they belong to the site that saw them.
            if f"{name}/written" in state:
                kept.restore(part(name, state))


def _clipped(column: Array) -> Int64:
    return np.minimum(column, np.uint64(TIME_NS_MAX)).astype(np.int64)
