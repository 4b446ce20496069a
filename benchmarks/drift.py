"""Drift: false alarms against the budget, and delay at the same measured run length as its peers.

Law: delays are compared only between detectors whose streams without change run equally long, both
simulated here; never F1, which an alarm every hundred steps wins. A figure that misses its gate is
printed like any other. Named alone it takes an hour or more; --quick some seconds.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from benchmarks.drift_change import geometric_mean, score_kinds
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
    milliseconds,
    searched,
    usual_table,
)
from benchmarks.report import MILLION, Report, Table, number

MISS_PSI: Final = 0.02
MISS_KINDS: Final = ("spread only", "unseen class", "class prior")
FLOOR_FACTORS: Final = ((0.05, 1.5), (np.inf, 2.5))


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
    budget_s=2.0,
)


SIZES: Final = {"quick": QUICK, "usual": USUAL, "middle": MIDDLE, "whole": WHOLE}


def _null(size: Size) -> list[Outcome]:
    return [
        judge(
            shorter(family, size.reference_max),
            size.null_streams,
            size.null_ticks,
            (size.null_a,),
            SEED + index,
        )[0]
        for index, family in enumerate(FAMILIES)
    ]


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
                f"{row.missed[OURS]:.1%}",
                f"{row.ticks[best][-1]:.2f}",
                best,
            )
        )
    return Table(
        title=f"Abrupt changes: ticks to the alarm at a run length of {size.run_lengths[-1]:,}",
        columns=("change", "ln A / KL", OURS, "missed", "best peer of this row", ""),
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


def _gates(null: Sequence[Outcome], rows: Sequence[Row], costs: dict[str, Any]) -> Table:
    worst = max(null, key=lambda each: each.ratio_high)
    means = _means(rows)
    peer = min((name for name in means if name != OURS), key=lambda name: means[name])
    ratio = means[OURS] / means[peer]
    late = max(
        (
            row.late
            for row in rows
            if row.change.wanted >= MISS_PSI and row.change.kind in MISS_KINDS
        ),
        default=0.0,
    )
    lines = [
        (
            "M1 alarms within the budget in every family",
            f"worst upper bound {worst.ratio_high:.3f} ({worst.family})",
            worst.ratio_high <= 1,
        ),
        ("M2 mean delay at most .8 of the best peer", f"{ratio:.2f} ({peer})", ratio <= 0.8),
    ]
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
    stepped, counted = costs["stream_ticks_per_s"], costs["observations_per_s_4096"]
    lines += [
        (f"M3 no miss within {MISS_EVENTS:,} events", f"{late:.1%} at worst", late == 0),
        ("M4 250 k stream-ticks a second", number(stepped.median), stepped.median >= 250e3),
        ("M4 20 M observations a second", number(counted.median), counted.median >= 20 * MILLION),
        ("M5 1.5 KB a stream", f"{costs['state_bytes']} B", costs["state_bytes"] <= 1_536),
        (
            "M5 merge bit-identical in 50 ms",
            milliseconds(costs["merge_s"]),
            costs["merge_is_identical"] and costs["merge_s"].median < 0.05,
        ),
    ]
    return Table(
        title="Gates",
        columns=("gate", "measured", "kept"),
        rows=tuple((gate, told, "yes" if kept else "NO") for gate, told, kept in lines),
    )


def run(size: Size) -> Report:
    """Run the null bank, the change bank, the peers and the costs."""
    null = _null(size)
    rows, kept = searched(size)
    middle = kept[FORM_EVENTS]
    in_time, form_figures = form_table(middle, size)
    usual, usual_figures = usual_table(middle, size)
    beside, event_figures = event_table(rows, size)
    cost, cost_figures = costs(size, middle.baseline)
    tables = [_null_table(null), _change_table(rows, size), _mean_table(rows, size), in_time]
    tables.append(usual)
    if beside is not None:
        tables.append(beside)
    tables += [cost, _gates(null, rows, cost_figures)]
    mine = [row for row in rows if row.events == FORM_EVENTS]
    figures = {
        "sizes": asdict(size),
        "null": {each.family: {"ratio": each.ratio, "high": each.ratio_high} for each in null},
        "run_lengths": list(size.run_lengths),
        "delay_events": {
            name: [
                _means(mine, level)[name] * FORM_EVENTS for level in range(len(size.run_lengths))
            ]
            for name in mine[0].ticks
        },
        "forms": form_figures,
        "usual_thresholds": usual_figures,
        "river": event_figures,
        "kinds": sorted(score_kinds(middle.baseline)),
        **cost_figures,
    }
    return Report(tables=tuple(tables), figures=figures)
