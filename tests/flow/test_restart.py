"""Stop and start: what was acknowledged, counted and measured goes on where it was.

Law: a stop drains from the front and ends with 0; a start continues from what is on disk, also
with another configuration than before.
"""

import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.flow.load import Load
from tests.flow.site import (
    DAMAGE_NET,
    EXAMPLES,
    account,
    scrape,
    settled,
    site_file,
    stored,
    stored_rows,
    watched,
)
from tests.servers import Gateway, gateway, wait_until
from tests.sink import Refusal, otlp_sink

pytestmark = pytest.mark.flow

SPANS: Final = 2_000
DEVICE_KEY_SPANS: Final = "spans"
TIMEOUT_S: Final = 15.0

# Samples that depend on what was received and processed, not on when somebody looks.
LASTING: Final = (
    "weir_received_items_total",
    "weir_sampled_out_items_total",
    "weir_batch_spans",
    "weir_ack_seconds",
    "weir_bytes_total",
    "weir_inference_total",
    "weir_inference_duration_seconds",
    "weir_slo_window_events",
    "weir_drift_psi",
    "weir_clock_skew_events_total",
)


def lasting(target: Gateway) -> dict[object, float]:
    """Pick what a stop must keep; bytes in the store grow with the last seal."""
    return {
        key: value
        for key, value in scrape(target).samples.items()
        if key[0].startswith(LASTING) and ("stage", "store") not in key[1]
    }


def devices(target: Gateway) -> dict[str, int]:
    """Count spans by device, as the API tells."""
    answer = target.get_json("/api/v1/devices")
    return {each["device"]: each[DEVICE_KEY_SPANS] for each in answer["items"]}


def test_sigterm_under_load_loses_nothing(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url)
        with gateway(tmp_path, config=config) as target, watched(target), load.running(target):
            load.wait_for(SPANS)
            assert target.server.stop() == 0
        load.check_stored(stored(target.data_dir).column("span_id").to_pylist())
        # Nothing waits: what was kept went out before the process ended.
        with gateway(tmp_path, config=config) as again:
            terms = account(again)
            assert terms.received == stored_rows(again.data_dir) >= SPANS
            assert terms.pending == 0
            assert terms.forwarded == sink.span_count()


def test_measurements_go_on_after_sigterm(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url)
        with gateway(tmp_path, config=config) as target:
            with load.running(target):
                load.wait_for(SPANS)
            settled(target, len(load.acknowledged))
            before, spans = lasting(target), devices(target)
        assert sum(spans.values()) == len(load.acknowledged)
        with gateway(tmp_path, config=config) as again:
            assert lasting(again) == before
            assert devices(again) == spans


def test_frames_wait_for_a_destination_over_restarts_and_arrive_once(
    tmp_path: Path, seed: int
) -> None:
    load = Load(seed)
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url)
        sink.refuse(Refusal())
        with gateway(tmp_path, config=config) as target:
            with load.running(target):
                load.wait_for(SPANS)
            sink.wait_for_refusals(1)
            wait_for_processing(target, load)
            before = account(target)
            assert (before.forwarded, before.dropped) == (0, 0)
            assert before.pending > 0

        with gateway(tmp_path, config=config) as killed:
            assert account(killed) == before
            killed.kill()

        sink.accept()
        with gateway(tmp_path, config=config) as last, watched(last):
            terms = settled(last, len(load.acknowledged))
            assert terms.forwarded == before.pending == sink.span_count()
        ids = [span.span_id for span in sink.spans()]
        assert len(ids) == len(set(ids))


def wait_for_processing(target: Gateway, load: Load) -> None:
    """Wait until each received span is decided about: it is sampled out or in the outbox."""
    wait_until(
        lambda: sum(devices(target).values()) == len(load.acknowledged),
        timeout_s=TIMEOUT_S,
        what="all spans measured",
    )


TRIAGE_NET: Final = EXAMPLES / "triage-net.yaml"


@pytest.mark.parametrize(
    ("first", "second", "ended"),
    [
        ((DAMAGE_NET,), (), "stopped"),
        ((), (DAMAGE_NET,), "killed"),
        ((DAMAGE_NET,), (TRIAGE_NET,), "killed"),
        ((DAMAGE_NET,), (TRIAGE_NET, DAMAGE_NET), "stopped"),
    ],
    ids=["removed", "added", "replaced", "reordered"],
)
def test_another_set_of_contracts_takes_over(
    tmp_path: Path, seed: int, first: Sequence[Path], second: Sequence[Path], ended: str
) -> None:
    """A replay under other contracts decides otherwise; what was decided before stays decided."""
    load = Load(seed)
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url, contracts=tuple(first))
        with gateway(tmp_path, config=config) as target:
            with load.running(target):
                load.wait_for(SPANS // 4)
            settled(target, len(load.acknowledged))
            if ended == "killed":
                target.kill()
        config = site_file(tmp_path, sink.http_url, contracts=tuple(second))
        with gateway(tmp_path, config=config) as again, watched(again):
            assert account(again).received == len(load.acknowledged)
            with load.running(again):
                load.wait_for(len(load.acknowledged) + SPANS // 4)
            terms = settled(again, len(load.acknowledged))
            assert terms.received == len(load.acknowledged)
            assert terms.quarantined == 0
        load.check_stored(stored(again.data_dir).column("span_id").to_pylist())


def test_destination_that_is_added_later_gets_only_what_comes_later(
    tmp_path: Path, seed: int
) -> None:
    load = Load(seed)
    config = site_file(tmp_path, None)
    with gateway(tmp_path, config=config) as target:
        with load.running(target):
            load.wait_for(SPANS // 4)
        terms = settled(target, len(load.acknowledged))
        assert terms.sampled_out == terms.received
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url)
        with gateway(tmp_path, config=config) as again, watched(again):
            assert account(again).sampled_out == terms.sampled_out
            with load.running(again):
                load.wait_for(len(load.acknowledged) + SPANS // 4)
            late = settled(again, len(load.acknowledged))
            assert late.forwarded == sink.span_count() > 0


def test_sighup_changes_nothing_when_nothing_changed(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    with (
        gateway(tmp_path, config=site_file(tmp_path, None)) as target,
        load.running(target),
    ):
        load.wait_for(SPANS // 4)
        target.server.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: b"reloaded" in target.server.log_path.read_bytes(),
            timeout_s=TIMEOUT_S,
            what="word of the reload",
        )
        load.wait_for(len(load.acknowledged) + SPANS // 4)
        assert target.server.running


def test_stop_while_the_disk_fails_keeps_everything(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    config = site_file(tmp_path, None)
    with gateway(tmp_path, config=config) as target:
        with load.running(target):
            load.wait_for(SPANS // 4)
            resource.prlimit(target.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            load.wait_for_refusal()
        target.check()
        target.server.stop()
        target.kill()  # what it said of its end is not asked
    with gateway(tmp_path, config=config) as again:
        assert account(again).received >= len(load.acknowledged)
    load.check_stored(stored(again.data_dir).column("span_id").to_pylist())
