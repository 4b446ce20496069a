"""The exposition is what Prometheus reads, and holds nothing but the catalogue."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.api.measurements import DEVICES_MAX, NO_MODEL, measured
from gateway.api.metrics import UnknownVitalError, read, render
from gateway.api.operations import NO_COUNTS, FleetState
from gateway.api.sources import Histogram, MeasureSnapshot, Sample
from gateway.vitals import VITALS, VitalType
from tests.unit.api.fakes import MEASURE, TRACE, World
from tests.unit.api.http import Client

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def parse_openmetrics(text: str) -> list[Metric]:
    # The library leaves this one function without types.
    parse: Callable[[str], Iterable[Metric]] = openmetrics_parser.text_string_to_metric_families
    return list(parse(text))


def _values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian package prometheus")
def test_promtool_accepts_the_text() -> None:
    body, _ = render(asyncio.run(read(World().sources())), "text/plain")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=body, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


async def test_the_content_type_follows_accept(client: Client) -> None:
    async with client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "# EOF" not in await answer.text()
    async with client.get("/metrics", headers={"Accept": OPENMETRICS}) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        assert (await answer.text()).endswith("# EOF\n")


async def test_every_metric_of_the_catalogue_is_exposed() -> None:
    body, _ = render(await read(World().sources()), OPENMETRICS)
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    for vital in VITALS.values():
        name = vital.name.removesuffix("_total").removesuffix("_info")
        assert families[name].type == vital.type.value
        assert families[name].documentation == vital.help


async def test_values_come_from_the_snapshots() -> None:
    values = _values(render(await read(World().sources()), "")[0].decode())
    model = (("model", "damage-net"), ("version", "2.0"))
    assert values["weir_inference_total", (*model[:1], ("outcome", "failure"), model[1])] == 2
    assert values["weir_inference_duration_seconds_count", model] == 100
    assert values["weir_inference_duration_seconds_bucket", (("le", "0.1"), *model)] == 90
    assert values["weir_inference_duration_seconds_bucket", (("le", "1.0"), *model)] == 99
    slo = (("model", "damage-net"), ("slo", "success"), ("window", "5m"))
    assert values["weir_slo_burn_rate", slo] == 14.5
    assert values["weir_slo_objective_ratio", slo[:2]] == 0.999
    assert ("weir_slo_burn_rate", (*slo[:2], ("window", "6h"))) not in values
    assert values["weir_drift_psi", (model[0], ("signal", "brightness"), model[1])] == 0.4
    signal = (model[0], ("signal", "brightness"), model[1])
    assert values["weir_drift_relative_index", signal] == 7.5
    assert ("weir_drift_psi", (model[0], ("signal", "class"), model[1])) not in values
    shadow = "weir_drift_shadow_alarms_total"
    assert values[shadow, (model[0], ("signal", "brightness"), model[1])] == 3
    assert (shadow, (model[0], ("signal", "class"), model[1])) not in values
    assert values["weir_ready", (("check", "journal"),)] == 1
    assert values["weir_info", (("kernel", "k1"), ("version", "0.1.0"))] == 1
    assert values["weir_anomalies_total", (("kind", "drift"), ("model", 'a"b\\c\n'))] == 1
    assert values["weir_late_events_total", ()] == 5


def test_a_model_without_violations_shows_none_of_them() -> None:
    fleets = tuple(
        FleetState(model=model, expected=1, silent=0, threshold_s=300.0, oldest_age_s=None)
        for model in ("damage-net", "")
    )
    counts = replace(NO_COUNTS, violations={"triage-net": 2}, latched=("triage-net",))
    found = measured(MeasureSnapshot(fleets=fleets, counts=counts))
    values = {
        (sample.name, sample.labels["model"]): sample.value
        for sample in found
        if sample.name.startswith("weir_integrity_")
    }
    assert values == {
        ("weir_integrity_violations_total", "damage-net"): 0,
        ("weir_integrity_violations_total", NO_MODEL): 0,
        ("weir_integrity_violations_total", "triage-net"): 2,
        ("weir_integrity_latched", "damage-net"): 0,
        ("weir_integrity_latched", NO_MODEL): 0,
        ("weir_integrity_latched", "triage-net"): 1,
    }


def test_series_with_known_labels_start_at_zero() -> None:
    values = _values(render([], "")[0].decode())
    assert values["weir_received_items_total", (("signal", "traces"), ("transport", "http"))] == 0
    assert values["weir_bytes_total", (("stage", "wire"),)] == 0
    assert values["weir_dives", (("state", "complete"),)] == 0
    assert values["weir_late_events_total", ()] == 0


async def test_exemplars_point_to_a_trace_in_openmetrics_only() -> None:
    samples = list(await read(World().sources()))
    families = parse_openmetrics(render(samples, OPENMETRICS)[0].decode())
    found = [
        (sample.labels["le"], sample.exemplar)
        for family in families
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert [edge for edge, _ in found] == ["0.1"]
    exemplar = found[0][1]
    assert exemplar is not None
    assert exemplar.labels == {"trace_id": TRACE}
    assert (exemplar.value, float(exemplar.timestamp or 0)) == (0.07, 1_760_000_000.5)
    assert TRACE.encode() not in render(samples, "")[0]


def test_an_unknown_name_or_label_is_refused() -> None:
    with pytest.raises(UnknownVitalError, match="weir_surprise is not in the catalogue"):
        render([Sample(name="weir_surprise", value=1)], "")
    with pytest.raises(UnknownVitalError, match="has the labels"):
        render([Sample(name="weir_journal_bytes", labels={"path": "x"}, value=1)], "")


def test_only_the_stalest_devices_are_listed() -> None:
    device = MEASURE.devices[0]
    many = tuple(
        replace(device, device=f"d{n}", freshness_s=float(n)) for n in range(DEVICES_MAX + 5)
    )
    found = measured(MeasureSnapshot(devices=many))
    samples = [each for each in found if each.name == "weir_device_freshness_seconds"]
    assert len(samples) == DEVICES_MAX
    assert samples[0].value == DEVICES_MAX + 4


def test_histogram_counts_are_cumulated() -> None:
    sample = Sample(
        name="weir_batch_spans", value=Histogram(edges=(1.0, 8.0), counts=(1, 2, 4), sum=99.0)
    )
    values = _values(render([sample], "")[0].decode())
    edges = ("1.0", "8.0", "+Inf")
    assert [values["weir_batch_spans_bucket", (("le", edge),)] for edge in edges] == [1, 3, 7]
    assert values["weir_batch_spans_sum", ()] == 99


def test_the_catalogue_follows_the_naming_rules() -> None:
    for vital in VITALS.values():
        assert vital.name.startswith("weir_")
        assert vital.name.endswith("_total") == (vital.type is VitalType.COUNTER)
        assert set(vital.known) <= set(vital.labels)
        assert vital.help.endswith(".")
        if vital.unit:
            assert vital.unit in vital.name
