"""Declarations are read as they were written, and hostile ones are counted, never raised."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from gateway.batch import API_IDENTITY, Parcel, Payload, Signal, Transport
from gateway.measure import series
from gateway.otlp import events, keys, record
from gateway.otlp.events import (
    NOTHING,
    Acknowledgement,
    BatchJob,
    DeviceOutcome,
    Event,
    Events,
    Label,
    ModelLoad,
    Promotion,
    RolloutEnd,
    RolloutKind,
    RolloutOutcome,
    RolloutStart,
    Violation,
    read,
    write,
)
from gateway.otlp.screen import screen
from tests.parcels import NOW_NS, add_record, logs, parcel_of, put

TRACE: Final = bytes(range(1, 17))
START: Final = RolloutStart(at_ns=NOW_NS, rollout="r-1", model="damage-net", version="2.0.0")

_times = st.integers(1, NOW_NS)
_ids = st.from_regex(record.ID_ALLOWED, fullmatch=True)
_versions = st.from_regex(record.VERSION_ALLOWED, fullmatch=True)
_errors = st.from_regex(record.ERROR_ALLOWED, fullmatch=True)
_plain = st.text(min_size=1, max_size=60).filter(record.is_plain)
_scalars = (
    _plain | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
).filter(lambda value: not isinstance(value, float) or abs(value) != float("inf"))
_maybe_device = st.just("") | _plain


def _starts() -> st.SearchStrategy[RolloutStart]:
    made = st.builds(
        RolloutStart,
        at_ns=_times,
        device=_maybe_device,
        rollout=_ids,
        model=_plain,
        version=_versions,
        previous=st.just("") | _versions,
        allocation=st.none() | st.floats(0, 1, exclude_min=True),
        deadline_s=st.none() | st.integers(1, events.DEADLINE_S_MAX),
        devices=st.none() | st.integers(1, events.DEVICES_MAX),
        kind=st.sampled_from(RolloutKind),
    )
    return made.filter(lambda start: start.previous != start.version)


EVENTS: Final[st.SearchStrategy[Event]] = st.one_of(
    _starts(),
    st.builds(
        RolloutEnd,
        at_ns=_times,
        device=_maybe_device,
        rollout=_ids,
        outcome=st.sampled_from(RolloutOutcome),
    ),
    st.builds(DeviceOutcome, at_ns=_times, device=_plain, rollout=_ids, succeeded=st.booleans()),
    st.builds(
        Label,
        at_ns=_times,
        device=_maybe_device,
        trace_id=st.binary(min_size=16, max_size=16).filter(any),
        value=_scalars,
        model=st.just("") | _plain,
    ),
    st.builds(
        Violation,
        at_ns=_times,
        device=_maybe_device,
        model=_plain,
        version=st.just("") | _versions,
        error=_errors,
    ),
    st.builds(
        ModelLoad,
        at_ns=_times,
        device=_maybe_device,
        model=_plain,
        version=_versions,
        error=st.just("") | _errors,
    ),
    st.builds(Acknowledgement, at_ns=_times, device=_maybe_device, anomaly=_ids),
    st.builds(Promotion, at_ns=_times, device=_maybe_device, baseline=_ids),
    st.builds(
        BatchJob,
        at_ns=_times,
        device=_maybe_device,
        job=_ids,
        model=_plain,
        version=st.just("") | _versions,
        cost=st.floats(0, events.COST_MAX),
        currency=st.from_regex(record.CURRENCY_ALLOWED, fullmatch=True),
        inferences=st.integers(0, events.COUNT_MAX),
        duration_s=st.floats(0, events.DURATION_S_MAX),
    ),
)


def _parcel(body: bytes, identity: str = "") -> Parcel:
    return replace(parcel_of(ExportLogsServiceRequest(), body), identity=identity)


@given(given_events=st.lists(EVENTS, max_size=8), identity=st.sampled_from(["", API_IDENTITY]))
def test_what_was_written_is_read_after_the_screen(
    given_events: list[Event], identity: str
) -> None:
    payload = Payload(
        body=write(given_events),
        signal=Signal.LOGS,
        transport=Transport.HTTP,
        identity=identity,
        arrival_ns=NOW_NS,
        wire_bytes=1,
    )
    found = read(screen(payload).parcel)
    assert not found.unreadable
    kinds = {type(event) for event in given_events}
    for kind in kinds:
        assert [each for each in found if type(each) is kind] == [
            each for each in given_events if type(each) is kind
        ]
    assert len(list(found)) == len(given_events)


@given(body=st.binary(max_size=200), name=st.sampled_from(sorted(events.NAMES)))
def test_any_bytes_are_counted_and_never_raise(body: bytes, name: str) -> None:
    found = read(_parcel(body + name.encode()))
    assert isinstance(found, Events)


def _values() -> st.SearchStrategy[AnyValue]:
    return st.one_of(
        st.builds(AnyValue, string_value=st.text(max_size=300)),
        st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
        st.builds(AnyValue, double_value=st.floats()),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, bytes_value=st.binary(max_size=20)),
        st.just(AnyValue()),
    )


def _keys() -> Iterator[str]:
    for name, value in vars(keys).items():
        if name.isupper():
            yield str(value)


@given(
    name=st.sampled_from(sorted(events.NAMES)),
    pairs=st.lists(st.tuples(st.sampled_from(sorted(_keys())), _values()), max_size=12),
    trace_id=st.binary(max_size=20),
    identity=st.sampled_from(["", API_IDENTITY, "cam-1", "cam-2"]),
    at_ns=st.integers(0, 2**64 - 1),
)
def test_each_record_becomes_one_event_or_one_count(
    name: str, pairs: list[tuple[str, AnyValue]], trace_id: bytes, identity: str, at_ns: int
) -> None:
    request = logs(device=False)
    made = add_record(request, event_name=name, trace_id=trace_id, time_unix_nano=at_ns)
    for key, value in pairs:
        put(made, key, value)
    found = read(_parcel(request.SerializeToString(), identity))
    assert len(list(found)) + sum(found.unreadable.values()) == 1
    for event in found:
        assert 0 < event.at_ns <= NOW_NS + record.AHEAD_NS
        assert read(_parcel(write([event]))).unreadable == {}


@given(
    made=st.lists(EVENTS, min_size=1, max_size=3),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
)
def test_damaged_requests_never_raise(made: list[Event], flips: list[tuple[int, int]]) -> None:
    body = bytearray(write(made))
    for place, change in flips:
        body[place % len(body)] ^= change
    found = read(_parcel(bytes(body)))
    assert len(list(found)) + sum(found.unreadable.values()) <= len(made)


def test_ordinary_logs_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "ExportLogsServiceRequest", None)
    request = logs()
    add_record(request, event_name="edgeai.model.missing", body=AnyValue(string_value="edgeai."))
    assert read(parcel_of(request)) is NOTHING
    assert not NOTHING


# Each: attributes of a record that is whole, by event name.
WHOLE: Final[Mapping[str, Mapping[str, Any]]] = {
    "edgeai.rollout.start": {
        "edgeai.rollout.id": "r-1",
        "edgeai.model.name": "damage-net",
        "edgeai.model.version": "2.0.0",
    },
    "edgeai.rollout.end": {"edgeai.rollout.id": "r-1"},
    "edgeai.rollout.device": {
        "edgeai.rollout.id": "r-1",
        "edgeai.rollout.outcome": "failed",
        "device.id": "cam-1",
    },
    "edgeai.label": {"edgeai.trace.id": TRACE.hex(), "edgeai.label.value": "torn"},
    "edgeai.integrity.violation": {"edgeai.model.name": "damage-net", "error.type": "digest"},
    "edgeai.model.load": {"edgeai.model.name": "damage-net", "edgeai.model.version": "2.0.0"},
    "edgeai.anomaly.ack": {"edgeai.anomaly.id": "a-1"},
    "edgeai.baseline.promote": {"edgeai.baseline.id": "b-1"},
    "edgeai.device.dismiss": {"device.id": "cam-1"},
    "edgeai.batch.job": {
        "edgeai.batch.job.id": "job-1",
        "edgeai.model.name": "damage-net",
        "edgeai.batch.cost": 1.5,
        "edgeai.batch.currency": "EUR",
        "edgeai.batch.inferences": 1000,
        "edgeai.batch.duration_s": 60.0,
    },
}


def _heard(
    name: str,
    changes: Mapping[str, Any],
    *,
    identity: str = "",
    deployers: frozenset[str] = frozenset(),
) -> Events:
    request = logs(device=False)
    made = add_record(request, event_name=name)
    for key, value in ({**WHOLE[name], **changes}).items():
        if value is not None:
            put(made, key, value)
    return read(_parcel(request.SerializeToString(), identity), deployers)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_whole_record_is_one_event(name: str) -> None:
    found = _heard(name, {})
    assert len(list(found)) == 1
    assert not found.unreadable


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (name, key)
        for name, attributes in WHOLE.items()
        for key in attributes
        if (name, key) != ("edgeai.integrity.violation", "error.type")
    ],
)
def test_a_missing_attribute_is_counted(name: str, key: str) -> None:
    assert _heard(name, {key: None}).unreadable == {"missing_attribute": 1}


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("edgeai.rollout.start", {"edgeai.rollout.id": "r 1"}, "bad_id"),
        ("edgeai.rollout.start", {"edgeai.rollout.id": "r" * 129}, "bad_id"),
        ("edgeai.rollout.start", {"edgeai.rollout.id": ""}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.id": 7}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.model.version": "a b"}, "bad_version"),
        ("edgeai.rollout.start", {"edgeai.rollout.previous": "2.0.0"}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.allocation": 0.0}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.allocation": 1.01}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.allocation": -0.5}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.allocation": float("nan")}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.allocation": "half"}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.deadline_s": 0}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.devices": True}, "bad_value"),
        ("edgeai.rollout.start", {"edgeai.rollout.kind": "party"}, "bad_value"),
        ("edgeai.rollout.end", {"edgeai.rollout.outcome": "lost"}, "bad_value"),
        ("edgeai.rollout.device", {"edgeai.rollout.outcome": "maybe"}, "bad_value"),
        ("edgeai.label", {"edgeai.trace.id": "0" * 32}, "bad_id"),
        ("edgeai.label", {"edgeai.trace.id": "xyz"}, "bad_id"),
        ("edgeai.label", {"edgeai.label.value": float("inf")}, "bad_value"),
        ("edgeai.label", {"edgeai.label.value": b"torn"}, "bad_value"),
        ("edgeai.label", {"edgeai.label.value": "a\nb"}, "bad_value"),
        ("edgeai.label", {"edgeai.label.value": "x" * 257}, "bad_value"),
        ("edgeai.model.load", {"error.type": "no such file"}, "bad_value"),
        ("edgeai.batch.job", {"edgeai.batch.currency": "euro"}, "bad_value"),
        ("edgeai.batch.job", {"edgeai.batch.cost": -1.0}, "bad_value"),
        ("edgeai.batch.job", {"edgeai.batch.inferences": 1.5}, "bad_value"),
    ],
)
def test_a_bad_attribute_is_counted(name: str, changes: dict[str, Any], reason: str) -> None:
    found = _heard(name, changes)
    assert found.unreadable == {reason: 1}
    assert not list(found)


def test_an_attribute_that_stands_twice_is_none() -> None:
    request = logs(device=False)
    made = add_record(request, event_name="edgeai.rollout.end")
    put(put(made, "edgeai.rollout.id", "r-1"), "edgeai.rollout.id", "r-2")
    assert read(parcel_of(request)).unreadable == {"duplicate_attribute": 1}


def test_a_violation_is_told_whatever_it_is_called() -> None:
    found = _heard(
        "edgeai.integrity.violation", {"error.type": "no words", "edgeai.model.version": "a b"}
    )
    assert [(each.version, each.error) for each in found.violations] == [("", "_OTHER")]


def test_a_body_that_is_no_request_is_counted_once() -> None:
    assert read(_parcel(b"\xffedgeai.label")).unreadable == {"malformed": 1}


@pytest.mark.parametrize(
    "name",
    [
        *("edgeai.rollout.start", "edgeai.rollout.end", "edgeai.anomaly.ack"),
        *("edgeai.baseline.promote", "edgeai.batch.job", "edgeai.device.dismiss"),
    ],
)
def test_devices_may_not_declare_what_deployers_may(name: str) -> None:
    assert _heard(name, {}, identity="cam-1").unreadable == {"not_allowed": 1}
    assert list(_heard(name, {}, identity=API_IDENTITY))
    assert list(_heard(name, {}, identity="ci", deployers=frozenset({"ci"})))


def test_a_device_tells_its_own_outcome_only() -> None:
    name = "edgeai.rollout.device"
    assert _heard(name, {"device.id": "cam-1"}, identity="cam-2").unreadable == {"not_allowed": 1}
    assert _heard(name, {"device.id": None}, identity="cam-2").outcomes[0].device == "cam-2"
    assert _heard(name, {"device.id": "cam-2"}, identity="cam-2").outcomes[0].device == "cam-2"
    told = _heard(name, {}, identity="ci", deployers=frozenset({"ci"}))
    assert told.outcomes[0].device == "cam-1"


def test_labels_are_for_everybody_and_name_their_sender() -> None:
    found = _heard("edgeai.label", {"device.id": "cam-1"}, identity="cam-2")
    assert found.labels[0].device == "cam-2"
    assert _heard("edgeai.label", {"service.instance.id": "pod-1"}).labels[0].device == "pod-1"
    assert found.labels[0].halves == (
        int.from_bytes(TRACE[:8], "big"),
        int.from_bytes(TRACE[8:], "big"),
    )


def test_a_record_inherits_the_model_of_its_resource() -> None:
    request = logs(model="damage-net")
    made = add_record(request, event_name="edgeai.integrity.violation")
    put(made, "error.type", "digest")
    assert read(parcel_of(request)).violations[0].model == "damage-net"
    assert read(parcel_of(request)).violations[0].device == "cam-1"


@pytest.mark.parametrize(
    ("told", "observed", "expected"),
    [
        (5, 7, 5),
        (0, 7, 7),
        (0, 0, NOW_NS),
        (2**64 - 1, 0, NOW_NS + record.AHEAD_NS),
        (NOW_NS + 1, 0, NOW_NS + 1),
    ],
)
def test_the_time_is_the_senders_as_far_as_it_can_be(
    told: int, observed: int, expected: int
) -> None:
    request = logs()
    for name in ("edgeai.anomaly.ack", "edgeai.rollout.end"):
        made = add_record(
            request, event_name=name, time_unix_nano=told, observed_time_unix_nano=observed
        )
        put(put(made, "edgeai.anomaly.id", "a-1"), "edgeai.rollout.id", "r-1")
    found = read(parcel_of(request))
    assert found.acknowledgements[0].at_ns == expected
    # A rollout cannot begin or end ahead of time: what came before would be charged wrongly.
    if told > NOW_NS + record.AHEAD_NS:
        assert found.unreadable == {"bad_time": 1}
    else:
        assert found.ends[0].at_ns == expected


def test_records_past_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_MAX", 3)
    found = read(_parcel(write([START] * 5)))
    assert len(found.starts) == 3
    assert found.unreadable == {"too_many": 2}


def test_versions_have_the_form_that_series_have() -> None:
    assert record.VERSION_ALLOWED.pattern.encode() == series.VERSION_ALLOWED.pattern
