"""Keyed tokens: the same value gets the same token at one site, for one audience and field.

Law: a token is HMAC-SHA-256 cut to 128 bits under a key derived for (site, audience, field), so
that nothing joins across fields or recipients, and no one without the site key can try values.
The derivation prefixes each part with its length, so that `ab|c` and `a|bc` differ.

Source: RFC 2104, RFC 5869; NIST SP 800-107 on truncation.
"""

import base64
import hmac
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

TOKEN_BITS: Final = 128
# base64url, not hex: long runs of digits in hex look like card numbers to detectors downstream.
TOKEN_LENGTH: Final = len("t1.") + 22
# A memo entry is about 150 bytes with its value; the memo is emptied when full.
MEMO_ENTRIES_MAX: Final = 100_000
KEY_BYTES: Final = 32


def derive_key(site_key: bytes, *parts: str) -> bytes:
    """Derive the key of one field. Raises: ValueError when the site key is too short."""
    if len(site_key) < KEY_BYTES:
        raise ValueError(f"the site key needs {KEY_BYTES} bytes")
    info = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(site_key)


class Tokens:
    """Tokens of one field for one audience."""

    __slots__ = ("_key", "_memo")

    def __init__(self, site_key: bytes, site: str, audience: str, field: str) -> None:
        self._key = derive_key(site_key, "weir token", site, audience, field)
        self._memo: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return "Tokens(…)"

    def token(self, value: bytes) -> bytes:
        """Return the token of a value, as ASCII text of TOKEN_LENGTH bytes."""
        known = self._memo.get(value)
        if known is not None:
            return known
        digest = hmac.digest(self._key, value, "sha256")[: TOKEN_BITS // 8]
        token = b"t1." + base64.urlsafe_b64encode(digest).rstrip(b"=")
        if len(self._memo) >= MEMO_ENTRIES_MAX:
            self._memo.clear()
        self._memo[value] = token
        return token
