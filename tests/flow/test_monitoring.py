"""A real Prometheus scrapes the gateway: its numbers are ours, and the rules we ship load in it."""

import time
from pathlib import Path
from typing import Final

import pytest

from gateway.vitals import VITALS, VitalType
from tests.flow.load import Load
from tests.flow.site import scrape, settled, site_file, watched
from tests.ledger_check import Scrape
from tests.process import ROOT
from tests.servers import Gateway, Prometheus, gateway, prometheus, wait_until
from tests.sink import otlp_sink

pytestmark = pytest.mark.flow

SPANS: Final = 2_000
RULES: Final = sorted((ROOT / "alerts" / "rules").glob("*.yml"))
TIMEOUT_S: Final = 30.0
# A counter or a histogram that rests: the last scrape must show what the page shows.
RESTING: Final = (
    "weir_received_items_total",
    "weir_forwarded_items_total",
    "weir_sampled_out_items_total",
    "weir_dropped_items_total",
    "weir_pending_items",
    "weir_bytes_total",
    "weir_batch_spans_bucket",
    "weir_batch_spans_count",
    "weir_batch_spans_sum",
    "weir_ack_seconds_count",
    "weir_inference_total",
    "weir_inference_duration_seconds_bucket",
    "weir_inference_duration_seconds_count",
)
# What Prometheus adds to a series when it scrapes.
ADDED: Final = frozenset({"__name__", "job", "instance", "site", "cluster", "region"})
ABOUT_THE_GATEWAY: Final = frozenset(
    {"WeirDown", "WeirJournalFull", "WeirNotReady", "WeirOverloaded"}
)
LABELS: Final = {"site": "dock-7", "cluster": "dock", "region": "eu-west"}


def shown(page: Scrape, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """Pick the series of a name from our own page."""
    return {labels: value for (each, labels), value in page.samples.items() if each == name}


def known(server: Prometheus, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """Ask Prometheus for the same series, without the labels that it added."""
    return {
        frozenset(
            (key, value) for key, value in each.labels.items() if key not in ADDED
        ): each.value
        for each in server.query(name)
    }


def agree(server: Prometheus, target: Gateway) -> str:
    """Name the first metric on which the two differ; empty when they agree."""
    page = scrape(target)
    return next((name for name in RESTING if shown(page, name) != known(server, name)), "")


def test_prometheus_knows_the_same_numbers(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url)
        with (
            gateway(tmp_path, config=config) as target,
            prometheus(tmp_path, targets=[target.api], labels=LABELS) as server,
        ):
            with watched(target), load.running(target):
                load.wait_for(SPANS)
            terms = settled(target, len(load.acknowledged))
            wait_until(
                lambda: not agree(server, target),
                timeout_s=TIMEOUT_S,
                what=lambda: f"{agree(server, target)} to agree",
            )
            (received,) = server.query("sum(weir_received_items_total)")
            assert received.value == len(load.acknowledged)
            (forwarded,) = server.query("sum(weir_forwarded_items_total)")
            assert forwarded.value == terms.forwarded == sink.span_count()
            (residue,) = server.query(
                "sum(weir_received_items_total) - sum(weir_forwarded_items_total)"
                " - sum(weir_sampled_out_items_total) - sum(weir_dropped_items_total)"
                " - (sum(weir_quarantined_items_total) or vector(0)) - sum(weir_pending_items)"
            )
            assert residue.value == 0
            check_stages(scrape(target), target)
            check_exemplars(server, load)


def check_stages(page: Scrape, target: Gateway) -> None:
    """Check that each stage that data went through has counted bytes."""
    passed = {"wire", "inflated", "journal", "forward"}
    for stage in passed:
        assert page.total("weir_bytes_total", stage=stage) > 0, (stage, target.server.log())


def check_exemplars(server: Prometheus, load: Load) -> None:
    """Check that a bucket leads to a trace."""
    now = time.time()
    found = server.exemplars(
        "weir_inference_duration_seconds_bucket", start_s=now - 600, end_s=now + 60
    )
    assert found
    assert load.acknowledged
    assert all(len(each["labels"]["trace_id"]) == 32 for each in found)


def test_prometheus_scrapes_every_metric_without_a_complaint(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    with (
        gateway(tmp_path, config=site_file(tmp_path, None)) as target,
        prometheus(tmp_path, targets=[target.api], labels=LABELS) as server,
    ):
        with load.running(target):
            load.wait_for(SPANS)
        server.wait_for('up{job="weir"} == 1')
        server.wait_for('weir_inference_total{model="damage-net"} > 0')
        (one,) = server.api("targets")["activeTargets"]
        assert (one["health"], one["lastError"]) == ("up", "")
        types = {
            name: {each["type"] for each in entries}
            for name, entries in server.api("metadata").items()
        }
    for vital in VITALS.values():
        # In OpenMetrics the family of a counter or an info has no suffix.
        families = {vital.name, vital.name.removesuffix("_total"), vital.name.removesuffix("_info")}
        told = set[str]().union(*(types.get(family, set()) for family in families))
        wanted = {str(vital.type)} | ({"gauge"} if vital.type is VitalType.INFO else set())
        assert told <= wanted, vital.name
        assert told, f"{vital.name} is not on the page"


def test_our_rules_load_and_evaluate_in_a_real_prometheus(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    with (
        gateway(tmp_path, config=site_file(tmp_path, None)) as target,
        prometheus(tmp_path, targets=[target.api], labels=LABELS, rules=RULES) as server,
    ):
        with load.running(target):
            load.wait_for(SPANS)

        def unhealthy() -> list[str]:
            groups = server.api("rules")["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            assert {Path(group["file"]).name for group in groups} == {path.name for path in RULES}
            return [
                f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}"
                for rule in rules
                if rule["health"] != "ok"
            ]

        wait_until(
            lambda: not unhealthy(),
            timeout_s=TIMEOUT_S,
            what=lambda: "\n".join(unhealthy()),
        )
        server.wait_for('up{job="weir"} == 1')
        # A healthy gateway is silent about itself; before the first scrape it seemed to be down.
        wait_until(
            lambda: not ABOUT_THE_GATEWAY & {a["labels"]["alertname"] for a in server.alerts()},
            timeout_s=TIMEOUT_S,
            what=lambda: f"no alert about the gateway: {server.alerts()}",
        )
