"""Encryption of frames at rest: AES-256-GCM under a key of its own for every segment.

Law: no pair of key and nonce is used twice. A segment draws 16 random bytes, its salt, when it is
created, and its key is HKDF-SHA256 of the site's key with that salt and the journal's id: two
segments, also two that get the same number because a crash took the first, have different keys but
for a collision of salts (2^-64 at four billion segments). Within a segment the nonce is a counter
that rises with every *attempt* to write a frame and never falls, so that a frame whose write failed
and whose bytes were taken back does not share its nonce with the one that takes its place. A
segment is written only by the process that created it, which holds the one counter.

Key id, salt and counter stand in the clear in front of every frame's text, so that a damaged
segment header costs no frame. They, the frame's header and the journal's id are authenticated: a
frame cannot be moved into another journal, nor take another sequence or length.

Source: NIST SP 800-38D (GCM, 96-bit nonce, deterministic construction 8.2.1); RFC 5869 (HKDF).
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import CorruptDataError, StartError

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
SALT_BYTES: Final = 16
TAG_BYTES: Final = 16

_KEY_ID_PURPOSE: Final = b"weir journal key id 1"
_SEGMENT_PURPOSE: Final = b"weir journal segment 1"
# key id, salt, counter
_PREFIX: Final = struct.Struct("<8s16sQ")
_JOURNAL_ID: Final = struct.Struct("<Q")
_NONCE: Final = struct.Struct("<4xQ")

PREFIX_BYTES: Final = _PREFIX.size
# What encryption adds to a frame.
OVERHEAD_BYTES: Final = PREFIX_BYTES + TAG_BYTES


def key_id(key: bytes) -> bytes:
    """Name a key without telling it."""
    return hashlib.sha256(_KEY_ID_PURPOSE + key).digest()[:KEY_ID_BYTES]


def _segment_key(key: bytes, salt: bytes, journal_id: int) -> AESGCM:
    info = _SEGMENT_PURPOSE + _JOURNAL_ID.pack(journal_id)
    derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key)
    return AESGCM(derived)


def _associated(head: bytes, prefix: bytes, journal_id: int) -> bytes:
    return head + prefix + _JOURNAL_ID.pack(journal_id)


class Sealer:
    """Encrypts the frames of one new segment."""

    def __init__(self, key: bytes, salt: bytes, journal_id: int) -> None:
        assert len(salt) == SALT_BYTES
        self.key_id = key_id(key)
        self.salt = salt
        self._journal_id = journal_id
        self._key = _segment_key(key, salt, journal_id)
        self._counter = 0

    def seal(self, head: bytes, text: bytes) -> bytes:
        """Encrypt one frame; `head` is the frame's header, which says how long the result is."""
        self._counter += 1
        prefix = _PREFIX.pack(self.key_id, self.salt, self._counter)
        nonce = _NONCE.pack(self._counter)
        associated = _associated(head, prefix, self._journal_id)
        return prefix + self._key.encrypt(nonce, text, associated)


class Keys:
    """The keys of a site: the first encrypts, all decrypt; none means that frames are plain."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        for key in keys:
            assert len(key) == KEY_BYTES
        self._first = keys[0] if keys else None
        self._by_id = {key_id(key): key for key in keys}
        # Frames of a segment stand together, so one derived key is enough.
        self._last: tuple[bytes, AESGCM] | None = None

    @property
    def encrypt(self) -> bool:
        """Say whether new frames are encrypted."""
        return self._first is not None

    def sealer(self, salt: bytes, journal_id: int) -> Sealer | None:
        """Begin a segment; None when frames are to be written plain."""
        return None if self._first is None else Sealer(self._first, salt, journal_id)

    def knows(self, number: bytes) -> bool:
        """Say whether frames under the key of this id can be read."""
        return number in self._by_id

    def open(self, head: bytes, payload: bytes, journal_id: int) -> bytes:
        """Decrypt one frame.

        Raises: StartError when its key is not there; CorruptDataError when the text was changed
        although the checksum fits.
        """
        if len(payload) < OVERHEAD_BYTES:
            raise CorruptDataError("the encrypted payload is cut off")
        number, salt, counter = _PREFIX.unpack_from(payload)
        key = self._by_id.get(number)
        if key is None:
            raise missing_key(number)
        prefix = payload[:PREFIX_BYTES]
        if self._last is None or self._last[0] != number + salt:
            self._last = number + salt, _segment_key(key, salt, journal_id)
        try:
            return self._last[1].decrypt(
                _NONCE.pack(counter),
                payload[PREFIX_BYTES:],
                _associated(head, prefix, journal_id),
            )
        except InvalidTag as error:
            raise CorruptDataError("the payload was changed after it was encrypted") from error

    @classmethod
    def none(cls) -> Self:
        """Make the keys of a site that does not encrypt."""
        return cls()


def missing_key(number: bytes, where: str = "a segment") -> StartError:
    """Say which key is missing, and what to do."""
    return StartError(
        f"{where} of the journal is encrypted with the key {number.hex()}, which is not among those"
        " of journal.encryption; add its file to journal.encryption.key_files"
    )
