"""Confidence given the class: marginals stay, the joint law has its PSI, lanes share one budget."""

import numpy as np
import pytest

from benchmarks.drift_conditional import (
    CLASS,
    CLASSES,
    CONFIDENCE,
    KIND,
    LANES,
    SURE,
    UNSURE,
    Joint,
    lane_delays,
    lane_thresholds,
)
from benchmarks.drift_null import SCORE
from benchmarks.drift_peers import Detector, QtEwma, detectors
from gateway.measure.drift.baseline import COARSE_BINS_MAX
from gateway.measure.drift.indices import kl, psi
from gateway.tables import Float64


@pytest.fixture(scope="module")
def joint() -> Joint:
    return Joint(np.random.default_rng(5))


def _shares(joint: Joint) -> Float64:
    shares = np.zeros((LANES, COARSE_BINS_MAX))
    for lane, baseline in enumerate(joint.baselines):
        shares[lane, : baseline.bins] = baseline.shares
    return shares


def test_no_marginal_changes_and_the_joint_law_has_the_psi(joint: Joint) -> None:
    for change, law in joint.changes((0.005, 0.1, 0.5)):
        assert change.kind == KIND
        assert law.min() >= 0
        assert law.sum() == pytest.approx(1, rel=1e-12)
        assert law.sum(axis=0) == pytest.approx(joint.before.sum(axis=0), abs=1e-15)
        assert law.sum(axis=1) == pytest.approx(joint.before.sum(axis=1), abs=1e-15)
        coarse, before = joint.coarse(law), joint.coarse(joint.before)
        assert coarse[CLASSES:] == pytest.approx(before[CLASSES:], abs=1e-15)
        # PSI of the joint is that of each class by its share of the events, and so is KL.
        by_class = [
            share * float(psi(coarse[lane] / share, before[lane] / share))
            for lane, share in enumerate(joint.before.sum(axis=1))
        ]
        assert sum(by_class) == pytest.approx(change.wanted, rel=1e-6)
        assert change.kl == pytest.approx(float(kl(change.shares, before[:CLASSES].ravel())))
        assert by_class[SURE] > 0
        assert by_class[UNSURE] > by_class[SURE]
        assert by_class[2:] == pytest.approx([0] * (CLASSES - 2), abs=1e-12)


def test_a_tick_counts_each_event_in_three_views(joint: Joint, seed: int) -> None:
    draw = joint.drawn(joint.before, 50, 400, np.random.default_rng(seed))
    counts = np.sum([draw() for _ in range(50)], axis=0).reshape(400, LANES, COARSE_BINS_MAX)
    total = counts.sum(axis=2)
    assert (total[:, :CLASSES].sum(axis=1) == 2_500).all()
    assert (total[:, CONFIDENCE] == 2_500).all()
    # The class lane holds the counts of the class lanes, in the order of its own bins.
    groups = joint.baselines[CLASS].group[:CLASSES]
    assert np.array_equal(counts[:, CLASS, :][:, groups], total[:, :CLASSES])
    seen, expected = counts.sum(axis=0), joint.coarse(joint.before) * 1_000_000
    used = expected >= 10
    chi = ((seen - expected)[used] ** 2 / expected[used]).sum()
    # 7 lanes of about 20 bins each; fails with a probability below 1e-6.
    assert chi < 260
    assert joint.before.shape == (CLASSES, SCORE.width)


def test_lanes_together_run_as_long_as_one(joint: Joint, seed: int) -> None:
    rng = np.random.default_rng(seed)
    peers: list[Detector] = [QtEwma(_shares(joint), 0.3)]
    draw = joint.drawn(joint.before, 50, 600, rng)
    levels = lane_thresholds(peers, draw, 600, (30, 60))
    (name,) = levels
    assert levels[name].shape == (2, LANES)
    assert (levels[name][1] >= levels[name][0]).all()
    # Streams without change, which pass within their run length with 1 - 1/e.
    heard = lane_delays(peers, levels, draw, draw, streams=600, cap=60, follows_marginals=True)[
        name
    ]
    for view in (heard.conditional, heard.confidence, heard.of_class):
        later = view[-1][np.isfinite(view[-1])]
        assert (later < 60).mean() == pytest.approx(1 - np.exp(-1), abs=0.12)


def test_a_change_is_heard_by_class_and_by_no_marginal(joint: Joint, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = detectors(joint.baselines)[:1]
    levels = {found[0].name: np.full((1, LANES), 14.0)}
    ((_, law),) = joint.changes((0.25,))
    before, after = (joint.drawn(each, 50, 10, rng) for each in (joint.before, law))
    (heard,) = lane_delays(
        found, levels, before, after, streams=10, cap=60, follows_marginals=True
    ).values()
    assert (heard.conditional[0] >= 1).all()
    assert (heard.conditional[0] <= 20).all()
    assert (heard.confidence[0] == 60).all()
    assert (heard.of_class[0] == 60).all()
