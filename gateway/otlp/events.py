"""Declarations in log records: rollouts, labels, violations, loads, dismissals, batch jobs.

Law: whatever the bytes are, nothing is raised, and each record with one of these event names
becomes either one event or one count under a reason of a closed list. Texts that may become labels
(ids, versions, currencies) are restricted in characters and length, because they leave the site.

A log request that has none of the names costs one search over its bytes; only one that may have
some is parsed. `write` makes the request that `read` reads, so that what a person declares goes
the way that devices' requests go: into the journal first.

Who may declare: everybody labels, loads, violations and the outcome of a device, an authenticated
device its own outcome only; rollouts, acknowledgements, promotions, dismissals and batch jobs only
senders without authentication at an open gateway, the gateway's own API, and the identities that
the site file lists as deployers.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, LogRecord

from gateway.batch import API_IDENTITY, Parcel
from gateway.otlp import keys
from gateway.otlp.declared import (
    NOTHING,
    Acknowledgement,
    BatchJob,
    DeviceOutcome,
    Dismissal,
    Event,
    Events,
    Label,
    ModelLoad,
    Promotion,
    RolloutEnd,
    RolloutKind,
    RolloutOutcome,
    RolloutStart,
    Scalar,
    Violation,
)
from gateway.otlp.record import Record, Unreadable, UnusableError, values_of

__all__ = [
    "NOTHING",
    "Acknowledgement",
    "BatchJob",
    "DeviceOutcome",
    "Dismissal",
    "Event",
    "Events",
    "Label",
    "ModelLoad",
    "Promotion",
    "RolloutEnd",
    "RolloutKind",
    "RolloutOutcome",
    "RolloutStart",
    "Unreadable",
    "Violation",
    "is_start_notice",
    "read",
    "start_notice",
    "write",
]

# Events of one parcel; a list of labels is the longest thing that anybody declares.
EVENTS_MAX: Final = 16_384
DEVICES_MAX: Final = 1_000_000
DEADLINE_S_MAX: Final = 90 * 86_400
# Counts and sums stay exact in a double, and far from the edge of int64.
COUNT_MAX: Final = 1 << 48
COST_MAX: Final = 1e12
DURATION_S_MAX: Final = 366 * 86_400.0
# What the semantic conventions call an error without a class.
_UNNAMED_ERROR: Final = "_OTHER"


def _start(record: Record) -> RolloutStart:
    allocation = record.number(keys.ALLOCATION, 1.0) if record.has(keys.ALLOCATION) else None
    if allocation == 0:
        raise UnusableError(Unreadable.BAD_VALUE)
    found = RolloutStart(
        at_ns=record.believed_ns,
        device=record.device,
        rollout=record.id(keys.ROLLOUT_ID),
        model=record.text(keys.MODEL),
        version=record.version(keys.VERSION),
        previous=record.version(keys.PREVIOUS, ""),
        allocation=allocation,
        deadline_s=record.whole(keys.DEADLINE_S, 1, DEADLINE_S_MAX)
        if record.has(keys.DEADLINE_S)
        else None,
        devices=record.whole(keys.DEVICES, 1, DEVICES_MAX) if record.has(keys.DEVICES) else None,
        kind=record.one_of(keys.KIND, RolloutKind, RolloutKind.DEPLOY),
    )
    if found.previous == found.version:
        raise UnusableError(Unreadable.BAD_VALUE)
    return found


def _end(record: Record) -> RolloutEnd:
    return RolloutEnd(
        at_ns=record.believed_ns,
        device=record.device,
        rollout=record.id(keys.ROLLOUT_ID),
        outcome=record.one_of(keys.OUTCOME, RolloutOutcome, RolloutOutcome.COMPLETED),
    )


def _outcome(record: Record, *, speaks_for_all: bool) -> DeviceOutcome:
    device = record.device
    if speaks_for_all:
        device = record.named_device or device
    elif record.own_device is not None and record.own_device != device:
        raise UnusableError(Unreadable.NOT_ALLOWED)
    if not device:
        raise UnusableError(Unreadable.MISSING)
    outcome = record.text(keys.OUTCOME)
    if outcome not in ("succeeded", "failed"):
        raise UnusableError(Unreadable.BAD_VALUE)
    return DeviceOutcome(
        at_ns=record.at_ns,
        device=device,
        rollout=record.id(keys.ROLLOUT_ID),
        succeeded=outcome == "succeeded",
    )


def _label(record: Record) -> Label:
    return Label(
        at_ns=record.at_ns,
        device=record.device,
        trace_id=record.trace_id,
        value=record.value(keys.LABEL_VALUE),
        model=record.text(keys.MODEL, ""),
    )


def _violation(record: Record) -> Violation:
    """Read a violation: it is told even when nobody could write down properly what it is."""
    version, error = "", _UNNAMED_ERROR
    with suppress(UnusableError):
        version = record.version(keys.VERSION)
    with suppress(UnusableError):
        error = record.error()
    return Violation(
        at_ns=record.at_ns,
        device=record.device,
        model=record.text(keys.MODEL),
        version=version,
        error=error,
    )


def _load(record: Record) -> ModelLoad:
    return ModelLoad(
        at_ns=record.at_ns,
        device=record.device,
        model=record.text(keys.MODEL),
        version=record.version(keys.VERSION),
        error=record.error(""),
    )


def _acknowledgement(record: Record) -> Acknowledgement:
    return Acknowledgement(
        at_ns=record.at_ns, device=record.device, anomaly=record.id(keys.ANOMALY_ID)
    )


def _promotion(record: Record) -> Promotion:
    return Promotion(at_ns=record.at_ns, device=record.device, baseline=record.id(keys.BASELINE_ID))


def _dismissal(record: Record) -> Dismissal:
    device = record.named_device
    if not device:
        raise UnusableError(Unreadable.MISSING)
    return Dismissal(at_ns=record.at_ns, device=device)


def _job(record: Record) -> BatchJob:
    return BatchJob(
        at_ns=record.at_ns,
        device=record.device,
        job=record.id(keys.JOB_ID),
        model=record.text(keys.MODEL),
        version=record.version(keys.VERSION, ""),
        cost=record.number(keys.COST, COST_MAX),
        currency=record.currency(),
        inferences=record.whole(keys.INFERENCES, 0, COUNT_MAX),
        duration_s=record.number(keys.DURATION_S, DURATION_S_MAX),
    )


_DEVICE_EVENT: Final = "edgeai.rollout.device"
# Names whose records change what a site is told or what it pays.
_DEPLOYERS_READ: Final[Mapping[str, Callable[[Record], Event]]] = {
    "edgeai.rollout.start": _start,
    "edgeai.rollout.end": _end,
    "edgeai.anomaly.ack": _acknowledgement,
    "edgeai.baseline.promote": _promotion,
    "edgeai.device.dismiss": _dismissal,
    "edgeai.batch.job": _job,
}
_ALL_READ: Final[Mapping[str, Callable[[Record], Event]]] = {
    "edgeai.label": _label,
    "edgeai.integrity.violation": _violation,
    "edgeai.model.load": _load,
}
NAMES: Final = frozenset({*_DEPLOYERS_READ, *_ALL_READ, _DEVICE_EVENT})
_ANY_NAME: Final = re.compile(
    b"edgeai\\.(?:" + b"|".join(re.escape(name[7:].encode()) for name in sorted(NAMES)) + b")"
)


def read(parcel: Parcel, deployers: Collection[str] = frozenset()) -> Events:
    """Read what a parcel of logs declares; `deployers` may declare what devices may not.

    Complexity: one search over the body, and a parse of the whole where it finds a name.
    """
    if _ANY_NAME.search(parcel.body) is None:
        return NOTHING
    unreadable: Counter[str] = Counter()
    found: dict[type[Any], list[Any]] = {}
    try:
        request = ExportLogsServiceRequest.FromString(parcel.body)
    except DecodeError:
        return Events(unreadable={Unreadable.MALFORMED.value: 1})
    speaks_for_all = parcel.identity in ("", API_IDENTITY) or parcel.identity in deployers
    count = 0
    for of_resource in request.resource_logs:
        resource: dict[str, Scalar | None] | None = None
        for scope in of_resource.scope_logs:
            for record in scope.log_records:
                if record.event_name not in NAMES:
                    continue
                count += 1
                if count > EVENTS_MAX:
                    unreadable[Unreadable.TOO_MANY] += 1
                    continue
                if resource is None:
                    resource = values_of(of_resource.resource.attributes)
                try:
                    event = _read_one(
                        record.event_name,
                        Record(parcel, resource, record),
                        speaks_for_all=speaks_for_all,
                    )
                except UnusableError as error:
                    unreadable[error.reason] += 1
                else:
                    found.setdefault(type(event), []).append(event)
    return Events(
        **{name: tuple(found.get(kind, ())) for name, kind in _FIELDS.items()},
        unreadable={str(reason): many for reason, many in unreadable.items()},
    )


def _read_one(name: str, record: Record, *, speaks_for_all: bool) -> Event:
    if name == _DEVICE_EVENT:
        return _outcome(record, speaks_for_all=speaks_for_all)
    if name in _ALL_READ:
        return _ALL_READ[name](record)
    if not speaks_for_all:
        raise UnusableError(Unreadable.NOT_ALLOWED)
    return _DEPLOYERS_READ[name](record)


_FIELDS: Final[Mapping[str, type[Any]]] = {
    "starts": RolloutStart,
    "ends": RolloutEnd,
    "outcomes": DeviceOutcome,
    "labels": Label,
    "violations": Violation,
    "loads": ModelLoad,
    "acknowledgements": Acknowledgement,
    "dismissals": Dismissal,
    "promotions": Promotion,
    "jobs": BatchJob,
}


def start_notice() -> bytes:
    """Encode a request of logs that says that the gateway listens again; it has no record.

    A pause of the gateway looks like silence of all devices, unless the journal tells it apart.
    """
    request = ExportLogsServiceRequest()
    attribute = request.resource_logs.add().resource.attributes.add(key=_START_KEY)
    attribute.value.bool_value = True
    return request.SerializeToString(deterministic=True)


def is_start_notice(parcel: Parcel) -> bool:
    """Tell whether a parcel is the gateway's own notice that it listens again."""
    return parcel.identity == API_IDENTITY and parcel.body == _START_NOTICE


def write(events: Iterable[Event]) -> bytes:
    """Encode a request of logs that `read` reads as these events.

    Shape: at_ns of each above 0 and below 2^64. Units: bytes of an ExportLogsServiceRequest.
    """
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for event in events:
        record = records.add(
            event_name=_NAME_OF[type(event)],
            time_unix_nano=event.at_ns,
            severity_number=SEVERITY_NUMBER_INFO,
        )
        if event.device:
            _put(record, keys.DEVICE_ID, event.device)
        if isinstance(event, Label):
            record.trace_id = event.trace_id
        for name, key in _KEYS_OF[type(event)].items():
            value = getattr(event, name)
            if name == "succeeded":
                _put(record, key, "succeeded" if value else "failed")
            elif value is not None and value != "":
                _put(record, key, value)
    return request.SerializeToString(deterministic=True)


def _put(record: LogRecord, key: str, value: Scalar) -> None:
    into = record.attributes.add(key=key).value
    if isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int):
        into.int_value = value
    elif isinstance(value, float):
        into.double_value = value
    else:
        into.string_value = value


_START_KEY: Final = "edgeai.gateway.start"
_START_NOTICE: Final = start_notice()
_NAME_OF: Final[Mapping[type[Any], str]] = {
    RolloutStart: "edgeai.rollout.start",
    RolloutEnd: "edgeai.rollout.end",
    DeviceOutcome: _DEVICE_EVENT,
    Label: "edgeai.label",
    Violation: "edgeai.integrity.violation",
    ModelLoad: "edgeai.model.load",
    Acknowledgement: "edgeai.anomaly.ack",
    Promotion: "edgeai.baseline.promote",
    Dismissal: "edgeai.device.dismiss",
    BatchJob: "edgeai.batch.job",
}
_KEYS_OF: Final[Mapping[type[Any], Mapping[str, str]]] = {
    RolloutStart: {
        "rollout": keys.ROLLOUT_ID,
        "model": keys.MODEL,
        "version": keys.VERSION,
        "previous": keys.PREVIOUS,
        "allocation": keys.ALLOCATION,
        "deadline_s": keys.DEADLINE_S,
        "devices": keys.DEVICES,
        "kind": keys.KIND,
    },
    RolloutEnd: {"rollout": keys.ROLLOUT_ID, "outcome": keys.OUTCOME},
    DeviceOutcome: {"rollout": keys.ROLLOUT_ID, "succeeded": keys.OUTCOME},
    Label: {"value": keys.LABEL_VALUE, "model": keys.MODEL},
    Violation: {"model": keys.MODEL, "version": keys.VERSION, "error": keys.ERROR_TYPE},
    ModelLoad: {"model": keys.MODEL, "version": keys.VERSION, "error": keys.ERROR_TYPE},
    Acknowledgement: {"anomaly": keys.ANOMALY_ID},
    Promotion: {"baseline": keys.BASELINE_ID},
    Dismissal: {},
    BatchJob: {
        "job": keys.JOB_ID,
        "model": keys.MODEL,
        "version": keys.VERSION,
        "cost": keys.COST,
        "currency": keys.CURRENCY,
        "inferences": keys.INFERENCES,
        "duration_s": keys.DURATION_S,
    },
}
