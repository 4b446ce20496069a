"""SLOs: what a span, a series, a judgement and a look at the windows cost.

Law: what is timed is what the core calls. The whole of `Measure.observe` stands beside the part of
the SLOs, on batches of the same size. Every SLO has bad events, as a judgement of none is free.
"""

import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.clock import seconds_each
from benchmarks.decode import payload
from benchmarks.pipeline import example_contracts
from benchmarks.report import MILLION, THOUSAND, Report, Table, spread, summarize
from benchmarks.traffic import make_bodies
from gateway.config import SamplingSection
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan, compile_plan
from gateway.contract.schema import Contract, Indicator, Slo
from gateway.measure import Measure, MeasureSettings
from gateway.measure.slo.objectives import STEP_NS, Objectives
from gateway.measure.views import slo_views
from gateway.otlp.decode import OpenBatch

BATCH_SPANS: Final = (64, 512, 4_096, 16_384)
SERIES: Final = 1_000
REQUEST_SPANS: Final = 64
SEED: Final = 13
NANO: Final = 1e9
START_NS: Final = 1_900_000_800_000_000_000
PERIOD_S: Final = 30 * 86_400.0
BAD_SHARE: Final = 0.001
SLOS: Final = (
    Slo(name="success", indicator=Indicator.SUCCESS, objective=0.999, window=PERIOD_S),
    Slo(
        name="latency",
        indicator=Indicator.LATENCY,
        objective=0.95,
        window=PERIOD_S,
        threshold=0.1,
    ),
    Slo(name="cold", indicator=Indicator.COLD_START, objective=0.99, window=PERIOD_S),
)
# One more, as a gateway takes 256 contracts and the series are to be a thousand.
SLOS_OF_MANY: Final = (
    *SLOS,
    Slo(name="mostly", indicator=Indicator.SUCCESS, objective=0.99, window=PERIOD_S),
)


def _plan(contracts: int, slos: Sequence[Slo]) -> Plan:
    made = [
        Contract(
            model=f"model-{number}",
            match={"edgeai.model.name": f"model-{number}"},
            owner="bench@example.com",
            purpose="bench",
            expires=date(2040, 1, 1),
            signals={},
            slos=tuple(slos),
            digest=f"{number}",
            source="bench.yaml",
        )
        for number in range(contracts)
    ]
    return compile_plan(made, SamplingSection())


def _turn(board: Objectives, now_ns: int) -> int:
    return sum(len(burns) for _, burns in board.turn(now_ns))


def _adder(spans: int) -> Callable[[], object]:
    """Make the work of counting a batch of two contracts for the SLOs."""
    rng = np.random.default_rng(SEED)
    board = Objectives(_plan(2, SLOS), MeasureSettings())
    _turn(board, START_NS)
    contract = rng.integers(0, 2, spans)
    event_ns = START_NS - rng.integers(0, 2_000_000_000, spans)
    arrival_ns = np.full(spans, START_NS)
    failed, cold, invalid = (rng.random(spans) < BAD_SHARE for _ in range(3))
    duration_ns = rng.lognormal(17.0, 0.5, spans).astype(np.int64)

    def work() -> object:
        return board.add(contract, event_ns, arrival_ns, failed, duration_ns, cold, invalid)

    return work


def _observer(plan: Plan, spans: int) -> Callable[[], object]:
    """Make the work of measuring a batch of the usual traffic."""
    open_batch = OpenBatch(plan.slot_keys)
    for body in make_bodies(REQUEST_SPANS, spans // REQUEST_SPANS, SEED):
        open_batch.add(payload(body, START_NS))
    batch = open_batch.take(1)
    measure = Measure(plan, MeasureSettings())

    def work() -> object:
        return measure.observe(batch)

    return work


def _filled(series: int) -> tuple[Objectives, float]:
    """Make SLOs with traffic; returns them and the bytes that each of them holds."""
    plan = _plan(series // len(SLOS_OF_MANY), SLOS_OF_MANY)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    board = Objectives(plan, MeasureSettings())
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    _turn(board, START_NS)
    return board, (after - before) / len(board.items)


def _judger(board: Objectives) -> Callable[[], object]:
    """Make the work of one judgement: a slot of traffic passes the watermark and all are judged."""
    contracts = len(board.items) // len(SLOS_OF_MANY)
    contract = np.arange(contracts).repeat(4)
    failed = np.arange(len(contract)) % 4 == 0
    duration_ns = np.full(len(contract), 1_000_000)
    now_ns = START_NS

    def work() -> int:
        nonlocal now_ns
        now_ns += STEP_NS
        event_ns = np.full(len(contract), now_ns)
        board.add(contract, event_ns, event_ns, failed, duration_ns, None, None)
        return _turn(board, now_ns)

    for _ in range(10):
        work()
    assert work() == 2 * contracts, "both success SLOs of each contract burn"
    return work


def run(
    *, budget_s: float, batch_spans: Sequence[int] = BATCH_SPANS, series: int = SERIES
) -> Report:
    """Measure all batch sizes and a site of many SLOs; `budget_s` is for each figure."""
    figures: dict[str, object] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plan = compile_plan(load_contracts(example_contracts(Path(folder), 1.0)), SamplingSection())
    for spans in batch_spans:
        each = [
            summarize([second / spans * NANO for second in seconds_each(work, budget_s)])
            for work in (_adder(spans), _observer(plan, spans))
        ]
        rows.append((f"{spans} spans", *(spread(one) for one in each)))
        figures[f"{spans}"] = dict(zip(("add_ns", "observe_ns"), each, strict=True))
    board, series_bytes = _filled(series)
    works: tuple[tuple[str, Callable[[], object], float], ...] = (
        ("judge all, ms", _judger(board), THOUSAND),
        ("all windows of all, ms", board.totals, THOUSAND),
        ("views of all, ms", lambda: slo_views(board), THOUSAND),
        ("one window of one, us", lambda: board.counts(0, 3600), MILLION),
    )
    costs = {
        name: summarize([second * scale for second in seconds_each(work, budget_s)])
        for name, work, scale in works
    }
    figures |= {"series": len(board.items), "series_bytes": series_bytes, **costs}
    return Report(
        tables=(
            Table(
                title=f"SLOs, per core: ns a span, {len(SLOS)} SLOs for each of two contracts",
                columns=("batch", "Objectives.add", "the whole Measure.observe"),
                rows=tuple(rows),
                notes=("median [quartiles] of CPU time",),
            ),
            Table(
                title=f"{len(board.items)} SLOs over 30 days, {series_bytes:.0f} bytes each",
                columns=("work", "cost"),
                rows=tuple((name, spread(cost)) for name, cost in costs.items()),
                notes=("judge all includes four inferences for each contract",),
            ),
        ),
        figures=figures,
    )
