"""Promotions: the alarm ends at once, and what was replaced goes on in the shadow for a week."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pytest

from gateway.batch import Anomaly, AnomalyKind, Batch, Parcel
from gateway.contract.schema import DriftRule
from gateway.measure import Measure, MeasureSettings, merge
from gateway.measure.drift import promote
from gateway.measure.drift.baseline import baseline_id
from gateway.measure.drift.shadow import SHADOW_NS
from gateway.measure.snapshot import BaselineState, BesideView, ShadowView, SignalView
from gateway.measure.state import State
from gateway.otlp.events import Promotion
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, declared, plan
from tests.unit.measure.test_given import file, plan_with

# With this tolerance a baseline of 800 events is large enough.
PLAN: Final = plan(contract(drift=DriftRule(tolerance=0.5, conditional_classes=0)))
SETTINGS: Final = MeasureSettings(baseline_events=800, drift_quiet_s=600)
TICK_NS: Final = SETTINGS.drift_tick_ns
WELL: Final = (8.0, 2.0)
FAULTY: Final = (4.0, 3.0)
WORSE: Final = (2.0, 5.0)
SIZE: Final = 80
# Ticks of 10 s in the 30 days of the contract's one false alarm.
LOG_A: Final = -float(np.log(DriftRule().false_alarms_per_s * SETTINGS.drift_tick_s))


class Site:
    """Sends a batch of 80 inferences each second, and keeps all that it sends and is told."""

    def __init__(self, seed: int = 1) -> None:
        self.measure = Measure(PLAN, SETTINGS)
        self.sent: list[Batch | Parcel] = []
        self.told: list[Anomaly] = []
        self.now_ns = START_NS
        self._fleet = Fleet(PLAN, size=SIZE, seed=seed)
        self._few = Fleet(PLAN, size=4, seed=seed + 1)
        self._rng = np.random.default_rng(seed)

    def send(self, law: tuple[float, float], *, after_s: float = 1, few: bool = False) -> None:
        self.now_ns += round(after_s * SECOND_NS)
        fleet = self._few if few else self._fleet
        confidence = self._rng.beta(*law, fleet.size)
        batch = fleet.batch(self.now_ns, confidence, brightness=self._rng.beta(2, 2, fleet.size))
        self.sent.append(batch)
        self.told += self.measure.observe(batch).anomalies

    def run(self, seconds: int, law: tuple[float, float] = WELL) -> None:
        for _ in range(seconds):
            self.send(law)

    def promote(self, baseline: str) -> list[Anomaly]:
        """Promote a baseline; returns what was told at that place."""
        parcel = declared(self.now_ns, Promotion(at_ns=self.now_ns, baseline=baseline))
        self.sent.append(parcel)
        told = list(self.measure.hear(parcel))
        self.told += told
        return told

    @property
    def refused(self) -> int:
        return self.measure.operations.unusable["no_candidate"]

    @property
    def drifts(self) -> list[Anomaly]:
        return [each for each in self.told if each.kind is AnomalyKind.DRIFT]

    @property
    def view(self) -> SignalView:
        return view_of(self.measure)

    def in_force(self) -> str:
        assert self.view.drift is not None
        return named(self.view.drift.baseline_digest)

    def candidate(self) -> str:
        assert self.view.candidate is not None
        return named(self.view.candidate.digest)

    def superseded(self) -> BesideView:
        assert self.view.superseded is not None
        return self.view.superseded

    def shadow(self) -> ShadowView:
        shadow = self.superseded().shadow
        assert shadow is not None
        return shadow


def view_of(measure: Measure) -> SignalView:
    (series,) = measure.snapshot().series
    return next(each for each in series.signals if each.signal == "confidence")


def named(digest: str) -> str:
    return baseline_id("damage-net", "1.0", "confidence", digest)


def begun(at_ns: int) -> ShadowView:
    """A shadow as it is at the promotion that makes it."""
    return ShadowView(
        until_ns=at_ns + SHADOW_NS,
        log_evidence=0.0,
        log_evidence_bound=LOG_A,
        alarms=0,
        last_alarm_ns=None,
    )


def mistaken(seed: int = 1) -> tuple[Site, str, str]:
    """A site where a fault was promoted; returns it and the ids of the old and the new baseline."""
    site = Site(seed)
    site.run(40)
    old = site.in_force()
    site.run(40, FAULTY)
    new = site.candidate()
    site.promote(new)
    return site, old, new


def test_an_anomaly_is_resolved_where_its_baseline_is_promoted() -> None:
    site = Site()
    site.run(40)
    site.run(40, FAULTY)
    (raised,) = site.drifts
    assert raised.resolved_ns is None
    assert site.promote("0" * 64) == []
    (resolved,) = site.promote(site.candidate())
    assert (resolved.id, resolved.resolved_ns) == (raised.id, site.now_ns)
    assert site.measure.snapshot().open_anomalies == ()
    assert site.view.drift is not None
    assert (site.view.drift.is_alarmed, site.view.drift.log_evidence) == (False, 0.0)
    # It has ended for good: the new baseline finds what it was made from normal.
    site.run(120, FAULTY)
    assert site.drifts == [raised, resolved]


def test_other_anomalies_stay_open() -> None:
    site = Site()
    site.run(40)
    site.run(40, FAULTY)
    open_before = site.measure.watch.episodes.open.keys()
    site.measure.watch.promoted([1, 2], site.now_ns)
    assert site.measure.watch.episodes.open.keys() == open_before
    assert site.drifts


def test_the_old_baseline_still_says_what_the_new_one_has_absorbed() -> None:
    site, old, new = mistaken()
    assert site.shadow() == begun(site.now_ns)
    assert named(site.superseded().digest) == old
    assert site.superseded().is_calibrated is True
    told = len(site.drifts)
    site.run(60, FAULTY)
    assert site.in_force() == new
    assert len(site.drifts) == told, "neither of the two pages"
    loud = site.shadow()
    assert loud.alarms >= 3
    assert loud.last_alarm_ns is not None
    assert site.now_ns - 2 * TICK_NS <= loud.last_alarm_ns <= site.now_ns
    (first,) = site.measure.take_shadow_alarms()
    assert first == ("damage-net", "confidence", old)
    assert site.measure.take_shadow_alarms() == []
    # The fault is mended: now the new baseline pages, and the old one has nothing to say.
    site.run(30)
    loud = site.shadow()
    site.run(200)
    assert [each.resolved_ns for each in site.drifts[told:]] == [None]
    assert site.shadow().alarms == loud.alarms


def test_a_superseded_baseline_is_promoted_back() -> None:
    site, old, new = mistaken()
    site.run(60, FAULTY)
    site.run(60)
    *_, raised = site.drifts
    assert raised.resolved_ns is None
    (resolved,) = site.promote(old)
    assert resolved.id == raised.id
    assert site.in_force() == old
    assert site.view.state is BaselineState.FROZEN
    assert site.view.drift is not None
    assert site.view.drift.log_evidence == 0
    assert named(site.superseded().digest) == new
    assert site.shadow() == begun(site.now_ns)
    told = len(site.drifts)
    site.run(60)
    assert len(site.drifts) == told
    assert site.shadow().alarms > 0
    assert site.promote(old) == []
    assert site.refused == 1, "what is in force cannot be promoted"
    site.promote(new)
    assert site.in_force() == new


def test_only_the_last_one_is_in_the_shadow() -> None:
    site, old, new = mistaken()
    site.run(40, WORSE)
    third = site.candidate()
    site.promote(third)
    assert site.in_force() == third
    assert named(site.superseded().digest) == new
    assert site.shadow().alarms == 0
    assert len(site.measure.streams.shadows) == 1
    site.promote(old)
    assert (site.refused, site.in_force()) == (1, third)


def test_what_was_being_collected_is_dropped_and_a_candidate_waits_on() -> None:
    site, old, new = mistaken()
    site.run(60, FAULTY)
    assert site.view.candidate is None, "the collection of the alarm before goes on"
    lanes = site.measure.streams.lanes
    assert [lane.collecting for lane in lanes] == [0] * len(lanes)
    # An alarm of the new baseline begins anew, and the candidate of that stays when it is undone.
    site.run(40, WORSE)
    third = site.candidate()
    site.promote(old)
    assert site.candidate() == third
    site.promote(third)
    assert site.in_force() == third
    assert new not in {site.in_force(), named(site.superseded().digest)}


def test_after_its_time_the_shadow_is_only_listed() -> None:
    site, old, _ = mistaken()
    site.run(30, FAULTY)
    site.send(FAULTY, after_s=(SHADOW_NS - 40 * SECOND_NS) / SECOND_NS)
    assert site.shadow().alarms > 0
    site.send(FAULTY, after_s=30)
    assert site.superseded().shadow is None
    assert named(site.superseded().digest) == old
    assert (site.superseded().events, site.superseded().is_calibrated) == (800, None)
    assert len(site.measure.streams.shadows.bank.ticks) == 0
    site.promote(old)
    assert site.refused == 1
    again = Measure(PLAN, SETTINGS)
    again.restore(site.measure.state())
    assert view_of(again) == site.view


def story(seed: int) -> tuple[list[Batch | Parcel], int]:
    """What a site sends with promotions there and back, and sparse ticks where a shadow ends.

    Returns it and how many shadow alarms there were.
    """
    rng = np.random.default_rng(seed)
    site, old, _ = mistaken(seed)
    site.run(25, FAULTY)
    alarms = site.shadow().alarms
    site.run(30)
    site.promote(old)
    until_ns = site.shadow().until_ns
    site.run(15, FAULTY)
    # Ticks that are held open for up to five minutes end before, at and after that time.
    while site.now_ns < until_ns + 600 * SECOND_NS:
        site.send(FAULTY, after_s=float(rng.choice([1, 3, 20, 90, 310])), few=True)
    assert site.superseded().shadow is None
    return site.sent, alarms


def play(measure: Measure, sent: Sequence[Batch | Parcel]) -> list[Anomaly]:
    told: list[Anomaly] = []
    for each in sent:
        if isinstance(each, Batch):
            told += measure.observe(each).anomalies
        else:
            told += measure.hear(each)
    return told


def shadowed(measure: Measure) -> list[tuple[int, str]]:
    return [(number, found.digest) for number, found in measure.streams.shadows.baselines()]


def same(one: State, two: State) -> None:
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert np.array_equal(array, two[name]), name
        assert array.dtype == two[name].dtype, name


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let shadows last for an hour, so that a story has their end without a week of silence."""
    monkeypatch.setattr(promote, "SHADOW_NS", 3_600 * SECOND_NS)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("seed", [1, 2])
def test_idle_steps_change_nothing(seed: int) -> None:
    sent, alarms = story(seed)
    assert alarms > 0
    rng = np.random.default_rng(seed)
    plain, idle = Measure(PLAN, SETTINGS), Measure(PLAN, SETTINGS)
    told, told_idle = list[Anomaly](), list[Anomaly]()
    last_ns = START_NS
    for each in sent:
        for share in np.sort(rng.random(3)):
            told_idle += idle.advance(last_ns + int(share * (each.arrival_ns - last_ns)))
        told += play(plain, [each])
        told_idle += play(idle, [each])
        last_ns = each.arrival_ns
        assert shadowed(plain) == shadowed(idle)
    same(plain.state(), idle.state())
    assert told == told_idle
    drifts = [each for each in told if each.kind is AnomalyKind.DRIFT]
    assert len([each for each in drifts if each.resolved_ns is not None]) >= 2


@pytest.mark.usefixtures("short")
def test_a_restart_in_the_middle_changes_nothing() -> None:
    sent, _ = story(3)
    plain = Measure(PLAN, SETTINGS)
    stops, told = {}, list[Anomaly]()
    for at, each in enumerate(sent):
        if at in {80, 81, 100, 137, 156}:
            stops[at] = plain.state(), len(told)
        told += play(plain, [each])
    for at, (state, told_before) in stops.items():
        after = Measure(PLAN, SETTINGS)
        after.restore(state)
        same(state, after.state())
        assert told[told_before:] == play(after, sent[at:])
        same(plain.state(), after.state())


def test_a_state_from_before_there_were_shadows_comes_back_without() -> None:
    site, old, new = mistaken()
    state = {key: each for key, each in site.measure.state().items() if "/shadow/" not in key}
    again = Measure(PLAN, SETTINGS)
    again.restore(state)
    view = view_of(again)
    assert view.superseded is not None
    assert (named(view.superseded.digest), view.superseded.shadow) == (old, None)
    assert view.drift is not None
    assert named(view.drift.baseline_digest) == new
    play(again, [declared(site.now_ns, Promotion(at_ns=site.now_ns, baseline=old))])
    assert again.operations.unusable["no_candidate"] == 1


def test_a_merged_state_has_no_shadows() -> None:
    site, _, new = mistaken()
    other = Site(2)
    other.run(3)
    again = Measure(PLAN, SETTINGS)
    again.restore(merge(site.measure.state(), other.measure.state()))
    assert len(again.streams.shadows) == 0
    drift = view_of(again).drift
    assert drift is not None
    assert named(drift.baseline_digest) == new


def test_a_baseline_file_ends_the_shadow_of_its_signal() -> None:
    site, _, _ = mistaken()
    again = Measure(plan_with(file()), SETTINGS)
    again.restore(site.measure.state())
    assert len(again.streams.shadows) == 0
    assert view_of(again).is_from_file
