"""A rollout is declared to a real gateway, survives a kill, is charged for what it did, ends."""

import hashlib
import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from gateway.otlp.events import DeviceOutcome, RolloutStart, write
from tests.flow.load import set_attribute
from tests.flow.site import site_file
from tests.process import ROOT, Json
from tests.servers import Gateway, gateway, wait_until

pytestmark = pytest.mark.flow

PROTOBUF: Final = {"Content-Type": "application/x-protobuf"}
ROLLOUTS: Final = "/api/v1/rollouts"
MODEL: Final = "damage-net"
BATCH: Final = 40
TIMEOUT_S: Final = 30.0
COMMAND_S: Final = 60.0


def post(address: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """Send one request."""
    host, port = address.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def ask(target: Gateway, path: str, body: Json) -> tuple[int, Json]:
    """Post JSON to the API."""
    headers = {"Content-Type": "application/json"}
    status, raw = post(target.api, path, json.dumps(body).encode(), headers)
    return status, json.loads(raw)


def weir(target: Gateway, *arguments: str) -> Json:
    """Run a command with `--json`, which must end well."""
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments, "--json", "--api", target.api],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_S,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


def infer(target: Gateway, version: str, *, failed: bool, seed: int) -> None:
    """Send some inferences of a version, all good or all failed."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    set_attribute(resource.resource, "edgeai.model.name", MODEL)
    set_attribute(resource.resource, "edgeai.model.version", version)
    set_attribute(resource.resource, "device.id", "cam-1")
    spans = resource.scope_spans.add().spans
    now_ns = time.time_ns()
    for number in range(BATCH):
        spans.add(
            trace_id=(seed * BATCH + number + 1).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name="inference",
            start_time_unix_nano=now_ns - 1_000_000,
            end_time_unix_nano=now_ns,
            status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET),
        )
    body = request.SerializeToString()
    assert post(target.otlp_http, "/v1/traces", body, PROTOBUF)[0] == 200


def rollouts(target: Gateway) -> dict[str, Json]:
    """List rollouts by id."""
    return {each["id"]: each for each in target.get_json(ROLLOUTS)["items"]}


def test_a_rollout_survives_a_kill_and_is_charged(tmp_path: Path) -> None:
    # Judgements follow the clock closely, so that the test need not wait for them.
    config = site_file(tmp_path, None, measure={"lateness": "0s"})
    running = gateway(tmp_path, config=config)
    with running as target:
        infer(target, "1.0", failed=False, seed=1)
        begun = weir(target, "rollout", "start", MODEL, "2.0", "--previous", "1.0", "--id", "r-1")
        assert begun["id"] == "r-1"
        reported = {"devices": [{"device": "cam-1", "succeeded": True}]}
        assert ask(target, f"{ROLLOUTS}/r-1/devices", reported)[0] == 202
        assert ask(target, ROLLOUTS, {"model": MODEL, "version": "2.0", "id": "r-1"})[0] == 409
        before = rollouts(target)["r-1"]
        target.kill()
    with gateway(tmp_path, config=config) as target:
        after = rollouts(target)["r-1"]
        assert {name: after[name] for name in ("start_ns", "version", "previous")} == {
            name: before[name] for name in ("start_ns", "version", "previous")
        }
        assert [each["allocation_ratio"] for each in after["spends"]] == [
            each["allocation_ratio"] for each in before["spends"]
        ]
        assert after["succeeded"] == 1
        infer(target, "2.0", failed=True, seed=2)
        infer(target, "1.0", failed=False, seed=3)

        def charged() -> Json:
            (found,) = rollouts(target).values()
            (success,) = [each for each in found["spends"] if each["slo"] == "success"]
            return success if success["rollout_events"] and success["spent_ratio"] else None

        success = wait_until(charged, timeout_s=TIMEOUT_S, what=lambda: f"{rollouts(target)}")
        assert (success["rollout_bad"], success["rollout_events"]) == (BATCH, BATCH)
        assert (success["control_bad"], success["control_events"]) == (0, BATCH)
        assert success["excess_events"] == BATCH
        ended = weir(target, "rollout", "end", "r-1", "--outcome", "rolled_back")
        assert ended == {"id": "r-1", "state": "ended"}
        assert ask(target, f"{ROLLOUTS}/r-1/end", {})[0] == 409
        labels = tmp_path / "labels.csv"
        labels.write_text("trace_id,value\n1,ok\n2,torn\n")
        assert weir(target, "label", "--file", str(labels)) == {"labels": 2}
        found = target.get_json(ROLLOUTS)
        assert found["items"][0]["outcome"] == "rolled_back"
        assert found["refused"] == {}


def test_only_deployers_declare_over_otlp(tmp_path: Path) -> None:
    devices = {"ci-token": "ci", "cam-token": "cam-1"}
    tokens = [
        {
            "sha256": hashlib.sha256(token.encode()).hexdigest(),
            "device": device,
            "expires": "2099-12-31T00:00:00Z",
        }
        for token, device in devices.items()
    ]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    config = site_file(
        tmp_path,
        None,
        receive={"tokens_file": str(tmp_path / "tokens.json"), "deployers": ["ci"]},
    )
    with gateway(tmp_path, config=config) as target:

        def send(token: str, body: bytes) -> int:
            headers = {**PROTOBUF, "Authorization": f"Bearer {token}"}
            return post(target.otlp_http, "/v1/logs", body, headers)[0]

        start = RolloutStart(at_ns=time.time_ns(), rollout="r-1", model=MODEL, version="2.0")
        assert send("cam-token", write([start])) == 200

        def refused() -> Json:
            return target.get_json(ROLLOUTS)["refused"]

        wait_until(lambda: refused().get("not_allowed") == 1, timeout_s=TIMEOUT_S, what=refused)
        assert rollouts(target) == {}
        assert send("ci-token", write([start])) == 200
        wait_until(lambda: "r-1" in rollouts(target), timeout_s=TIMEOUT_S, what=refused)
        # A device tells of itself only.
        for device in devices.values():
            told = DeviceOutcome(at_ns=time.time_ns(), device=device, rollout="r-1", succeeded=True)
            assert send("cam-token", write([told])) == 200
        wait_until(lambda: refused().get("not_allowed") == 2, timeout_s=TIMEOUT_S, what=refused)
        assert rollouts(target)["r-1"]["succeeded"] == 1
