"""Random requests of metrics and logs, and noise wherever nothing may leave.

Law: fields that leave are a closed list; every other one, a new one of the protocol too, is noise.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.parcels import Request, put
from tests.places import fill, fill_field, unknown_fields

# Every field that may leave. What is not here is noise to the tests below.
LEAVES: Final = {
    "collector.metrics.v1.ExportMetricsServiceRequest": "resource_metrics",
    "collector.logs.v1.ExportLogsServiceRequest": "resource_logs",
    "resource.v1.Resource": "attributes",
    "common.v1.KeyValue": "key value",
    "common.v1.AnyValue": "string_value bool_value int_value double_value",
    "logs.v1.ResourceLogs": "resource scope_logs",
    "logs.v1.ScopeLogs": "log_records",
    "logs.v1.LogRecord": "time_unix_nano observed_time_unix_nano severity_number severity_text "
    "attributes flags trace_id span_id event_name",
    "metrics.v1.ResourceMetrics": "resource scope_metrics",
    "metrics.v1.ScopeMetrics": "metrics",
    "metrics.v1.Metric": "name unit gauge sum histogram exponential_histogram summary",
    "metrics.v1.Gauge": "data_points",
    "metrics.v1.Sum": "data_points aggregation_temporality is_monotonic",
    "metrics.v1.Histogram": "data_points aggregation_temporality",
    "metrics.v1.ExponentialHistogram": "data_points aggregation_temporality",
    "metrics.v1.Summary": "data_points",
    "metrics.v1.NumberDataPoint": "attributes start_time_unix_nano time_unix_nano as_double as_int "
    "flags",
    "metrics.v1.HistogramDataPoint": "attributes start_time_unix_nano time_unix_nano count sum "
    "bucket_counts explicit_bounds flags",
    "metrics.v1.ExponentialHistogramDataPoint": "attributes start_time_unix_nano time_unix_nano "
    "count sum scale zero_count positive negative flags zero_threshold",
    "metrics.v1.ExponentialHistogramDataPoint.Buckets": "offset bucket_counts",
    "metrics.v1.SummaryDataPoint": "attributes start_time_unix_nano time_unix_nano count sum "
    "quantile_values flags",
    "metrics.v1.SummaryDataPoint.ValueAtQuantile": "quantile value",
}
LEAVING: Final = {
    f"opentelemetry.proto.{message}.{field}"
    for message, fields in LEAVES.items()
    for field in fields.split()
}
PREFIX: Final = "opentelemetry.proto."
MATCH_KEY: Final = "edgeai.model.name"
DECLARED_KEYS: Final = (
    *("score", "class", "count", "flag", "label", "enduser.id", "note", "urgency"),
    *("device.id", "service.name", "host.name", MATCH_KEY),
)
WORDS: Final = {
    "key": (*DECLARED_KEYS, *DECLARED_KEYS, "undeclared"),
    "string_value": ("damage-net", "triage-net", "ok", "torn", "now", "cam-1", "t1.forged"),
    "name": ("latency", "latency", "latency", "queue", "undeclared"),
    "unit": ("ms", "ms", "s", ""),
    "severity_text": ("INFO", "warn", "Error2", "patient 7 died"),
    "event_name": ("edgeai.model.loaded", "edgeai.model.unloaded", "patient.died"),
}


# Values that fit their declaration, and one each that does not.
FITTING: Final[dict[str, tuple[Any, ...]]] = {
    "score": (0.5, 0.25, 1, 7.5),
    "class": ("ok", "torn", "unlisted"),
    "count": (1, 42, 100, 101),
    "flag": (True, False, "yes"),
    "label": ("parcel 7", 7, 0.5),
    "enduser.id": ("operator-9", -7, b"x"),
    "note": ("called the patient",),
    "urgency": ("now", "later", 1),
}


# --- requests -------------------------------------------------------------------------------------


def any_request(
    kind: type[Any], rng: random.Random, *, only_resources_match: bool = False
) -> Request:
    """Fill a request at random; of most resources and items something may leave."""
    request: Request = kind()
    fill(request, rng, WORDS)
    root = kind.DESCRIPTOR.fields[0].name
    for resource in (*getattr(request, root), getattr(request, root).add()):
        if rng.random() < 0.8:
            del resource.resource.attributes[:]
            put(resource.resource, "device.id", f"cam-{rng.randrange(3)}")
            put(resource.resource, "service.name", "dock")
            put(resource.resource, MATCH_KEY, rng.choice(("damage-net", "triage-net", "x")))
        scope_field = resource.DESCRIPTOR.fields[1].name
        for scope in (*getattr(resource, scope_field), getattr(resource, scope_field).add()):
            if only_resources_match:
                scope.ClearField("scope")
            _fill_scope(scope, rng, only_resources_match)
    return request


def _fill_scope(scope: Any, rng: random.Random, only_resources_match: bool) -> None:
    fields = scope.DESCRIPTOR.fields_by_name
    for _ in range(3):
        fill_field(scope, fields.get("log_records") or fields["metrics"], rng, WORDS)
    for metric in scope.metrics if "metrics" in fields else ():
        if rng.random() < 0.7:
            metric.name, metric.unit = rng.choice((("latency", "ms"), ("queue", "")))
    for item in items_of_scope(scope):
        if rng.random() < 0.7:
            del item.attributes[:]
            for key in rng.sample(sorted(FITTING), rng.randrange(4)):
                put(item, key, rng.choice(FITTING[key]))
        if only_resources_match:
            kept = [pair for pair in item.attributes if pair.key != MATCH_KEY]
            del item.attributes[:]
            item.attributes.extend(kept)


def items_of_scope(scope: Any) -> Iterator[Any]:
    """Walk the log records or data points of a scope."""
    if "log_records" in scope.DESCRIPTOR.fields_by_name:
        yield from scope.log_records
        return
    for metric in scope.metrics:
        kind = metric.WhichOneof("data")
        yield from getattr(metric, kind).data_points if kind else ()


# --- noise ----------------------------------------------------------------------------------------


def scramble(message: Any, rng: random.Random) -> None:
    """Change everything that no rule names, in count, order and size too."""
    message.MergeFromString(unknown_fields(rng.randbytes(16)))
    owner = message.DESCRIPTOR.full_name.removeprefix(PREFIX)
    for field in message.DESCRIPTOR.fields:
        if field.name == "scope":
            _scramble_scope(message, rng)
        elif field.name == "attributes":
            _scramble_attributes(message, rng, counted=owner.endswith("DataPoint"))
        elif field.full_name not in LEAVING:
            message.ClearField(field.name)
            if field.containing_oneof is None or len(field.containing_oneof.fields) == 1:
                fill_field(message, field, rng, WORDS)
        elif field.message_type is not None and field.is_repeated:
            for each in getattr(message, field.name):
                scramble(each, rng)
        elif field.message_type is not None and message.HasField(field.name):
            scramble(getattr(message, field.name), rng)
    noise = _NOISE.get(owner)
    if noise is not None:
        noise(message, rng)


def _scramble_scope(owner: Any, rng: random.Random) -> None:
    kept = [pair for pair in owner.scope.attributes if pair.key == MATCH_KEY]
    owner.ClearField("scope")
    fill(owner.scope, rng, {})
    del owner.scope.attributes[:]
    owner.scope.attributes.extend(kept)
    _scramble_attributes(owner.scope, rng, counted=False)


def _scramble_attributes(owner: Any, rng: random.Random, *, counted: bool) -> None:
    """Change undeclared attributes; a point stays for one, so it keeps as many as it has."""
    known = [pair for pair in owner.attributes if pair.key in DECLARED_KEYS]
    strange = len(owner.attributes) - len(known) if counted else rng.randrange(3)
    made = [type(owner)().attributes.add() for _ in range(strange)]
    for pair in made:
        fill(pair, rng, {})
        pair.key = f"undeclared {rng.getrandbits(64):x}"
    for pair in known:
        _scramble_value(pair, rng)
    if not counted:  # which one comes first decides nothing
        rng.shuffle(known)
    del owner.attributes[:]
    owner.attributes.extend([*made, *known] if rng.random() < 0.5 else [*known, *made])


def _scramble_value(pair: Any, rng: random.Random) -> None:
    kind = pair.value.WhichOneof("value")
    if kind in ("bytes_value", "array_value", "kvlist_value"):
        pair.value.Clear()
        pair.value.bytes_value = rng.randbytes(rng.randrange(30))
    elif kind == "double_value" and not 0 <= pair.value.double_value <= 1:
        pair.value.double_value = rng.choice((7.5, -1.0, 1e9))
    elif pair.key == "note":
        pair.value.string_value = f"noise {rng.getrandbits(64):x}"


def _metric_noise(metric: Any, rng: random.Random) -> None:
    if metric.name not in ("latency", "queue"):
        metric.Clear()
        fill(metric, rng, {})
        metric.name = f"undeclared {rng.getrandbits(64):x}"


def _record_noise(record: Any, rng: random.Random) -> None:
    record.flags |= rng.getrandbits(24) << 8
    if record.severity_text.upper() not in ("INFO", "WARN", "ERROR2"):
        record.severity_text = rng.choice(("", "patient 9 lives"))
    if record.event_name and not record.event_name.startswith("edgeai.model."):
        record.event_name = f"undeclared {rng.getrandbits(64):x}"
    if len(record.trace_id) != 16 or not any(record.trace_id):
        record.trace_id = rng.choice((b"", bytes(16), rng.randbytes(15)))
        record.span_id = rng.randbytes(8)
    elif len(record.span_id) != 8 or not any(record.span_id):
        record.span_id = rng.choice((b"", bytes(8), rng.randbytes(9)))


def _point_noise(point: Any, rng: random.Random) -> None:
    point.flags |= rng.getrandbits(31) << 1


def _quantile_noise(point: Any, rng: random.Random) -> None:
    _point_noise(point, rng)
    point.quantile_values.add(quantile=1.0, value=rng.random())


_NOISE: Final[dict[str, Callable[[Any, random.Random], None]]] = {
    "metrics.v1.Metric": _metric_noise,
    "metrics.v1.NumberDataPoint": _point_noise,
    "metrics.v1.HistogramDataPoint": _point_noise,
    "metrics.v1.ExponentialHistogramDataPoint": _point_noise,
    "metrics.v1.SummaryDataPoint": _quantile_noise,
    "logs.v1.LogRecord": _record_noise,
}
