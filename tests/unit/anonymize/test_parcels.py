"""How items find their contract, how they are cut into parts, and that each is accounted for."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

from gateway.anonymize import Anonymizer
from gateway.anonymize.parcels import PART_ITEMS_MAX
from gateway.batch import CleanPart, Signal
from gateway.contract.plan import Plan
from gateway.otlp.encode import CHUNK_BYTES_MAX, encode_parts
from tests.noise import WORDS
from tests.parcels import (
    CONTRACT,
    OTHER_CONTRACT,
    SITE,
    SITE_KEY,
    Request,
    add_metric,
    add_point,
    add_record,
    attributes_of,
    items_of,
    leave,
    logs,
    make_plan,
    metrics,
    metrics_of,
    parcel_of,
    points_of,
    put,
    records_of,
)
from tests.places import fill

MODEL = "edgeai.model.name"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(tmp_path_factory.mktemp("plan"))


def parts_of(plan: Plan, request: Request) -> tuple[CleanPart, ...]:
    return Anonymizer(plan, SITE, SITE_KEY).parcel(parcel_of(request)).parts


# --- which contract -------------------------------------------------------------------------------

Level = str | None


def placed(request: Any, owner: Any, resource: Level, scope: Level, item: Level) -> Any:
    """Name a model at three levels; returns the item."""
    root = request.DESCRIPTOR.fields[0].name
    around = getattr(request, root)[0]
    scopes = getattr(around, around.DESCRIPTOR.fields[1].name)
    places = ((around.resource, resource), (scopes[0].scope, scope), (owner, item))
    for place, model in places:
        if model is not None:
            put(place, MODEL, model)
    return owner


@pytest.mark.parametrize(
    ("resource", "scope", "item", "matched"),
    [
        ("damage-net", None, None, "damage-net"),
        (None, "damage-net", None, "damage-net"),
        (None, None, "damage-net", "damage-net"),
        ("damage-net", "triage-net", None, "triage-net"),
        ("damage-net", "triage-net", "damage-net", "damage-net"),
        ("triage-net", None, "damage-net", "damage-net"),
        ("damage-net", None, "unknown", None),
        ("damage-net", "unknown", None, None),
        ("damage-net", "unknown", "damage-net", "damage-net"),
        ("unknown", None, None, None),
        (None, None, None, None),
    ],
)
def test_nearest_level_decides(
    plan: Plan, resource: Level, scope: Level, item: Level, matched: Level
) -> None:
    request = logs(model="")
    record = placed(request, add_record(request), resource, scope, item)
    put(put(record, "class", "torn"), "urgency", "now")
    (out,) = records_of(leave(plan, request).message)
    wanted = {"damage-net": {"class": "torn"}, "triage-net": {"urgency": "now"}, None: {}}
    assert attributes_of(out) == wanted[matched]


def test_point_level_decides_too(tmp_path: Path) -> None:
    """The match key is a dimension, so it leaves when it is declared as a signal."""
    declared = f"""
  model: {{attribute: {MODEL}, type: enum, values: [triage-net], role: prediction, export: pass}}
resource:"""
    plan = make_plan(tmp_path, CONTRACT, OTHER_CONTRACT.replace("\nresource:", declared))
    request = metrics()
    metric = add_metric(request, unit="s")
    put(put(add_point(metric), "urgency", "now"), MODEL, "triage-net")
    put(add_point(metric), "class", "ok")  # of damage-net, whose unit is another
    left = leave(plan, request)
    (out,) = metrics_of(left.message)
    (point,) = points_of(out)
    assert attributes_of(point) == {"urgency": "now", MODEL: "triage-net"}
    assert left.withheld == {"undeclared_metric": 1}


def test_match_key_that_is_no_text_or_stands_twice_says_nothing(plan: Plan) -> None:
    request = logs(model="damage-net")
    put(put(add_record(request), MODEL, 7), "class", "torn")
    twice = add_record(request)
    put(put(put(twice, MODEL, "triage-net"), MODEL, "triage-net"), "class", "torn")
    first, second = records_of(leave(plan, request).message)
    assert attributes_of(first) == attributes_of(second) == {"class": "torn"}


def test_contract_with_more_match_keys_is_tried_first(tmp_path: Path) -> None:
    special = OTHER_CONTRACT.replace(
        "match: {edgeai.model.name: triage-net}",
        "match: {edgeai.model.name: damage-net, service.name: dock-camera}",
    )
    plan = make_plan(tmp_path, CONTRACT, special)
    request = logs()
    put(put(add_record(request), "class", "torn"), "urgency", "now")
    put(put(put(add_record(request), "class", "torn"), "urgency", "now"), "service.name", "x")
    found = [attributes_of(each) for each in records_of(leave(plan, request).message)]
    assert [each.model for each in plan.contracts] == ["triage-net", "damage-net"]
    assert found == [{"urgency": "now"}, {"class": "torn"}]


def test_resource_of_several_models_is_split(plan: Plan) -> None:
    request = logs(model="triage-net")
    for number, model in enumerate(("damage-net", "triage-net", "unknown", "damage-net")):
        put(add_record(request, time_unix_nano=number), MODEL, model)
    left = leave(plan, request)
    found = [
        (
            attributes_of(resource.resource).get(MODEL),
            "service.name" in attributes_of(resource.resource),
            [each.time_unix_nano for each in resource.scope_logs[0].log_records],
        )
        for resource in left.resources
    ]
    # The resource says what it says; which attributes of it leave is up to each contract.
    assert sorted(found, key=repr) == [
        ("triage-net", False, [1]),
        ("triage-net", True, [0, 3]),
        (None, False, [2]),
    ]


def test_parts_come_in_the_order_of_the_contracts(plan: Plan) -> None:
    """A point that stays must not pull the part of its contract forward by where it stood."""
    request = metrics(model="")
    models = [each.model for each in plan.contracts]
    for model in reversed(models):
        scope = request.resource_metrics[0].scope_metrics.add()
        put(scope.scope, MODEL, model)
        unit = "ms" if model == "damage-net" else "s"
        metric = scope.metrics.add(name="latency", unit=unit)
        metric.gauge.data_points.add(as_int=1)
    made = [ResourceMetrics.FromString(part.body) for part in parts_of(plan, request)]
    units = [each.scope_metrics[0].metrics[0].unit for each in made]
    assert units == ["ms" if model == "damage-net" else "s" for model in models]


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", 7, "x" * 257])
def test_stream_that_loses_its_name_stays(plan: Plan, value: Any) -> None:
    request = metrics(device=False)
    about = request.resource_metrics[0].resource
    put(about, MODEL, "damage-net")
    if value != "":
        put(about, "device.id", value)
    metric = add_metric(request)
    add_point(metric)
    put(add_point(metric), "undeclared", "x")
    left = leave(plan, request)
    assert left.chunks == []
    assert left.withheld == {"unnamed_stream": 1, "undeclared_dimension": 1}


def test_stream_without_a_contract_stays(plan: Plan) -> None:
    request = metrics(model="")
    add_point(add_metric(request))
    left = leave(plan, request)
    assert (left.chunks, left.withheld) == ([], {"no_contract": 1})


def test_logs_of_an_unnamed_device_leave(plan: Plan) -> None:
    request = logs(device=False)
    put(add_record(request), MODEL, "damage-net")
    left = leave(plan, request)
    assert (left.items, left.withheld) == (1, {})


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, PART_ITEMS_MAX, PART_ITEMS_MAX + 1, 2 * PART_ITEMS_MAX + 7])
def test_logs_are_cut_at_the_limit(plan: Plan, count: int) -> None:
    request = logs()
    for number in range(count):
        add_record(request, time_unix_nano=number)
    parts = parts_of(plan, request)
    made = [ResourceLogs.FromString(part.body) for part in parts]
    records = [each.scope_logs[0].log_records for each in made]
    assert [len(each) for each in records] == [part.items for part in parts]
    assert max(part.items for part in parts) <= PART_ITEMS_MAX
    assert len(parts) == -(-count // PART_ITEMS_MAX)
    assert [each.time_unix_nano for some in records for each in some] == list(range(count))
    assert len({each.resource.SerializeToString() for each in made}) == 1


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [
        ([1, 1, 1], [3]),
        ([PART_ITEMS_MAX], [PART_ITEMS_MAX]),
        ([PART_ITEMS_MAX - 1, 2, 3], [PART_ITEMS_MAX, 4]),
        ([2 * PART_ITEMS_MAX + 5, 1], [PART_ITEMS_MAX, PART_ITEMS_MAX, 6]),
        ([0, 2, 0], [2]),
    ],
)
def test_metrics_of_a_resource_share_parts_up_to_the_limit(
    plan: Plan, counts: list[int], wanted: list[int]
) -> None:
    request = metrics()
    number = 0
    for index, count in enumerate(counts):
        name, unit = (("latency", "ms"), ("queue", ""))[index % 2]
        metric = add_metric(request, ("sum", "gauge")[index % 2], name=name, unit=unit)
        for _ in range(count):
            add_point(metric, as_int=number)
            number += 1
    parts = parts_of(plan, request)
    assert [part.items for part in parts] == wanted
    merged = ExportMetricsServiceRequest()
    for chunk in encode_parts(parts):
        merged.MergeFromString(chunk.body)
    values = [each.as_int for metric in metrics_of(merged) for each in points_of(metric)]
    assert values == list(range(number))
    assert all(points_of(metric) for metric in metrics_of(merged)), "no metric without points"


def test_chunks_join_parts_up_to_the_limit(plan: Plan) -> None:
    request = logs()
    for number in range(3 * PART_ITEMS_MAX):
        add_record(request, time_unix_nano=number)
    parts = parts_of(plan, request)
    size = max(len(part.body) for part in parts)
    assert len(encode_parts(parts, CHUNK_BYTES_MAX)) == 1
    for bytes_max, wanted in ((size // 2, 3), (2 * size + 64, 2), (1, 3)):
        chunks = encode_parts(parts, bytes_max)
        assert len(chunks) == wanted
        merged = ExportLogsServiceRequest()
        for chunk in chunks:
            only = ExportLogsServiceRequest.FromString(chunk.body)
            assert chunk.items == items_of(only)
            assert len(chunk.body) <= bytes_max or len(only.resource_logs) == 1
            merged.MergeFrom(only)
        times = [record.time_unix_nano for record in records_of(merged)]
        assert times == list(range(3 * PART_ITEMS_MAX))
    assert encode_parts(()) == []


def test_parts_name_their_signal_and_policy(plan: Plan) -> None:
    request = logs()
    add_record(request)
    (part,) = parts_of(plan, request)
    assert (part.signal, part.policy) == (Signal.LOGS, plan.digest)


# --- accounting -----------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("kind", [ExportMetricsServiceRequest, ExportLogsServiceRequest])
def test_every_item_leaves_or_is_withheld_under_a_rule(
    plan: Plan, kind: type[Any], seed: int
) -> None:
    request = kind()
    fill(request, random.Random(seed), WORDS)
    left = leave(plan, request)
    assert left.items + sum(left.withheld.values()) == items_of(request)
    rules = {"no_contract", "undeclared_metric", "undeclared_dimension", "unnamed_stream"}
    assert left.withheld.keys() <= (rules if kind is ExportMetricsServiceRequest else set())


@pytest.mark.parametrize("kind", [ExportMetricsServiceRequest, ExportLogsServiceRequest])
def test_nothing_of_nothing_leaves(plan: Plan, kind: type[Any]) -> None:
    request = kind()
    fields = request.DESCRIPTOR.fields[0]
    around = getattr(request, fields.name).add()
    getattr(around, around.DESCRIPTOR.fields[1].name).add()
    assert parts_of(plan, request) == parts_of(plan, kind()) == ()
