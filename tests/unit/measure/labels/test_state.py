"""Labels over a restart with another plan, and of two sites."""

import numpy as np
import pytest

from gateway.contract.schema import SignalType
from gateway.measure.labels import state as labelstate
from gateway.measure.labels.labels import Labels
from gateway.measure.labels.rules import Fate
from gateway.measure.labels.state import load, save
from gateway.measure.labels.views import labels_view
from tests.unit.measure import build
from tests.unit.measure.build import START_NS
from tests.unit.measure.labels.labelled import (
    DAY_NS,
    HOUR_NS,
    NAMES,
    Recount,
    World,
    due_events,
    labelled,
    labelled_plan,
    lag_slo,
)


def one(code: list[int], labels: Labels, event_ns: int = START_NS) -> None:
    """Predict for traces 1, 2, …."""
    lo = np.arange(1, len(code) + 1, dtype=np.uint64)
    zero = np.zeros(len(code), dtype=np.int64)
    labels.predicted(
        lo,
        lo,
        contract=zero,
        series=zero,
        names=NAMES[:1],
        event_ns=np.full(len(code), event_ns),
        code=np.array(code, dtype=np.int32),
    )


def test_classes_are_translated_by_name() -> None:
    before = Labels(build.plan(labelled("damage-net", values=("ok", "cracked", "wet"))))
    one([0, 1, 2, 0], before)
    before.label(4, 4, "wet", START_NS)
    after = Labels(build.plan(labelled("damage-net", values=("wet", "ok", "torn"))))
    load(after, save(before))
    for trace in (1, 2, 3):
        after.label(trace, trace, "ok", START_NS)
    after.label(4, 4, "ok", START_NS)
    (view,) = labels_view(after).accuracy
    # The second predicted a class that is no more, so it is wrong; the fourth was wrong before.
    assert (view.right, view.wrong) == (2, 2)
    shown = {(pair.predicted, pair.label): pair.count for pair in view.pairs}
    assert shown == {("ok", "ok"): 2, ("~other", "ok"): 1, ("wet", "ok"): 1}
    assert after.fates[Fate.CHANGED] == 1


def test_deadlines_are_moved_and_not_judged_twice() -> None:
    before = Labels(build.plan(labelled("damage-net", expect=1.0, slos=(lag_slo("hour", 3600.0),))))
    one([0, 0], before)
    before.label(1, 1, "ok", START_NS + HOUR_NS)
    found = due_events(before.turn(START_NS + 2 * HOUR_NS))
    assert [each[3] for each in sorted(found)] == [False, True]
    slos = (lag_slo("hour", 3600.0), lag_slo("late", 3 * 3600.0))
    after = Labels(build.plan(labelled("damage-net", expect=1.0, within=4 * 3600.0, slos=slos)))
    load(after, save(before))
    found = due_events(after.turn(START_NS + 5 * HOUR_NS))
    assert sorted(found) == [
        (0, ("late",), START_NS + 3 * HOUR_NS, False),
        (0, ("late",), START_NS + 3 * HOUR_NS, True),
    ]
    (lag,) = labels_view(after).lags
    assert (lag.good, lag.bad) == (1, 1)


def test_what_has_no_contract_any_more_is_let_go() -> None:
    before = Labels(labelled_plan())
    world = World(before, Recount(before), 5)
    world.predict(START_NS, 50)
    before.label(0, 12345, "ok", START_NS, "damage-net")
    before.label(0, 12346, 3, START_NS)
    rows = before.predictions.count
    after = Labels(build.plan(labelled("counter", SignalType.INT)))
    load(after, save(before))
    assert 0 < after.predictions.count < rows
    assert set(after.waiting) == {(0, 12346, -1)}
    assert after.fates[Fate.NO_CONTRACT] == 1
    after.turn(START_NS + DAY_NS)
    assert labels_view(after).lags[0].model == "counter"
    bare = Labels(build.plan())
    load(bare, save(after))
    assert (bare.predictions.count, len(bare.waiting)) == (0, 0)


@pytest.mark.parametrize("cut", [0, 40, 100])
def test_two_sites_add_their_counts(seed: int, cut: int) -> None:
    the_plan = labelled_plan()
    whole, sites = Labels(the_plan), [Labels(the_plan), Labels(the_plan)]
    rng = np.random.default_rng(seed)
    now_ns = START_NS
    for step in range(200):
        now_ns += int(rng.exponential(600)) * build.SECOND_NS
        site = sites[int(step >= cut)] if cut != 100 else sites[step % 2]
        draw = int(rng.integers(1 << 40))
        for labels in (whole, site):
            world = World(labels, Recount(labels), draw)
            world.predict(now_ns, 5)
            world.labels.hear((), now_ns)
            for _ in range(4):
                world.tell(now_ns)
    for labels in (whole, *sites):
        labels.turn(now_ns + 3 * DAY_NS)
    merged = Labels(the_plan)
    load(merged, labelstate.merge(save(sites[0]), save(sites[1])))
    found, expected = labels_view(merged), labels_view(whole)
    assert sorted(found.accuracy, key=lambda view: (view.model, view.version)) == sorted(
        expected.accuracy, key=lambda view: (view.model, view.version)
    )
    assert found.lags == expected.lags
    assert found.fates == expected.fates
    assert (found.offered, found.repeated) == (expected.offered, expected.repeated)
    assert (found.rows, found.waiting) == (0, 0)
