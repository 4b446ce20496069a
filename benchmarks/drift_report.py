"""Tables and gates of the drift benchmark.

Law: nothing is measured here, and a figure that misses its gate is printed like any other.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from benchmarks import drift_fleet
from benchmarks.drift_change import geometric_mean
from benchmarks.drift_conditional import KIND as CONDITIONAL
from benchmarks.drift_fleet import ALPHA, Fleet
from benchmarks.drift_null import Outcome
from benchmarks.drift_search import MISS_EVENTS, OURS, Row, Size, milliseconds
from benchmarks.report import MILLION, Table, number

MISS_PSI: Final = 0.02
MISS_KINDS: Final = ("spread only", "unseen class", "class prior", "missing", CONDITIONAL)
FLOOR_FACTORS: Final = ((0.05, 1.5), (np.inf, 2.5))
FLEET_DELAY_MAX: Final = 1.8


def means(rows: Sequence[Row], level: int = -1) -> dict[str, float]:
    """Return the geometric mean delay in ticks of each detector."""
    names = rows[0].ticks
    return {n: geometric_mean(np.array([row.ticks[n][level] for row in rows])) for n in names}


def null_table(found: Sequence[Outcome]) -> Table:
    """Show how much of its budget each family spends."""
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


def change_table(rows: Sequence[Row], size: Size) -> Table:
    """Show the delay of each change beside the best of the peers."""
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


def mean_table(rows: Sequence[Row], size: Size) -> Table:
    """Show geometric means of delays beside the alarm at every tick and at none."""
    by_events = {events: [r for r in rows if r.events == events] for events in size.tick_events}
    names = list(rows[0].ticks)
    total = means(rows)
    lines = [
        (
            name,
            *(f"{means(mine)[name]:.2f}" for mine in by_events.values()),
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


def null_gates(null: Sequence[Outcome]) -> list[Gate]:
    """Judge M1."""
    worst = max(null, key=lambda each: each.ratio_high)
    told = f"worst upper bound {worst.ratio_high:.3f} ({worst.family})"
    return [("M1 alarms within the budget in every family", told, worst.ratio_high <= 1)]


def change_gates(rows: Sequence[Row]) -> list[Gate]:
    """Judge M2 and M3."""
    delay = means(rows)
    peer = min((name for name in delay if name != OURS), key=lambda name: delay[name])
    ratio = delay[OURS] / delay[peer]
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


def cost_gates(costs: dict[str, Any]) -> list[Gate]:
    """Judge M4 and M5."""
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


def fleet_gates(fleets: Sequence[Fleet], ratio: float) -> list[Gate]:
    """Judge M8."""
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


def fleet_table(fleets: Sequence[Fleet], ratio: float, worst: float) -> Table:
    """Show reports and pages of fleets."""
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
