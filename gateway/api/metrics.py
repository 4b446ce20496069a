"""`/metrics`: Prometheus text or OpenMetrics, rendered from snapshots.

Law: only metrics and labels of the catalogue are written, and every one of it is: a series whose
label values are all known stands at 0 before its first event. Bucket edges are written as floats.
Exemplars go out in OpenMetrics only.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, product
from typing import Any

from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as ClientExemplar
from prometheus_client.samples import Timestamp

from gateway.api.measurements import measured, rolled_out
from gateway.api.sources import Check, Histogram, Sample, Sources
from gateway.vitals import VITALS, Vital, VitalType


class UnknownVitalError(LookupError):
    """A sample's name or labels are not in the catalogue: a mistake in the program."""


def _label_values(vital: Vital, sample: Sample) -> tuple[str, ...]:
    if set(sample.labels) != set(vital.labels):
        raise UnknownVitalError(f"{sample.name} has the labels {vital.labels}")
    return tuple(sample.labels[name] for name in vital.labels)


_Bucket = tuple[str, float] | tuple[str, float, ClientExemplar]


def _buckets(histogram: Histogram) -> list[_Bucket]:
    """Make cumulative buckets."""
    assert len(histogram.counts) == len(histogram.edges) + 1
    exemplars: Sequence[Any] = histogram.exemplars or [None] * len(histogram.counts)
    total = 0
    out: list[_Bucket] = []
    for edge, count, found in zip(
        (*histogram.edges, math.inf), histogram.counts, exemplars, strict=True
    ):
        total += count
        name = "+Inf" if math.isinf(edge) else repr(float(edge))
        if found is None:
            out.append((name, float(total)))
            continue
        seconds, rest = divmod(found.time_s, 1.0)
        time = Timestamp(seconds, int(rest * 1e9))
        labels = {"trace_id": found.trace_id}
        out.append((name, float(total), ClientExemplar(labels, found.value, time)))
    return out


def _family(vital: Vital, samples: Sequence[Sample]) -> Metric:
    """Make one metric family with its zeros."""
    names = list(vital.labels)
    values = {_label_values(vital, sample): sample.value for sample in samples}
    if vital.type is VitalType.HISTOGRAM:
        histograms = HistogramMetricFamily(vital.name, vital.help, labels=names)
        for labels, value in values.items():
            assert isinstance(value, Histogram)
            histograms.add_metric(labels, _buckets(value), value.sum)
        return histograms
    if vital.type is VitalType.INFO:
        info = InfoMetricFamily(vital.name.removesuffix("_info"), vital.help)
        for labels in values:
            info.add_metric([], dict(zip(names, labels, strict=True)))
        return info
    if set(vital.known) == set(vital.labels):
        for labels in product(*(vital.known[name] for name in names)):
            values.setdefault(labels, 0.0)
    kind = CounterMetricFamily if vital.type is VitalType.COUNTER else GaugeMetricFamily
    family = kind(vital.name, vital.help, labels=names)
    for labels, value in values.items():
        assert not isinstance(value, Histogram)
        family.add_metric(labels, float(value))
    return family


def readiness(checks: Iterable[Check]) -> Iterator[Sample]:
    """Read the readiness checks as metrics."""
    for check in checks:
        yield Sample(name="weir_ready", labels={"check": check.check}, value=float(check.ok))


class _Snapshot(Collector):
    """Samples that were read once, in the form that the exposition functions walk over."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        by_name: dict[str, list[Sample]] = {name: [] for name in VITALS}
        for sample in samples:
            if sample.name not in by_name:
                raise UnknownVitalError(f"{sample.name} is not in the catalogue")
            by_name[sample.name].append(sample)
        self._families = [_family(VITALS[name], found) for name, found in by_name.items()]

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(samples: Iterable[Sample], accept: str) -> tuple[bytes, str]:
    """Write all metrics in the format that a scraper asked for; returns body and content type.

    Raises: UnknownVitalError.
    """
    encode: Callable[[Any], bytes]
    encode, content_type = exposition.choose_encoder(accept)
    return encode(_Snapshot(samples)), content_type


async def read(sources: Sources) -> Iterable[Sample]:
    """Read every metric of the gateway at this moment, the accounts before the measurements.

    What is made of the measurements is made while it is iterated over, in any thread.
    """
    accounts = sources.samples()
    found = await sources.measure()
    # It waits for the lock under which another page's snapshot may just be made.
    rollouts = await asyncio.to_thread(sources.declarations.rollouts)
    return chain(accounts, measured(found), rolled_out(rollouts), readiness(sources.readiness()))
