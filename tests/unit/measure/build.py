"""Plans and batches for the tests of measure and decide, made by official protobuf classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, Final

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from gateway.batch import API_IDENTITY, Batch, Parcel, Payload, Signal, Transport
from gateway.config.sections import SamplingSection
from gateway.contract.plan import Plan, compile_plan
from gateway.contract.schema import (
    Action,
    Contract,
    DriftRule,
    Indicator,
    Role,
    SamplingRule,
    SignalType,
    Slo,
)
from gateway.contract.schema import Signal as ContractSignal
from gateway.otlp.decode import decode
from gateway.otlp.events import Event, write
from gateway.tables import MISSING

SECOND_NS: Final = 1_000_000_000
# An instant on a full hour, so that slots of every length begin here.
START_NS: Final = 1_900_000_800 * SECOND_NS
DAY_S: Final = 86_400
TOLERANCE: Final = 0.25
VALUES: Final = ("ok", "cracked", "wet", "torn")


def signals() -> dict[str, ContractSignal]:
    """The signals of the example contract that are measured."""
    listed = [
        ContractSignal(
            name="confidence",
            attribute="edgeai.inference.confidence",
            type=SignalType.DOUBLE,
            role=Role.CONFIDENCE,
            range=(0.0, 1.0),
            export=Action.PASS,
        ),
        ContractSignal(
            name="class",
            attribute="edgeai.inference.class",
            type=SignalType.ENUM,
            role=Role.PREDICTION,
            values=VALUES,
            export=Action.PASS,
        ),
        ContractSignal(
            name="brightness",
            attribute="edgeai.input.brightness",
            type=SignalType.DOUBLE,
            role=Role.FEATURE,
            range=(0.0, 1.0),
            export=Action.PASS,
        ),
    ]
    return {signal.name: signal for signal in listed}


def success(objective: float = 0.999, window: float = 30 * DAY_S) -> Slo:
    """A success SLO."""
    return Slo(name="success", indicator=Indicator.SUCCESS, objective=objective, window=window)


def latency(threshold: float = 0.1, objective: float = 0.95) -> Slo:
    """A latency SLO."""
    return Slo(
        name="latency",
        indicator=Indicator.LATENCY,
        objective=objective,
        window=30 * DAY_S,
        threshold=threshold,
    )


def contract(model: str = "damage-net", **changes: Any) -> Contract:
    """A contract like the example's."""
    fields: dict[str, Any] = {
        "model": model,
        "match": {"edgeai.model.name": model},
        "owner": "vision@example.com",
        "purpose": "test",
        "expires": date(2040, 1, 1),
        "signals": signals(),
        "slos": (success(), latency()),
        # So wide that a baseline of a few thousand events is large enough to judge by.
        "drift": DriftRule(tolerance=TOLERANCE),
        "sampling": SamplingRule(),
        "digest": f"digest-{model}",
        "source": f"{model}.yaml",
    }
    return Contract(**{**fields, **changes})


def plan(*contracts: Contract, **sampling: Any) -> Plan:
    """A plan of the contracts, of one example contract when none is given."""
    return compile_plan(contracts or (contract(),), SamplingSection(**sampling))


def attribute(key: str, value: Any) -> KeyValue:
    """An official attribute of the value's kind."""
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, str):
        return KeyValue(key=key, value=AnyValue(string_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    return KeyValue(key=key, value=AnyValue(double_value=float(value)))


def span(
    trace: int,
    number: int = 1,
    *,
    end_ns: int = START_NS,
    duration_ns: int = 1_000_000,
    failed: bool = False,
    state: str = "",
    attributes: Mapping[str, Any] | None = None,
) -> Span:
    """One official span."""
    return Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name="inference",
        start_time_unix_nano=end_ns - duration_ns,
        end_time_unix_nano=end_ns,
        trace_state=state,
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET),
        attributes=[attribute(key, value) for key, value in (attributes or {}).items()],
    )


def request(spans: Sequence[Span], resource: Mapping[str, Any] | None = None) -> bytes:
    """One request body of one resource."""
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(
                    attributes=[attribute(key, value) for key, value in (resource or {}).items()]
                ),
                scope_spans=[ScopeSpans(spans=spans)],
            )
        ]
    ).SerializeToString()


def payload(body: bytes, *, arrival_ns: int = START_NS, identity: str = "") -> Payload:
    """A body as receive would hand it on."""
    return Payload(
        body=body,
        signal=Signal.TRACES,
        transport=Transport.GRPC,
        identity=identity,
        arrival_ns=arrival_ns,
        wire_bytes=len(body),
    )


def declared(arrival_ns: int, *made: Event, identity: str = API_IDENTITY) -> Parcel:
    """What a person declares, as the API puts it into the journal."""
    body = write(made)
    return Parcel(
        signal=Signal.LOGS,
        transport=Transport.HTTP,
        identity=identity,
        arrival_ns=arrival_ns,
        wire_bytes=len(body),
        held_bytes=len(body),
        items=len(made),
        body=body,
    )


def batch(the_plan: Plan, *payloads: Payload, sequence: int = 1) -> Batch:
    """A batch of the payloads."""
    return decode(payloads, the_plan.slot_keys, sequence)


# What `classed` writes: the classes of the example contract, and one that it does not list.
CLASS_TEXTS: Final = (*VALUES, "burnt")
NO_CLASS: Final = -1


def classed(one: Batch, the_plan: Plan, codes: np.ndarray[Any, np.dtype[np.int64]]) -> Batch:
    """A batch of a fleet with other classes. Shape: codes (spans,) of CLASS_TEXTS or NO_CLASS."""
    slot = the_plan.slot_of[signals()["class"].attribute]
    texts = [text.encode() for text in CLASS_TEXTS]
    sizes = np.array([len(text) for text in texts])
    starts = len(one.arena) + np.cumsum(sizes) - sizes
    slots, attributes = one.slots.copy(), one.span_attributes.copy()
    attributes["offset"][slots[slot]] = starts[codes]
    attributes["length"][slots[slot]] = sizes[codes]
    slots[slot][codes == NO_CLASS] = MISSING
    arena = np.concatenate((one.arena, np.frombuffer(b"".join(texts), dtype=np.uint8)))
    return replace(one, arena=arena, slots=slots, span_attributes=attributes)


class Fleet:
    """Makes batches of inferences with given confidences, quickly, from a seed."""

    def __init__(
        self,
        the_plan: Plan,
        *,
        model: str = "damage-net",
        version: str = "1.0",
        devices: int = 4,
        size: int = 200,
        seed: int = 1,
        resources: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self.size = size
        self._sequence = 0
        self.devices = devices
        bodies = []
        for device in range(devices):
            spans = [
                span(
                    1 + device * size + number,
                    1 + number,
                    attributes={
                        "edgeai.model.name": model,
                        "edgeai.inference.confidence": 0.5,
                        "edgeai.inference.class": "ok",
                        "edgeai.input.brightness": 0.5,
                    },
                )
                for number in range(size // devices)
            ]
            resource = {"device.id": f"device-{device}", "edgeai.model.version": version}
            resource |= resources[device] if resources else {}
            bodies.append(request(spans, resource))
        self._template = batch(the_plan, *(payload(body) for body in bodies))
        self._slots = {
            name: the_plan.slot_of[signal.attribute] for name, signal in signals().items()
        }

    def batch(
        self,
        arrival_ns: int,
        confidence: np.ndarray[Any, np.dtype[np.float64]],
        *,
        brightness: np.ndarray[Any, np.dtype[np.float64]] | None = None,
        failed: np.ndarray[Any, np.dtype[np.bool_]] | None = None,
        duration_ns: int = 1_000_000,
    ) -> Batch:
        """A batch that arrived at one instant; each row ended a moment before."""
        base = self._template
        spans = base.spans.copy()
        spans["trace_hi"] = self._rng.integers(0, 1 << 63, len(spans), dtype=np.uint64)
        spans["trace_lo"] = self._rng.integers(0, 1 << 63, len(spans), dtype=np.uint64)
        spans["end_ns"] = arrival_ns - 5_000_000
        spans["start_ns"] = spans["end_ns"] - np.uint64(duration_ns)
        if failed is not None:
            spans["status"] = np.where(failed, 2, 0)
        attributes = base.span_attributes.copy()
        attributes["number"][base.slots[self._slots["confidence"]]] = confidence.view(np.uint64)
        if brightness is not None:
            attributes["number"][base.slots[self._slots["brightness"]]] = brightness.view(np.uint64)
        requests = base.requests.copy()
        requests["arrival_ns"] = arrival_ns
        self._sequence += 1
        return Batch(
            **{
                **{name: getattr(base, name) for name in base.__slots__},
                "sequence": self._sequence,
                "arrival_ns": arrival_ns,
                "spans": spans,
                "span_attributes": attributes,
                "requests": requests,
            }
        )
