"""Signatures of webhooks: how a call is signed, and how its receiver checks it.

Law: the bytes that are signed are the bytes that are sent. Signatures are compared in constant
time. A key is never logged and never part of an error; a file that others can read is refused.

Source: Standard Webhooks 1.0.0, "Signature scheme", "Webhook headers" and "Verifying signatures".
"""

import base64
import hashlib
import hmac
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.config.rules import FindingRule
from gateway.errors import Finding, InvalidConfigError

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  the mark of a key, not one
SIGNATURE_PREFIX: Final = "v1,"
KEY_BYTES_MIN: Final = 24
KEY_BYTES_MAX: Final = 64
# A receiver refuses what was signed longer ago, or later, than this: it may be a replay.
TOLERANCE_S: Final = 300
# A receiver compares at most this many signatures of one call.
SIGNATURES_MAX: Final = 16
TIMESTAMP_DIGITS_MAX: Final = 12
FILE_BYTES_MAX: Final = 4096
_PRIVATE_MASK: Final = stat.S_IRWXG | stat.S_IRWXO


def read_key(path: Path) -> bytes:
    """Read the key of a hook from its file.

    Raises: InvalidConfigError when it cannot be read, is open to others or holds no key.
    """
    try:
        if path.stat().st_mode & _PRIVATE_MASK:
            raise _unusable(path, "can be read by others", f"run: chmod 0400 {path}")
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}", "") from error
    try:
        return parse_key(text)
    except ValueError:
        # Without the cause: its text may quote the key.
        message = f"holds no key of {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes"
        advice = f"write {SECRET_PREFIX} and then what this prints: openssl rand -base64 32"
        raise _unusable(path, message, advice) from None


def parse_key(text: bytes) -> bytes:
    """Decode a key as it stands in a file. Raises: ValueError."""
    if len(text) > FILE_BYTES_MAX:
        raise ValueError("too long")
    word = text.strip()
    if not word.startswith(SECRET_PREFIX.encode()):
        raise ValueError("no prefix")
    key = base64.b64decode(word.removeprefix(SECRET_PREFIX.encode()), validate=True)
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError("wrong size")
    return key


def sign(key: bytes, *, call_id: str, timestamp_s: int, body: bytes) -> str:
    """Sign one attempt of a call; the answer is the value of its signature header.

    Units: timestamp_s Unix seconds of the attempt.
    """
    content = f"{call_id}.{timestamp_s}.".encode() + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return SIGNATURE_PREFIX + base64.b64encode(digest).decode("ascii")


def verify(key: bytes, headers: Mapping[str, str], body: bytes, *, now_s: float) -> bool:
    """Tell whether a call was signed with this key a short while ago, as a receiver does.

    Shape: names of headers are lower case. Any one signature of several may fit.
    """
    call_id, timestamp = headers.get(ID_HEADER, ""), headers.get(TIMESTAMP_HEADER, "")
    digits = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= TIMESTAMP_DIGITS_MAX
    if not digits or abs(now_s - int(timestamp)) > TOLERANCE_S:
        return False
    if not call_id or not call_id.isascii() or "." in call_id:
        return False
    wanted = sign(key, call_id=call_id, timestamp_s=int(timestamp), body=body).encode()
    given = headers.get(SIGNATURE_HEADER, "").split(" ", SIGNATURES_MAX)[:SIGNATURES_MAX]
    return any(hmac.compare_digest(wanted, each.encode(errors="replace")) for each in given)


def _unusable(path: Path, what: str, advice: str) -> InvalidConfigError:
    finding = Finding(
        file=str(path),
        line=0,
        column=0,
        rule=FindingRule.KEY_FILE.value,
        message=f"the signing key {what}",
        instead=advice,
    )
    return InvalidConfigError([finding])
