"""All signals at once are shown as one by one, by the week and by the hour."""

import numpy as np
import pytest
from scipy import spatial, stats

from gateway.batch import AnomalyKind
from gateway.contract.schema import DriftRule, Season
from gateway.measure import Measure, MeasureSettings
from gateway.measure.drift.attribution import maybe_attribution
from gateway.measure.drift.baseline import Baseline, freeze
from gateway.measure.drift.compared import compare
from gateway.measure.drift.grid import GridKind
from gateway.measure.drift.hours import PARTS, freeze_hours
from gateway.measure.drift.indices import kl
from gateway.measure.drift.seasonal import EPOCH_HOUR, HOUR_NS, HOURS
from gateway.measure.driftviews import BinWords, drift_views
from gateway.measure.explain import drift_numbers
from gateway.tables import Float64
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, plan

DAY_HOURS = 24
NIGHT_FROM = 12
HOUR_EVENTS = 8_000
TICK_EVENTS = 200
# A Monday at 20:00 UTC.
NIGHT_NS = (START_NS // HOUR_NS // HOURS * HOURS + HOURS - EPOCH_HOUR + 20) * HOUR_NS


class Rhythmic:
    """A model that answers by day in another way than by night: surer, and with one class."""

    def __init__(self, season: Season, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.plan = plan(contract(drift=DriftRule(season=season), slos=()))
        self.measure = Measure(self.plan, MeasureSettings())
        streams = self.streams = self.measure.streams
        streams.open_series(0, 0, "damage-net", "1")
        streams.turn(NIGHT_NS)
        self.night: dict[int, Float64] = {}
        for number in range(len(streams.items)):
            grid = streams.grid(number)
            day, night = np.zeros(grid.width), np.zeros(grid.width)
            if grid.kind is GridKind.CLASSES:
                day[: grid.bins] = 1 / grid.bins
                night[: grid.bins] = [0.96, *[0.04 / (grid.bins - 1)] * (grid.bins - 1)]
            else:
                day[40:100] = 1 / 60
                night[40:100], night[120:128] = 0.5 / 60, 0.5 / 8
            self.night[number] = night
            streams.adopt(number, self._frozen(number, season, day, night))

    def _frozen(self, number: int, season: Season, day: Float64, night: Float64) -> Baseline:
        grid = self.streams.grid(number)
        table = np.zeros((HOURS, PARTS, grid.width), dtype=np.uint32)
        for hour in range(HOURS):
            law = day if hour % DAY_HOURS < NIGHT_FROM else night
            table[hour] = self.rng.multinomial(HOUR_EVENTS // PARTS, law, PARTS)
        if season is Season.HOUR_OF_WEEK:
            return freeze_hours(grid, table)
        # The same week as if its hours had come in any order, so that phi hides nothing.
        blocks = [self.rng.multinomial(HOUR_EVENTS, (day + night) / 2) for _ in range(HOURS)]
        return freeze(grid, np.sum(blocks, axis=0), blocks)

    def run(self, ticks: int = 120) -> int:
        """Let an unchanged night come; returns the count of alarms."""
        alarms = 0
        for tick in range(1, ticks + 1):
            for number, law in self.night.items():
                item = self.streams.items[number]
                lane = self.streams.lanes[item.lane]
                lane.open[item.row] += self.rng.multinomial(TICK_EVENTS, law)
            alarms += len(self.streams.turn(NIGHT_NS + tick * 10 * SECOND_NS))
        return alarms


@pytest.mark.parametrize("season", list(Season))
def test_all_at_once_is_what_each_is_alone(season: Season) -> None:
    site = Rhythmic(season)
    site.run(30)
    streams = site.streams
    numbers = list(range(len(streams.items)))
    words = BinWords().keep(streams)
    views = drift_views(streams, compare(streams, numbers), words, {1})
    assert sorted(views) == numbers
    for number, view in views.items():
        baseline, against = streams.baselines[number], streams.against(number)
        window, size = streams.bank.window(np.array([number]))
        counts = window[0, : baseline.bins]
        wanted = drift_numbers(counts, float(size[0]), baseline, against.shares, against.events)
        relative = wanted.pop("relative_drift_index")
        found = {name: getattr(view, name) for name in wanted}
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert view.relative_index == pytest.approx(relative, rel=1e-9, abs=1e-12)
        assert view.expected == pytest.approx(against.shares.tolist())
        assert view.current == pytest.approx((counts / counts.sum()).tolist())
        assert view.delta == pytest.approx(against.delta)
        assert view.bins == tuple(baseline.describe(each) for each in range(baseline.bins))
        assert view.is_alarmed == (number == 1)


def test_an_empty_window_and_none_at_all_show_nothing() -> None:
    streams = Rhythmic(Season.NONE).streams
    views = drift_views(streams, compare(streams, [0]), BinWords().keep(streams), ())
    assert views[0].current == ()
    assert (views[0].psi, views[0].js_nats, views[0].relative_index) == (0.0, 0.0, 0.0)
    del streams.baselines[0]
    assert drift_views(streams, compare(streams, [0]), {}, ()) == {}


def test_words_are_made_once_and_kept_as_long_as_they_are_needed() -> None:
    streams, words = Rhythmic(Season.NONE).streams, BinWords()
    digest = streams.baselines[0].digest
    first = words.keep(streams)[digest]
    assert words.keep(streams)[digest] is first
    del streams.baselines[0]
    assert digest not in words.keep(streams)
    assert len(words.keep(streams)) <= len(streams.baselines)


def test_an_unchanged_night_is_no_change_of_class_or_confidence() -> None:
    site = Rhythmic(Season.HOUR_OF_WEEK)
    assert site.run() == 0
    found = maybe_attribution(site.streams, 0)
    assert found is not None
    assert abs(found.of_class) < 0.01
    assert abs(found.given_class) < 0.01
    # Against the whole week it would be one.
    (classes,) = (n for n, each in enumerate(site.streams.items) if each.signal == "class")
    compared, baseline = compare(site.streams, [classes]), site.streams.baselines[classes]
    assert kl(compared.q[0, : baseline.bins], baseline.shares) > 0.1


@pytest.mark.parametrize("season", list(Season))
def test_a_night_of_a_season_is_no_collapse(season: Season) -> None:
    site = Rhythmic(season)
    site.measure.operations.estimates.windows.begin()
    site.run()
    told = site.measure.operations.estimates.troubles(NIGHT_NS)
    kinds = [each.kind for each in told]
    assert kinds == ([] if season is Season.HOUR_OF_WEEK else [AnomalyKind.OVERCONFIDENCE])


def test_other_indices_and_the_history_are_those_of_single_streams(seed: int) -> None:
    measure = Measure(plan(), MeasureSettings(baseline_events=2_000))
    fleet = Fleet(measure.plan, size=400)
    rng = np.random.default_rng(seed)
    for second in range(100):
        law = (8, 2) if second < 60 else (6, 3)
        measure.observe(fleet.batch(START_NS + second * SECOND_NS, rng.beta(*law, 400)))
    streams = measure.streams
    compared = compare(streams, range(len(streams.items)))
    views = drift_views(streams, compared, BinWords().keep(streams), ())
    for number, view in views.items():
        baseline = streams.baselines[number]
        row = compared.row_of[number]
        q, p = compared.q[row, : baseline.bins], compared.shares[row, : baseline.bins]
        found = view.distances
        assert found["kl_nats"] == pytest.approx(float(stats.entropy(q, p)), rel=1e-9, abs=1e-12)
        distance = float(spatial.distance.jensenshannon(q, p, base=2))
        assert found["js_distance_base2"] == pytest.approx(distance, rel=1e-9, abs=1e-9)
        assert found["total_variation"] == pytest.approx(float(np.abs(q - p).sum() / 2), rel=1e-9)
        assert ("wasserstein_ranks" in found) is baseline.is_ordered
        if baseline.is_ordered:
            ranks = np.cumsum(p) - p / 2
            expected = stats.wasserstein_distance(ranks, ranks, q, p)
            assert found["wasserstein_ranks"] == pytest.approx(expected, rel=1e-9)
            low, high = found["kolmogorov_smirnov_low"], found["kolmogorov_smirnov_high"]
            assert low == pytest.approx(float(np.abs(np.cumsum(q - p)).max()), rel=1e-9)
            assert low <= high <= 1
        assert len(view.history) >= 4
    confidence = views[0]
    assert confidence.history[-1] == max(confidence.history) > 0.1
    assert confidence.history[0] < 0.05


def test_before_the_first_tick_there_are_no_other_indices() -> None:
    site = Rhythmic(Season.HOUR_OF_WEEK)
    streams = site.streams
    views = drift_views(streams, compare(streams, [0]), BinWords().keep(streams), ())
    assert (views[0].distances, views[0].history) == ({}, ())
