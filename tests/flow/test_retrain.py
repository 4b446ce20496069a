"""Drift starts one training: a signed call that outlasts a receiver that is down and a kill."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.forward.signing import parse_key, verify
from tests.flow.load import set_attribute
from tests.flow.site import drifting, scrape, site_file
from tests.flow.test_rollouts import MODEL, PROTOBUF, post
from tests.process import POLL_S, Json
from tests.servers import Gateway, gateway, wait_until

pytestmark = pytest.mark.flow

TIMEOUT_S: Final = 30.0
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENTS: Final = 400
COUNT: Final = 100
DEVICE: Final = "cam-17-of-the-dock"
HEALTHY: Final = (8.0, 2.0)
DRIFTED: Final = (2.0, 8.0)


@dataclass(slots=True)
class Trainer:
    """A training pipeline: what it was sent, whether that was signed, and how it answered."""

    url: str = ""
    is_up: bool = False
    answered: list[tuple[str, int]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    forged: int = 0

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Check one call and choose the status of its answer."""
        if not verify(parse_key(SECRET.encode()), headers, body, now_s=time.time()):
            self.forged += 1
            return 401
        status = 202 if self.is_up else 503
        self.bodies.append(body)
        self.answered.append((headers["webhook-id"], status))
        return status


@contextmanager
def trainer() -> Iterator[Trainer]:
    """Run a training pipeline on a free port."""
    one = Trainer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): text for name, text in self.headers.items()}
            self.send_response(one.take(headers, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the test prints what was answered when it fails."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        one.url = f"http://127.0.0.1:{listener.server_port}/train?token=s3cret"
        thread = threading.Thread(target=listener.serve_forever, args=(POLL_S,))
        thread.start()
        try:
            yield one
        finally:
            listener.shutdown()
            thread.join()


def infer(target: Gateway, shape: tuple[float, float], seed: int) -> None:
    """Send inferences whose confidence has a beta distribution."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    set_attribute(resource.resource, "edgeai.model.name", MODEL)
    set_attribute(resource.resource, "edgeai.model.version", "1.0")
    set_attribute(resource.resource, "device.id", DEVICE)
    spans = resource.scope_spans.add().spans
    now_ns = time.time_ns()
    for number, score in enumerate(np.random.default_rng(seed).beta(*shape, COUNT).tolist()):
        span = spans.add(
            trace_id=(seed * COUNT + number + 1).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name="inference",
            start_time_unix_nano=now_ns - 1_000_000,
            end_time_unix_nano=now_ns,
        )
        attribute = span.attributes.add(key="edgeai.inference.confidence")
        attribute.value.double_value = score
    status, _ = post(target.otlp_http, "/v1/traces", request.SerializeToString(), PROTOBUF)
    assert status == 200


def drifts(target: Gateway) -> list[Json]:
    """List the anomalies of drift."""
    found = target.get_json("/api/v1/anomalies")["items"]
    return [each for each in found if each["anomaly"]["kind"] == "drift"]


def drift(target: Gateway, seed: int) -> Json:
    """Let the confidence drift until an anomaly says so, and return it."""
    for number in range(6):
        infer(target, HEALTHY, seed + number)

    def is_learned() -> bool:
        items = target.get_json("/api/v1/baselines")["items"]
        return any((b["signal"], b["state"]) == ("confidence", "frozen") for b in items)

    wait_until(is_learned, timeout_s=TIMEOUT_S, what="a baseline")
    sent = seed + 100

    def found() -> Json | None:
        nonlocal sent
        sent += 1
        infer(target, DRIFTED, sent)
        return drifts(target)

    [only] = wait_until(found, timeout_s=TIMEOUT_S, what="a drift anomaly")
    return only["anomaly"]


def test_drift_calls_a_training_once_over_an_outage_and_kills(tmp_path: Path, seed: int) -> None:
    key = tmp_path / "hook.key"
    key.write_text(SECRET + "\n")
    key.chmod(0o400)
    seed = seed % 1_000_000
    with trainer() as pipeline:
        # A few hundred events are enough for this tolerance.
        contract = drifting(tmp_path / "contract.yaml", tolerance=0.8, conditional_classes=0)
        config = site_file(
            tmp_path,
            None,
            contracts=(contract,),
            measure={"drift_tick": "200ms", "baseline_events": EVENTS, "lateness": "0s"},
            retrain=[{"url": pipeline.url, "key_file": str(key), "models": [MODEL]}],
        )
        with gateway(tmp_path, config=config) as target:
            anomaly = drift(target, seed)

            def is_refused_twice() -> bool:
                return len(pipeline.answered) >= 2

            wait_until(is_refused_twice, timeout_s=TIMEOUT_S, what="two attempts")
            assert scrape(target).total("weir_retrain_waiting") == 1
            target.kill()
        pipeline.is_up = True
        with gateway(tmp_path, config=config) as target:

            def delivered() -> bool:
                return scrape(target).total("weir_retrain_calls_total", state="delivered") == 1

            wait_until(delivered, timeout_s=TIMEOUT_S, what=target.server.log)
            [shown] = drifts(target)
            [call] = shown["retrain"]
            assert call["state"] == "delivered"
            assert call["endpoint"] == pipeline.url.removesuffix("/train?token=s3cret")
            assert call["attempts"] >= 3
            assert target.get("/readyz")[0] == 200
            calls = len(pipeline.answered)
            infer(target, DRIFTED, seed + 900)
            target.kill()
        # The journal is replayed, the same anomaly raised again: nobody is called.
        with gateway(tmp_path, config=config) as target:
            assert [each["anomaly"]["id"] for each in drifts(target)] == [anomaly["id"]]
            assert scrape(target).total("weir_retrain_calls_total", state="delivered") == 1
            assert scrape(target).total("weir_retrain_waiting") == 0
            log = target.server.log()
        assert len(pipeline.answered) == calls
        assert pipeline.forged == 0
        assert {name for name, _ in pipeline.answered} == {anomaly["id"]}
        assert [status for _, status in pipeline.answered if status == 202] == [202]
    [body] = set(pipeline.bodies)
    told = json.loads(body)
    assert (told["type"], told["data"]["id"]) == ("weir.drift", anomaly["id"])
    assert (told["data"]["model"], told["data"]["signal"]) == (MODEL, "confidence")
    assert told["data"]["site"] == "dock-7"
    assert DEVICE.encode() not in body
    for each in anomaly["evidence"]:
        assert each["trace_id"].encode() not in body
    assert "s3cret" not in log
    assert SECRET not in log
