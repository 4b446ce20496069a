"""Weights of samplers before the gateway: binned exactly, judged once there are any."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Anomaly, AnomalyKind, Batch
from gateway.contract.plan import Plan
from gateway.contract.schema import DriftRule, Season
from gateway.measure import Measure, MeasureSettings, merge
from gateway.measure.drift.counting import INCLUSION_LANE
from gateway.measure.drift.inclusion import INCLUSION, WEIGHTS, bins_of_thresholds, effective
from gateway.measure.snapshot import BaselineState, SignalView
from gateway.measure.state import State
from gateway.otlp.threshold import RANGE, encode, threshold_of, upstream
from gateway.tables import NO_THRESHOLD
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    Fleet,
    batch,
    contract,
    payload,
    plan,
    request,
    signals,
    span,
)

PLAN = plan()
TWO = plan(contract(), contract("triage-net"))
SETTINGS = MeasureSettings(baseline_events=800, drift_quiet_s=60)
ALL, HALF, TENTH = "ot=th:0", "ot=th:8", f"ot=th:{encode(threshold_of(0.1))}"
NONE, BAD = "", "ot=th:XYZ"


def binned(threshold: int, *, malformed: bool = False) -> int:
    found = bins_of_thresholds(np.array([threshold], dtype=np.uint64), np.array([malformed]))
    return int(found[0])


@given(st.integers(0, RANGE - 1))
def test_a_weight_lies_in_its_bin(threshold: int) -> None:
    """The oracle is the weight as a fraction of whole numbers."""
    found, kept = binned(threshold), RANGE - threshold
    if found == 0:
        assert threshold < 8  # a weight that no double tells from 1
    else:
        low, high = WEIGHTS.edges()[found : found + 2].astype(np.float64).tolist()
        assert int(low) * kept < RANGE <= int(high) * kept


@pytest.mark.parametrize(
    ("threshold", "found"),
    [
        (0, 0),
        (threshold_of(0.9), 1),
        (threshold_of(0.5), 1),
        (threshold_of(0.25), 2),
        (threshold_of(0.05), 5),
        (RANGE - 1, 56),
        (NO_THRESHOLD, WEIGHTS.missing),
    ],
)
def test_known_weights_have_known_bins(threshold: int, found: int) -> None:
    assert binned(threshold) == found
    assert binned(threshold, malformed=True) == WEIGHTS.odd


def test_the_effective_number_is_that_of_equal_weights() -> None:
    counts = np.zeros(WEIGHTS.width, dtype=np.int64)
    assert effective(counts) is None
    counts[[3, WEIGHTS.missing]] = 500, 70
    assert effective(counts) == (8.0, 500.0)
    counts[0] = 500
    mean, events = effective(counts) or (0.0, 0.0)
    assert mean == 4.5
    assert events == pytest.approx(4_500**2 / (500 + 500 * 64))


def test_a_batch_says_which_rows_have_a_threshold() -> None:
    states = [HALF, NONE, BAD, "a=b", HALF, "ot=th:zz;th:4"]
    spans = [span(1 + at, state=state) for at, state in enumerate(states)]
    said = upstream(batch(PLAN, payload(request(spans))))
    half, quarter = 1 << 55, 1 << 54
    no = NO_THRESHOLD
    assert said.threshold.tolist() == [half, no, no, no, half, quarter]
    assert said.malformed.tolist() == [False, False, True, False, False, False]
    assert said.has_threshold
    assert not upstream(batch(PLAN, payload(request(spans[1:4])))).has_threshold


def stated(one: Batch, states: list[str]) -> Batch:
    """A batch whose rows say the given states, in turn of equal parts."""
    texts = [state.encode() for state in states]
    sizes = np.array([len(text) for text in texts])
    starts = len(one.arena) + np.cumsum(sizes) - sizes
    which = np.arange(len(one.spans)) * len(states) // len(one.spans)
    one.spans["state_offset"], one.spans["state_length"] = starts[which], sizes[which]
    arena = np.concatenate((one.arena, np.frombuffer(b"".join(texts), dtype=np.uint8)))
    return Batch(**{**{name: getattr(one, name) for name in one.__slots__}, "arena": arena})


class Site:
    """Sends 80 inferences each second; the states are those of four devices."""

    def __init__(self, the_plan: Plan = PLAN) -> None:
        self.plan = the_plan
        self.measure = Measure(the_plan, SETTINGS)
        self._rng = np.random.default_rng(1)
        self.now_ns = START_NS
        self.told: list[Anomaly] = []
        self._fleets: dict[tuple[str, str], Fleet] = {}

    def run(
        self, seconds: int, states: list[str], *, version: str = "1.0", model: str = "damage-net"
    ) -> None:
        key = model, version
        if key not in self._fleets:
            self._fleets[key] = Fleet(self.plan, size=80, version=version, model=model)
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            scores, brightness = self._rng.beta(8, 2, 80), self._rng.beta(2, 2, 80)
            one = self._fleets[key].batch(self.now_ns, scores, brightness=brightness)
            found = self.measure.observe(stated(one, states)).anomalies
            self.told += [each for each in found if each.kind is AnomalyKind.DRIFT]

    def views(self, series: int = 0) -> dict[str, SignalView]:
        found = self.measure.snapshot().series[series].signals
        return {each.signal: each for each in found}


def test_a_model_without_a_sampler_has_no_stream() -> None:
    site = Site()
    site.run(5, [NONE, "vendor=1", BAD, "ot=rv:0123456789abcd"])
    assert INCLUSION not in site.views()


def test_the_first_threshold_opens_a_stream_for_every_version_of_that_model_alone() -> None:
    site = Site(TWO)
    site.run(1, [NONE])
    site.run(1, [NONE], version="2.0")
    site.run(1, [NONE], model="triage-net")
    site.run(1, [NONE, NONE, HALF, BAD])
    found = [INCLUSION in site.views(series) for series in range(3)]
    assert found == [True, True, False]
    counts = dict(enumerate(site.views()[INCLUSION].counts))
    assert {bin_: count for bin_, count in counts.items() if count} == {
        1: 20,
        WEIGHTS.missing: 40,
        WEIGHTS.odd: 20,
    }
    site.run(1, [NONE], version="3.0")
    assert sum(site.views(3)[INCLUSION].counts) == 80


def test_a_device_that_changes_its_sampling_is_an_alarm_with_its_traces() -> None:
    site = Site()
    site.run(40, [ALL, ALL, HALF, HALF])
    assert site.told == []
    assert site.views()[INCLUSION].state is BaselineState.FROZEN
    site.run(25, [TENTH, ALL, HALF, HALF])
    (anomaly,) = site.told
    assert anomaly.subject == INCLUSION
    assert {each.device for each in anomaly.evidence} == {"device-0"}
    assert len(anomaly.evidence) >= 8
    assert anomaly.numbers["devices_carrying"] == 1
    assert all("8 to 16" in each.reason for each in anomaly.evidence)


def test_a_sampler_that_falls_silent_is_an_alarm() -> None:
    site = Site()
    site.run(40, [HALF])
    site.run(25, [NONE])
    assert [each.subject for each in site.told] == [INCLUSION]


def test_a_signal_of_that_name_stays_the_contract_s_own() -> None:
    own = {INCLUSION if name == "brightness" else name: each for name, each in signals().items()}
    own[INCLUSION] = replace(own[INCLUSION], name=INCLUSION)
    site = Site(plan(contract(signals=own)))
    site.run(3, [HALF])
    assert len(site.views()[INCLUSION].counts) == 130
    other = Measure(site.plan, SETTINGS)
    other.restore(site.measure.state())


def test_the_view_of_a_series_tells_mean_weight_and_effective_events() -> None:
    site = Site()
    site.run(1, [NONE])
    assert site.measure.snapshot().series[0].weights is None
    site.run(10, [ALL, "ot=th:e"])  # 7 / 8 are left out
    weights = site.measure.snapshot().series[0].weights
    assert weights is not None
    assert weights.mean == 4.5
    assert weights.effective_events == pytest.approx(3_600**2 / (400 + 400 * 64))


def same(first: State, second: State) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert np.array_equal(array, second[name]), name
        assert array.dtype == second[name].dtype, name


def story() -> list[tuple[int, list[str], str, str]]:
    """Seconds, states, version and model; the model that is second in the plan is first here."""
    return [
        (3, [NONE], "1.0", "damage-net"),
        (25, [HALF, ALL], "1.0", "triage-net"),
        (25, [NONE, HALF], "1.0", "damage-net"),
        (25, [HALF, BAD], "2.0", "triage-net"),
        (25, [TENTH], "2.0", "damage-net"),
        (25, [TENTH], "1.0", "triage-net"),
        (25, [NONE], "3.0", "damage-net"),
    ]


def play(site: Site, parts: list[tuple[int, list[str], str, str]]) -> None:
    for seconds, states, version, model in parts:
        site.run(seconds, states, version=version, model=model)


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_restart_in_the_middle_changes_nothing(stop: int) -> None:
    whole, halved = Site(TWO), Site(TWO)
    play(whole, story())
    play(halved, story()[:stop])
    after = Measure(TWO, SETTINGS)
    after.restore(halved.measure.state())
    same(after.state(), halved.measure.state())
    halved.measure = after
    play(halved, story()[stop:])
    same(whole.measure.state(), halved.measure.state())
    assert whole.told == halved.told
    assert INCLUSION in {each.subject for each in whole.told}


def test_a_merge_adds_the_weights_and_opens_what_another_site_knows() -> None:
    one, two = Site(), Site()
    one.run(4, [HALF])
    two.run(3, [ALL, HALF])
    two.run(2, [NONE], version="2.0")
    plain = Site()
    plain.run(2, [NONE], version="4.0")
    merged = Site()
    state = merge(merge(one.measure.state(), plain.measure.state()), two.measure.state())
    merged.measure.restore(state)
    found = {
        each.version: {view.signal: sum(view.counts) for view in each.signals}[INCLUSION]
        for each in merged.measure.snapshot().series
    }
    assert found == {"1.0": 560, "2.0": 160, "4.0": 0}
    merged.run(1, [HALF], version="4.0")
    views = merged.measure.snapshot().series
    assert [sum(view.counts) for view in views[1].signals if view.signal == INCLUSION] == [80]


def test_a_state_without_weights_of_rows_restores() -> None:
    site = Site()
    site.run(30, [HALF])
    state: dict[str, Any] = {
        name: array
        for name, array in site.measure.state().items()
        if name not in ("recent/inclusion", "bad/inclusion")
    }
    other = Measure(PLAN, SETTINGS)
    other.restore(state)
    again = other.state()
    assert (again["recent/inclusion"] == -1).all()
    assert np.array_equal(again["recent/bins"], state["recent/bins"])


def test_weights_of_late_events_are_counted_and_not_judged_where_there_is_a_season() -> None:
    site = Site(plan(contract(drift=DriftRule(season=Season.HOUR_OF_WEEK), slos=())))
    site.run(3, [HALF])
    streams = site.measure.streams
    number = streams.number_of("damage-net", "1.0", INCLUSION)
    assert number is not None
    lane, row = streams.lanes[INCLUSION_LANE], streams.items[number].row
    open_before, before = lane.open[row].copy(), streams.counts(number)
    fleet = Fleet(site.plan, size=80)
    late = stated(fleet.batch(site.now_ns, np.full(80, 0.5)), [TENTH])
    late.spans["end_ns"] -= np.uint64(2 * 3_600 * SECOND_NS)
    late.spans["start_ns"] -= np.uint64(2 * 3_600 * SECOND_NS)
    site.measure.observe(late)
    assert site.measure.streams.seasons.late_events == 80
    assert (streams.counts(number) - before).sum() == 80
    assert np.array_equal(lane.open[row], open_before)
    # Nor is it learned.
    learned = streams.counts(number) - streams.collections[number].last
    assert learned.sum() == open_before.sum()
