"""The schema walker and the official protobuf classes see the same requests in the same way."""

import json
import random
from contextlib import suppress

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Signal
from gateway.errors import MalformedPayloadError
from gateway.otlp.limits import DEFAULT_LIMITS
from gateway.otlp.schemas import REQUESTS, schema_of
from gateway.otlp.wire import Screened, screen, transcode
from tests import otlp_json
from tests.signals import DEVICE, count, draw, plain, plant, sift

# What screening refuses although protobuf takes it, on purpose (see wire.pyx).
STRICTER = (
    "groups are not part of OTLP",
    "a message that may occur once is repeated",
    "two members of one oneof are present",
    "dictionary indexes belong to profiles",
    "attribute values are nested too deeply",
)
SIGNALS = st.sampled_from(Signal)
RANDOMS = st.randoms(use_true_random=False)
DEVICES = st.sampled_from(["", DEVICE])


def _screen(signal: Signal, body: bytes, device: str = "") -> Screened:
    return screen(schema_of(signal), body, limits=DEFAULT_LIMITS, device=device.encode())


@given(RANDOMS, SIGNALS)
def test_legal_request_is_taken_as_it_is(rng: random.Random, signal: Signal) -> None:
    request = draw(rng, signal, legal=True)
    body = request.SerializeToString()
    found = _screen(signal, body)
    assert found.body is body
    assert found == Screened(body, count(request), 0, "")


@given(RANDOMS, SIGNALS, DEVICES)
def test_exactly_the_illegal_items_go(rng: random.Random, signal: Signal, device: str) -> None:
    request = draw(rng, signal, marked=True)
    items = count(request)
    found = _screen(signal, plant(request.SerializeToString()), device)
    before = plain(request)
    gone = sift(request, device)
    assert plain(REQUESTS[signal].FromString(found.body)) == plain(request)
    assert (found.accepted, found.rejected) == (items - gone, gone)
    assert bool(found.reason) == bool(gone)
    # What has been screened passes again, untouched.
    if plain(request) != before:
        assert _screen(signal, found.body, device).body is found.body


def agree(signal: Signal, body: bytes, device: str = "") -> bool:
    """Check one hostile body against the oracle; True when it was taken."""
    official = None
    with suppress(DecodeError):
        official = REQUESTS[signal].FromString(body)
    refused, found = None, None
    try:
        found = _screen(signal, body, device)
    except MalformedPayloadError as error:
        refused = error
    if refused is not None or found is None:
        assert official is None or str(refused).startswith(STRICTER), (refused, body.hex())
        assert refused is not None
        assert 0 <= refused.offset <= len(body)
        return False
    taken = REQUESTS[signal].FromString(found.body)
    assert count(taken) == found.accepted, body.hex()
    if official is None:
        # Only text that is not UTF-8 stands between protobuf and a body that is taken.
        assert found.body is not body, body.hex()
        assert not found.rejected or "UTF-8" in found.reason or device or "id" in found.reason
        return True
    items = count(official)
    gone = sift(official, device)
    assert (found.accepted, found.rejected) == (items - gone, gone), body.hex()
    assert plain(taken) == plain(official), body.hex()
    return True


@given(RANDOMS, SIGNALS, DEVICES)
def test_truncated_request_is_read_alike(rng: random.Random, signal: Signal, device: str) -> None:
    body = draw(rng, signal).SerializeToString()
    agree(signal, body[: rng.randint(0, len(body))], device)


@given(st.binary(max_size=64), SIGNALS)
def test_random_bytes_are_read_alike(body: bytes, signal: Signal) -> None:
    agree(signal, body)


@given(RANDOMS, SIGNALS, st.booleans())
def test_json_becomes_the_message_it_stands_for(
    rng: random.Random, signal: Signal, ascii_only: bool
) -> None:
    request = draw(rng, signal)
    text = json.dumps(otlp_json.to_plain(request), ensure_ascii=ascii_only).encode()
    body, ignored = transcode(schema_of(signal), text, limits=DEFAULT_LIMITS)
    assert ignored == 0
    assert plain(REQUESTS[signal].FromString(body)) == plain(request)
    # Members stand in the order of the fields here, so that the bytes have one form.
    assert body == request.SerializeToString()
    official, _ = otlp_json.read(text, REQUESTS[signal])
    assert plain(official) == plain(request)


def agree_on_json(signal: Signal, text: bytes) -> bool:
    """Check one hostile text against the oracle; True when it was taken."""
    official, skipped = None, 0
    with suppress(otlp_json.RefusedError):
        official, skipped = otlp_json.read(text, REQUESTS[signal])
    refused = None
    body, ignored = b"", 0
    try:
        body, ignored = transcode(schema_of(signal), text, limits=DEFAULT_LIMITS)
    except MalformedPayloadError as error:
        refused = error
    if refused is not None:
        assert official is None, (refused, text)
        assert 0 <= refused.offset <= len(text)
        return False
    assert official is not None, text
    assert plain(REQUESTS[signal].FromString(body)) == plain(official), text
    assert len(body) == len(official.SerializeToString()), "not in its shortest form"
    assert ignored == skipped, text
    return True


@given(
    st.sampled_from(["doubleValue", "intValue", "boolValue", "stringValue", "bytesValue", "x"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=6,
    ),
    st.booleans(),
)
def test_any_json_value_is_judged_alike(name: str, value: object, quoted: bool) -> None:
    written = json.dumps(json.dumps(value) if quoted else value)
    agree_on_json(
        Signal.LOGS,
        f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"{name}":{written}}}}}]}}]}}]}}'.encode(
            "utf-8", "surrogatepass"
        ),
    )


@given(st.from_regex(r"-?[0-9]{1,24}(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,4})?", fullmatch=True))
def test_any_number_is_judged_alike(number: str) -> None:
    for field in ("asDouble", "asInt", "flags", "timeUnixNano"):
        agree_on_json(
            Signal.METRICS,
            b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{"%s":%s}]}}]}]}]}'
            % (field.encode(), number.encode()),
        )
