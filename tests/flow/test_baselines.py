"""Baselines at a real gateway: one from a file, one learned, promoted, and kept over a kill."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.flow.load import set_attribute
from tests.flow.site import DAMAGE_NET, site_file
from tests.flow.test_rollouts import PROTOBUF, ask, post, weir
from tests.process import ROOT, Json
from tests.servers import Gateway, gateway, wait_until

pytestmark = pytest.mark.flow

TIMEOUT_S: Final = 30.0
EVENTS: Final = 400
WEEK_S: Final = 7 * 86_400
CONFIDENCE: Final = "edgeai.inference.confidence"


def infer(target: Gateway, version: str, seed: int, count: int = 100) -> None:
    """Send inferences of a version with healthy scores."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    set_attribute(resource.resource, "edgeai.model.name", "damage-net")
    set_attribute(resource.resource, "edgeai.model.version", version)
    now_ns = time.time_ns()
    spans = resource.scope_spans.add().spans
    for number, score in enumerate(np.random.default_rng(seed).beta(8, 2, count).tolist()):
        span = spans.add(
            trace_id=(seed * count + number + 1).to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name="inference",
            start_time_unix_nano=now_ns - 1_000_000,
            end_time_unix_nano=now_ns,
        )
        attribute = span.attributes.add(key=CONFIDENCE)
        attribute.value.double_value = score
    status, _ = post(target.otlp_http, "/v1/traces", request.SerializeToString(), PROTOBUF)
    assert status == 200


def listed(target: Gateway) -> dict[tuple[str, str], Json]:
    """Return the baselines of the confidence by version and state."""
    return {
        (each["version"], each["state"]): each
        for each in weir(target, "baseline", "list")["items"]
        if each["signal"] == "confidence"
    }


def built(folder: Path) -> tuple[Path, str]:
    """Build a baseline of version 0.9; return the contract that names it, and the baseline's id."""
    scores = {"confidence": np.random.default_rng(1).beta(8, 2, 20_000)}
    pa.parquet.write_table(pa.table(scores), folder / "july.parquet")
    made = subprocess.run(
        [
            *(sys.executable, "-m", "gateway", "baseline", "build", "july.parquet", "--json"),
            *("--contract", str(DAMAGE_NET), "--model-version", "0.9", "-o", "baselines"),
        ],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")
    contract = yaml.safe_load(DAMAGE_NET.read_text())
    # A tolerance for which a few hundred events are enough.
    contract["drift"] |= {"baseline": "file:baselines/damage-net.json", "tolerance": 0.8}
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(contract))
    return path, json.loads(made.stdout)["signals"][0]["id"]


def test_baselines_are_given_learned_promoted_and_kept(tmp_path: Path) -> None:
    contract, given = built(tmp_path)
    config = site_file(tmp_path, None, contracts=(contract,), measure={"baseline_events": EVENTS})
    with gateway(tmp_path, config=config) as target:
        for seed, version in enumerate(["0.9", *["1.0"] * 6, *["2.0"] * 6]):
            infer(target, version, seed)

        def is_learned() -> bool:
            return ("2.0", "candidate") in listed(target)

        wait_until(is_learned, timeout_s=TIMEOUT_S, what=lambda: f"{listed(target)}")
        found = listed(target)
        assert (found["0.9", "frozen"]["id"], found["0.9", "frozen"]["source"]) == (given, "file")
        assert found["0.9", "frozen"]["calibrated"]
        # Every version that no file names inherits from the one before it.
        assert {("1.0", "inherited"), ("2.0", "inherited")} <= set(found)
        assert ask(target, f"/api/v1/baselines/{given}/promote", {})[0] == 409
        old = found["2.0", "inherited"]["id"]
        candidate = found["2.0", "candidate"]["id"]
        told = weir(target, "baseline", "promote", candidate[:12])
        assert told == {"id": candidate, "state": "frozen"}
        target.server.kill()
    with gateway(tmp_path, config=config) as target:
        found = listed(target)
        assert found["2.0", "frozen"]["id"] == candidate
        assert found["0.9", "frozen"]["id"] == given
        # The one before it is in the shadow for a week, and can be promoted back.
        assert found["2.0", "superseded"]["id"] == old
        shadow = found["2.0", "superseded"]["superseded"]
        assert (shadow["id"], shadow["alarms"]) == (old, 0)
        left_s = shadow["until_ns"] / 1e9 - time.time()
        assert WEEK_S - 2 * TIMEOUT_S < left_s <= WEEK_S
        told = weir(target, "baseline", "promote", old[:12])
        assert told == {"id": old, "state": "frozen"}
        found = listed(target)
        assert found["2.0", "frozen"]["id"] == old
        assert found["2.0", "superseded"]["superseded"]["id"] == candidate
