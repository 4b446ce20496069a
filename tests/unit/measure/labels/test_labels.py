"""Labels against a recount, trace by trace, and what no recount shows: limits and restarts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.schema import SignalType
from gateway.measure.drift.lanes import Lane, LaneKey, measured
from gateway.measure.drift.streams import Streams
from gateway.measure.labels.accuracy import AHEAD_HOURS
from gateway.measure.labels.labels import WAITING_MAX, Labels
from gateway.measure.labels.predictions import NO_PREDICTION
from gateway.measure.labels.rules import Fate, threshold_of
from gateway.measure.labels.state import save
from gateway.measure.labels.views import labels_view
from gateway.measure.settings import MeasureSettings
from tests.conftest import FUZZ
from tests.unit.measure import build
from tests.unit.measure.build import SECOND_NS, START_NS
from tests.unit.measure.labels.labelled import (
    DAY_NS,
    HOUR_NS,
    NAMES,
    VALUES,
    Recount,
    World,
    due_events,
    labelled,
    labelled_plan,
    lag_slo,
    reloaded,
    told,
)

STEPS = 10_000 if FUZZ else 700
LATENESS_NS = 30 * SECOND_NS
ONE = NAMES[:1]


def check(labels: Labels, recount: Recount, now_ns: int) -> None:
    """Compare every figure."""
    counted = {each.value: labels.fates[each] for each in Fate if labels.fates[each]}
    assert counted == dict(recount.fates)
    assert len(labels.waiting) == len(recount.waiting)
    outcomes = recount.outcomes()
    right = Counter(name for name, _, is_right in outcomes if is_right)
    wrong = Counter(name for name, _, is_right in outcomes if not is_right)
    # Without a label in this hour the windows end at the time that is judged.
    head = labels.accuracy.head
    assert (now_ns - LATENESS_NS) // HOUR_NS <= head <= now_ns // HOUR_NS
    for view in labels_view(labels).accuracy:
        name = (view.model, view.version)
        assert (view.right, view.wrong) == (right[name], wrong[name])
        assert sum(pair.count for pair in view.pairs) == view.right + view.wrong
        same = sum(pair.count for pair in view.pairs if pair.predicted == pair.label)
        assert same == view.right
        for hours, shown in ((24, view.day), (720, view.month)):
            inside = [
                is_right
                for each, event_ns, is_right in outcomes
                if each == name and head - hours < event_ns // HOUR_NS <= head + AHEAD_HOURS
            ]
            assert (shown.labels if shown else 0) == len(inside)
            if shown:
                assert shown.accuracy == sum(inside) / len(inside)
                assert shown.low <= shown.accuracy <= shown.high
    for lag in labels_view(labels).lags:
        totals = [recount.totals[(lag.model, bad)] for bad in (False, True)]
        assert [lag.good, lag.bad] == totals


@pytest.mark.parametrize("number", range(4))
def test_everything_equals_a_recount(seed: int, number: int) -> None:
    the_plan = labelled_plan()
    labels = Labels(the_plan)
    recount = Recount(labels)
    world = World(labels, recount, seed + number)
    now_ns, found = START_NS, []
    for step in range(STEPS):
        now_ns += int(world.rng.exponential(400)) * SECOND_NS
        found += due_events(labels.turn(now_ns - LATENESS_NS))
        recount.turn(now_ns - LATENESS_NS)
        world.predict(now_ns, int(world.rng.integers(0, 6)))
        for _ in range(int(world.rng.integers(0, 6))):
            world.tell(now_ns)
        if step % 97 == 0:
            labels = world.labels = reloaded(labels, the_plan)
        if step % 50 == 0:
            check(labels, recount, now_ns)
    now_ns += 3 * DAY_NS
    found += due_events(labels.turn(now_ns))
    recount.turn(now_ns)
    check(labels, recount, now_ns)
    assert sorted(found) == sorted(recount.due)
    assert {each for _, _, _, each in found} == {True, False}
    view = labels_view(labels)
    assert (view.repeated, view.too_old) == (recount.repeated, recount.too_old)
    assert min(recount.fates[fate] for fate in recount.fates) > 0
    assert set(recount.fates) == {each.value for each in Fate} - {"sampled_out", "waiting_full"}


def test_idle_turns_and_restarts_change_no_byte(seed: int) -> None:
    the_plan = labelled_plan()
    states = []
    for variant in range(3):
        labels = Labels(the_plan, labels_max=300)
        world = World(labels, Recount(labels), seed)
        idle = np.random.default_rng(variant)
        now_ns = START_NS
        found = []
        for step in range(300):
            pause_ns = int(world.rng.exponential(900)) * SECOND_NS
            if variant == 1:
                for share in np.sort(idle.random(3)).tolist():
                    early_ns = now_ns + int(pause_ns * share) - LATENESS_NS
                    found += due_events(labels.turn(early_ns))
            now_ns += pause_ns
            found += due_events(labels.turn(now_ns - LATENESS_NS))
            world.predict(now_ns, 8)
            world.tell(now_ns)
            if variant == 2 and step % 10 == 0:
                labels = world.labels = reloaded(labels, the_plan, 300)
        found += due_events(labels.turn(now_ns + 10 * HOUR_NS))
        state = save(labels)
        states.append(
            {name: each.tobytes() for name, each in state.items()} | {"due": sorted(found)}
        )
    assert states[1] == states[0]
    assert states[2] == states[0]


def only(expect: float = 1.0, labels_max: int = 1_000_000, **changes: object) -> Labels:
    """Labels of one contract."""
    the_plan = build.plan(labelled("damage-net", expect=expect, **changes))  # type: ignore[arg-type]
    return Labels(the_plan, labels_max)


def feed(
    labels: Labels, lo: np.ndarray, event_ns: int = START_NS, code: np.ndarray | None = None
) -> None:
    """Predict for traces with these low words."""
    count = len(lo)
    zero = np.zeros(count, dtype=np.int64)
    labels.predicted(
        lo.astype(np.uint64) * np.uint64(3),
        lo.astype(np.uint64),
        contract=zero,
        series=zero,
        names=ONE,
        event_ns=np.full(count, event_ns),
        code=zero.astype(np.int32) if code is None else code,
    )


def hi(lo: int) -> int:
    """The high word that goes with a low one."""
    return lo * 3 % (1 << 64)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_a_full_table_keeps_accuracy_and_lag_unbiased(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    labels = only(expect=share, labels_max=4000, slos=(lag_slo("day", None),))
    count, truth, late = 60_000, 0.8, 0.3
    lo = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    code = (rng.random(count) > truth).astype(np.int32)  # the label is 0
    for begin in range(0, count, 1000):
        some = slice(begin, begin + 1000)
        feed(labels, lo[some], START_NS, code[some])
        assert labels.predictions.count <= 4000
    in_time = rng.random(count) > late
    whole = [(hi(trace) << 64) | trace for trace in lo[in_time].tolist()]
    labels.hear(told(whole, "ok"), START_NS + HOUR_NS)
    found = due_events(labels.turn(START_NS + DAY_NS))
    view = labels_view(labels)
    fates = dict(view.fates)
    assert fates["counted"] + fates["sampled_out"] == int(in_time.sum())
    assert view.offered == count
    assert view.sampled_out == count - labels.predictions.count
    # Kept is what the threshold says, exactly.
    kept = (lo & np.uint64((1 << 56) - 1)) >= np.uint64(labels.predictions.threshold)
    assert int(kept.sum()) == labels.predictions.count
    assert abs(kept.mean() - view.probability) < 4 * np.sqrt(view.probability / count)
    (accuracy,) = view.accuracy
    assert accuracy.all_time is not None
    n = accuracy.all_time.labels
    assert n > 800
    # Four standard errors: one run in 16,000 is outside by chance.
    assert abs(accuracy.all_time.accuracy - truth) < 4 * np.sqrt(truth * (1 - truth) / n)
    bad = [each for _, _, _, each in found]
    assert abs(np.mean(bad) - late) < 4 * np.sqrt(late * (1 - late) / len(bad))


def test_the_threshold_falls_again_when_there_is_room(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = only(labels_max=1000)
    feed(labels, rng.integers(0, 1 << 64, 20_000, dtype=np.uint64))
    least = int(np.uint64(1))  # randomness 1, far below any threshold
    labels.turn(START_NS)
    before = labels.predictions.threshold
    assert before > 0
    labels.turn(START_NS + DAY_NS - 1)
    labels.turn(START_NS + 2 * DAY_NS)
    feed(labels, np.array([7], dtype=np.uint64), START_NS + 2 * DAY_NS)
    assert labels.predictions.threshold == 0
    labels.label(0, least, "ok", START_NS + 2 * DAY_NS)
    labels.label(hi(7), 7, "ok", START_NS + 2 * DAY_NS)
    assert labels.fates[Fate.COUNTED] == 1
    labels.turn(START_NS + 4 * DAY_NS)
    assert labels.fates[Fate.UNKNOWN_TRACE] + labels.fates[Fate.SAMPLED_OUT] == 1


def test_a_label_of_a_trace_that_was_left_out_lately_says_so(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = only(labels_max=1000)
    labels.turn(START_NS)
    feed(labels, rng.integers(0, 1 << 64, 20_000, dtype=np.uint64))
    labels.label(0, 1, "ok", START_NS)
    assert labels.fates[Fate.SAMPLED_OUT] == 1


@pytest.mark.parametrize("lag_ns", [-HOUR_NS, 0, DAY_NS, DAY_NS + 1, DAY_NS + HOUR_NS])
def test_a_label_is_good_up_to_its_deadline_and_never_after_it(lag_ns: int) -> None:
    labels = only(slos=(lag_slo("day", None),))
    feed(labels, np.array([5]))
    deadline_ns = START_NS + DAY_NS
    assert labels.turn(deadline_ns - 1) == []
    if lag_ns <= DAY_NS:
        labels.label(hi(5), 5, "ok", START_NS + lag_ns)
    (row,) = due_events(labels.turn(deadline_ns))
    assert row == (0, ("day",), deadline_ns, lag_ns > DAY_NS)
    if lag_ns > DAY_NS:
        labels.label(hi(5), 5, "ok", START_NS + lag_ns)
    assert labels.turn(deadline_ns + DAY_NS) == []
    view = labels_view(labels)
    (lag,) = view.lags
    assert (lag.good, lag.bad) == (int(lag_ns <= DAY_NS), int(lag_ns > DAY_NS))
    # A late one still counts for accuracy.
    assert view.accuracy[0].right == 1


def test_nothing_is_due_of_traces_that_are_not_expected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lo = rng.integers(0, 1 << 64, 5000, dtype=np.uint64)
    for share in (0.0, 0.1, 1.0):
        labels = only(expect=share, slos=(lag_slo("day", None),))
        feed(labels, lo)
        found = due_events(labels.turn(START_NS + DAY_NS))
        random = lo & np.uint64((1 << 56) - 1)
        assert len(found) == int(np.sum(random >= np.uint64(threshold_of(share))))
        assert (
            abs(len(found) / 5000 - share)
            < 4 * np.sqrt(max(share * (1 - share), 0.0) / 5000) + 1e-9
        )


@pytest.mark.parametrize("share", [0.0, 1e-18, 4e-17, 1e-9, 0.01, 0.5, 1 - 2**-53, 1.0])
def test_the_threshold_of_a_share_is_the_sampler_s(share: float) -> None:
    from gateway.otlp.threshold import threshold_of as sampler_s

    assert threshold_of(share) == sampler_s(share)


def test_labels_before_their_inference_wait_a_day() -> None:
    labels = only()
    labels.turn(START_NS)
    labels.label(hi(5), 5, "ok", START_NS)
    labels.label(hi(6), 6, "ok", START_NS)
    labels.turn(START_NS + DAY_NS - 1)
    assert len(labels.waiting) == 2
    feed(labels, np.array([5]), START_NS + DAY_NS - 2)
    labels.turn(START_NS + DAY_NS)
    assert not labels.waiting
    assert labels.fates[Fate.COUNTED] == labels.fates[Fate.UNKNOWN_TRACE] == 1


def test_labels_that_wait_are_bounded_and_the_oldest_go() -> None:
    labels = only()
    for trace in range(1, WAITING_MAX + 11):
        labels.label(hi(trace), trace, "ok", START_NS)
    assert len(labels.waiting) == WAITING_MAX
    assert labels.fates[Fate.WAITING_FULL] == 10
    assert (hi(11), 11, -1) in labels.waiting


def test_the_newest_of_two_labels_counts() -> None:
    labels = only()
    feed(labels, np.array([5]))
    for value in ("cracked", "cracked", "ok", "wet"):
        labels.label(hi(5), 5, value, START_NS)
    (view,) = labels_view(labels).accuracy
    assert (view.right, view.wrong) == (0, 1)
    assert [(pair.predicted, pair.label) for pair in view.pairs] == [("ok", "wet")]
    assert labels.fates[Fate.CHANGED] == 2
    assert labels.fates[Fate.DUPLICATE] == labels.fates[Fate.COUNTED] == 1


def test_versions_are_counted_apart_and_the_rest_under_its_own_model() -> None:
    labels = Labels(labelled_plan())
    at = {contract.model: index for index, contract in enumerate(labelled_plan().contracts)}
    series = np.array([0, 1, 5, 5])
    contract = np.array([at["damage-net"], at["damage-net"], at["damage-net"], at["counter"]])
    lo = np.arange(1, 5, dtype=np.uint64)
    labels.predicted(
        lo,
        lo,
        contract=contract,
        series=series,
        names=NAMES,
        event_ns=np.full(4, START_NS),
        code=np.zeros(4, dtype=np.int32),
    )
    for trace in range(1, 4):
        labels.label(trace, trace, "ok", START_NS)
    labels.label(4, 4, 3, START_NS)
    shown = {
        (view.model, view.version): (view.right, view.wrong)
        for view in labels_view(labels).accuracy
    }
    assert shown == {
        ("damage-net", "1"): (1, 0),
        ("damage-net", "2"): (1, 0),
        ("damage-net", "~other"): (1, 0),
        ("counter", "~other"): (0, 1),
    }


@pytest.mark.parametrize(
    ("kind", "values", "codes"),
    [
        (SignalType.ENUM, ["ok", "wet", "dry", 3, None], [0, 2, "unseen", "none", "none"]),
        (SignalType.BOOL, [True, False, "true", None], [1, 0, "none", "none"]),
        (
            SignalType.INT,
            [0, 9, 10, 2.0, 2.5, -1, None],
            [0, 9, "unseen", 2, "unseen", "unseen", "none"],
        ),
    ],
)
def test_predictions_are_read_from_spans(
    kind: SignalType, values: list[object], codes: list[object]
) -> None:
    limits = {"range": (0.0, 9.0)} if kind is SignalType.INT else {}
    the_plan = build.plan(labelled("damage-net", kind, **limits))  # type: ignore[arg-type]
    labels = Labels(the_plan)
    key = f"app.answer.{kind.value}"
    spans = [
        build.span(
            1 + at,
            attributes={"edgeai.model.name": "damage-net"}
            | ({} if value is None else {key: value}),
        )
        for at, value in enumerate(values)
    ]
    batch = build.batch(the_plan, build.payload(build.request(spans)))
    streams = Streams(the_plan, MeasureSettings())
    streams.open_series(0, 0, "damage-net", "1")
    zero = np.zeros(len(values), dtype=np.int64)
    bins = streams.add(batch, None, zero)
    labels.observe(
        batch,
        None,
        contract=zero,
        series=zero,
        names=ONE,
        event_ns=batch.spans["end_ns"].astype(np.int64),
        lanes=streams.readers,
        bins=bins,
    )
    names = {-(1 << 31) + 1: "none", -(1 << 31) + 2: "unseen"}
    read = labels.predictions.code[: labels.predictions.count].tolist()
    # A value of another kind than declared is odd to the lane, as everywhere.
    expected = [
        "unseen" if each == "none" and value is not None else each
        for each, value in zip(codes, values, strict=True)
    ]
    assert [names.get(code, code) for code in read] == expected


def test_a_contract_without_labels_costs_nothing() -> None:
    labels = Labels(build.plan())
    labels.label(1, 1, "ok", START_NS)
    assert labels.turn(START_NS) == []
    assert labels.fates[Fate.NO_CONTRACT] == 1
    assert labels.predictions.count == 0
    assert labels_view(labels).accuracy == ()


def test_a_prediction_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="name a signal of type enum, bool or int"):
        Labels(build.plan(labelled("damage-net", SignalType.DOUBLE)))


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(("ok", "wet", "dry"))),
        max_size=12,
    ),
    st.lists(st.integers(1, 4), max_size=6),
)
def test_every_label_has_one_fate_or_waits(told: list[tuple[int, str]], seen: list[int]) -> None:
    labels = only()
    for at, (trace, value) in enumerate(told):
        if at < len(seen):
            feed(labels, np.array([seen[at]]))
        labels.label(hi(trace), trace, value, START_NS + at)
    assert sum(labels.fates.values()) + len(labels.waiting) == len(told)
    labels.turn(START_NS + 2 * DAY_NS)
    assert sum(labels.fates.values()) == len(told)
    (right, wrong) = labels.accuracy.counts.sum(axis=0).tolist()
    assert right + wrong <= labels.fates[Fate.COUNTED]
    assert labels.fates[Fate.NO_PREDICTION] == 0 or NO_PREDICTION


def test_an_enum_is_read_from_the_lane_that_counted_it_or_by_itself() -> None:
    the_plan = build.plan(labelled("damage-net"))
    ((signal, grid),) = measured(the_plan.contracts[0])
    lane = Lane(LaneKey(slot=the_plan.slot_of[signal.attribute], type=signal.type, grid=grid))
    classes = Labels(the_plan).rules[0].classes
    assert classes.is_on(lane)
    spans = [
        build.span(1 + at, attributes={signal.attribute: text}) for at, text in enumerate(VALUES)
    ]
    batch = build.batch(the_plan, build.payload(build.request(spans)))
    for lanes, bins in (([], []), ([lane], [np.array([2, 2, 2])])):
        expected = [2, 2, 2] if lanes else [0, 1, 2]
        assert classes.codes(batch, None, lanes, bins).tolist() == expected
