"""A call is signed as Standard Webhooks says, and a receiver finds every change."""

import base64
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidConfigError
from gateway.forward.signing import (
    KEY_BYTES_MAX,
    KEY_BYTES_MIN,
    SIGNATURES_MAX,
    TOLERANCE_S,
    parse_key,
    read_key,
    sign,
    verify,
)
from tests.process import ROOT
from tests.unit.forward import receiver

# The vector that the libraries of Standard Webhooks are tested with.
SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CALL_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP_S = 1_614_265_330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

keys = st.binary(min_size=KEY_BYTES_MIN, max_size=KEY_BYTES_MAX)
ids = st.text("0123456789abcdef", min_size=1, max_size=32)


def headers_of(key: bytes, call_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """Make the headers of a call."""
    return {
        "webhook-id": call_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": sign(key, call_id=call_id, timestamp_s=timestamp_s, body=body),
    }


def test_the_published_vector_is_signed_and_verified() -> None:
    key = parse_key(SECRET)
    assert sign(key, call_id=CALL_ID, timestamp_s=TIMESTAMP_S, body=BODY) == SIGNATURE
    headers = headers_of(key, CALL_ID, TIMESTAMP_S, BODY)
    assert verify(key, headers, BODY, now_s=TIMESTAMP_S + 1.5)


@given(
    key=keys, call_id=ids, body=st.binary(max_size=200), at=st.integers(0, 2**35), data=st.data()
)
def test_any_change_of_a_call_is_found(
    key: bytes, call_id: str, body: bytes, at: int, data: st.DataObject
) -> None:
    headers = headers_of(key, call_id, at, body)
    assert verify(key, headers, body, now_s=at)
    other = data.draw(st.binary(max_size=200).filter(lambda each: each != body))
    assert not verify(key, headers, other, now_s=at)
    stranger = data.draw(keys.filter(lambda each: each != key))
    assert not verify(stranger, headers, body, now_s=at)
    renamed = data.draw(ids.filter(lambda each: each != call_id))
    assert not verify(key, {**headers, "webhook-id": renamed}, body, now_s=at)
    moved = at + data.draw(st.integers(1, TOLERANCE_S))
    assert not verify(key, {**headers, "webhook-timestamp": str(moved)}, body, now_s=at)
    gone = data.draw(st.sampled_from(sorted(headers)))
    assert not verify(key, {k: v for k, v in headers.items() if k != gone}, body, now_s=at)


def test_a_boundary_between_id_timestamp_and_body_cannot_be_moved() -> None:
    key = parse_key(SECRET)
    headers = headers_of(key, "a", 1_000, b"2.x")
    moved = {**headers, "webhook-id": "a.1000"}
    assert not verify(key, moved, b"x", now_s=1_000)


@pytest.mark.parametrize(
    ("late_s", "fits"), [(300, True), (301, False), (-300, True), (-301, False)]
)
def test_an_old_or_early_call_is_refused(late_s: int, fits: bool) -> None:
    key = parse_key(SECRET)
    headers = headers_of(key, CALL_ID, TIMESTAMP_S, BODY)
    assert verify(key, headers, BODY, now_s=TIMESTAMP_S + late_s) is fits


@pytest.mark.parametrize(
    "timestamp", ["", "-1", "1e9", "161426533.0", "\u0661", " 1614265330", "9" * 13]
)
def test_a_timestamp_that_is_none_is_refused(timestamp: str) -> None:
    key = parse_key(SECRET)
    headers = headers_of(key, CALL_ID, TIMESTAMP_S, BODY) | {"webhook-timestamp": timestamp}
    assert not verify(key, headers, BODY, now_s=TIMESTAMP_S)


def test_one_of_several_signatures_is_enough_and_their_number_is_bounded() -> None:
    key, other = parse_key(SECRET), bytes(32)
    headers = headers_of(key, CALL_ID, TIMESTAMP_S, BODY)
    wrong = sign(other, call_id=CALL_ID, timestamp_s=TIMESTAMP_S, body=BODY)
    rotated = headers | {"webhook-signature": f"v1a,abcd {wrong} {SIGNATURE}"}
    assert verify(key, rotated, BODY, now_s=TIMESTAMP_S)
    bare = headers | {"webhook-signature": SIGNATURE.removeprefix("v1,")}
    assert not verify(key, bare, BODY, now_s=TIMESTAMP_S)
    flooded = headers | {"webhook-signature": " ".join([wrong] * SIGNATURES_MAX + [SIGNATURE])}
    assert not verify(key, flooded, BODY, now_s=TIMESTAMP_S)
    odd = headers | {"webhook-signature": "v1,\udc80é", "webhook-id": "\udc80"}
    assert not verify(key, odd, BODY, now_s=TIMESTAMP_S)


def test_the_receiver_in_the_documentation_takes_what_is_signed_and_nothing_else() -> None:
    text = (ROOT / "docs" / "retrain.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert Path(receiver.__file__).read_text(encoding="utf-8").endswith(f'"""\n\n{code}')
    now_s = int(time.time())
    headers = headers_of(parse_key(SECRET), CALL_ID, now_s, BODY)
    assert receiver.is_genuine(SECRET.decode(), headers, BODY)
    assert not receiver.is_genuine(SECRET.decode(), headers, BODY + b" ")
    old = headers_of(parse_key(SECRET), CALL_ID, now_s - 400, BODY)
    assert not receiver.is_genuine(SECRET.decode(), old, BODY)


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a key file."""
    path = folder / "hook.key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@given(key=keys)
def test_every_key_in_the_published_form_is_read(key: bytes) -> None:
    assert parse_key(b"whsec_" + base64.b64encode(key) + b"\n") == key


@pytest.mark.parametrize(
    "content",
    [
        b"",
        SECRET.removeprefix(b"whsec_"),
        b"whsec_not base64!",
        b"whsec_" + base64.b64encode(bytes(23)),
        b"whsec_" + base64.b64encode(bytes(65)),
        b"whsec_\xff\xfe",
        SECRET + b" " * 5000,
    ],
)
def test_what_is_no_key_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    path = key_file(tmp_path, content)
    with pytest.raises(InvalidConfigError) as caught:
        read_key(path)
    [finding] = caught.value.findings
    assert (finding.file, finding.rule) == (str(path), "key-file")
    assert "openssl rand -base64 32" in finding.instead
    for word in content.decode(errors="replace").removeprefix("whsec_").split():
        assert word not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, SECRET, mode)
    with pytest.raises(InvalidConfigError, match="can be read by others"):
        read_key(path)
    path.chmod(0o400)
    assert read_key(path) == parse_key(SECRET)


def test_a_key_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be read: No such file"):
        read_key(tmp_path / "none.key")
