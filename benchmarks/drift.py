"""Drift: false alarms against the budget, and delay at the same measured run length as its peers.

Law: delays are compared only between detectors whose streams without change run equally long, both
simulated here; never F1, which an alarm every hundred steps wins. A figure that misses its gate is
printed like any other. Named alone it takes WHOLE; --quick some seconds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from benchmarks import drift_fleet
from benchmarks.drift_change import geometric_mean, reference, score_kinds
from benchmarks.drift_conditional import KIND as CONDITIONAL
from benchmarks.drift_fleet import ALPHA, COPIES, Fleet
from benchmarks.drift_null import FAMILIES, Outcome, judge, shorter
from benchmarks.drift_search import (
    FORM_EVENTS,
    MISS_EVENTS,
    OURS,
    SEED,
    Row,
    Size,
    costs,
    event_table,
    form_table,
    marginal_table,
    milliseconds,
    searched,
    searched_by_class,
    usual_table,
)
from benchmarks.report import MILLION, Report, Table, number

PARTS: Final = ("null", "change", "fleet", "costs")
MISS_PSI: Final = 0.02
MISS_KINDS: Final = ("spread only", "unseen class", "class prior", "missing", CONDITIONAL)
FLOOR_FACTORS: Final = ((0.05, 1.5), (np.inf, 2.5))
FLEET_DELAY_MAX: Final = 1.8
# A fleet in groups has as many times fewer detectors to simulate, and is simulated more often.
GROUPED_REPEATS: Final = 5


QUICK: Final = Size(
    null_streams=20,
    null_ticks=100,
    null_a=50,
    reference_max=20_000,
    run_lengths=(50, 100),
    null_draws=50,
    repeats=20,
    cap=60,
    wanted=(0.02, 0.25),
    tick_events=(50,),
    event_run_length=1_000,
    event_repeats=2,
    fleet_streams=500,
    fleet_horizon=10,
    fleet_repeats=2,
    budget_s=0.1,
)
USUAL: Final = Size(
    null_streams=100,
    null_ticks=1_000,
    null_a=250,
    reference_max=1_000_000_000,
    run_lengths=(100, 400, 1_000),
    null_draws=100,
    repeats=50,
    cap=300,
    wanted=(0.005, 0.02, 0.1, 0.5),
    tick_events=(50,),
    event_run_length=20_000,
    event_repeats=5,
    fleet_streams=2_000,
    fleet_horizon=50,
    fleet_repeats=2,
    budget_s=1.0,
)
MIDDLE: Final = Size(
    null_streams=500,
    null_ticks=1_000,
    null_a=200,
    reference_max=1_000_000_000,
    run_lengths=(100, 400, 1_000, 5_000),
    null_draws=150,
    repeats=60,
    cap=1_000,
    wanted=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5),
    tick_events=(50,),
    event_run_length=20_000,
    event_repeats=10,
    fleet_streams=10_000,
    fleet_horizon=50,
    fleet_repeats=20,
    budget_s=2.0,
)
WHOLE: Final = Size(
    null_streams=1_000,
    null_ticks=10_000,
    null_a=1_000,
    reference_max=1_000_000_000,
    run_lengths=(100, 400, 1_000, 10_000, 43_200),
    null_draws=300,
    repeats=200,
    cap=5_000,
    wanted=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5),
    tick_events=(5, 50, 1_000),
    event_run_length=20_000,
    event_repeats=40,
    fleet_streams=10_000,
    fleet_horizon=100,
    fleet_repeats=60,
    budget_s=2.0,
)


SIZES: Final = {"quick": QUICK, "usual": USUAL, "middle": MIDDLE, "whole": WHOLE}


Told = Callable[[str], None]


def _null(size: Size, told: Told) -> list[Outcome]:
    found = []
    for index, family in enumerate(FAMILIES):
        begun = time.monotonic()
        (each,) = judge(
            shorter(family, size.reference_max),
            size.null_streams,
            size.null_ticks,
            (size.null_a,),
            SEED + index,
        )
        found.append(each)
        ratio = f"{each.ratio:.4f} of the budget, at most {each.ratio_high:.4f}"
        told(f"{family.name}: {ratio}, {time.monotonic() - begun:.0f} s")
    return found


def _means(rows: Sequence[Row], level: int = -1) -> dict[str, float]:
    """Return the geometric mean delay in ticks of each detector."""
    names = rows[0].ticks
    return {n: geometric_mean(np.array([row.ticks[n][level] for row in rows])) for n in names}


def _null_table(found: Sequence[Outcome]) -> Table:
    rows = tuple(
        (
            each.family,
            number(each.stream_ticks),
            number(each.judged),
            str(each.alarms),
            f"{each.budget:.0f}",
            f"{each.ratio:.4f}",
            f"{each.ratio_high:.4f}",
        )
        for each in found
    )
    return Table(
        title=f"Streams without change: alarms against the budget T / A, A = {found[0].a:g} ticks",
        columns=("family", "stream-ticks", "judged", "alarms", "budget", "ratio", "upper 95 %"),
        rows=rows,
        notes=("each stream has a reference of its own; the bound is Poisson, one-sided",),
    )


def _change_table(rows: Sequence[Row], size: Size) -> Table:
    peers = [name for name in rows[0].ticks if name != OURS]
    lines = []
    for row in rows:
        best = min(peers, key=lambda name: row.ticks[name][-1])
        lines.append(
            (
                f"{row.change.kind}, PSI {row.change.wanted:g}, {row.events} a tick",
                f"{row.floor_ticks:.2f}",
                f"{row.ticks[OURS][-1]:.2f}",
                f"{row.ticks_95[OURS]:.1f}",
                f"{row.missed[OURS]:.1%}",
                f"{row.ticks[best][-1]:.2f}",
                best,
            )
        )
    return Table(
        title=f"Abrupt changes: ticks to the alarm at a run length of {size.run_lengths[-1]:,}",
        columns=("change", "ln A / KL", OURS, "p95", "missed", "best peer of this row", ""),
        rows=tuple(lines),
        notes=(f"{size.repeats} streams each, cap {size.cap} ticks; the cap counts as the delay",),
    )


def _mean_table(rows: Sequence[Row], size: Size) -> Table:
    by_events = {events: [r for r in rows if r.events == events] for events in size.tick_events}
    names = list(rows[0].ticks)
    total = _means(rows)
    lines = [
        (
            name,
            *(f"{_means(mine)[name]:.2f}" for mine in by_events.values()),
            f"{total[name]:.2f}",
            f"{total[name] / total[OURS]:.2f}",
            f"{np.mean([row.missed[name] for row in rows]):.1%}",
        )
        for name in names
    ]
    lines.append(
        ("alarm at every tick", *("1.00" for _ in by_events), "1.00", "run length 1", "0%")
    )
    lines.append(("never alarm", *("-" for _ in by_events), "-", "never ends", "100%"))
    return Table(
        title=f"Geometric mean of ticks to the alarm at a run length of {size.run_lengths[-1]:,}",
        columns=(
            "detector",
            *(f"{events} a tick" for events in by_events),
            "all",
            "over Weir",
            "missed",
        ),
        rows=tuple(lines),
    )


Gate = tuple[str, str, bool]


def _null_gates(null: Sequence[Outcome]) -> list[Gate]:
    worst = max(null, key=lambda each: each.ratio_high)
    told = f"worst upper bound {worst.ratio_high:.3f} ({worst.family})"
    return [("M1 alarms within the budget in every family", told, worst.ratio_high <= 1)]


def _change_gates(rows: Sequence[Row]) -> list[Gate]:
    means = _means(rows)
    peer = min((name for name in means if name != OURS), key=lambda name: means[name])
    ratio = means[OURS] / means[peer]
    lines = [("M2 mean delay at most .8 of the best peer", f"{ratio:.2f} ({peer})", ratio <= 0.8)]
    above = 0.0
    for limit, factor in FLOOR_FACTORS:
        mine = [row for row in rows if above < row.change.wanted <= limit]
        above = limit
        if mine:
            highest = max(mine, key=lambda row: row.excess_ratio)
            kept = sum(row.excess_ratio <= factor for row in mine)
            what = f"{highest.change.kind}, PSI {highest.change.wanted:g}, {highest.events} a tick"
            lines.append(
                (
                    f"M2 delay at most {factor} ln A / KL + 1 tick, PSI to {limit:g}",
                    f"{kept} of {len(mine)}; worst {highest.excess_ratio:.2f} ({what})",
                    kept == len(mine),
                )
            )
    for kind in MISS_KINDS:
        late = [
            row.late for row in rows if row.change.kind == kind and row.change.wanted >= MISS_PSI
        ]
        worst = max(late, default=0.0)
        lines.append(
            (f"M3 no miss within {MISS_EVENTS:,} events: {kind}", f"{worst:.1%}", worst == 0)
        )
    return lines


def _cost_gates(costs: dict[str, Any]) -> list[Gate]:
    stepped, counted = costs["stream_ticks_per_s"], costs["observations_per_s_4096"]
    return [
        ("M4 250 k stream-ticks a second", number(stepped.median), stepped.median >= 250e3),
        ("M4 20 M observations a second", number(counted.median), counted.median >= 20 * MILLION),
        ("M5 1.5 KB a stream", f"{costs['state_bytes']} B", costs["state_bytes"] <= 1_536),
        (
            "M5 merge bit-identical in 50 ms",
            milliseconds(costs["merge_s"]),
            costs["merge_is_identical"] and costs["merge_s"].median < 0.05,
        ),
    ]


def _fleet_gates(fleets: Sequence[Fleet], ratio: float) -> list[Gate]:
    false_share = max(fleets, key=lambda each: each.false_share_high)
    pages = max(fleets, key=lambda each: each.pages_high)
    return [
        (
            f"M8 e-d-BH: mean share of false reports at most {ALPHA:g}",
            f"worst upper bound {false_share.false_share_high:.4f} ({false_share.name})",
            false_share.false_share_high <= ALPHA,
        ),
        (
            "M8 bound A K: at most 1 false page of the fleet in A ticks",
            f"worst upper bound {pages.pages_high:.2f} ({pages.name})",
            pages.pages_high <= 1,
        ),
        (
            f"M8 delay at A K at most {FLEET_DELAY_MAX:g} of that at A",
            f"{ratio:.2f}",
            ratio <= FLEET_DELAY_MAX,
        ),
    ]


def _fleet_table(fleets: Sequence[Fleet], ratio: float, worst: float) -> Table:
    rows = tuple(
        (
            each.name,
            f"{each.streams:,}",
            f"{each.horizon:,}",
            f"{each.repeats:,}",
            f"{each.false_share:.4f} ({each.false_share_high:.4f})",
            f"{each.found_ratio:.1%}",
            f"{each.pages:.2f} ({each.pages_high:.2f})",
        )
        for each in fleets
    )
    return Table(
        title=f"A fleet, {drift_fleet.DRIFTING_RATIO:.0%} of it drifting; law of the others known",
        columns=(
            "detectors without change",
            "fleet",
            "horizon, A",
            "repeats",
            f"false share, alpha {ALPHA:g}",
            "drifting named",
            "pages if none drifts",
        ),
        rows=rows,
        notes=(
            "false share at the worst tick; in brackets the upper 95 % bound",
            f"delay at A K over that at A, 30 days, K {drift_fleet.FLEET:,}: "
            f"geometric mean {ratio:.2f}, worst {worst:.2f}",
        ),
    )


@dataclass(slots=True)
class _Found:
    """Tables, gates and figures of the parts that have run."""

    tables: list[Table] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def _run_null(size: Size, found: _Found, told: Told) -> None:
    null = _null(size, told)
    found.tables.append(_null_table(null))
    found.gates += _null_gates(null)
    found.figures["null"] = {
        each.family: {"ratio": each.ratio, "high": each.ratio_high, "alarms": each.alarms}
        for each in null
    }


def _run_change(size: Size, found: _Found, told: Told) -> None:
    rows, kept = searched(size, told)
    by_class, heard = searched_by_class(size, told)
    rows += by_class
    middle = kept[FORM_EVENTS]
    in_time, form_figures = form_table(middle, size)
    marginals, marginal_figures = marginal_table(heard, size)
    usual, usual_figures = usual_table(middle, size)
    told("forms in time")
    beside, event_figures = event_table(rows, size)
    found.tables += [_change_table(rows, size), _mean_table(rows, size), marginals, in_time, usual]
    if beside is not None:
        found.tables.append(beside)
    found.gates += _change_gates(rows)
    mine = [row for row in rows if row.events == FORM_EVENTS]
    found.figures |= {
        "run_lengths": list(size.run_lengths),
        "delay_events": {
            name: [
                _means(mine, level)[name] * FORM_EVENTS for level in range(len(size.run_lengths))
            ]
            for name in mine[0].ticks
        },
        "rows": [
            {
                "kind": row.change.kind,
                "psi": row.change.wanted,
                "events": row.events,
                "floor_ticks": row.floor_ticks,
                "ticks": row.ticks,
                "ticks_95": row.ticks_95,
                "missed": row.missed,
            }
            for row in rows
        ],
        "forms": form_figures,
        "marginals": marginal_figures,
        "usual_thresholds": usual_figures,
        "river": event_figures,
        "kinds": sorted(score_kinds(middle.baseline)),
    }


def _run_fleet(size: Size, found: _Found, told: Told) -> None:
    streams, horizon, repeats = size.fleet_streams, size.fleet_horizon, size.fleet_repeats
    alone = drift_fleet.simulate(streams, horizon, repeats, SEED, told=told)
    groups = drift_fleet.simulate(
        streams, horizon, GROUPED_REPEATS * repeats, SEED, copies=COPIES, told=told
    )
    ratio, worst = drift_fleet.delay_ratio(size.wanted, size.repeats, size.cap, SEED)
    found.tables.append(_fleet_table((alone, groups), ratio, worst))
    found.gates += _fleet_gates((alone, groups), ratio)
    found.figures["fleet"] = [asdict(alone), asdict(groups)]
    found.figures["fleet_delay"] = {"ratio": ratio, "worst": worst}


def _run_costs(size: Size, found: _Found, told: Told) -> None:
    cost, figures = costs(size, reference(False, np.random.default_rng(SEED)))
    told("costs")
    found.tables.append(cost)
    found.gates += _cost_gates(figures)
    found.figures |= figures


_RUNS: Final[dict[str, Callable[[Size, _Found, Told], None]]] = dict(
    zip(PARTS, (_run_null, _run_change, _run_fleet, _run_costs), strict=True)
)


def run(size: Size, only: str | None = None, told: Told = lambda _: None) -> Report:
    """Run the null bank, the change bank with the peers, a fleet and the costs, or one of PARTS.

    `told` hears of progress, a sentence at a time.
    """
    found = _Found(figures={"sizes": asdict(size)})
    for part in PARTS if only is None else (only,):
        _RUNS[part](size, found, told)
    gates = tuple((gate, text, "yes" if kept else "NO") for gate, text, kept in found.gates)
    found.tables.append(Table(title="Gates", columns=("gate", "measured", "kept"), rows=gates))
    return Report(tables=tuple(found.tables), figures=found.figures)
