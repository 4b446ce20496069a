"""The confidence of each class: counted exactly, judged by itself, told with its own traces."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from gateway.batch import Anomaly, AnomalyKind, Batch
from gateway.contract.plan import Plan
from gateway.contract.schema import Action, Contract, DriftRule, Role, SignalType
from gateway.contract.schema import Signal as ContractSignal
from gateway.measure import Measure, MeasureSettings, merge
from gateway.measure.drift.conditional import ConditionalLane, conditionals
from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.drift.indices import jeffreys, psi_terms
from gateway.measure.drift.lanes import CELLS_PER_EVENT_MAX, EVENTS_AT_ONCE_MIN, LaneKey
from gateway.measure.drift.streams import Streams
from gateway.measure.snapshot import BaselineState, SignalView
from gateway.measure.state import Int64, State
from tests.unit.measure.build import (
    NO_CLASS,
    SECOND_NS,
    START_NS,
    VALUES,
    Fleet,
    batch,
    classed,
    contract,
    payload,
    plan,
    request,
    signals,
    span,
)

SCORE = Grid(kind=GridKind.LOGIT)
PLAN = plan()
# Beta laws by class code, as (a, b) of each.
Laws = list[tuple[float, float]]
CRACKED = "confidence|cracked"
SWAPPED_A, SWAPPED_B = (8.0, 2.0), (7.8, 2.2)


def names(**changes: Any) -> list[str]:
    return [each.name for each in conditionals(contract(**changes))]


def test_the_first_classes_that_the_contract_lists_have_a_confidence_of_their_own() -> None:
    assert names() == [f"confidence|{value}" for value in VALUES]
    assert names(drift=DriftRule(conditional_classes=2)) == ["confidence|ok", "confidence|cracked"]
    assert names(drift=DriftRule(conditional_classes=0)) == []


def not_told(values: tuple[str, ...] = VALUES, action: Action = Action.DROP) -> Contract:
    """A contract that does not export its classes."""
    listed = signals()
    listed["class"] = dataclasses.replace(listed["class"], export=action, values=values)
    return contract(signals=listed)


@pytest.mark.parametrize("action", list(Action))
def test_classes_that_the_contract_does_not_export_are_named_by_their_place(
    action: Action,
) -> None:
    places = [f"confidence|#{place}" for place in range(1, 1 + len(VALUES))]
    values = [f"confidence|{value}" for value in VALUES]
    found = [each.name for each in conditionals(not_told(action=action))]
    assert found == (values if action is Action.PASS else places)


def test_a_place_goes_on_only_where_it_is_the_same_class() -> None:
    before = Measure(plan(not_told()), MeasureSettings())
    for one in story(8)[:60]:
        before.observe(one)
    assert counts(before.streams, "confidence|#2").sum() > 0
    same_again, other = (
        Measure(plan(not_told(values)), MeasureSettings()) for values in (VALUES, VALUES[::-1])
    )
    for each in (same_again, other):
        each.restore(before.state())
        assert counts(each.streams, "confidence").sum() == 60 * 120
    for place in range(1, 1 + len(VALUES)):
        name = f"confidence|#{place}"
        assert np.array_equal(counts(same_again.streams, name), counts(before.streams, name))
        assert counts(other.streams, name).sum() == 0


@pytest.mark.parametrize("without", ["confidence", "class"])
def test_a_contract_without_confidence_or_classes_has_none(without: str) -> None:
    left = {name: signal for name, signal in signals().items() if name != without}
    assert names(signals=left) == []


def test_truth_values_are_classes_and_whole_numbers_are_not() -> None:
    def prediction(name: str, kind: SignalType) -> ContractSignal:
        return ContractSignal(
            name=name, attribute=name, type=kind, role=Role.PREDICTION, export=Action.PASS
        )

    number = prediction("count", SignalType.INT)
    truth = prediction("defect", SignalType.BOOL)
    left = {"confidence": signals()["confidence"], "count": number, "defect": truth}
    assert names(signals=left) == ["confidence|false", "confidence|true"]
    assert names(signals={"confidence": signals()["confidence"], "count": number}) == []


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_rows_are_counted_as_one_by_one(data: st.DataObject) -> None:
    """The oracle is a loop over events, and the lane is asked both ways in which it counts."""
    classes = Grid(kind=GridKind.CLASSES, values=tuple("abc"))
    lane = ConditionalLane(
        LaneKey(slot=0, type=SignalType.DOUBLE, grid=SCORE),
        scores=0,
        classes=1,
        width=classes.width,
    )
    wanted: dict[tuple[int, int], int] = {}
    for series in range(data.draw(st.integers(1, 3))):
        for code in range(data.draw(st.integers(0, 3))):
            wanted[2 * series, code] = lane.append(2 * series, code, len(wanted), 0)
    lane.lane.collecting = data.draw(st.integers(0, 1))
    size = data.draw(st.sampled_from([0, 1, 30, 2_000]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    of_series = rng.integers(0, 7, size)
    scores, codes = rng.integers(0, SCORE.width, size), rng.integers(0, classes.width, size)
    lane.add(of_series, [scores, codes])
    expected = np.zeros((len(wanted), SCORE.width), dtype=np.int64)
    for one, code, score in zip(of_series.tolist(), codes.tolist(), scores.tolist(), strict=True):
        if (one, code) in wanted:
            expected[wanted[one, code], score] += 1
    assert np.array_equal(lane.lane.open[: len(wanted)], expected)
    seen = expected.sum(axis=1) - expected[:, SCORE.missing]
    assert np.array_equal(lane.lane.seen[: len(wanted)], seen * lane.lane.collecting)


def test_both_ways_to_count_are_taken() -> None:
    cells = (len(VALUES) + 1) * SCORE.width
    assert EVENTS_AT_ONCE_MIN <= 2_000
    assert 30 * CELLS_PER_EVENT_MAX < cells < 2_000 * CELLS_PER_EVENT_MAX


def counts(streams: Streams, signal: str, version: str = "1.0") -> Int64:
    number = streams.number_of("damage-net", version, signal)
    assert number is not None
    return streams.counts(number)


def test_missing_and_unseen_classes_count_in_no_class() -> None:
    def one(number: int, confidence: float | None, value: object) -> Any:
        attributes = {
            "edgeai.model.name": "damage-net",
            "edgeai.inference.confidence": confidence,
            "edgeai.inference.class": value,
        }
        known = {key: each for key, each in attributes.items() if each is not None}
        return span(number, attributes=known)

    sent = [(0.5, "wet"), (None, "wet"), (7.0, "wet"), (0.5, "burnt"), (0.5, None), (0.5, 3)]
    spans = [one(1 + at, *each) for at, each in enumerate(sent)]
    measure = Measure(PLAN, MeasureSettings())
    measure.observe(batch(PLAN, payload(request(spans, {"service.version": "1.0"}))))
    streams = measure.streams
    assert counts(streams, "confidence").sum() == 6
    wet = counts(streams, "confidence|wet")
    (value_bin,) = bins_of_numbers(SCORE, np.array([0.5]), np.array([False])).tolist()
    assert (wet[value_bin], wet[SCORE.missing], wet[SCORE.odd]) == (1, 1, 1)
    assert wet.sum() == 3
    assert sum(int(counts(streams, f"confidence|{value}").sum()) for value in VALUES) == 3


def test_a_batch_without_predictions_and_contracts_without_them_count_elsewhere() -> None:
    fewer = {name: each for name, each in signals().items() if name != "class"}
    both = plan(contract(), contract("triage-net", signals=fewer))
    measure = Measure(both, MeasureSettings())
    one, other = (Fleet(both, size=40, model=model) for model in ("triage-net", "damage-net"))
    measure.observe(one.batch(START_NS, np.full(40, 0.5)))
    scores = np.full(40, 0.5)
    measure.observe(classed(other.batch(START_NS, scores), both, np.full(40, NO_CLASS)))
    assert counts(measure.streams, "confidence").sum() == 40
    classes = [f"confidence|{value}" for value in VALUES]
    assert [int(counts(measure.streams, each).sum()) for each in classes] == [0] * len(VALUES)
    assert measure.streams.number_of("triage-net", "1.0", "confidence|ok") is None
    measure.observe(one.batch(START_NS, scores))
    measure.observe(classed(other.batch(START_NS, scores), both, np.full(40, 2)))
    assert [int(counts(measure.streams, each).sum()) for each in classes] == [0, 0, 40, 0]


def test_none_are_opened_where_the_contract_asks_for_none() -> None:
    silent = plan(contract(drift=DriftRule(conditional_classes=0)))
    measure = Measure(silent, MeasureSettings())
    measure.observe(Fleet(silent, size=8).batch(START_NS, np.full(8, 0.5)))
    assert [each.signal for each in measure.streams.items] == list(signals())


class Site:
    """Sends inferences of given classes each second."""

    def __init__(
        self,
        the_plan: Plan = PLAN,
        *,
        size: int = 400,
        shares: tuple[float, ...] = (0.5, 0.5),
        seed: int = 1,
        **knobs: Any,
    ) -> None:
        self.plan = the_plan
        self.measure = Measure(the_plan, MeasureSettings(**{"baseline_events": 4_000, **knobs}))
        self._rng = np.random.default_rng(seed)
        self._size, self.shares = size, shares
        self.now_ns = START_NS
        self.told: list[Anomaly] = []
        self.sent: list[Batch] = []
        self._fleets: dict[str, Fleet] = {}

    def run(
        self, seconds: int, laws: Laws, *, version: str = "1.0", then: Laws | None = None
    ) -> None:
        """Send seconds of the laws; on the first of four devices those of `then`, if any."""
        fleet = self._fleets.setdefault(version, Fleet(self.plan, size=self._size, version=version))
        is_first = (np.arange(self._size) < self._size // 4)[:, None]
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            codes = self._rng.choice(len(self.shares), self._size, p=self.shares)
            law = np.where(is_first, np.array(then or laws)[codes], np.array(laws)[codes])
            scores = self._rng.beta(law[:, 0], law[:, 1])
            one = fleet.batch(self.now_ns, scores, brightness=self._rng.beta(2, 2, self._size))
            self.sent.append(classed(one, self.plan, codes))
            found = self.measure.observe(self.sent[-1]).anomalies
            self.told += [each for each in found if each.kind is AnomalyKind.DRIFT]

    def view(self, name: str, series: int = 0) -> SignalView:
        found = self.measure.snapshot().series[series].signals
        return next(each for each in found if each.signal == name)


def test_a_change_that_keeps_both_marginals_is_found_by_its_classes_alone() -> None:
    rng = np.random.default_rng(3)
    none = np.zeros(400_000, dtype=np.bool_)
    was, now = (
        jeffreys(
            np.bincount(
                bins_of_numbers(SCORE, rng.beta(*law, 400_000), none), minlength=SCORE.width
            ).astype(np.float64)
        )
        for law in (SWAPPED_A, SWAPPED_B)
    )
    assert 0.02 <= psi_terms(now, was).sum() < 0.04
    strict = plan(contract(drift=DriftRule(tolerance=0.05)))
    site = Site(strict, size=1_000, baseline_events=8_000)
    site.run(150, [SWAPPED_A, SWAPPED_B])
    assert site.told == []
    assert site.view("confidence|cracked").state is BaselineState.FROZEN
    site.run(20, [SWAPPED_B, SWAPPED_A])  # 10,000 events of each class
    site.run(20, [SWAPPED_A, SWAPPED_B])  # their ticks end
    assert {each.subject for each in site.told} == {"confidence|ok", "confidence|cracked"}
    assert all(
        each.numbers["log_evidence"] >= each.numbers["log_evidence_bound"] for each in site.told
    )


def test_evidence_and_devices_are_of_events_of_that_class() -> None:
    site = Site()
    # The other class is as unsure from the start, on every device.
    usual: Laws = [(3, 4), (8, 2)]
    site.run(80, usual)
    assert site.told == []
    site.run(40, usual, then=usual[::-1])
    class_of: dict[str, int] = {}
    for one in site.sent:
        rows = one.span_attributes[one.slots[PLAN.slot_of["edgeai.inference.class"]]]
        ids = zip(one.spans["trace_hi"].tolist(), one.spans["trace_lo"].tolist(), strict=True)
        for (hi, lo), size in zip(ids, rows["length"].tolist(), strict=True):
            class_of[f"{hi:016x}{lo:016x}"] = [len(value) for value in VALUES[:2]].index(size)
    assert sorted(each.subject for each in site.told) == ["confidence|cracked", "confidence|ok"]
    for code, anomaly in enumerate(sorted(site.told, key=lambda each: each.subject == CRACKED)):
        name = anomaly.subject
        assert 8 <= len(anomaly.evidence) <= 32
        assert {class_of[each.trace_id] for each in anomaly.evidence} == {code}
        assert {each.device for each in anomaly.evidence} == {"device-0"}
        assert all(each.reason.startswith(f"{name} is ") for each in anomaly.evidence)
        assert anomaly.numbers["devices_seen"] == 4
        assert anomaly.numbers["devices_carrying"] == 1


def test_a_drift_of_all_classes_is_told_once() -> None:
    site = Site()
    site.run(80, [(8, 2), (8, 2)])
    site.run(60, [(3, 4), (3, 4)])
    assert [each.subject for each in site.told][-1] == "confidence"
    assert len({each.subject for each in site.told}) < 3
    # What was not told is collected for promotion all the same.
    number = site.measure.streams.number_of("damage-net", "1.0", "confidence|ok")
    streams = site.measure.streams
    assert number in streams.collections or number in streams.candidates


def test_a_rare_class_keeps_collecting_and_never_alarms() -> None:
    site = Site(shares=(0.999, 0.001))
    site.run(60, [(8, 2), (8, 2)])
    site.run(30, [(8, 2), (2, 8)])
    assert site.told == []
    assert site.view("confidence|cracked").state is BaselineState.COLLECTING
    assert site.view("confidence|torn").drift is None


def test_the_next_version_inherits_the_confidence_of_each_class() -> None:
    site = Site()
    site.run(80, [(8, 2), (5, 5)])
    site.run(1, [(8, 2), (5, 5)], version="2.0")
    old, new = site.view("confidence|cracked"), site.view("confidence|cracked", 1)
    assert old.drift is not None
    assert new.drift is not None
    assert new.state is BaselineState.INHERITED
    assert new.drift.baseline_digest == old.drift.baseline_digest
    assert site.view("confidence|torn", 1).state is BaselineState.COLLECTING


def divergence(was: tuple[float, float], now: tuple[float, float]) -> float:
    """KL of two Beta laws in nats, in closed form."""
    (a, b), (c, d) = now, was
    parts = (a - c, a), (b - d, b), (c + d - a - b, a + b)
    inner = sum(weight * special.digamma(at) for weight, at in parts)
    return float(special.betaln(c, d) - special.betaln(a, b) + inner)


@pytest.mark.parametrize(
    ("shares", "law"),
    [((0.5, 0.5), (7.0, 3.0)), ((0.7, 0.3), (8.0, 2.0)), ((0.7, 0.3), (7.0, 3.0))],
)
def test_a_change_is_split_by_the_chain_rule(
    shares: tuple[float, float], law: tuple[float, float]
) -> None:
    site = Site(drift_tick_s=1, baseline_events=20_000)
    site.run(20, [(8, 2), (5, 5)])
    assert site.measure.snapshot().series[0].attribution is None
    site.run(100, [(8, 2), (5, 5)])
    found = site.measure.snapshot().series[0].attribution
    assert found is not None
    assert found.signal == "confidence"
    assert max(abs(found.of_class), abs(found.given_class)) < 0.003
    site.shares = shares
    site.run(250, [law, (5, 5)])
    found = site.measure.snapshot().series[0].attribution
    assert found is not None
    of_class = sum(share * np.log(2 * share) for share in shares)
    assert found.of_class == pytest.approx(of_class, abs=0.006)
    given_class = shares[0] * divergence((8, 2), law)
    # Bins lose a little of it.
    assert found.given_class == pytest.approx(given_class, rel=0.12, abs=0.003)


def same(first: State, second: State) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert np.array_equal(array, second[name]), name
        assert array.dtype == second[name].dtype, name


def story(seed: int) -> list[Any]:
    """Batches with classes of all kinds, pauses, and two classes that change places for a while."""
    rng = np.random.default_rng(seed)
    fleet, newer = (Fleet(PLAN, size=120, version=version) for version in ("1.0", "2.0"))
    now_ns = START_NS
    made = []
    for step in range(150):
        now_ns += int(rng.choice([1, 2, 5, 130, 700], p=[0.6, 0.2, 0.1, 0.09, 0.01])) * SECOND_NS
        codes = rng.choice(5, 120, p=[0.4, 0.4, 0.1, 0.05, 0.05])
        codes[rng.random(120) < 0.02] = NO_CLASS
        low = codes == (0 if 70 <= step < 100 else 1)
        scores = rng.beta(np.where(low, 3, 8), np.where(low, 4, 2))
        one = (newer if step > 110 else fleet).batch(now_ns, scores)
        made.append(classed(one, PLAN, codes))
    return made


def observed(measure: Measure, batches: list[Any]) -> list[Anomaly]:
    return [told for one in batches for told in measure.observe(one).anomalies]


SETTINGS = MeasureSettings(baseline_events=1_600, drift_quiet_s=60)


@pytest.mark.parametrize("stop", [20, 85])
def test_a_restart_in_the_middle_changes_nothing(stop: int) -> None:
    batches = story(4)
    whole, before, after = (Measure(PLAN, SETTINGS) for _ in range(3))
    told = observed(whole, batches)
    told_before = observed(before, batches[:stop])
    after.restore(before.state())
    same(before.state(), after.state())
    assert told == told_before + observed(after, batches[stop:])
    same(whole.state(), after.state())
    assert "confidence|cracked" in {each.subject for each in told}


def test_idle_steps_change_nothing() -> None:
    batches = story(5)
    plain, idle = Measure(PLAN, SETTINGS), Measure(PLAN, SETTINGS)
    told = observed(plain, batches)
    told_idle: list[Anomaly] = []
    for one, after in zip(batches, [*batches[1:], None], strict=True):
        told_idle += idle.observe(one).anomalies
        if after is not None:
            told_idle += idle.advance((one.arrival_ns + after.arrival_ns) // 2)
    same(plain.state(), idle.state())
    assert told == told_idle


def test_a_merge_counts_what_one_gateway_would_have_counted() -> None:
    one, two = story(6), story(7)
    first, second, central = (Measure(PLAN, SETTINGS) for _ in range(3))
    observed(first, one)
    observed(second, two)
    observed(central, sorted(one + two, key=lambda each: int(each.arrival_ns)))
    merged = Measure(PLAN, SETTINGS)
    merged.restore(merge(first.state(), second.state()))
    for value in VALUES:
        name = f"confidence|{value}"
        for version in ("1.0", "2.0"):
            ours = counts(merged.streams, name, version)
            assert np.array_equal(ours, counts(central.streams, name, version))
            assert ours.sum() > 0


def test_a_state_from_before_the_classes_restores_and_they_begin() -> None:
    silent = plan(contract(drift=DriftRule(conditional_classes=0)))
    before = Measure(silent, SETTINGS)
    observed(before, [dataclasses.replace(each) for each in story(8)[:60]])
    after = Measure(PLAN, SETTINGS)
    after.restore(before.state())
    assert counts(after.streams, "confidence").sum() == 60 * 120
    assert counts(after.streams, "confidence|ok").sum() == 0
    observed(after, story(8)[60:110])
    assert counts(after.streams, "confidence|ok").sum() > 0
    found = after.snapshot().series[0].signals
    view = next(each for each in found if each.signal == "confidence|ok")
    assert 0 < view.collected <= counts(after.streams, "confidence|ok").sum()
