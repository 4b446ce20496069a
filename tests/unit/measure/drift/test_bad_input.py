"""What a drift detector may be given that is no good: nothing of it alarms by itself."""

from pathlib import Path
from typing import Final

import numpy as np
import pytest

from gateway.batch import AnomalyKind
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan
from gateway.contract.schema import BaselineFile, DriftRule
from gateway.errors import InvalidConfigError
from gateway.measure import Measure, MeasureSettings
from gateway.measure.drift.baseline import COARSE_BINS_MAX, freeze
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.snapshot import BaselineState, SignalView
from gateway.tables import Float64
from tests.unit.contract.texts import HEAD, write
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, plan
from tests.unit.measure.test_given import file

SIZE: Final = 200
CLASSES_MANY: Final = 100_000
LOG_A: Final = float(np.log(259_200))


class Site:
    """Sends 200 inferences each second, and counts the drifts that are told."""

    def __init__(
        self, the_plan: Plan, *, version: str = "1.0", baseline_events: int = 4_000
    ) -> None:
        self.measure = Measure(the_plan, MeasureSettings(baseline_events=baseline_events))
        self._fleet = Fleet(the_plan, size=SIZE, version=version)
        self.rng = np.random.default_rng(11)
        self.now_ns = START_NS
        self.drifts: list[str] = []

    def send(self, confidence: Float64) -> None:
        self.now_ns += SECOND_NS
        told = self.measure.observe(self._fleet.batch(self.now_ns, confidence)).anomalies
        self.drifts += [each.subject for each in told if each.kind is AnomalyKind.DRIFT]

    def run(self, seconds: int, a: float = 8, b: float = 2) -> None:
        for _ in range(seconds):
            self.send(self.rng.beta(a, b, SIZE))

    def view(self) -> SignalView:
        (series,) = self.measure.snapshot().series
        return next(each for each in series.signals if each.signal == "confidence")


def test_a_baseline_that_is_too_small_has_an_index_with_an_interval_and_no_alarm() -> None:
    small = plan(contract(drift=DriftRule(tolerance=0.05)))
    site = Site(small, baseline_events=400)
    site.run(40)
    site.run(60, 2, 8)
    drift = site.view().drift
    assert drift is not None
    assert not drift.is_calibrated
    assert 1 < drift.psi_debiased_low < drift.psi_debiased < drift.psi_debiased_high
    assert drift.log_evidence > drift.log_evidence_bound, "it is the rule that keeps it silent"
    assert site.drifts == []


def test_a_baseline_on_another_grid_is_refused_by_name() -> None:
    wrong = file().content.replace(b'"kind":"logit"', b'"kind":"linear"')
    assert wrong != file().content
    baseline = BaselineFile(path=Path("baselines/damage-net.json"), content=wrong)
    with pytest.raises(InvalidConfigError) as refused:
        Measure(plan(contract(drift=DriftRule(baseline=baseline))), MeasureSettings())
    assert refused.value.findings[0].file == "baselines/damage-net.json"


def test_a_baseline_of_another_version_judges_nobody_else() -> None:
    site = Site(plan(contract(drift=DriftRule(baseline=file(version="0.9")))))
    site.run(60, 2, 8)
    assert site.view().state is BaselineState.COLLECTING
    assert site.drifts == []


@pytest.mark.parametrize(
    "odd", [np.nan, np.inf, -np.inf, 1.0000001, -1e-9, 1e308], ids=lambda each: f"{each:g}"
)
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_scores_that_are_none_are_counted_and_are_no_drift(odd: float, share: float) -> None:
    site = Site(plan(contract(drift=DriftRule(tolerance=0.4))), baseline_events=2_000)
    many = round(share * SIZE)
    for _ in range(80):
        confidence = site.rng.beta(8, 2, SIZE)
        confidence[:many] = odd
        site.send(confidence)
    view = site.view()
    assert view.drift is not None
    assert view.counts[-1] == 80 * many
    assert sum(view.counts) == 80 * SIZE
    assert site.drifts == []


@pytest.mark.parametrize(
    ("many", "instead"), [(257, "256"), (CLASSES_MANY, "at most 262144 bytes are read")]
)
def test_an_enum_of_too_many_values_is_refused(tmp_path: Path, many: int, instead: str) -> None:
    values = ", ".join(f"v{number}" for number in range(many))
    signal = f"{{attribute: a.class, type: enum, values: [{values}], export: pass}}"
    with pytest.raises(InvalidConfigError) as refused:
        load_contracts([write(tmp_path, HEAD + f"signals: {{class: {signal}}}\n")])
    told = [f"{each.message} {each.instead}" for each in refused.value.findings]
    assert any(instead in each for each in told)


def test_a_hundred_thousand_classes_on_a_grid_are_no_drift() -> None:
    rng = np.random.default_rng(3)
    grid = Grid(kind=GridKind.CLASSES, values=tuple(map(str, range(CLASSES_MANY))))
    counts = rng.multinomial(200_000, np.full(grid.width, 1 / grid.width), 8)
    baseline = freeze(grid, counts.sum(axis=0), list(counts))
    assert baseline.bins <= COARSE_BINS_MAX
    bank = Bank()
    bank.reserve(1)
    bank.arm(0, baseline, 0.1, LOG_A)
    for tick in range(1, 60):
        seen = rng.multinomial(500, np.full(grid.width, 1 / grid.width))[None, :]
        assert not bank.step(np.zeros(1, dtype=np.int64), baseline.coarse(seen), np.array([tick]))


def test_ticks_without_events_are_no_evidence() -> None:
    site = Site(plan(contract(drift=DriftRule(tolerance=0.4))), baseline_events=2_000)
    site.run(80)
    before = site.view().drift
    for _ in range(2_000):
        site.now_ns += 10 * SECOND_NS
        told = site.measure.advance(site.now_ns)
        site.drifts += [each.subject for each in told if each.kind is AnomalyKind.DRIFT]
    after = site.view().drift
    assert before is not None
    assert after is not None
    # The ticks that were open are judged, and nothing more.
    assert after.log_evidence < before.log_evidence + 3
    assert site.drifts == []
