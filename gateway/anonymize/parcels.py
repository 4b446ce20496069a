"""Build what may leave of metrics and logs, from classified fields only.

Law: every message that leaves is a new one, filled field by field under the declarations of one
contract; nothing of the input is copied as a whole, so that an unknown field has no way out. Parts
come in the order of the contracts, so that an item that stays says nothing by where it stood.
Complexity: Python objects per item; these signals are a fraction of the traces.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics

from gateway.anonymize.declared import (
    NOTHING_DECLARED,
    Declarations,
    declarations_of,
    select,
    unique,
)
from gateway.anonymize.logs import clean_record
from gateway.anonymize.metrics import maybe_metric, maybe_point, points_of
from gateway.batch import CleanPart, Parcel, Signal
from gateway.contract.plan import Plan
from gateway.contract.schema import STREAM_KEYS

# A part is encoded, framed and sent as one: far below the 4 MiB that stock receivers accept.
PART_ITEMS_MAX: Final = 2_048

# Rules under which metric points stay at the site.
NO_CONTRACT: Final = "no_contract"
UNDECLARED_METRIC: Final = "undeclared_metric"
UNDECLARED_DIMENSION: Final = "undeclared_dimension"
UNNAMED_STREAM: Final = "unnamed_stream"

Attributes = Mapping[str, AnyValue]
Metrics = list[tuple[Metric, list[Any]]]  # each without its points, and the points


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanParcel:
    """What may leave of one parcel. Units: `withheld` counts items by rule."""

    parts: tuple[CleanPart, ...]
    withheld: Mapping[str, int]


class ParcelBuilder:
    """The declarations of all contracts, in the order in which they are tried."""

    def __init__(self, plan: Plan, site: str, site_key: bytes) -> None:
        self._policy = plan.digest
        self._contracts = [declarations_of(each, site, site_key) for each in plan.contracts]
        self._match_keys = frozenset(key for each in plan.contracts for key in each.match)

    def build(self, parcel: Parcel) -> CleanParcel:
        """Make the parts of one parcel that may leave."""
        if parcel.signal is Signal.LOGS:
            return CleanParcel(parts=tuple(self._logs(parcel)), withheld={})
        withheld: Counter[str] = Counter()
        parts = tuple(self._metrics(parcel, withheld))
        return CleanParcel(parts=parts, withheld=withheld)

    def _logs(self, parcel: Parcel) -> Iterator[CleanPart]:
        for resource in ExportLogsServiceRequest.FromString(parcel.body).resource_logs:
            about = unique(resource.resource.attributes)
            chosen: dict[int, list[LogRecord]] = {}
            for scope in resource.scope_logs:
                around = (unique(scope.scope.attributes), about)
                of_scope = self._find(around)
                for record in scope.log_records:
                    own = unique(record.attributes)
                    index = self._find((own, *around), of_scope)
                    records = chosen.setdefault(index, [])
                    records.append(clean_record(record, own, self._declarations(index)))
            for index, records in sorted(chosen.items()):
                pairs = list(select(self._declarations(index).resource, about))
                for some in _slices(records):
                    made = ResourceLogs()
                    made.resource.attributes.extend(pairs)
                    made.scope_logs.add().log_records.extend(some)
                    yield self._part(parcel.signal, made, len(some))

    def _metrics(self, parcel: Parcel, withheld: Counter[str]) -> Iterator[CleanPart]:
        for resource in ExportMetricsServiceRequest.FromString(parcel.body).resource_metrics:
            about = unique(resource.resource.attributes)
            chosen: dict[int, Metrics] = {}
            for scope in resource.scope_metrics:
                around = (unique(scope.scope.attributes), about)
                of_scope = self._find(around)
                for metric in scope.metrics:
                    self._metric(metric, around, of_scope, chosen, withheld)
            for index, metrics in sorted(chosen.items()):
                pairs = list(select(self._declarations(index).resource, about))
                if not STREAM_KEYS & {pair.key for pair in pairs}:
                    # Without its name the series of this device would be one with another's.
                    withheld[UNNAMED_STREAM] += sum(len(points) for _, points in metrics)
                    continue
                for some in _gathered(metrics):
                    made = ResourceMetrics()
                    made.resource.attributes.extend(pairs)
                    scope_made = made.scope_metrics.add()
                    for empty, points in some:
                        metric = scope_made.metrics.add()
                        metric.CopyFrom(empty)  # of our own making
                        points_of(metric).extend(points)
                    items = sum(len(points) for _, points in some)
                    yield self._part(parcel.signal, made, items)

    def _metric(
        self,
        metric: Metric,
        around: Sequence[Attributes],
        of_scope: int,
        chosen: dict[int, Metrics],
        withheld: Counter[str],
    ) -> None:
        """Sort the points of one metric by contract, those that may not leave by rule."""
        made: dict[int, tuple[Metric, list[Any]]] = {}
        for point in points_of(metric):
            own = unique(point.attributes)
            index = self._find((own, *around), of_scope)
            if index < 0:
                withheld[NO_CONTRACT] += 1
                continue
            declared = self._declarations(index)
            if index not in made:
                empty = maybe_metric(metric, declared)
                if empty is None:
                    withheld[UNDECLARED_METRIC] += 1
                    continue
                made[index] = (empty, [])
            clean = maybe_point(metric, point, own, declared)
            if clean is None:
                # A series that lost a dimension would be one with its sisters, and wrong.
                withheld[UNDECLARED_DIMENSION] += 1
                continue
            made[index][1].append(clean)
        for index, pair in made.items():
            if pair[1]:
                chosen.setdefault(index, []).append(pair)

    def _find(self, levels: Sequence[Attributes], otherwise: int = -1) -> int:
        """Find the contract that the attributes match, those of the nearest level first.

        `otherwise` is the answer for the levels without the first, if that names no match key.
        """
        if otherwise >= 0 and not self._match_keys & levels[0].keys():
            return otherwise
        for index, each in enumerate(self._contracts):
            if all(_text(levels, key) == value for key, value in each.match.items()):
                return index
        return -1

    def _declarations(self, index: int) -> Declarations:
        return self._contracts[index] if index >= 0 else NOTHING_DECLARED

    def _part(self, signal: Signal, made: ResourceLogs | ResourceMetrics, items: int) -> CleanPart:
        return CleanPart(
            signal=signal, policy=self._policy, body=made.SerializeToString(), items=items
        )


def _text(levels: Sequence[Attributes], key: str) -> str | None:
    for attributes in levels:
        value = attributes.get(key)
        if value is not None and value.WhichOneof("value") == "string_value":
            return value.string_value
    return None


def _slices(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), PART_ITEMS_MAX):
        yield items[start : start + PART_ITEMS_MAX]


def _gathered(metrics: Metrics) -> Iterator[Metrics]:
    """Share metrics out to parts, those with many points to several."""
    part: Metrics = []
    room = PART_ITEMS_MAX
    for empty, points in metrics:
        start = 0
        while start < len(points):
            some = points[start : start + room]
            part.append((empty, some))
            start, room = start + len(some), room - len(some)
            if room == 0:
                yield part
                part, room = [], PART_ITEMS_MAX
    if part:
        yield part
