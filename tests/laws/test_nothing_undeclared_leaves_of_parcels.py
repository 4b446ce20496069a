"""Of metrics and logs nothing leaves that no rule names: canaries in every place, closed fields.

Law: places and messages come from the descriptors. A field that the protocol gains is planted in,
and breaks a test when it leaves.
"""

import random
import re
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from gateway.contract.plan import Plan
from tests.noise import DECLARED_KEYS, LEAVING, MATCH_KEY, any_request
from tests.parcels import (
    complete,
    items_of,
    leave,
    make_plan,
    put,
    stays,
)
from tests.places import (
    Needles,
    add_unknown,
    fields_of,
    fill,
    is_structure,
    message_paths,
    name_of,
    put_at,
    reach,
    text_paths,
    unknown_fields,
)

SIGNALS: Final[tuple[type[Any], ...]] = (ExportMetricsServiceRequest, ExportLogsServiceRequest)
KINDS: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
SEEDS: Final = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(tmp_path_factory.mktemp("plan"))


# --- canaries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SIGNALS)
def test_no_text_place_of_the_protocol_leaks(plan: Plan, kind: type[Any], seed: int) -> None:
    rng = random.Random(seed)
    places = [path for path in text_paths(kind.DESCRIPTOR) if not is_structure(path)]
    assert len(places) >= 45
    for path in places:
        needles = Needles(raw=rng.randbytes(16))
        request = kind()
        is_bytes = path[-1].type == path[-1].TYPE_BYTES
        put_at(request, path, needles.raw if is_bytes else needles.text.encode())
        complete(request, path)
        assert needles.found_in(request.SerializeToString())
        left = leave(plan, request)
        assert needles.found_in(left.body) == [], name_of(path)
        assert left.items == (0 if stays(path) else 1), name_of(path)


@pytest.mark.parametrize("kind", SIGNALS)
def test_no_text_leaks_under_a_declared_key(plan: Plan, kind: type[Any], seed: int) -> None:
    """Every AnyValue of the protocol, with every key that a contract names."""
    rng = random.Random(seed)
    for path in text_paths(kind.DESCRIPTOR):
        names = [field.name for field in path]
        if "attributes" not in names or names[-1] == "key":
            continue
        pair = names.index("attributes") + 1
        for key in DECLARED_KEYS:
            passed = names[:2] == [names[0], "resource"] and key in ("service.name", MATCH_KEY)
            if passed and names[-1] == "string_value" and len(names) == pair + 2:
                continue  # a label that leaves as it is
            needles = Needles(raw=rng.randbytes(16))
            request = kind()
            is_bytes = path[-1].type == path[-1].TYPE_BYTES
            put_at(request, path, needles.raw if is_bytes else needles.text.encode())
            reach(request, path[:pair]).key = key
            complete(request, path)
            assert needles.found_in(leave(plan, request).body) == [], (name_of(path), key)


@pytest.mark.parametrize("kind", SIGNALS)
def test_unknown_fields_of_every_message_stay(plan: Plan, kind: type[Any], seed: int) -> None:
    rng = random.Random(seed)
    places = list(message_paths(kind.DESCRIPTOR))
    assert len(places) >= 25
    for path in places:
        needles = Needles(raw=rng.randbytes(16))
        request = kind()
        reach(request, path).MergeFromString(unknown_fields(needles.raw))
        complete(request, (*path, kind.DESCRIPTOR.fields[0]))
        assert needles.raw in request.SerializeToString()
        left = leave(plan, request)
        assert needles.found_in(left.body) == [], name_of(path)
    request, needles = kind(), Needles(raw=rng.randbytes(16))
    complete(request, (kind.DESCRIPTOR.fields[0],))
    add_unknown(request, needles.raw)
    left = leave(plan, request)
    assert (left.items, needles.found_in(left.body)) == (1, [])


@pytest.mark.parametrize("data", KINDS)
def test_unknown_fields_of_each_kind_of_metric_stay(plan: Plan, data: str, seed: int) -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add()
    point = getattr(metric, data).data_points.add()
    fill(point, random.Random(seed), {})
    put(point, "class", "ok")
    del point.attributes[:-1]
    complete(request, tuple(metric.DESCRIPTOR.fields[:1]))
    metric.name = "latency"
    needles = Needles(raw=random.Random(seed).randbytes(16))
    add_unknown(request, needles.raw)
    left = leave(plan, request)
    assert (left.items, needles.found_in(left.body)) == (1, [])


# --- closed fields and texts ----------------------------------------------------------------------


@given(seed=SEEDS)
@pytest.mark.parametrize("kind", SIGNALS)
def test_only_listed_fields_and_texts_leave(plan: Plan, kind: type[Any], seed: int) -> None:
    request = any_request(kind, random.Random(seed))
    left = leave(plan, request)
    allowed = {*DECLARED_KEYS, "damage-net", "triage-net", "latency", "queue"}
    allowed |= {"ok", "torn", "now", "later"}
    allowed |= {"ms", "s", "", "other", "INFO", "WARN", "ERROR2"}
    allowed |= {"edgeai.model.loaded", "edgeai.model.unloaded"}
    passed = {
        pair.value.string_value
        for resource in getattr(request, kind.DESCRIPTOR.fields[0].name)
        for pair in resource.resource.attributes
        if pair.key in ("service.name", MATCH_KEY)
    }
    for name, content in fields_of(left.message):
        assert name in LEAVING
        if isinstance(content, str) and not re.fullmatch(r"t1\.[\w-]{22}", content):
            assert content in allowed | passed, name
    assert left.items + sum(left.withheld.values()) == items_of(request)
