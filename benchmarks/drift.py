"""Drift: false alarms against the budget, and delay at the same measured run length as its peers.

Law: delays are compared only between detectors whose streams without change run equally long, both
simulated here; never F1, which an alarm every hundred steps wins. A figure that misses its gate is
printed like any other.

Time on one idle core: --quick takes ten seconds, MIDDLE 14 minutes, WHOLE about 50: null 15, change
25, fleet 9, costs less than one. The null bank was timed family by family (50 to 85 s each, sparse
and bursts 10), the fleet as a whole; change is extrapolated from the CPU time of MIDDLE.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from benchmarks import drift_fleet
from benchmarks.drift_change import reference, score_kinds
from benchmarks.drift_fleet import COPIES
from benchmarks.drift_null import FAMILIES, Outcome, judge, shorter
from benchmarks.drift_report import (
    Gate,
    change_gates,
    change_table,
    cost_gates,
    fleet_gates,
    fleet_table,
    mean_table,
    means,
    null_gates,
    null_table,
)
from benchmarks.drift_search import (
    FORM_EVENTS,
    SEED,
    Size,
    Told,
    costs,
    event_table,
    form_table,
    marginal_table,
    searched,
    searched_by_class,
    usual_table,
)
from benchmarks.report import Report, Table

PARTS: Final = ("null", "change", "fleet", "costs")
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
    fleet_repeats=10,
    budget_s=1.0,
)
MIDDLE: Final = Size(
    null_streams=500,
    null_ticks=1_000,
    null_a=200,
    reference_max=1_000_000_000,
    run_lengths=(100, 400, 1_000, 5_000, 43_200),
    null_draws=150,
    repeats=100,
    cap=2_000,
    wanted=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5),
    tick_events=(5, 50, 1_000),
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


@dataclass(slots=True)
class _Found:
    """Tables, gates and figures of the parts that have run."""

    tables: list[Table] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def _run_null(size: Size, found: _Found, told: Told) -> None:
    null = _null(size, told)
    found.tables.append(null_table(null))
    found.gates += null_gates(null)
    found.figures["null"] = {
        each.family: {"ratio": each.ratio, "high": each.ratio_high, "alarms": each.alarms}
        for each in null
    }


def _run_change(size: Size, found: _Found, told: Told) -> None:
    searches = {events: searched(size, events, told) for events in size.tick_events}
    rows = [row for mine, _ in searches.values() for row in mine]
    rows += searched(size, FORM_EVENTS, told, is_classes=True)[0]
    by_class, heard = searched_by_class(size, told)
    rows += by_class
    middle = searches[FORM_EVENTS][1]
    in_time, form_figures = form_table(middle, size)
    marginals, marginal_figures = marginal_table(heard, size)
    usual, usual_figures = usual_table(middle, size)
    told("forms in time")
    beside, event_figures = event_table(rows, size)
    told("beside river" if beside is not None else "river is not installed or not comparable")
    found.tables += [change_table(rows, size), mean_table(rows, size), marginals, in_time, usual]
    if beside is not None:
        found.tables.append(beside)
    found.gates += change_gates(rows)
    mine = [row for row in rows if row.events == FORM_EVENTS]
    found.figures |= {
        "run_lengths": list(size.run_lengths),
        "delay_events": {
            name: [means(mine, level)[name] * FORM_EVENTS for level in range(len(size.run_lengths))]
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
    found.tables.append(fleet_table((alone, groups), ratio, worst))
    found.gates += fleet_gates((alone, groups), ratio)
    found.figures["fleet"] = [asdict(alone), asdict(groups)]
    found.figures["fleet_delay"] = {"ratio": ratio, "worst": worst}


def _run_costs(size: Size, found: _Found, told: Told) -> None:
    cost, figures = costs(size, reference(False, np.random.default_rng(SEED)))
    told("costs")
    found.tables.append(cost)
    found.gates += cost_gates(figures)
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
