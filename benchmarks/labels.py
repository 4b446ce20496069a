"""What labels and meters cost an inference, and what a label costs.

Law: batches of columns as `measure` hands them on, fresh trace ids in each. Rows of `steady` go
into a full table, of which a small share is kept, as in any busy hour; rows of `filling` go into a
table that keeps all of them.
"""

from collections.abc import Callable
from datetime import date
from typing import Any, Final

import numpy as np

from benchmarks.clock import seconds_each
from benchmarks.report import Report, Summary, Table, number, spread, summarize
from gateway.config.sections import SamplingSection
from gateway.contract.plan import compile_plan
from gateway.contract.schema import Contract, Cost, LabelRule, Role, Signal, SignalType
from gateway.measure.costs.meters import Meters
from gateway.measure.labels.labels import LABELS_MAX, Labels
from gateway.measure.labels.rules import Mark
from gateway.measure.labels.state import save

ROWS: Final = 4096
TABLE_ROWS: Final = 1 << 18
LABELS: Final = 1024
SEED: Final = 11
START_NS: Final = 1_900_000_000_000_000_000
NAMES: Final = (("net", "1"), ("net", "2"))
FEATURES: Final = ("search", "audit", "sort")


def make_contract() -> Contract:
    """Make a contract with labels and a cost."""
    signal = Signal(
        name="class",
        attribute="app.class",
        type=SignalType.ENUM,
        role=Role.PREDICTION,
        values=("ok", "cracked", "wet"),
    )
    return Contract(
        model="net",
        match={"edgeai.model.name": "net"},
        owner="vision@example.com",
        purpose="benchmark",
        expires=date(2100, 1, 1),
        signals={"class": signal},
        labels=LabelRule(signal="class", expect=0.01),
        cost=Cost(currency="EUR", per_inference=0.0001, feature="app.class", features=FEATURES),
        digest="",
        source="",
    )


class _Feed:
    """Batches with ids that were never seen."""

    def __init__(self, rows: int) -> None:
        self._rng = np.random.default_rng(SEED)
        self._rows = rows
        self.columns: dict[str, Any] = {
            "contract": np.zeros(rows, dtype=np.int64),
            "series": np.arange(rows) % 2,
            "names": NAMES,
            "event_ns": START_NS + np.arange(rows),
        }
        self.code = (np.arange(rows) % 3).astype(np.int32)
        self.feature = np.arange(rows) % (1 + len(FEATURES))
        self.hi, self.lo = self._ids(), self._ids()

    def _ids(self) -> Any:
        return self._rng.integers(0, 1 << 63, self._rows, dtype=np.uint64)

    def predict(self, labels: Labels) -> None:
        """Give a batch of predictions."""
        # An odd step visits all values; drawing ids would cost more than what is measured.
        self.lo += np.uint64(0x9E3779B97F4A7C15)
        labels.predicted(self.hi, self.lo, code=self.code, **self.columns)


def _nanoseconds(work: Callable[[], object], budget_s: float, rows: int) -> Summary:
    return summarize([seconds * 1e9 / rows for seconds in seconds_each(work, budget_s)])


def run(*, budget_s: float, rows: int = ROWS, table_rows: int = TABLE_ROWS) -> Report:
    """Measure; `budget_s` is what each figure may use."""
    plan = compile_plan([make_contract()], SamplingSection())
    feed = _Feed(rows)
    steady = Labels(plan, table_rows)
    while steady.predictions.probability > 1 / 16:
        feed.predict(steady)

    def fill() -> None:
        feed.predict(filling)
        filling.predictions.count = 0

    filling = Labels(plan, max(table_rows, 2 * rows))
    feed.predict(filling)

    def index() -> None:
        indexed = Labels(plan, max(table_rows, 2 * rows))
        feed.predict(indexed)
        indexed.predictions.settle()

    known = Labels(plan, max(table_rows, 2 * rows))
    feed.predict(known)
    traces = list(zip(feed.hi.tolist(), feed.lo.tolist(), strict=True))[:LABELS]
    marks = [
        [Mark(halves=trace, value=value, model="") for trace in traces] for value in ("ok", "wet")
    ]

    def tell() -> None:
        for each in marks:
            known.hear(each, START_NS)

    meters = Meters(plan)
    meters.costs.advance(START_NS)

    def count() -> None:
        meters.costs.count(code=feed.feature, **feed.columns)

    figures = {
        "steady_ns": _nanoseconds(lambda: feed.predict(steady), budget_s, rows),
        "filling_ns": _nanoseconds(fill, budget_s, rows),
        "indexing_ns": _nanoseconds(index, budget_s, rows),
        "label_ns": _nanoseconds(tell, budget_s, 2 * len(traces)),
        "cost_ns": _nanoseconds(count, budget_s, rows),
    }
    titles = {
        "steady_ns": f"prediction, full table of {number(table_rows)} rows",
        "filling_ns": "prediction, kept",
        "indexing_ns": "prediction, kept and hashed in a new table",
        "label_ns": f"label, {len(traces)} at once, each a change",
        "cost_ns": "inference counted for its cost",
    }
    row_bytes = sum(each.nbytes for each in save(known).values()) / known.predictions.count
    table = Table(
        title=f"Labels and meters, batches of {rows}, per core: ns each",
        columns=("what", "cost"),
        rows=tuple((title, spread(figures[name])) for name, title in titles.items()),
        notes=(
            "median [quartiles] of CPU time",
            f"{number(row_bytes)} B of state for each of at most {number(LABELS_MAX)} rows",
        ),
    )
    return Report(tables=(table,), figures=figures)
