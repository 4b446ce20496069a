"""Pipeline: from request bytes to clean, encoded and stored, as the core does it, per core.

Law: the sentence that is timed is `gateway.pipeline.run` itself; its rooms are wrapped by clocks
and not called in another order. Every trace id is new, because sorting and the trace filter depend
on it. Files are written and synced as in operation; waiting for the disk is no CPU time.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import yaml

import gateway.contract
from benchmarks.clock import Laps
from benchmarks.decode import payload
from benchmarks.report import Report, Summary, Table, number, spread, summarize
from benchmarks.traffic import Body, make_body
from gateway.anonymize import Anonymizer
from gateway.batch import Signal
from gateway.config import SamplingSection
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan, compile_plan
from gateway.decide import Decide
from gateway.measure import Measure, MeasureSettings
from gateway.otlp.decode import OpenBatch
from gateway.otlp.encode import FrameBuilder
from gateway.pipeline import Stages
from gateway.pipeline import run as run_pipeline
from gateway.store.store import Store, limit_threads

BATCH_SPANS: Final = (1_280, 10_240)
KEEP_RATES: Final = (0.05, 1.0)
REQUEST_SPANS: Final = 64
SEGMENT_SPANS: Final = 131_072  # the default of store.segment_rows
REPEATS_MIN: Final = 3
SEED: Final = 11
SITE_KEY: Final = bytes(range(32))
GROUP_NS: Final = 5_000_000  # arrival times of one batch and the next
CONTRACTS: Final = ("damage-net.yaml", "triage-net.yaml")
STAGES: Final = (
    "decode",
    "measure",
    "decide",
    "anonymize site",
    "anonymize export",
    "encode, compress",
    "store add",
    "store write",
)
CORE_STAGES: Final = STAGES[:6]


def example_contracts(folder: Path, rate: float) -> list[Path]:
    """Write the example contracts with this sampling rate, without byte budget, into a folder."""
    examples = Path(gateway.contract.__file__).parent / "examples"
    written = []
    for name in CONTRACTS:
        contract = yaml.safe_load((examples / name).read_text(encoding="utf-8"))
        # A budget would lower the rate to what one site's uplink takes.
        contract["sampling"]["bytes_per_second"] = None
        contract["sampling"]["rate"] = rate
        contract["expires"] = contract["expires"].isoformat()
        path = folder / name
        path.write_text(yaml.safe_dump(contract), encoding="utf-8")
        written.append(path)
    return written


@dataclass(slots=True)
class Bench:
    """A core without its threads: the rooms of one plan, under clocks."""

    plan: Plan
    laps: Laps
    stages: Stages
    open_batch: OpenBatch
    frames: FrameBuilder
    sequence: int = 0
    arrival_ns: int = 0
    kept: int = 0
    renewed: int = 0


class _Timed:
    """A room whose named methods are under a clock; everything else is passed through."""

    def __init__(self, room: Any, laps: Laps, **names: str) -> None:
        self._room = room
        for method, name in names.items():
            setattr(self, method, laps.timed(name, getattr(room, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._room, name)


def _bench(folder: Path, rate: float) -> Bench:
    plan = compile_plan(load_contracts(example_contracts(folder, rate)), SamplingSection())
    laps = Laps()
    anonymizer = Anonymizer(plan, "bench", SITE_KEY)
    stages = Stages(
        measure=cast(Measure, _Timed(Measure(plan, MeasureSettings()), laps, observe="measure")),
        decide=cast(Decide, _Timed(Decide(plan), laps, judge="decide", spent="decide")),
        anonymize=cast(
            Anonymizer, _Timed(anonymizer, laps, site="anonymize site", export="anonymize export")
        ),
    )
    return Bench(plan, laps, stages, OpenBatch(plan.slot_keys), FrameBuilder(Signal.TRACES))


def _one_batch(bench: Bench, bodies: Sequence[Body], store: Store) -> None:
    """Take one batch of request bodies all the way to the store's memory."""
    bench.sequence += 1
    bench.arrival_ns += GROUP_NS
    laps, seconds = bench.laps, bench.laps.seconds
    payloads = [payload(bytes(body.data), bench.arrival_ns) for body in bodies]
    start = time.process_time()
    for each in payloads:
        bench.open_batch.add(each)
    batch = bench.open_batch.take(bench.sequence)
    seconds["decode"] += time.process_time() - start
    before = sum(seconds.values())
    start = time.process_time()
    outcome = run_pipeline(batch, bench.stages)
    bench.frames.add(batch.sequence, outcome.chunks)
    elapsed = time.process_time() - start
    # What of the sentence no room's clock has seen: encoding, compression and counting.
    seconds["encode, compress"] += elapsed - (sum(seconds.values()) - before)
    add = laps.timed("store add", store.add)
    add(outcome.site, batch, outcome.findings, outcome.verdict)
    bench.kept += outcome.kept


def _turns(bodies: Sequence[Body], batch_spans: int) -> Iterator[list[Body]]:
    """Give the bodies of one batch after another, round and round."""
    count, at = batch_spans // bodies[0].spans, 0
    while True:
        yield [bodies[(at + step) % len(bodies)] for step in range(count)]
        at += count


def _segment(
    bench: Bench, turns: Iterator[list[Body]], spans: int, folder: Path
) -> dict[str, float]:
    """Fill and write one segment; returns CPU seconds by stage."""
    bench.laps.seconds.clear()
    store = Store.open(folder, bytes_max=1 << 40, age_max_s=86_400.0)
    store.use_contracts([contract.model for contract in bench.plan.contracts])
    first, done = bench.sequence + 1, 0
    while done < spans:
        bodies = next(turns)
        for body in bodies:
            bench.renewed += 1
            body.renew(bench.renewed)
        _one_batch(bench, bodies, store)
        done += sum(body.spans for body in bodies)
    write = bench.laps.timed("store write", store.write_segment)
    sealed = write(first, bench.sequence)
    assert sealed is not None
    assert sealed.rows == done
    for path in folder.iterdir():
        path.unlink()
    return {name: bench.laps.seconds[name] / done for name in STAGES}


def measure(
    *, batch_spans: int, rate: float, budget_s: float, segment_spans: int = SEGMENT_SPANS
) -> tuple[dict[str, list[float]], float]:
    """Measure CPU seconds per span by stage, one figure a segment, and the share that was kept."""
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as name:
        folder = Path(name)
        bench = _bench(folder, rate)
        bench.arrival_ns = time.time_ns()
        store_folder = folder / "store"
        bodies = [
            make_body(min(REQUEST_SPANS, batch_spans), rng, bench.arrival_ns)
            for _ in range(max(1, 2 * max(BATCH_SPANS) // REQUEST_SPANS))
        ]
        turns = _turns(bodies, batch_spans)
        # The first rows teach the baselines and fill the memos, as in the first second of a run.
        warm_spans = min(segment_spans, 2 * max(BATCH_SPANS))
        _segment(bench, turns, warm_spans, store_folder)
        found: dict[str, list[float]] = {name: [] for name in STAGES}
        bench.kept, spans = 0, 0
        deadline = time.monotonic() + budget_s
        while len(found["decode"]) < REPEATS_MIN or time.monotonic() < deadline:
            seconds = _segment(bench, turns, segment_spans, store_folder)
            spans += -(-segment_spans // batch_spans) * batch_spans
            for name in STAGES:
                found[name].append(seconds[name])
    return found, bench.kept / spans


def _rate(found: dict[str, list[float]], stages: Sequence[str]) -> Summary:
    return summarize(
        [1.0 / sum(each) for each in zip(*(found[name] for name in stages), strict=True)]
    )


def run(
    *,
    budget_s: float,
    batch_spans: Sequence[int] = BATCH_SPANS,
    segment_spans: int = SEGMENT_SPANS,
) -> Report:
    """Measure all batch sizes and keep rates; `budget_s` is for each of them."""
    limit_threads()
    rows, split, figures = [], [], {}
    for size in batch_spans:
        for rate in KEEP_RATES:
            found, kept = measure(
                batch_spans=size, rate=rate, budget_s=budget_s, segment_spans=segment_spans
            )
            core, stored = _rate(found, CORE_STAGES), _rate(found, STAGES)
            by_stage = {name: summarize(found[name]) for name in STAGES}
            title = f"{size} spans, keep {kept:.1%}"
            rows.append((title, spread(core), spread(stored), str(stored.repeats)))
            whole = sum(each.median for each in by_stage.values())
            split.append(
                (
                    title,
                    *(
                        f"{each.median * 1e9:.0f} ({each.median / whole:.0%})"
                        for each in by_stage.values()
                    ),
                    f"{whole * 1e9:.0f}",
                )
            )
            figures[f"{size}/{rate:g}"] = {
                "core_spans_per_s": core,
                "stored_spans_per_s": stored,
                "kept_ratio": kept,
                "seconds_per_span": by_stage,
            }
    return Report(
        tables=(
            Table(
                title=f"Pipeline, per core: requests of {REQUEST_SPANS} spans, both contracts",
                columns=("batch", "to encoded, spans/s", "and stored, spans/s", "segments"),
                rows=tuple(rows),
                notes=(
                    "median [quartiles] of CPU time; stored = Parquet segments of "
                    f"{number(segment_spans)} rows, synced",
                ),
            ),
            Table(
                title="Where the time goes, ns a span (share)",
                columns=("batch", *STAGES, "all"),
                rows=tuple(split),
            ),
        ),
        figures=figures,
    )
