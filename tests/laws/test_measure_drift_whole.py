"""Law: all parts of drift together depend on the sequence of batches alone.

One story turns everything on at once: a season, event rates, classes apart, CUSUM, a baseline file,
one budget for the site, samplers before the gateway that come midway, promotions of candidates and
of what is in the shadow, labels early, late and changed, versions that come late, gaps, restarts
and late events. Idle steps, looks and restarts may come anywhere.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from gateway import measured
from gateway.api import measurements
from gateway.batch import API_IDENTITY, Anomaly, AnomalyKind, Batch, Parcel, Signal
from gateway.contract.plan import Plan
from gateway.contract.schema import (
    Accumulator,
    BaselineFile,
    Contract,
    DriftRule,
    LabelRule,
    Season,
    SignalType,
)
from gateway.measure import Measure, MeasureSettings, Snapshot, merge
from gateway.measure.drift.baseline import baseline_id, freeze
from gateway.measure.drift.files import Reference, References
from gateway.measure.drift.files import write as write_file
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.drift.inclusion import INCLUSION
from gateway.measure.drift.rates import EVENT_RATE
from gateway.measure.settings import FalseAlarms
from gateway.measure.slo.judge import Burn
from gateway.measure.slo.objectives import STEP_NS, Objectives
from gateway.otlp.declared import Dismissal, Promotion
from gateway.otlp.events import is_start_notice, start_notice, write
from tests.conftest import FUZZ
from tests.laws.test_measure_whole_replay import Story as Declared
from tests.laws.test_measure_whole_replay import check_told, ordered, parcel, same
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    VALUES,
    batch,
    contract,
    payload,
    plan,
    request,
    span,
    success,
)

SEEDS: Final = range(1, 21 if FUZZ else 2)
STEPS: Final = 400 if FUZZ else 170
HOUR_S: Final = 3_600
TICKS_S: Final = (300.0, 120.0, 900.0, 3_600.0, 17.0)
SCORE: Final = Grid(kind=GridKind.LOGIT, low=0.0, high=1.0)
# A pause before a batch, in seconds, and how likely it is: some three weeks in 260 batches.
PAUSES: Final = (0.0, 3.0, 40.0, 400.0, 2_000.0, 2 * HOUR_S, 9 * HOUR_S, 60 * HOUR_S)
LIKELY: Final = (0.08, 0.1, 0.12, 0.15, 0.25, 0.24, 0.05, 0.01)
THRESHOLDS: Final = ("ot=th:8", "ot=th:8", "ot=th:c", "ot=th:zz", "other=1,ot=rv:0", "", "ot=th:")
LATE_S: Final = (0.0, 0.0, 0.0, 0.0, 60.0, 5_000.0, 30 * HOUR_S)


def settings(tick_s: float = 300.0, **changes: Any) -> MeasureSettings:
    wanted: dict[str, Any] = {
        "drift_tick_s": tick_s,
        "baseline_events": 60,
        "drift_quiet_s": 1_800,
        "false_alarms": FalseAlarms.SITE,
        "series_max": 11,
        "labels_max": 300,
        "deployers": frozenset({"deployer"}),
    }
    return MeasureSettings(**{**wanted, **changes})


def from_file() -> BaselineFile:
    """A file with the confidence of version 1 of c."""
    rng = np.random.default_rng(1)
    blocks = rng.multinomial(500, np.ones(SCORE.bins) / SCORE.bins, size=8)
    blocks = np.pad(blocks, ((0, 0), (0, SCORE.width - SCORE.bins))).astype(np.int64)
    item = Reference(
        version="1",
        signal="confidence",
        type=SignalType.DOUBLE,
        window_ns=None,
        blocks=blocks,
        baseline=freeze(SCORE, blocks.sum(axis=0), list(blocks)),
    )
    text = write_file(References(model="c", creator="test", items=(item,)))
    return BaselineFile(path=Path("c.json"), content=text.encode())


OFTEN: Final = 1 / (12 * HOUR_S)
LABELS: Final = LabelRule(signal="class", within=7_200.0, expect=0.5)
RULES: Final[dict[str, DriftRule]] = {
    "a": DriftRule(
        tolerance=0.9,
        false_alarms_per_s=OFTEN,
        season=Season.HOUR_OF_WEEK,
        rate_tolerance=1.0,
        conditional_classes=2,
    ),
    "b": DriftRule(
        tolerance=0.7,
        false_alarms_per_s=OFTEN,
        accumulator=Accumulator.CUSUM,
        rate_tolerance=0.5,
        conditional_classes=20,
    ),
    "c": DriftRule(tolerance=0.6, false_alarms_per_s=OFTEN, baseline=from_file()),
}


def made(model: str, **changes: Any) -> Contract:
    some: dict[str, Any] = {"slos": (success(0.9),), "labels": LABELS, "drift": RULES[model]}
    return contract(model, **{**some, **changes})


PLAN: Final = plan(made("a"), made("b"), made("c", labels=None, slos=()))
PLAIN: Final = plan(*(contract(model, slos=()) for model in "abc"))


# SLOs have laws of their own: here one slot of each hour is judged, so that weeks are cheap.
JUDGED_NS: Final = HOUR_S * SECOND_NS


@pytest.fixture(autouse=True)
def judged_each_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge SLOs, and look for troubles, once an hour."""

    def turn(self: Objectives, now_ns: int) -> Iterator[tuple[int, list[Burn]]]:
        last_ns = (now_ns - self._lateness_ns) // JUDGED_NS * JUDGED_NS
        head_ns = (self._head + 1) * STEP_NS if self._head else last_ns - JUDGED_NS
        for at_ns in range(head_ns + JUDGED_NS, last_ns + 1, JUDGED_NS):
            self._settle()
            self._step(at_ns // STEP_NS - 1)
            yield at_ns, []

    monkeypatch.setattr(Objectives, "turn", turn)


class Story(Declared):
    """Batches of some weeks, for one plan."""

    def __init__(self, seed: int, steps: int = STEPS, the_plan: Plan = PLAN) -> None:
        self.rng = np.random.default_rng(seed)
        self.plan = the_plan
        self.now_ns = START_NS
        self.trace = seed << 40
        self.traces: list[int] = []
        self.batches: list[Batch] = []
        for step in range(steps):
            pause_s = float(self.rng.choice(PAUSES, p=LIKELY)) * self.rng.uniform(0.5, 1.5)
            self.now_ns += int(pause_s * SECOND_NS) + 1
            self.batches.append(self._made(step / steps))

    def _made(self, part: float) -> Batch:
        payloads = [self._some(part) for _ in range(int(self.rng.integers(1, 5)))]
        parcels: list[Parcel] = []
        if self.chance(0.6):
            declared = [self._event() for _ in range(int(self.rng.integers(1, 12)))]
            if self.chance(0.1):
                device = f"d{self.rng.integers(5)}"
                declared.append(Dismissal(at_ns=self.now_ns, device=device))
            parcels.append(parcel(Signal.LOGS, write(declared), self.now_ns, API_IDENTITY))
        if self.chance(0.03):
            parcels.append(parcel(Signal.LOGS, start_notice(), self.now_ns, API_IDENTITY))
        one = batch(self.plan, *payloads, sequence=len(self.batches) + 1)
        return dataclasses.replace(one, arrival_ns=self.now_ns, parcels=tuple(parcels))

    def _some(self, part: float) -> Any:
        model = self.pick(*"aaabbcz")
        is_bad = 0.55 < part < 0.8
        versions = ["1", "1", *(["2"] if part > 0.4 else []), *(["3", "4"] if part > 0.7 else [])]
        is_sampled = part > {"a": 0.3, "b": 0.6}.get(model, 2.0)
        late_s = float(self.pick(*LATE_S))
        spans = []
        for _ in range(int(self.rng.integers(2, 60 if is_bad and model == "b" else 20))):
            self.trace += 1
            self.traces.append(self.trace * 0x9E3779B97F4A7C15 % (1 << 127))
            own: dict[str, Any] = {
                "edgeai.model.name": model,
                "edgeai.inference.confidence": self.rng.beta(2, 9 if is_bad else 2),
                "edgeai.inference.class": self.pick("ok", *VALUES[: 2 if is_bad else 4]),
                "edgeai.input.brightness": self.rng.uniform(-0.1, 1.1),
            }
            if self.chance(0.05):
                del own[str(self.pick(*list(own)[1:]))]
            if self.chance(0.05):
                own["edgeai.inference.class"] = "odd"
            spans.append(
                span(
                    self.traces[-1],
                    end_ns=self.now_ns - int(late_s * SECOND_NS),
                    failed=self.chance(0.02),
                    state=self.pick(*THRESHOLDS) if is_sampled else "",
                    attributes=own,
                )
            )
        device = f"d{self.rng.integers(5)}"
        resource = {"device.id": device, "edgeai.model.version": self.pick(*versions)}
        return payload(request(spans, resource), arrival_ns=self.now_ns)


def promotable(measure: Measure) -> list[str]:
    """The ids of all that may be promoted now, also of what is in the shadow."""
    streams, rates = measure.streams, measure.rates
    found = [*streams.candidates.items(), *streams.shadows.baselines()]
    ids = [baseline_id(*streams.items[number].key, each.digest) for number, each in found]
    rated = [(model, rates.maybe_candidate(row)) for row, model in enumerate(rates.models)]
    return sorted(ids) + [
        baseline_id(model, "", EVENT_RATE, each.digest) for model, each in rated if each is not None
    ]


class Run:
    """A measure, and all that it has told."""

    def __init__(self, the_plan: Plan, of: MeasureSettings) -> None:
        self.plan, self.settings = the_plan, of
        self.measure = Measure(the_plan, of)
        self.told: list[Anomaly] = []
        self.shadows: list[tuple[str, str, str]] = []

    def take(self, one: Batch, said: Sequence[Parcel] = ()) -> None:
        self.told += self.measure.observe(one).anomalies
        for each in (*one.parcels, *said):
            self.told += self.measure.hear(each)
        self.shadows += self.measure.take_shadow_alarms()

    def idle(self, now_ns: int) -> None:
        self.told += self.measure.advance(now_ns)
        self.shadows += self.measure.take_shadow_alarms()

    def restart(self) -> None:
        before = self.measure.state()
        self.measure = Measure(self.plan, self.settings)
        self.measure.restore(before)
        same(self.measure.state(), before)

    def promotions(self, rng: np.random.Generator) -> list[Parcel]:
        """What a person promotes after a batch."""
        at_ns, chosen = self.measure.now_ns, list[str]()
        if rng.random() < 0.15:
            chosen = [each for each in promotable(self.measure) if rng.random() < 0.3]
        if rng.random() < 0.05:
            chosen.append("unknown")
        body = write([Promotion(at_ns=at_ns, baseline=each) for each in chosen])
        return [parcel(Signal.LOGS, body, at_ns, API_IDENTITY)] if chosen else []

    def look(self) -> None:
        """See everything that is shown, and that it can be shown."""
        found = self.measure.snapshot()
        assert not list(nans(found, "snapshot"))
        shown = measured.measured(
            found,
            now_ns=self.measure.now_ns,
            contracts=self.plan.contracts,
            token=lambda device: f"token-{device}",
        )
        assert not list(nans(shown, "shown"))
        for sample in measurements.measured(shown):
            assert not list(nans(sample.value, sample.name)), sample


def nans(value: Any, where: str) -> Iterator[str]:
    """Name every number that is none."""
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            yield where
    elif isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and np.isnan(value).any():
            yield where
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from nans(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from nans(each, f"{where}[{key}]")
    elif isinstance(value, list | tuple):
        for at, each in enumerate(value):
            yield from nans(each, f"{where}[{at}]")


def has_gap_before(one: Batch | None) -> bool:
    """Say whether the gateway was away before a batch, and took no idle steps."""
    return one is None or any(map(is_start_notice, one.parcels))


@pytest.mark.parametrize("seed", SEEDS)
def test_idle_steps_looks_and_restarts_change_nothing_of_drift(seed: int) -> None:
    rng = np.random.default_rng(seed)
    some = settings(TICKS_S[(seed - 1) % len(TICKS_S)])
    batches = Story(seed).batches
    plain, idle, restarted = (Run(PLAN, some) for _ in range(3))
    runs = (plain, idle, restarted)
    for one, after in zip(batches, [*batches[1:], None], strict=True):
        for each in runs:
            each.take(one)
        said = plain.promotions(rng)
        for each in runs:
            for declared in said:
                each.told += each.measure.hear(declared)
        if after is not None and not has_gap_before(after):
            pause_ns = after.arrival_ns - one.arrival_ns
            for share in np.sort(rng.random(3 if pause_ns > SECOND_NS else 1)).tolist():
                idle.idle(one.arrival_ns + int(share * pause_ns))
                if rng.random() < 0.015:
                    idle.look()
        if rng.random() < 0.06:
            restarted.restart()
    same(plain.measure.state(), restarted.measure.state())
    assert plain.told == restarted.told
    same(plain.measure.state(), idle.measure.state())
    assert ordered(plain.told) == ordered(idle.told)
    assert plain.shadows == idle.shadows == restarted.shadows
    check_told(plain.told)
    # The story has reached what it is for.
    streams = plain.measure.streams
    assert streams.seasons.judged
    assert streams.seasons.late_events
    assert plain.measure.rates.baselines
    assert streams.superseded
    assert {each.signal for each in streams.items} >= {INCLUSION, "confidence|ok"}
    assert any(each.kind is AnomalyKind.DRIFT for each in plain.told)


def counted(view: Snapshot) -> dict[tuple[str, ...], tuple[int, ...]]:
    """What is counted of each series and signal, without what a restart under a plan opens anew."""
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for each in view.series:
        found[each.model, each.version] = (each.ok, each.failed)
        for signal in each.signals:
            if any(signal.counts) and not signal.part_of and signal.signal != INCLUSION:
                found[each.model, each.version, signal.signal] = signal.counts
    return found


SEASONAL: Final = DriftRule(tolerance=0.9, season=Season.HOUR_OF_WEEK, conditional_classes=1)
OTHERS: Final = (
    PLAN,
    PLAIN,
    plan(made("a", drift=RULES["b"]), made("b", drift=SEASONAL), made("c")),
    plan(
        made("a", drift=dataclasses.replace(RULES["a"], rate_tolerance=None, tolerance=0.3)),
        made("b", drift=dataclasses.replace(RULES["b"], conditional_classes=0)),
        made("c", drift=dataclasses.replace(RULES["c"], baseline="learn", rate_tolerance=0.9)),
    ),
)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_state_goes_on_under_any_other_rule_of_drift_and_back(seed: int) -> None:
    assert len({each.slot_keys for each in OTHERS}) == 1
    rng = np.random.default_rng(seed)
    batches = Story(seed + 100).batches
    hops = set(rng.choice(len(batches), 6, replace=False).tolist())
    plain, idle = (Run(PLAIN, settings()) for _ in range(2))
    for number, one in enumerate(batches):
        if number in hops:
            the_plan = OTHERS[int(rng.integers(len(OTHERS)))]
            before = counted(plain.measure.snapshot())
            for run in (plain, idle):
                run.plan, state = the_plan, run.measure.state()
                run.measure = Measure(the_plan, run.settings)
                run.measure.restore(state)
                run.restart()
            assert counted(plain.measure.snapshot()) == before
        for run in (plain, idle):
            run.take(one)
        for declared in plain.promotions(rng):
            for run in (plain, idle):
                run.told += run.measure.hear(declared)
        # What begins anew under another rule begins at the tick in which that comes.
        after = None if number + 1 in hops or number + 1 == len(batches) else batches[number + 1]
        if after is not None and not has_gap_before(after):
            idle.idle(one.arrival_ns + int(rng.random() * (after.arrival_ns - one.arrival_ns)))
        if rng.random() < 0.04:
            plain.look()
    same(plain.measure.state(), idle.measure.state())


@pytest.mark.parametrize("seed", SEEDS)
def test_two_sites_add_up_to_a_central_one(seed: int) -> None:
    stories = [Story(2 * seed + site, STEPS // 2).batches for site in (0, 1)]
    central, *sites = (Run(PLAN, settings(series_max=100)) for _ in range(3))
    for site, batches in zip(sites, stories, strict=True):
        for one in batches:
            site.take(one)
    for each in sorted((one for some in stories for one in some), key=lambda one: one.arrival_ns):
        central.take(each)
    states = [each.measure.state() for each in sites]
    merged = [Run(PLAN, settings(series_max=100)) for _ in range(2)]
    for run, pair in zip(merged, (states, states[::-1]), strict=True):
        run.measure.restore(merge(*pair))
        run.restart()
        run.look()
    first, second = (run.measure.snapshot() for run in merged)
    whole = central.measure.snapshot()
    assert counted(first) == counted(second) == counted(whole)
    assert first.counters.drift_late == whole.counters.drift_late
    # What was held back while a site was away is no rate there, so the sites are added up here.
    rates = [run.measure.rates.total + run.measure.rates.open for run in (*merged, *sites)]
    assert rates[0].tolist() == rates[1].tolist() == (rates[2] + rates[3]).tolist()
    detectors = [run.measure.streams.budget.detectors for run in sites]
    assert [run.measure.streams.budget.detectors for run in merged] == [max(detectors)] * 2
    for later in Story(seed + 50, 30).batches:
        merged[0].take(later)
    merged[0].look()
