"""`python -m benchmarks [decode|pipeline|ingest|durable ...] [--quick] [--json FILE]`.

Law: the machine and how busy it is are printed before and after, because a figure from a busy
machine says nothing about the code.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import decode, durable, ingest, pipeline
from benchmarks.report import Report, machine, plain, render

# Seconds for each measured figure: of CPU for the first two, of the clock for the others.
FULL_S: Final = {"decode": 2.0, "pipeline": 4.0, "ingest": 8.0, "durable": 8.0}
QUICK_S: Final = {"decode": 0.2, "pipeline": 0.1, "ingest": 1.0, "durable": 1.0}
QUICK_SEGMENT_SPANS: Final = 20_480
QUICK_WARM_S: Final = 0.5


def _run_decode(quick: bool) -> Report:
    return decode.run(budget_s=(QUICK_S if quick else FULL_S)["decode"])


def _run_pipeline(quick: bool) -> Report:
    if quick:
        return pipeline.run(budget_s=QUICK_S["pipeline"], segment_spans=QUICK_SEGMENT_SPANS)
    return pipeline.run(budget_s=FULL_S["pipeline"])


def _run_ingest(quick: bool) -> Report:
    if quick:
        return ingest.run(run_s=QUICK_S["ingest"], warm_s=QUICK_WARM_S)
    return ingest.run(run_s=FULL_S["ingest"])


def _run_durable(quick: bool) -> Report:
    if quick:
        return durable.run(run_s=QUICK_S["durable"], warm_s=QUICK_WARM_S)
    return durable.run(run_s=FULL_S["durable"])


BENCHMARKS: Final[dict[str, Callable[[bool], Report]]] = {
    "decode": _run_decode,
    "pipeline": _run_pipeline,
    "ingest": _run_ingest,
    "durable": _run_durable,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the chosen benchmarks and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="short runs, to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {list(BENCHMARKS)}")
    facts = machine()
    for name, value in facts.items():
        print(f"{name}: {value}")
    out: dict[str, Any] = {"machine": facts}
    for name in options.names or BENCHMARKS:
        report = BENCHMARKS[name](options.quick)
        for table in report.tables:
            print(f"\n{render(table)}", flush=True)
        out[name] = plain(report.figures)
    print(f"\nload average at the end: {', '.join(f'{each:.2f}' for each in os.getloadavg())}")
    if options.json is not None:
        options.json.write_text(json.dumps(out, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
