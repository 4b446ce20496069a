"""What the drift benchmark measures: changes looked for, forms in time, river's detectors, costs.

Law: each part takes a size and a seed and gives a table and figures; nothing is printed here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.clock import seconds_each
from benchmarks.drift_change import (
    Change,
    changes,
    delays,
    draw_null,
    forms,
    mean_delays,
    reference,
)
from benchmarks.drift_conditional import Heard, Joint, lane_delays, lane_thresholds
from benchmarks.drift_null import SCORE
from benchmarks.drift_peers import (
    WINDOW_EVENTS,
    Detector,
    Weir,
    detectors,
    event_delay,
    event_detectors,
    maybe_river,
    parameter_of,
    thresholds,
)
from benchmarks.report import Summary, Table, spread, summarize
from gateway.measure.drift.baseline import COARSE_BINS_MAX, Baseline
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import bins_of_numbers
from gateway.measure.drift.indices import jeffreys, psi, psi_critical
from gateway.tables import Float64

SEED: Final = 7
OURS: Final = "Weir e-detector"
MISS_EVENTS: Final = 10_000
SITES: Final = 1_000
SITE_STREAMS: Final = 20
FORM_EVENTS: Final = 50
FORM_PSI: Final = 0.05
USUAL_PSI: Final = (0.02, 0.1)
TICKS_PER_30_DAYS: Final = 259_200  # of 10 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is simulated. Run lengths in ticks, `event_run_length` in events."""

    null_streams: int
    null_ticks: int
    null_a: float
    reference_max: int
    run_lengths: tuple[int, ...]
    null_draws: int
    repeats: int
    cap: int
    wanted: tuple[float, ...]
    tick_events: tuple[int, ...]
    event_run_length: int
    event_repeats: int
    fleet_streams: int
    fleet_horizon: int
    fleet_repeats: int
    budget_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A change that was looked for. `ticks` are mean delays by detector and level.

    `ticks_95` are 95 % quantiles of the delay at the last level, `late` the share of our delays
    beyond MISS_EVENTS.
    """

    change: Change
    events: int
    floor_ticks: float
    ticks: dict[str, list[float]]
    ticks_95: dict[str, float]
    missed: dict[str, float]
    late: float

    @property
    def excess_ratio(self) -> float:
        """Delay beyond the one tick that is always lost, over the shortest possible."""
        return (self.ticks[OURS][-1] - 1) / self.floor_ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank50:
    """What the forms of change and the picture need of the scores at FORM_EVENTS a tick."""

    baseline: Baseline
    found: list[Detector]
    levels: dict[str, list[float]]


Told = Callable[[str], None]


def _row(change: Change, events: int, first: dict[str, Float64], size: Size) -> Row:
    return Row(
        change=change,
        events=events,
        floor_ticks=float(np.log(size.run_lengths[-1])) / change.kl / events,
        ticks={name: mean_delays(values, size.cap) for name, values in first.items()},
        ticks_95={name: _percentile_95(v[-1]) for name, v in first.items()},
        missed={name: float(np.mean(v[-1] >= size.cap)) for name, v in first.items()},
        late=float(np.mean(first[OURS][-1] * events > MISS_EVENTS)),
    )


def _percentile_95(ticks: Float64) -> float:
    known = ticks[np.isfinite(ticks)]
    return float(np.percentile(known, 95)) if len(known) else float("nan")


def _alarming(ticks: Float64, cap: int) -> float:
    known = ticks[np.isfinite(ticks)]
    return float(np.mean(known < cap)) if len(known) else float("nan")


def searched(
    size: Size, events: int, told: Told, *, is_classes: bool = False
) -> tuple[list[Row], Bank50]:
    """Look for every change of scores, or of classes, with every detector."""
    rng = np.random.default_rng((SEED, events, is_classes))
    baseline = reference(is_classes, rng)
    p = baseline.shares / baseline.shares.sum()
    found = detectors([baseline])
    draw = draw_null(baseline, events, size.null_draws, rng)
    levels = thresholds(found, draw, size.run_lengths)
    told(f"{'classes' if is_classes else 'scores'}, {events} a tick: thresholds")
    rows: list[Row] = []
    for change in changes(baseline, size.wanted):
        first = delays(
            found,
            levels,
            lambda _, change=change: change.shares,  # type: ignore[misc]
            p,
            events=events,
            streams=size.repeats,
            cap=size.cap,
            rng=rng,
        )
        rows.append(_row(change, events, first, size))
        told(f"{change.kind}, PSI {change.wanted:g}, {events} a tick")
    return rows, Bank50(baseline=baseline, found=found, levels=levels)


def searched_by_class(size: Size, told: Told) -> tuple[list[Row], dict[str, Heard]]:
    """Look for changes of confidence given the class. Returns also what marginals heard of most."""
    rng = np.random.default_rng(SEED)
    joint = Joint(rng)
    found = detectors(joint.baselines)
    quiet = joint.drawn(joint.before, FORM_EVENTS, size.null_draws, rng)
    levels = lane_thresholds(found, quiet, size.null_draws, size.run_lengths)
    told(f"confidence by class, {FORM_EVENTS} a tick: thresholds")
    rows: list[Row] = []
    heard: dict[str, Heard] = {}
    before = joint.drawn(joint.before, FORM_EVENTS, size.repeats, rng)
    for change, law in joint.changes(size.wanted):
        heard = lane_delays(
            found,
            levels,
            before,
            joint.drawn(law, FORM_EVENTS, size.repeats, rng),
            streams=size.repeats,
            cap=size.cap,
            follows_marginals=change.wanted == max(size.wanted),
        )
        first = {name: each.conditional for name, each in heard.items()}
        rows.append(_row(change, FORM_EVENTS, first, size))
        told(f"{change.kind}, PSI {change.wanted:g}, {FORM_EVENTS} a tick")
    return rows, heard


def marginal_table(heard: dict[str, Heard], size: Size) -> tuple[Table, dict[str, Any]]:
    """Show what lanes by class and the marginals alone hear of the largest conditional change."""
    figures: dict[str, Any] = {}
    lines = []
    for name, each in heard.items():
        views = (each.conditional[-1], each.confidence[-1], each.of_class[-1])
        shares = [_alarming(view, size.cap) for view in views]
        figures[name] = shares
        lines.append((name, *(f"{share:.1%}" for share in shares)))
    by_chance = 1 - float(np.exp(-size.cap / size.run_lengths[-1]))
    lines.append(("without any change, by the run length", *[f"{by_chance:.1%}"] * 3))
    table = Table(
        title=f"Confidence given the class, PSI {max(size.wanted):g}: alarms in {size.cap:,} ticks",
        columns=("detector", "confidence by class", "confidence alone", "class alone"),
        rows=tuple(lines),
        notes=("neither the law of confidence nor that of the class changes at all",),
    )
    return table, figures


def form_table(kept: Bank50, size: Size) -> tuple[Table, dict[str, dict[str, float]]]:
    """Measure the forms in time of one change, and what pages inside and outside a tolerance."""
    rng = np.random.default_rng(SEED)
    p = kept.baseline.shares / kept.baseline.shares.sum()
    change = changes(kept.baseline, (FORM_PSI,))[0]
    levels = {name: [values[-1]] for name, values in kept.levels.items()}
    tolerant = Weir([kept.baseline], 0.1)
    tolerant.name = f"{OURS}, tolerance 0.1"
    levels[tolerant.name] = [float(np.log(size.run_lengths[-1]))]
    figures: dict[str, dict[str, float]] = {}
    lines = []
    for form, law_at in forms(change, p).items():
        first = delays(
            [*kept.found, tolerant],
            levels,
            law_at,
            p,
            events=FORM_EVENTS,
            streams=size.repeats,
            cap=size.cap,
            rng=rng,
        )
        mean = {name: mean_delays(values, size.cap)[0] for name, values in first.items()}
        found = {name: float(np.mean(v < size.cap)) for name, v in first.items()}
        figures[form] = mean
        if form.startswith("blip"):
            lines.append((form, *(f"{each:.0%} alarm" for each in found.values())))
        else:
            lines.append((form, *(f"{each:.1f}" for each in mean.values())))
    table = Table(
        title=f"Forms of a {change.kind} change of PSI {FORM_PSI:g}, {FORM_EVENTS} a tick: ticks",
        columns=("form", *(name for name in levels)),
        rows=tuple(lines),
        notes=(f"within {size.cap} ticks, run length {size.run_lengths[-1]:,}",),
    )
    return table, figures


def usual_table(kept: Bank50, size: Size) -> tuple[Table, dict[str, float]]:
    """Measure PSI of windows with the thresholds that are usual, and with the null law's 99 %."""
    rng = np.random.default_rng(SEED)
    baseline = kept.baseline
    p = baseline.shares / baseline.shares.sum()
    moved = [each for each in changes(baseline, USUAL_PSI) if each.kind == "spread only"]
    draws = 20 * size.null_draws
    lines, figures = [], {}
    for window in WINDOW_EVENTS:
        seen = [
            psi(jeffreys(rng.multinomial(window, law, size=draws)), baseline.shares)
            for law in (p, *(each.shares for each in moved))
        ]
        critical = float(psi_critical(baseline.bins, 1 / window, 0.01))
        for name, threshold in (("0.1", 0.1), ("0.2", 0.2), ("99 % of the null law", critical)):
            found = [float((each >= threshold).mean()) for each in seen]
            figures[f"{window}/{name}"] = found[0]
            # One window of each size after another, at 50 events in 10 s.
            alarms = found[0] * TICKS_PER_30_DAYS * FORM_EVENTS / window
            shown = (f"{each:.1%}" for each in found)
            lines.append((f"{window:,} events, PSI {name}", *shown, f"{alarms:,.0f}"))
    table = Table(
        title="PSI of windows with the usual thresholds: windows that alarm",
        columns=(
            "window",
            "without change",
            *(f"spread only, PSI {each.wanted:g}" for each in moved),
            "false alarms in 30 days",
        ),
        rows=tuple(lines),
        notes=(f"{draws} windows each; 50 events a tick of 10 s",),
    )
    return table, figures


def event_table(rows: Sequence[Row], size: Size) -> tuple[Table | None, dict[str, Any]]:
    """Compare with river's detectors, which see single scores."""
    drift = maybe_river()
    run_ticks = size.event_run_length // FORM_EVENTS
    if drift is None or run_ticks not in size.run_lengths:
        return None, {}
    level = size.run_lengths.index(run_ticks)
    rng = np.random.default_rng(SEED)
    runs = rng.beta(8, 2, (size.event_repeats, size.event_run_length))
    chosen = {}
    for name, (make, low, high) in event_detectors(drift).items():
        short = runs[: max(2, size.event_repeats // 5)] if name == "KSWIN" else runs
        chosen[name] = parameter_of(make, low, high, short, size.event_run_length)
    laws = {
        ("location", 0.02): (7.83, 2.17),
        ("location", 0.1): (7.61, 2.39),
        ("spread only", 0.02): (6.67, 1.667),
        ("spread only", 0.1): (5.12, 1.28),
    }
    lines, figures = [], {}
    for (kind, wanted), (a, b) in laws.items():
        mine = [
            row
            for row in rows
            if (row.change.kind, row.change.wanted, row.events) == (kind, wanted, FORM_EVENTS)
        ]
        ours = mine[0].ticks[OURS][level] * FORM_EVENTS if mine else float("nan")
        told, line = {OURS: ours}, [f"{kind}, PSI {wanted:g}", f"{ours:.0f}"]
        for name, (make, _, _) in event_detectors(drift).items():
            repeats = size.event_repeats if name != "KSWIN" else max(2, size.event_repeats // 5)
            each = [
                event_delay(
                    make(chosen[name][0]),
                    rng.beta(8, 2, 1_000),
                    rng.beta(a, b, MISS_EVENTS),
                )
                for _ in range(repeats)
            ]
            missed = np.mean([one is None for one in each])
            mean = float(np.mean([MISS_EVENTS if one is None else one for one in each]))
            told[name] = mean
            line.append(f"{mean:.0f} ({missed:.0%} missed)")
        figures[f"{kind} {wanted:g}"] = told
        lines.append(tuple(line))
    reached = ", ".join(f"{name} {value[1]:,.0f}" for name, value in chosen.items())
    table = Table(
        title=f"Beside river: events to the alarm at a run length of {size.event_run_length:,}",
        columns=("change", OURS, *chosen),
        rows=tuple(lines),
        notes=(f"run lengths reached in events: {reached}", "Weir sees ticks of 50 events"),
    )
    return table, figures


def costs(size: Size, baseline: Baseline) -> tuple[Table, dict[str, Any]]:
    """Measure what a tick, an observation, a stream and a merge cost."""
    rng = np.random.default_rng(SEED)
    streams = 2_000
    bank = Bank()
    bank.reserve(streams)
    for row in range(streams):
        bank.arm(row, baseline, 0.1, float(np.log(259_200)))
    law = baseline.shares / baseline.shares.sum()
    counts = np.zeros((8, streams, COARSE_BINS_MAX), dtype=np.int64)
    counts[..., : baseline.bins] = rng.multinomial(50, law, size=(8, streams))
    clock = iter(range(1, 1 << 40))
    rows = np.arange(streams)

    def step() -> None:
        tick = next(clock)
        bank.step(rows, counts[tick % 8], np.full(streams, tick))

    stepped = summarize([streams / s for s in seconds_each(step, size.budget_s)])
    found: dict[str, Any] = {"stream_ticks_per_s": stepped}
    for batch in (4_096, 65_536):
        values, of_stream = rng.beta(8, 2, batch), rng.integers(0, 1_000, batch)
        total = np.zeros(1_000 * SCORE.width, dtype=np.int64)
        missing = np.zeros(batch, dtype=np.bool_)

        def count(
            values: Any = values, of: Any = of_stream, to: Any = total, no: Any = missing
        ) -> None:
            np.add.at(to, of * SCORE.width + bins_of_numbers(SCORE, values, no), 1)

        found[f"observations_per_s_{batch}"] = summarize(
            [batch / s for s in seconds_each(count, size.budget_s)]
        )
    state = bank.state(rows)
    found["state_bytes"] = sum(array.nbytes for array in state.values()) // streams
    sites = rng.integers(0, 1_000, (SITES, SITE_STREAMS, SCORE.width), dtype=np.int64)
    found["merge_s"] = summarize(seconds_each(lambda: sites.sum(axis=0), size.budget_s))
    central = np.zeros((SITE_STREAMS, SCORE.width), dtype=np.int64)
    for site in rng.permutation(SITES).tolist():
        central += sites[site]
    found["merge_is_identical"] = bool(np.array_equal(central, sites.sum(axis=0)))
    lines = (
        ("stream-ticks a second", spread(stepped)),
        ("observations a second, batches of 4,096", spread(found["observations_per_s_4096"])),
        ("observations a second, batches of 65,536", spread(found["observations_per_s_65536"])),
        ("evidence of a stream", f"{found['state_bytes']} B"),
        (f"merge {SITES:,} sites of {SITE_STREAMS} streams", milliseconds(found["merge_s"])),
    )
    table = Table(title="Cost, per core", columns=("what", "median [quartiles]"), rows=lines)
    return table, found


def milliseconds(summary: Summary) -> str:
    """Write seconds as milliseconds with their quartiles."""
    return f"{summary.median * 1e3:.1f} ms [{summary.low * 1e3:.1f}, {summary.high * 1e3:.1f}]"
