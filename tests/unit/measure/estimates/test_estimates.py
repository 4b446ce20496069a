"""Labelled traffic, then traffic without labels: what is estimated of it, and what is told."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.api.measurements import measured as samples_of
from gateway.batch import AnomalyKind, Severity
from gateway.contract.schema import DriftRule, LabelRule, SignalType
from gateway.forward.alerts import AlertBook, AlertContext
from gateway.measure import Measure, merge
from gateway.measure.estimates.estimates import LABELS_MIN, STALE_NS
from gateway.measure.estimates.prior import NoPrior
from gateway.measure.estimates.views import NoEstimate
from gateway.measure.estimates.wager import LOG_BOUND
from gateway.measured import measured
from tests.unit.measure.build import VALUES, contract, plan, signals
from tests.unit.measure.estimates.answering import SETTINGS, Site, labelled_plan, without
from tests.unit.measure.test_given import file

GENERATIONS_S = 1_300.0


def kinds(site: Site, kind: AnomalyKind) -> list[tuple[str, str, bool]]:
    """What was told of a kind: subject, version, whether it is over."""
    return [
        (each.subject, each.version, each.resolved_ns is not None)
        for each in site.told
        if each.kind is kind
    ]


def test_the_estimate_follows_confidence_that_moves(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(20)
    site.wait(GENERATIONS_S)
    assert site.view().reason is NoEstimate.NO_WINDOW
    now = [site.rng.beta(5, 3, site.size) for _ in range(10)]
    for confidence in now:
        site.answer(confidence)
    found, truth = site.view(), float(np.mean(now))
    assert (found.reference, found.labelled) == ("1", 20 * site.size)
    assert found.reason is None
    assert found.cbpe is not None
    assert found.window is not None
    assert found.window.events == 10 * site.size
    assert found.cbpe.value == pytest.approx(truth, abs=0.02)
    assert found.cbpe.low < truth < found.cbpe.high < 0.8
    assert found.window.mean == pytest.approx(truth, abs=0.005)
    # All answers above one threshold are not right, so the cruder estimate is off and flagged.
    assert found.disagrees
    assert not found.calibration.is_alarmed
    assert site.told == [] or not kinds(site, AnomalyKind.MISCALIBRATION)


def test_after_a_concept_shift_the_estimate_stands_and_the_evidence_tells(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(10)
    before = site.view()
    assert before.cbpe is not None
    assert before.calibration.evidence < LOG_BOUND
    site.wait(2 * 86_400.0)
    site.learn(4, off=-0.2)
    after = site.view()
    assert after.cbpe is not None
    # The truth is 0.6; nothing in the confidence says so.
    assert after.cbpe.low > 0.65
    assert after.calibration.is_alarmed
    assert after.calibration.evidence > LOG_BOUND
    assert after.calibration.surplus == pytest.approx(-0.2, abs=0.06)
    assert after.is_contradicted
    site.wait(300)
    assert kinds(site, AnomalyKind.MISCALIBRATION) == [("1", "1", False)]
    (told,) = [each for each in site.told if each.kind is AnomalyKind.MISCALIBRATION]
    assert told.severity is Severity.TICKET
    assert "less often" in told.summary
    # Confidence is 0.2 above the accuracy of recent labels, too.
    assert kinds(site, AnomalyKind.OVERCONFIDENCE) == [("1", "1", False)]


def test_a_calibrated_model_with_labels_of_two_days_is_not_contradicted(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(6)
    assert site.view().is_contradicted is None
    site.wait(2 * 86_400.0)
    site.learn(3)
    assert site.view().is_contradicted is False
    site.wait(300)
    assert not kinds(site, AnomalyKind.MISCALIBRATION)
    assert not kinds(site, AnomalyKind.OVERCONFIDENCE)


def test_a_miscalibration_is_over_when_labels_show_nothing_of_it(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(4, off=-0.15)
    site.wait(120)
    assert kinds(site, AnomalyKind.MISCALIBRATION) == [("1", "1", False)]
    for _ in range(12):
        site.learn(1)
        site.wait(60)
    site.wait(900)
    assert kinds(site, AnomalyKind.MISCALIBRATION) == [("1", "1", False), ("1", "1", True)]


def test_a_version_without_labels_for_long_is_not_judged_by_them_any_more(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(4, off=-0.2)
    estimates = site.measure.operations.estimates
    last_ns = site.now_ns
    found = {each.kind for each in estimates.troubles(last_ns + STALE_NS - 1)}
    assert found == {AnomalyKind.MISCALIBRATION, AnomalyKind.OVERCONFIDENCE}
    assert estimates.troubles(last_ns + STALE_NS) == []


def test_two_versions_are_told_of_as_two_alerts(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(4, off=-0.2)
    site.learn(4, off=-0.2, version="2")
    site.wait(120)
    assert sorted(kinds(site, AnomalyKind.MISCALIBRATION)) == [("1", "1", False), ("2", "2", False)]
    book = AlertBook(AlertContext(site="s"), started_ns=0)
    changed = book.update(site.told, site.now_ns)
    shown = [dict(each) for each in changed if dict(each)["alertname"] == "WeirCalibration"]
    assert sorted(each["version"] for each in shown) == ["1", "2"]
    assert {each["owner"] for each in shown} == {"ml-engineering"}


def test_a_new_version_is_judged_by_labels_of_the_one_before_it(seed: int) -> None:
    site = Site(seed=seed)
    site.answer(site.rng.beta(8, 2, site.size))
    assert site.view().reason is NoEstimate.FEW_LABELS
    site.learn(6)
    site.answer(site.rng.beta(6, 3, site.size), version="2")
    found = site.view("2")
    assert found.reference == "1"
    assert found.cbpe is not None
    assert found.cbpe.value == pytest.approx(2 / 3, abs=0.04)
    assert found.calibration.error is None
    # Its own labels are few at first, then they are what it is judged by.
    answers = site.answer(site.rng.beta(6, 3, site.size), version="2")
    right = site.rng.random(site.size) < 0.5
    few = LABELS_MIN - 1
    site.label(
        replace(answers, traces=answers.traces[:few], classes=answers.classes[:few]), right[:few]
    )
    assert site.view("2").reference == "1"
    site.label(answers, right)
    assert site.view("2").reference == "2"
    assert site.view("1").reference == "1"


def test_where_no_label_ever_was_there_is_no_estimate(seed: int) -> None:
    site = Site(seed=seed)
    for _ in range(3):
        confidence = site.rng.uniform(0.8, 0.9, site.size)
        site.label(site.answer(confidence), site.rng.random(site.size) < confidence)
    site.wait(GENERATIONS_S)
    site.answer(site.rng.uniform(0.3, 0.5, site.size))
    found = site.view()
    assert (found.reason, found.cbpe, found.atc) == (NoEstimate.OUTSIDE, None, None)


def test_a_contract_without_confidence_says_so(seed: int) -> None:
    bare = {name: each for name, each in signals().items() if name != "confidence"}
    the_plan = plan(contract(signals=bare, labels=LabelRule(signal="class")))
    rule = Measure(the_plan, SETTINGS).operations.labels.rules[0]
    assert rule.confidence is None
    site = Site(seed=seed)
    site.learn(2)
    site = site.restart(the_plan)
    found = site.view()
    assert (found.reason, found.window) == (NoEstimate.NO_CONFIDENCE, None)


def test_the_classes_behind_the_predicted_ones_are_estimated(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(12)
    site.wait(GENERATIONS_S)
    # Of every class but 0.2 are taken for the one before it, see `Site.label`.
    true = site.rng.choice(4, size=(10, site.size), p=[0.1, 0.2, 0.3, 0.4])
    wrong = site.rng.random((10, site.size)) < 0.2
    for each in np.where(wrong, (true - 1) % 4, true):
        site.answer(site.rng.beta(8, 2, site.size), each)
    found = site.view()
    assert found.no_prior is None
    assert found.prior is not None
    assert found.prior == pytest.approx(
        dict(zip(VALUES, [0.1, 0.2, 0.3, 0.4], strict=True)), abs=0.03
    )


def test_classes_are_not_estimated_for_numbers() -> None:
    counted = {
        **signals(),
        "class": replace(signals()["class"], type=SignalType.INT, values=(), range=(0, 9)),
    }
    the_plan = plan(contract(signals=counted, labels=LabelRule(signal="class")))
    site = Site(seed=1)
    site.learn(2)
    assert site.restart(the_plan).view().no_prior is NoPrior.NO_CLASSES


@pytest.mark.parametrize(
    ("confidence", "classes", "is_told"),
    [("sure", "one", True), ("sure", "all", False), ("same", "one", False), ("same", "all", False)],
)
def test_confidence_that_gathers_at_the_top_of_fewer_classes_is_told(
    seed: int, confidence: str, classes: str, is_told: bool
) -> None:
    # Without labels: a contract that never sees one is watched alike.
    site = Site(plan(contract()), seed=seed)
    for _ in range(12):
        site.answer(site.rng.beta(8, 2, site.size))
    assert not kinds(site, AnomalyKind.OVERCONFIDENCE)
    for _ in range(25):
        scores = site.rng.beta(8, 2, site.size)
        if confidence == "sure":
            scores[: site.size // 2] = 0.999
        same = np.zeros(site.size, dtype=np.int64)
        site.answer(scores, same if classes == "one" else None, after_s=60)
    found = [each for each in site.told if each.kind is AnomalyKind.OVERCONFIDENCE]
    assert len(found) == is_told
    if is_told:
        assert found[0].numbers["saturated_ratio"] > found[0].numbers["saturated_baseline_ratio"]
        assert "gathers at the top" in found[0].summary
        for _ in range(35):
            site.answer(site.rng.beta(8, 2, site.size), after_s=60)
        assert kinds(site, AnomalyKind.OVERCONFIDENCE)[-1] == ("1", "1", True)


def test_a_restart_goes_on_as_if_nothing_had_happened(seed: int) -> None:
    plain, again = Site(seed=seed), Site(seed=seed)
    for step in range(14):
        for site in (plain, again):
            site.learn(1, off=-0.1 if step > 6 else 0.0)
            site.wait(90)
        again = again.restart()
    one, two = plain.measure.state(), again.measure.state()
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert plain.view() == again.view()
    assert plain.view().cbpe is not None


def test_a_state_from_before_estimates_is_read(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(3)
    state = {
        name: array
        for name, array in site.measure.state().items()
        if not name.startswith("operations/estimates/")
        and name not in ("operations/labels/predictions/score", "operations/labels/grids")
    }
    fresh = Site()
    fresh.measure.restore(state)
    fresh.now_ns = site.now_ns
    found = fresh.view()
    assert (found.labelled, found.window, found.reason) == (0, None, NoEstimate.FEW_LABELS)
    fresh.learn(2)
    assert fresh.view().labelled == 1_000
    merged = merge(state, site.measure.state())
    other = Measure(site.plan, SETTINGS)
    other.restore(merged)
    assert other.snapshot().operations.estimates[0].labelled == 1_500


def test_two_sites_add_up(seed: int) -> None:
    sites = [Site(seed=seed), Site(seed=seed + 1)]
    for site in sites:
        site.learn(4)
    merged = []
    for order in (sites, sites[::-1]):
        both = Site()
        both.measure.restore(merge(*(each.measure.state() for each in order)))
        merged.append(both.view())
    assert without(merged[0]) == without(merged[1])
    assert merged[0].labelled == 8 * sites[0].size
    assert merged[0].window is not None
    assert merged[0].window.events == 8 * sites[0].size
    assert merged[0].calibration.evidence == 0.0


def test_another_range_of_confidence_begins_anew(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(3)
    waiting = site.answer(site.rng.beta(8, 2, site.size))
    percent = {**signals(), "confidence": replace(signals()["confidence"], range=(0.0, 100.0))}
    other = site.restart(labelled_plan(signals=percent))
    assert other.view().labelled == 0
    # Their bins were those of the old range.
    other.label(waiting, np.ones(site.size, dtype=np.bool_))
    assert (other.view().labelled, other.view().reason) == (0, NoEstimate.FEW_LABELS)
    assert other.measure.snapshot().operations.labels.accuracy[0].right > site.size
    other.learn(1)
    found = other.view()
    assert found.labelled == other.size
    assert found.window is not None
    assert found.window.mean < 0.01


def test_it_is_shown_in_the_api_and_as_metrics(seed: int) -> None:
    site = Site(seed=seed)
    site.learn(6)
    shown = measured(
        site.measure.snapshot(),
        now_ns=site.now_ns,
        contracts=site.plan.contracts,
        token=str,
    )
    (state,) = shown.accuracy
    found, view = state.estimated, site.view()
    assert found is not None
    assert found.cbpe is not None
    assert view.cbpe is not None
    assert found.assumption == "assumes P(correct | confidence) is stable"
    assert found.cbpe.accuracy_ratio == view.cbpe.value
    assert (found.labelled_events, found.window_events) == (3_000, 3_000)
    samples = {
        (each.name, each.labels.get("bound")): each.value
        for each in samples_of(shown)
        if each.labels.get("version") == "1"
    }
    assert samples[("weir_estimated_accuracy_ratio", "low")] == view.cbpe.low
    assert samples[("weir_estimated_accuracy_ratio", "high")] == view.cbpe.high
    assert samples[("weir_calibration_log_evidence", None)] == view.calibration.evidence


def test_a_baseline_file_tells_what_confidence_means_until_there_are_labels(seed: int) -> None:
    rule = DriftRule(baseline=file(version="1", right=0.7))
    site = Site(labelled_plan(drift=rule), seed=seed)
    for _ in range(3):
        site.answer(site.rng.beta(8, 2, site.size))
    found = site.view()
    assert (found.reference, found.is_from_file, found.labelled) == ("1", True, 40_000)
    assert found.cbpe is not None
    assert found.cbpe.value == pytest.approx(0.7, abs=0.02)
    assert found.is_contradicted is None
    site.learn(2)
    found = site.view()
    assert (found.is_from_file, found.labelled) == (False, 2 * site.size)
