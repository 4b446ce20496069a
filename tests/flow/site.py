"""What the flow tests share: a site file, an observer of the accounting identity, Parquet rows.

Law: nothing here uses the gateway's own code to read what the gateway wrote. Numbers come from
`/metrics`, rows from the files as any reader of Parquet sees them.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.ledger_check import Account, Scrape, check_identity, parse
from tests.process import ROOT, Json
from tests.servers import Gateway, wait_until

EXAMPLES: Final = ROOT / "gateway" / "contract" / "examples"
DAMAGE_NET: Final = EXAMPLES / "damage-net.yaml"
DESTINATION: Final = "cloud"
# Of the spans that no contract matches; the example contract has a rate of its own.
SITE_RATE: Final = 0.5

RANDOM_BITS: Final = 56
RANDOM_RANGE: Final = 1 << RANDOM_BITS
THRESHOLD_DIGITS: Final = 14

SETTLED_S: Final = 30.0
SCRAPE_PAUSE_S: Final = 0.01


def site_file(
    directory: Path,
    endpoint: str | None,
    *,
    contracts: tuple[Path, ...] = (DAMAGE_NET,),
    protocol: str = "http/protobuf",
    **sections: Json,
) -> Path:
    """Write a site file that forwards to one endpoint, or to none."""
    otlp = {"endpoint": endpoint, "protocol": protocol}
    text = yaml.safe_dump(
        {
            "site": {"id": "dock-7", "cluster": "dock", "region": "eu-west"},
            "contracts": [str(path) for path in contracts],
            "sampling": {"keep": ["error"], "rate": SITE_RATE},
            "forward": [{"name": DESTINATION, "otlp": otlp}] if endpoint else [],
            **sections,
        }
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "site.yaml"
    path.write_text(text)
    return path


# --- /metrics ----------------------------------------------------------------------------------


def scrape(gateway: Gateway) -> Scrape:
    """Read `/metrics` once."""
    return parse(gateway.metrics())


def account(gateway: Gateway) -> Account:
    """Read the identity of traces at the only destination once, and check that of all."""
    accounts = check_identity(gateway.metrics())
    (only,) = [each for (_, signal), each in accounts.items() if signal == "traces"]
    return only


def settled(gateway: Gateway, received: int) -> Account:
    """Wait until this many items were received and none is on its way."""

    def done() -> Account | None:
        now = account(gateway)
        return now if now.received >= received and now.pending == 0 else None

    return wait_until(
        done,
        timeout_s=SETTLED_S,
        what=lambda: f"{received} settled: {account(gateway)}\n{gateway.server.log()}",
    )


@dataclass(slots=True)
class Watch:
    """The accounts of every scrape, and the first one that did not balance."""

    accounts: list[Account] = field(default_factory=list)
    failure: AssertionError | None = None


@contextmanager
def watched(gateway: Gateway) -> Iterator[Watch]:
    """Scrape without a pause worth the name while the block runs; every scrape must balance.

    A gateway that is stopping or was killed may refuse the connection: no scrape, no finding.
    """
    watch, stop = Watch(), threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                text = gateway.metrics()
            except OSError:
                stop.wait(SCRAPE_PAUSE_S)
                continue
            try:
                watch.accounts += check_identity(text).values()
            except AssertionError as error:
                watch.failure = error
                return
            stop.wait(SCRAPE_PAUSE_S)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join()
    if watch.failure is not None:
        raise watch.failure


# --- Parquet -----------------------------------------------------------------------------------


def parquet_files(data_dir: Path) -> list[Path]:
    """List the finished segments."""
    return sorted((data_dir / "store").glob("*.parquet"))


def stored(data_dir: Path) -> Any:
    """Read every row of every segment as one Arrow table; None when there is no segment."""
    tables = [pq.read_table(path) for path in parquet_files(data_dir)]
    return pa.concat_tables(tables, promote_options="permissive") if tables else None


def stored_rows(data_dir: Path) -> int:
    """Count rows by the footers alone."""
    return sum(pq.read_metadata(path).num_rows for path in parquet_files(data_dir))


def wait_for_rows(gateway: Gateway, count: int) -> None:
    """Wait until so many rows are in Parquet files while the gateway runs."""
    wait_until(
        lambda: stored_rows(gateway.data_dir) >= count,
        timeout_s=SETTLED_S,
        what=lambda: f"{count} rows, there are {stored_rows(gateway.data_dir)}",
    )


# --- sampling ----------------------------------------------------------------------------------


def threshold_text(threshold: int) -> str:
    """Write a threshold as the `th` of a tracestate."""
    return f"{threshold:0{THRESHOLD_DIGITS}x}".rstrip("0") or "0"


def threshold_of(span: Span) -> int:
    """Read the threshold of a span that left the site; its tracestate holds nothing else."""
    found = re.fullmatch(r"ot=th:([0-9a-f]{1,14})", span.trace_state)
    assert found, span.trace_state
    return int(found[1].ljust(THRESHOLD_DIGITS, "0"), 16)


def randomness_of(trace_id: bytes) -> int:
    """Read the 56 random bits of a trace id."""
    return int.from_bytes(trace_id[-7:], "big")


def adjusted_count(threshold: int) -> float:
    """Say how many spans a kept one stands for."""
    assert 0 <= threshold < RANDOM_RANGE
    return RANDOM_RANGE / (RANDOM_RANGE - threshold)


def drifting(path: Path, **changes: Any) -> Path:
    """Write the example contract with other rules of drift; returns the path."""
    contract = yaml.safe_load(DAMAGE_NET.read_text())
    contract["drift"] |= changes
    path.write_text(yaml.safe_dump(contract))
    return path
