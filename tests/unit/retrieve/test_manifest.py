"""Manifests: what is believed, and one hostile example for each thing that is not."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from collectors.device import manifest as device_manifest
from collectors.device.manifest import SIGNED_PREFIX, Signer, envelope
from gateway.batch import DiveId
from gateway.errors import MalformedPayloadError, PayloadTooLargeError
from gateway.retrieve import manifest as gateway_manifest
from gateway.retrieve.dive import Command, Selector
from gateway.retrieve.manifest import DeviceKey, check_manifest, merkle_root, no_keys
from gateway.retrieve.messages import BODY_BYTES_MAX, EnvelopeBody, read
from gateway.retrieve.states import State

IDS = [f"{number:032x}" for number in range(4)]
DIGEST = "ab" * 32


def command(**change: Any) -> Command:
    fields: dict[str, Any] = {
        "request_id": "0001",
        "home": DiveId("d1"),
        "device": "cam",
        "kind": "manual",
        "selector": Selector(trace_ids=tuple(IDS[:3])),
        "priority": 1,
        "max_bytes": 1000,
        "not_after_ns": 10,
        "created_ns": 1,
        "changed_ns": 1,
        "state": State.DELIVERED,
    }
    return Command(**{**fields, **change})


def body(**change: Any) -> dict[str, Any]:
    """Make an honest manifest: two traces, one gone."""
    honest: dict[str, Any] = {
        "request_id": "0001",
        "device": "cam",
        "created_ns": 5,
        "matched": 2,
        "bytes": 300,
        "traces": [
            {"trace_id": IDS[0], "bytes": 100, "digest": DIGEST, "whole": True},
            {"trace_id": IDS[1], "bytes": 200, "digest": DIGEST, "whole": True},
        ],
        "absent": [{"trace_id": IDS[2], "reason": "evicted"}],
        "evicted": [row()],
        "horizon_ns": 3,
        "segments": [{"generation": 1, "hash": DIGEST}],
        "merkle_root": merkle_root([bytes.fromhex(DIGEST)] * 2).hex(),
        "complete": False,
    }
    return {**honest, **change}


def row(from_ns: int = 0, to_ns: int = (1 << 64) - 1) -> dict[str, Any]:
    return {
        "first_sequence": 1,
        "last_sequence": 9,
        "from_ns": from_ns,
        "to_ns": to_ns,
        "count": 9,
        "reason": "overwritten",
    }


def sent(manifest: dict[str, Any], signer: Signer | None = None) -> EnvelopeBody:
    wrapped = {"request_id": "0001", **envelope(json.dumps(manifest), signer)}
    return read(EnvelopeBody, json.dumps(wrapped).encode())


def test_an_honest_manifest_is_read() -> None:
    manifest = check_manifest(sent(body()), command(), no_keys)
    assert [one.bytes for one in manifest.traces] == [100, 200]
    assert [(one.device, one.reason) for one in manifest.absent] == [("cam", "evicted")]
    assert manifest.evicted[0].to_ns == (1 << 63) - 1
    assert (manifest.verdict, manifest.complete) == ("unsigned", False)


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "0002"},
        {"device": "other"},
        {"matched": 3},
        {"bytes": 301},
        {"bytes": -1},
        {"bytes": 1 << 70},
        {"merkle_root": "00" * 32},
        {"complete": True},
        {"absent": []},
        {"absent": [{"trace_id": IDS[0], "reason": "evicted"}]},
        {"absent": [{"trace_id": IDS[3], "reason": "evicted"}]},
        {"absent": [{"trace_id": IDS[2], "reason": "<script>"}]},
        {"traces": [{"trace_id": "zz", "bytes": 1, "digest": DIGEST, "whole": True}]},
        {"extra": 1},
        {"complete": 1},
        {"evicted": [row()] * 65},
        {"absent": [{"trace_id": IDS[2], "reason": "not_recorded"}], "complete": True},
    ],
)
def test_a_hostile_manifest_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedPayloadError):
        check_manifest(sent(body(**change)), command(), no_keys)


def test_a_manifest_over_the_cap_of_its_request_is_refused() -> None:
    with pytest.raises(MalformedPayloadError, match="cap"):
        check_manifest(sent(body()), command(max_bytes=299), no_keys)


def test_a_trace_that_may_lack_a_part_cannot_be_complete() -> None:
    traces = [{**one, "whole": False} for one in body()["traces"]]
    with pytest.raises(MalformedPayloadError):
        check_manifest(
            sent(body(traces=traces, absent=[], evicted=[], complete=True)),
            command(selector=Selector(trace_ids=tuple(IDS[:2]))),
            no_keys,
        )


@pytest.mark.parametrize(
    ("from_ns", "to_ns", "believed"), [(0, 9, True), (0, 10, False), (21, 30, True)]
)
def test_complete_over_a_window_needs_that_nothing_in_it_is_gone(
    from_ns: int, to_ns: int, believed: bool
) -> None:
    asked = command(selector=Selector(from_ns=from_ns, to_ns=to_ns))
    told = sent(body(absent=[], evicted=[row(10, 20)], complete=True))
    if believed:
        assert check_manifest(told, asked, no_keys).complete
    else:
        with pytest.raises(MalformedPayloadError, match="complete"):
            check_manifest(told, asked, no_keys)


def test_a_body_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(PayloadTooLargeError):
        read(EnvelopeBody, b" " * (BODY_BYTES_MAX + 1))


def test_ed25519_signatures_decide_and_key_ids_do_not() -> None:
    private = Ed25519PrivateKey.generate()
    signer = Signer(key_id="new", algorithm="ed25519", sign=private.sign)
    public = private.public_key().public_bytes_raw()
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()

    def verdict(*keys: DeviceKey) -> str:
        return check_manifest(sent(body(), signer), command(), lambda _: keys).verdict

    good = DeviceKey(key_id="renamed", algorithm="ed25519", key=public)
    wrong = DeviceKey(key_id="new", algorithm="ed25519", key=other)
    confused = DeviceKey(key_id="new", algorithm="hmac-sha256", key=public)
    assert verdict(good) == "verified"
    assert verdict(wrong, good) == "verified"
    assert verdict(wrong) == "bad-signature"
    assert verdict(confused) == "bad-signature"
    assert verdict() == "unknown-key"


def test_both_sides_sign_the_same_thing() -> None:
    assert gateway_manifest.SIGNED_PREFIX == SIGNED_PREFIX


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40))
def test_both_sides_have_the_same_merkle_root(digests: list[bytes]) -> None:
    assert merkle_root(digests) == device_manifest.merkle_root(digests)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=20), st.data())
def test_no_two_orders_share_a_root(digests: list[bytes], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(digests))
    assert (shuffled == digests) == (merkle_root(shuffled) == merkle_root(digests))
