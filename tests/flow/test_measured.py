"""What a site is told of integrity, devices, labels and costs, also after a kill."""

import time
from pathlib import Path
from typing import Final

import pytest

from collectors.host import Host, request_of, sources_of
from gateway.otlp.declared import BatchJob, Event, Violation
from gateway.otlp.events import write
from tests.flow.site import scrape, site_file
from tests.flow.test_rollouts import BATCH, MODEL, PROTOBUF, TIMEOUT_S, ask, infer, post
from tests.ledger_check import Scrape
from tests.monitoring import alertmanager, alertmanager_config, webhook
from tests.process import Json
from tests.servers import Gateway, gateway, wait_until

pytestmark = pytest.mark.flow

CONTRACT: Final = """
contract: 1
model: damage-net
match: {edgeai.model.name: damage-net}
owner: vision@example.com
purpose: damage detection at the dock
expires: 2099-12-31
signals:
  class: {attribute: edgeai.inference.class, type: enum, values: [ok, torn], role: prediction}
slos:
  - {name: success, indicator: success, objective: 0.999}
  - {name: fresh, indicator: freshness, objective: 0.99}
  - {name: whole, indicator: integrity}
  - {name: labelled, indicator: label_lag, objective: 0.9}
labels: {signal: class, within: 1h, expect: 1.0}
cost: {currency: USD, per_inference: 0.01, budget_per_month: 100}
"""


def declare(target: Gateway, *events: Event) -> None:
    """Send events as a device does."""
    assert post(target.otlp_http, "/v1/logs", write(events), PROTOBUF)[0] == 200


def open_anomalies(target: Gateway) -> list[Json]:
    """List the anomalies of integrity that fire."""
    found = target.get_json("/api/v1/anomalies?state=firing")["items"]
    return [each["anomaly"] for each in found if each["anomaly"]["kind"] == "integrity"]


def trace_of(seed: int, number: int) -> str:
    """Name a trace that `infer` has sent."""
    return f"{seed * BATCH + number + 1:032x}"


def test_a_violation_pages_at_once_and_until_somebody_has_it(tmp_path: Path) -> None:
    contract = tmp_path / "model.yaml"
    contract.write_text(CONTRACT)
    with webhook() as hook, alertmanager(tmp_path, alertmanager_config(hook.url)) as manager:
        config = site_file(
            tmp_path,
            None,
            contracts=(contract,),
            alertmanagers=[manager.url],
            measure={"lateness": "0s"},
        )
        with gateway(tmp_path, config=config) as target:

            def alert() -> Json | None:
                found = [
                    each
                    for each in manager.alerts()
                    if each["labels"]["alertname"] == "WeirIntegrity"
                ]
                return found[0] if found else None

            infer(target, "1.0", failed=False, seed=1)
            began = time.monotonic()
            violation = Violation(
                at_ns=time.time_ns(), device="cam-1", model=MODEL, version="1.0", error="digest"
            )
            declare(target, violation)
            told = wait_until(alert, timeout_s=TIMEOUT_S, what="the page")
            print(f"violation to page: {time.monotonic() - began:.2f} s")  # noqa: T201  -rP
            assert told["labels"]["severity"] == "page"
            assert told["annotations"]["contact"] == "vision@example.com"
            assert scrape(target).total("weir_integrity_latched", model=MODEL) == 1
            [page] = open_anomalies(target)
            target.kill()
        with gateway(tmp_path, config=config) as target:
            assert [each["id"] for each in open_anomalies(target)] == [page["id"]]
            status, _ = ask(target, f"/api/v1/anomalies/{page['id']}/ack", {})
            assert status == 200
            infer(target, "1.0", failed=False, seed=2)

            def latched() -> bool:
                return scrape(target).total("weir_integrity_latched", model=MODEL) != 0

            wait_until(lambda: not latched(), timeout_s=TIMEOUT_S, what="the end of the page")
            whole = next(
                each for each in target.get_json("/api/v1/slo")["items"] if each["slo"] == "whole"
            )
            assert (whole["budget_remaining_ratio"], whole["exhaustion_s"]) == (None, None)
            assert whole["windows"][-1]["bad"] == 1


def test_labels_costs_and_hosts_survive_a_kill(tmp_path: Path) -> None:
    contract = tmp_path / "model.yaml"
    contract.write_text(CONTRACT)
    config = site_file(tmp_path, None, contracts=(contract,))
    with gateway(tmp_path, config=config) as target:
        infer(target, "1.0", failed=False, seed=1)
        host = Host(sources_of()).read()
        readings = request_of(host, device="cam-1", host="dock", time_ns=time.time_ns())
        body = readings.SerializeToString()
        assert post(target.otlp_http, "/v1/metrics", body, PROTOBUF)[0] == 200
        truth = [{"trace_id": trace_of(1, n), "value": "ok"} for n in range(4)]
        assert ask(target, "/api/v1/labels", truth)[0] in (200, 202)
        job = BatchJob(
            at_ns=time.time_ns(),
            job="night-1",
            model=MODEL,
            cost=2.5,
            currency="USD",
            inferences=100,
            duration_s=60.0,
        )
        declare(target, job)
        before = shown(target)
        target.kill()
    with gateway(tmp_path, config=config) as target:
        after = shown(target)
        assert after == before
        assert (after["spent"], after["batch_jobs"]) == (BATCH * 0.01 + 2.5, 2.5)
        assert after["labels"] == {"no_prediction": 4}
        assert after["memory"] > 0


def shown(target: Gateway) -> dict[str, Json]:
    """Read what the site knows, once it knows all of it."""

    def found() -> dict[str, Json] | None:
        scraped: Scrape = scrape(target)
        [cost] = target.get_json("/api/v1/costs")["items"]
        devices = {each["model"]: each for each in target.get_json("/api/v1/devices")["items"]}
        labels = {
            result: scraped.total("weir_labels_total", result=result)
            for result in scraped.values_of("weir_labels_total", "result")
        }
        counted = {result: count for result, count in labels.items() if count}
        device = devices.get(MODEL)
        if not counted or device is None or not device["readings"] or not cost["batch_jobs"]:
            return None
        return {
            "labels": counted,
            "spent": cost["spent"],
            "batch_jobs": cost["batch_jobs"],
            "version": device["version"],
            "memory": device["readings"]["memory"],
            "items": device["items"],
        }

    return wait_until(found, timeout_s=TIMEOUT_S, what="labels, costs and readings")
