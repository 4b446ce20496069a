"""kill -9 under load, 20 times or 200: no acknowledged span is missing, none is counted twice.

Law: a kill may hit between sending a frame and marking it sent, and then that frame is sent again:
delivery to a destination is at least once. So the sink is compared by span id, and a span that
arrived twice must have arrived with the same bytes. Everything at the site is exactly once, and
the measurements, drift and objectives among them, are bit for bit those of one uninterrupted replay
of all groups.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import FUZZ
from tests.flow.load import Load
from tests.flow.replayed import archived, check_replayed
from tests.flow.site import (
    DAMAGE_NET,
    SETTLED_S,
    account,
    randomness_of,
    scrape,
    settled,
    site_file,
    stored,
    threshold_of,
    watched,
)
from tests.ledger_check import check_identity
from tests.otlp import TRACES
from tests.servers import Gateway, gateway, wait_until
from tests.sink import Sink, otlp_sink

pytestmark = pytest.mark.flow

KILLS: Final = 200 if FUZZ else 20
# A kill comes after this many acknowledged spans of its round: with a seal every half second and
# a flush every quarter it meets every state of both.
ROUND_SPANS_MAX: Final = 4_000
# With the budget of the example little would leave; with this one, frames are always under way.
BUDGET: Final = "bytes_per_second: 20KiB"
BUDGET_WIDE: Final = "bytes_per_second: 4MiB"
RATE: Final = "rate: 0.05"
RATE_WIDE: Final = "rate: 0.3"


def contract(directory: Path) -> Path:
    """Write the example contract with more to forward."""
    text = DAMAGE_NET.read_text()
    assert BUDGET in text
    assert RATE in text
    path = directory / "damage-net.yaml"
    path.write_text(text.replace(BUDGET, BUDGET_WIDE).replace(RATE, RATE_WIDE))
    return path


def check_sink(rows: Sequence[dict[str, Any]], sink: Sink) -> None:
    """Check that the kept rows, and no other, arrived, each with its own threshold."""
    kept = {row["span_id"]: row for row in rows if row["kept"]}
    arrived: dict[bytes, bytes] = {}
    for span in sink.spans():
        assert arrived.setdefault(span.span_id, span.SerializeToString()) == (
            span.SerializeToString()
        ), "sent again, and not the same"
        row = kept[span.span_id]
        assert (span.trace_id, threshold_of(span)) == (row["trace_id"], row["threshold"])
        assert randomness_of(span.trace_id) >= threshold_of(span)
    assert arrived.keys() == kept.keys()


def check_others(target: Gateway, load: Load) -> None:
    """Check that metrics and logs are counted once, and all of them left."""

    def done() -> bool:
        return not any(each.pending for each in check_identity(target.metrics()).values())

    wait_until(done, timeout_s=SETTLED_S, what="all signals settled")
    for (_, signal), terms in check_identity(target.metrics()).items():
        if signal == TRACES.name:
            continue
        least = load.acknowledged_items[signal]
        assert 0 < least <= terms.received <= least + load.unknown_items[signal], signal
        assert terms.forwarded == terms.received


def test_nothing_acknowledged_is_lost_or_counted_twice(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    load = Load(seed, others=True)
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url, contracts=(contract(tmp_path),))
        overrides = ("store.segment_age=500ms",)
        data, archive = tmp_path / "data", tmp_path / "archive"
        with archived(data / "journal", archive):
            for _ in range(KILLS):
                with (
                    gateway(tmp_path, config=config, overrides=overrides) as target,
                    watched(target),
                    load.running(target),
                ):
                    load.wait_for(len(load.acknowledged) + rng.randrange(ROUND_SPANS_MAX))
                    target.kill()
        groups = check_replayed(config, data, archive, tmp_path / "compared")
        assert groups > KILLS
        assert len(load.acknowledged) > KILLS * ROUND_SPANS_MAX // 4
        assert not load.refused

        with gateway(tmp_path, config=config, overrides=overrides) as last, watched(last):
            settled(last, len(load.acknowledged))
            terms = account(last)
            check_others(last, load)
            inferences = scrape(last).total("weir_inference_total", model="damage-net")
        table = stored(last.data_dir)
        load.check_stored(table.column("span_id").to_pylist())
        rows = table.select(["span_id", "trace_id", "kept", "threshold"]).to_pylist()
        check_sink(rows, sink)
    # Every journaled span is a row, so the rows say what each counter must be.
    assert terms.received == len(rows) == inferences
    assert terms.forwarded == sum(bool(row["kept"]) for row in rows)
    assert terms.sampled_out == len(rows) - terms.forwarded
    assert (terms.dropped, terms.quarantined) == (0, 0)
