"""The whole story with a real Alertmanager: drift, a page, a deep dive that devices delivered."""

from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from collectors.fleet.fleet import Fleet
from collectors.fleet.scenario import OPERATORS
from tests.flow.site import drifting, site_file
from tests.ledger_check import check_identity
from tests.monitoring import alertmanager, alertmanager_config, webhook
from tests.process import Json
from tests.servers import Gateway, gateway, wait_until
from tests.sink import Sink, otlp_sink

DEVICES = 16
RATE = 8.0
# One emulated second is one second here: the drift has to be an anomaly within 60 of them.
ANOMALY_S = 60.0
SEED = 11

pytestmark = pytest.mark.flow


def items(one: Gateway, path: str) -> list[Json]:
    """Read a list of the API."""
    found: list[Json] = one.get_json(path)["items"]
    return found


def outbound_ports(pid: int) -> set[int]:
    """List the remote ports of connections that the process itself has opened."""
    connections = psutil.Process(pid).net_connections(kind="tcp")
    listening = {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return {c.raddr.port for c in connections if c.raddr and c.laddr.port not in listening}


def learned(one: Gateway) -> bool:
    """Say whether every baseline is frozen."""
    states = [each["state"] for each in items(one, "/api/v1/baselines")]
    return bool(states) and all(state == "frozen" for state in states)


def drifted(one: Gateway) -> bool:
    """Say whether a drift was found."""
    return any(view["anomaly"]["kind"] == "drift" for view in items(one, "/api/v1/anomalies"))


def complete(one: Gateway) -> Json | None:
    """Find a dive that has everything."""
    dives = items(one, "/api/v1/dives")
    return next((dive for dive in dives if dive["state"] == "complete"), None)


def check_dive(one: Gateway, dive: Json, fleet: Fleet) -> None:
    """Compare the traces of a dive with what the devices' rings hold."""
    data = one.get_json(f"/api/v1/dives/{dive['id']}/traces")
    spans = [
        span
        for resource in data["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    by_trace: dict[str, list[Json]] = {}
    for span in spans:
        by_trace.setdefault(span["traceId"], []).append(span)
    assert len(by_trace) == dive["traces_received"] == dive["traces_wanted"] > 0
    for trace in by_trace.values():
        # The root and its three stages; only the root had been exported.
        assert len(trace) == 4
        names = sorted(span["name"] for span in trace)
        assert names == ["inference", "inference", "postprocess", "preprocess"]
        # The contract forbids the site to keep the note, in the full trace too.
        keys = {pair["key"] for span in trace for pair in span["attributes"]}
        assert "edgeai.inference.confidence" in keys
        assert "edgeai.note" not in keys
    assert fleet.counts().chunks >= len(dive["devices"]) > 0


def check_books(one: Gateway, sink: Sink) -> None:
    """Everything received is accounted for, and nothing that names a person has left."""

    def settled() -> bool:
        row = one.get_json("/api/v1/status")["accounting"][0]
        return bool(row["pending"] == 0 and row["forwarded"] == sink.span_count())

    wait_until(settled, timeout_s=30.0, what="nothing on its way any more")
    check_identity(one.metrics())
    for number in range(OPERATORS):
        assert not sink.contains(f"operator-{number:02d}".encode())
    assert sink.span_count() > 0


def test_a_drift_is_paged_and_its_full_traces_come_from_the_devices(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pager = stack.enter_context(webhook())
        sink = stack.enter_context(otlp_sink())
        manager = stack.enter_context(alertmanager(tmp_path / "am", alertmanager_config(pager.url)))
        site = site_file(
            tmp_path / "site",
            sink.http_url,
            contracts=(drifting(tmp_path / "contract.yaml", tolerance=0.3),),
            alertmanagers=[manager.url],
            measure={"drift_tick": "1s", "baseline_events": 1000, "lateness": "2s"},
            retrieve={"poll_hold": "5s"},
        )
        one = stack.enter_context(gateway(tmp_path / "weir", config=site))
        rings = tmp_path / "rings"
        fleet = Fleet(one.otlp_grpc, f"http://{one.otlp_http}", DEVICES, SEED, RATE, rings)
        stack.callback(fleet.stop)
        fleet.start()
        wait_until(lambda: learned(one), timeout_s=60.0, what="frozen baselines")
        assert items(one, "/api/v1/anomalies") == []
        fleet.phase("drift")
        wait_until(lambda: drifted(one), timeout_s=ANOMALY_S, what="a drift anomaly")
        (alert, *_) = manager.wait_for("WeirDrift", model="damage-net", severity="page")
        assert alert["labels"]["signal"]
        assert alert["annotations"]["summary"]
        pager.wait_for("WeirDrift")
        dive = wait_until(lambda: complete(one), timeout_s=ANOMALY_S, what="a complete dive")
        allowed = {int(url.rpartition(":")[2]) for url in (sink.http_url, manager.url)}
        assert outbound_ports(one.pid) <= allowed
        check_dive(one, dive, fleet)
        fleet.pause()
        check_books(one, sink)
