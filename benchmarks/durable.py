"""What durability costs: bytes written for each byte received, and the time to an acknowledgement.

Law: requests are due at a fixed rate, whether the gateway keeps up or not (`load` says how time is
taken); what is written is what the system counts for the process, so that the database, whose
writes no counter of the gateway sees, is the rest.
"""

from collections.abc import Sequence
from typing import Any, Final

from benchmarks.ingest import OPEN_SIZE, WARM_S, Run, milliseconds, one_run
from benchmarks.report import Report, Table, number

RATES: Final = (10_000, 100_000)  # spans a second
TRANSPORT: Final = "grpc"


def written(run: Run) -> dict[str, float]:
    """Divide bytes written by the inflated bytes received, in all and by who wrote them."""
    received = max(1, run.stages["inflated"])
    journal, store = run.stages["journal"], run.stages["store"]
    # A file system that keeps no disk, such as one in memory, counts nothing.
    rest = max(0, run.disk_bytes - journal - store)
    return {
        "journal": journal / received,
        "store": store / received,
        "database": rest / received,
        "disk": run.disk_bytes / received,
    }


def run(*, run_s: float, warm_s: float = WARM_S, rates: Sequence[int] = RATES) -> Report:
    """Measure each rate in a run of its own."""
    rows = []
    figures: dict[str, Any] = {}
    for rate in rates:
        asked = rate / OPEN_SIZE
        found = one_run(TRANSPORT, OPEN_SIZE, run_s=run_s, warm_s=warm_s, requests_per_s=asked)
        shares = written(found)
        figures[f"{rate}"] = {
            "spans_per_s": found.spans_per_s,
            "refused_ratio": found.refused_ratio,
            "ack_s": found.result.latency_s,
            "written_ratio": shares,
            "inflated_bytes": found.stages["inflated"],
        }
        rows.append(
            (
                f"{number(rate)}/s",
                number(found.spans_per_s),
                f"{found.refused_ratio:.2%}",
                milliseconds(found, "p50"),
                milliseconds(found, "p99"),
                *(f"{shares[name]:.2f}" for name in ("journal", "store", "database", "disk")),
                f"{found.others_cores:.2f}",
            )
        )
    table = Table(
        title=f"Durability, {TRANSPORT}, {OPEN_SIZE} spans a request, open loop, fsync on",
        columns=(
            *("asked, spans/s", "accepted/s", "refused", "p50 ms", "p99 ms"),
            *("journal B/B", "store B/B", "database B/B", "disk B/B", "others"),
        ),
        rows=tuple(rows),
        notes=(
            "ms: from the instant a request was due to its acknowledgement; B/B: bytes written for "
            "each inflated byte received",
            "disk: all that the system counts for the process; database: what of it is neither "
            "journal nor store",
        ),
    )
    return Report(tables=(table,), figures=figures)
