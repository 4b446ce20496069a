"""10,000 spans of a stock OpenTelemetry SDK: every number that the gateway tells is the same.

Law: received = forwarded + sampled_out + dropped + quarantined + pending at every scrape; the same
spans are in Parquet, and exactly the kept ones at the sink, also after SIGTERM and after kill -9.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import StatusCode, Tracer

from tests.flow.site import (
    RANDOM_RANGE,
    adjusted_count,
    randomness_of,
    scrape,
    settled,
    site_file,
    stored,
    threshold_of,
    wait_for_rows,
    watched,
)
from tests.servers import Gateway, gateway
from tests.sink import Sink, otlp_sink

pytestmark = pytest.mark.flow

SPANS: Final = 10_000
SPANS_MORE: Final = 1_000
SPANS_PER_STORY: Final = 5
# Five spans: an inference with two children, and a trace of two spans that no contract matches.
UNMATCHED_PER_STORY: Final = 2
FLUSH_MS: Final = 30_000
SIGMAS_MAX: Final = 6.0
SCRAPES_MIN: Final = 5


class SeededIds(IdGenerator):
    """Random ids that a run with the same seed makes again."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def generate_trace_id(self) -> int:
        return self._rng.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        return self._rng.getrandbits(64) or 1


def story(tracer: Tracer, rng: random.Random) -> None:
    """Make five spans: errors, low confidences and normal ones, and two of no contract."""
    with tracer.start_as_current_span("inference") as span:
        span.set_attribute("edgeai.model.name", "damage-net")
        span.set_attribute("edgeai.model.version", rng.choice(("3", "4")))
        span.set_attribute("edgeai.inference.confidence", rng.betavariate(8, 2))
        span.set_attribute("edgeai.inference.class", rng.choice(("ok", "cracked", "wet")))
        span.set_attribute("enduser.id", f"operator-{rng.randrange(5)}")
        span.set_attribute("edgeai.note", "left corner")
        if rng.random() < 0.01:
            span.set_status(StatusCode.ERROR, "no frame")
        for name in ("preprocess", "postprocess"):
            tracer.start_span(name).end()
    with tracer.start_as_current_span("heartbeat"):
        tracer.start_span("read sensor").end()


@contextmanager
def tracer_of(exporter: SpanExporter, device: str, seed: int) -> Iterator[Tracer]:
    """Set the SDK up as its documentation says; the queue takes everything."""
    provider = TracerProvider(
        resource=Resource.create({"service.name": "dock-camera", "device.id": device}),
        id_generator=SeededIds(seed),
        shutdown_on_exit=False,
    )
    processor = BatchSpanProcessor(
        exporter, max_queue_size=SPANS, max_export_batch_size=512, schedule_delay_millis=100
    )
    provider.add_span_processor(processor)
    try:
        yield provider.get_tracer("dock", "1.2.3")
        assert provider.force_flush(FLUSH_MS)
    finally:
        provider.shutdown()


def send(target: Gateway, spans: int, seed: int) -> None:
    """Send spans with both exporters at the same time, half each."""
    over_grpc = GrpcExporter(endpoint=f"http://{target.otlp_grpc}", insecure=True)
    over_http = HttpExporter(endpoint=f"http://{target.otlp_http}/v1/traces")
    rng = random.Random(seed)
    with (
        tracer_of(over_grpc, "cam-1", 2 * seed) as first,
        tracer_of(over_http, "cam-2", 2 * seed + 1) as second,
    ):
        for _ in range(spans // (2 * SPANS_PER_STORY)):
            story(first, rng)
            story(second, rng)


def check_metrics(target: Gateway, received: int) -> int:
    """Check the page once all is settled; returns how many spans were forwarded."""
    terms = settled(target, received)
    assert (terms.received, terms.dropped, terms.quarantined) == (received, 0, 0)
    assert terms.forwarded + terms.sampled_out == received
    page = scrape(target)
    for transport in ("grpc", "http"):
        assert page.total("weir_received_items_total", transport=transport) == received / 2
    inferences = received // SPANS_PER_STORY
    assert page.total("weir_inference_total", model="damage-net") == inferences
    assert page.total("weir_inference_duration_seconds_count", model="damage-net") == inferences
    return terms.forwarded


def check_rows(data_dir: Path, received: int, sink: Sink) -> None:
    """Compare Parquet, read by pyarrow alone, with what the sink got."""
    table = stored(data_dir)
    assert table.num_rows == received
    rows = table.select(["span_id", "trace_id", "kept", "threshold", "model"]).to_pylist()
    assert len({row["span_id"] for row in rows}) == received
    models = Counter(row["model"] for row in rows)
    assert models["damage-net"] == received // SPANS_PER_STORY

    spans = sink.spans()
    kept = {row["span_id"]: row for row in rows if row["kept"]}
    assert len(spans) == len(kept)
    assert {span.span_id for span in spans} == kept.keys()
    assert {span.trace_id for span in spans} == {row["trace_id"] for row in kept.values()}
    for row in rows:
        assert row["kept"] == (randomness_of(row["trace_id"]) >= row["threshold"])
    for span in spans:
        row = kept[span.span_id]
        assert (span.trace_id, threshold_of(span)) == (row["trace_id"], row["threshold"])
    check_adjusted_counts(spans, [(row["trace_id"], row["threshold"]) for row in rows])


def check_adjusted_counts(spans: Sequence[Span], rows: Sequence[tuple[bytes, int]]) -> None:
    """Check that the kept spans, by their weight, stand for all: 6 sigma of the estimator.

    Spans of one trace are kept together when they have one threshold, so the variance adds up over
    such groups: n^2 (1 - p) / p each.
    """
    groups = Counter(rows)
    variance = 0.0
    for (_, threshold), count in groups.items():
        probability = (RANDOM_RANGE - threshold) / RANDOM_RANGE
        variance += count**2 * (1 - probability) / probability
    estimate = sum(adjusted_count(threshold_of(span)) for span in spans)
    assert abs(estimate - len(rows)) <= SIGMAS_MAX * variance**0.5, (estimate, len(rows))
    assert min(threshold_of(span) for span in spans) == 0, "a rule keeps with certainty"
    assert len(spans) < len(rows) / 2, "sampling did nothing"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_every_number_agrees_exactly(tmp_path: Path, protocol: str, seed: int) -> None:
    with otlp_sink() as sink:
        endpoint = sink.http_url if protocol != "grpc" else f"http://{sink.grpc_address}"
        config = site_file(tmp_path, endpoint, protocol=protocol)
        with gateway(tmp_path, config=config, overrides=("store.segment_age=1s",)) as target:
            with watched(target) as watch:
                send(target, SPANS, seed)
            forwarded = check_metrics(target, SPANS)
            assert len(watch.accounts) >= SCRAPES_MIN
            wait_for_rows(target, SPANS)
            check_rows(target.data_dir, SPANS, sink)
            assert sink.span_count() == forwarded
        check_rows(target.data_dir, SPANS, sink)


def test_numbers_go_on_after_sigterm_and_after_a_kill(tmp_path: Path, seed: int) -> None:
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url)
        with gateway(tmp_path, config=config) as target, watched(target):
            send(target, SPANS_MORE, seed)
            forwarded = check_metrics(target, SPANS_MORE)
        check_rows(target.data_dir, SPANS_MORE, sink)

        with gateway(tmp_path, config=config) as killed, watched(killed):
            assert check_metrics(killed, SPANS_MORE) == forwarded == sink.span_count()
            send(killed, SPANS_MORE, seed + 1)
            forwarded = check_metrics(killed, 2 * SPANS_MORE)
            before = comparable(killed)
            killed.kill()

        # Nothing of the second part was sealed: all of it comes back from the journal.
        with gateway(tmp_path, config=config) as last, watched(last):
            assert check_metrics(last, 2 * SPANS_MORE) == forwarded == sink.span_count()
            assert comparable(last) == before
        check_rows(last.data_dir, 2 * SPANS_MORE, sink)


EXACT: Final = (
    "weir_received_items_total",
    "weir_forwarded_items_total",
    "weir_sampled_out_items_total",
    "weir_inference_total",
    "weir_inference_duration_seconds_bucket",
    "weir_slo_window_events",
)


def comparable(target: Gateway) -> dict[object, float]:
    """Pick the samples that depend on what was received and on nothing else."""
    return {key: value for key, value in scrape(target).samples.items() if key[0] in EXACT}
