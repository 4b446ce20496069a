"""`python -m benchmarks [NAME ...] [--quick] [--json FILE]`.

Without a name all of them run, overload for a minute, backlog with 256 MiB and drift with what
takes a minute; when they are named they take ten minutes, 2 GiB, and an hour of simulation.

Law: the machine and how busy it is are printed before and after, because a figure from a busy
machine says nothing about the code.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Final

from benchmarks import (
    backlog,
    decode,
    drift,
    drift_picture,
    durable,
    ingest,
    labels,
    overload,
    pipeline,
    signals,
    slo,
)
from benchmarks.report import Report, machine, plain, render


class Length(Enum):
    """How long a benchmark may take: to see that it works, beside others, or as long as it asks."""

    QUICK = "quick"
    USUAL = "usual"
    WHOLE = "whole"


# Seconds for each measured figure: of CPU, but of the clock for ingest and durable.
FULL_S: Final = {
    "decode": 2.0,
    "signals": 1.0,
    "slo": 1.0,
    "pipeline": 4.0,
    "ingest": 8.0,
    "durable": 8.0,
}
QUICK_S: Final = {
    "decode": 0.2,
    "signals": 0.1,
    "slo": 0.05,
    "pipeline": 0.1,
    "ingest": 1.0,
    "durable": 1.0,
}
LABELS_S: Final = {Length.QUICK: 0.05, Length.USUAL: 1.0, Length.WHOLE: 2.0}
QUICK_TABLE_ROWS: Final = 1 << 14
QUICK_SEGMENT_SPANS: Final = 20_480
QUICK_WARM_S: Final = 0.5
# Seconds of overload, seconds of the measuring before it, processes of clients.
OVERLOAD: Final = {
    Length.QUICK: (3.0, 2.0, 2),
    Length.USUAL: (60.0, 8.0, 4),
    Length.WHOLE: (600.0, 10.0, 4),
}
BACKLOG_BYTES: Final = {
    Length.QUICK: 32 << 20,
    Length.USUAL: 256 << 20,
    Length.WHOLE: 2 << 30,
}


def _run_decode(length: Length) -> Report:
    return decode.run(budget_s=(QUICK_S if length is Length.QUICK else FULL_S)["decode"])


def _run_signals(length: Length) -> Report:
    return signals.run(budget_s=(QUICK_S if length is Length.QUICK else FULL_S)["signals"])


def _run_slo(length: Length) -> Report:
    return slo.run(budget_s=(QUICK_S if length is Length.QUICK else FULL_S)["slo"])


def _run_labels(length: Length) -> Report:
    if length is Length.QUICK:
        return labels.run(budget_s=LABELS_S[length], table_rows=QUICK_TABLE_ROWS)
    return labels.run(budget_s=LABELS_S[length])


def _run_pipeline(length: Length) -> Report:
    if length is Length.QUICK:
        return pipeline.run(budget_s=QUICK_S["pipeline"], segment_spans=QUICK_SEGMENT_SPANS)
    return pipeline.run(budget_s=FULL_S["pipeline"])


def _run_ingest(length: Length) -> Report:
    if length is Length.QUICK:
        return ingest.run(run_s=QUICK_S["ingest"], warm_s=QUICK_WARM_S)
    return ingest.run(run_s=FULL_S["ingest"])


def _run_durable(length: Length) -> Report:
    if length is Length.QUICK:
        return durable.run(run_s=QUICK_S["durable"], warm_s=QUICK_WARM_S)
    return durable.run(run_s=FULL_S["durable"])


def _run_overload(length: Length) -> Report:
    run_s, calibrate_s, processes = OVERLOAD[length]
    return overload.run(run_s=run_s, calibrate_s=calibrate_s, processes=processes)


def _run_drift(length: Length) -> Report:
    return drift.run(drift.SIZES[length.value], told=_told)


def _told(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _run_backlog(length: Length) -> Report:
    return backlog.run(limit_bytes=BACKLOG_BYTES[length])


BENCHMARKS: Final[dict[str, Callable[[Length], Report]]] = {
    "decode": _run_decode,
    "signals": _run_signals,
    "slo": _run_slo,
    "labels": _run_labels,
    "pipeline": _run_pipeline,
    "ingest": _run_ingest,
    "durable": _run_durable,
    "overload": _run_overload,
    "backlog": _run_backlog,
    "drift": _run_drift,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the chosen benchmarks and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="short runs, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures")
    parser.add_argument("--size", choices=drift.SIZES, help="of drift, instead of what it would be")
    parser.add_argument("--only", choices=drift.PARTS, help="of drift, one part of it")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw drift as PNG")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {list(BENCHMARKS)}")
    if options.picture is not None and options.only not in (None, "change"):
        parser.error(f"the picture shows the change bank, which --only {options.only} leaves out")
    facts = machine()
    for name, value in facts.items():
        print(f"{name}: {value}")
    out: dict[str, Any] = {"machine": facts}
    length = Length.WHOLE if options.names else Length.USUAL
    if options.quick:
        length = Length.QUICK
    for name in options.names or BENCHMARKS:
        if name == "drift" and (options.size is not None or options.only is not None):
            size = drift.SIZES[options.size or length.value]
            report = drift.run(size, options.only, _told)
        else:
            report = BENCHMARKS[name](length)
        for table in report.tables:
            print(f"\n{render(table)}", flush=True)
        out[name] = plain(report.figures)
        if name == "drift" and options.picture is not None:
            drift_picture.draw(report.figures, options.picture)
    print(f"\nload average at the end: {', '.join(f'{each:.2f}' for each in os.getloadavg())}")
    if options.json is not None:
        options.json.write_text(json.dumps(out, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
