"""Check a manifest against the command it answers.

Law: a manifest is believed only as far as it can be checked: it speaks of the right request and
device, adds up, stays under its cap, names exactly what was asked, and does not claim to be
complete over a range that it says is gone.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.errors import MalformedPayloadError
from gateway.retrieve.dive import Command, Evicted, Listed, Manifest, Missing, Selector
from gateway.retrieve.messages import (
    INTEGER_MAX,
    EnvelopeBody,
    ManifestBody,
    SignatureBody,
    read,
)

SIGNED_PREFIX: Final = b"weir-retrieval-manifest-v1\n"
VERIFIED: Final = "verified"
UNSIGNED: Final = "unsigned"
BAD_SIGNATURE: Final = "bad-signature"
UNKNOWN_KEY: Final = "unknown-key"

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKey:
    """A key of one device; `algorithm` is fixed per key and never taken from a message."""

    key_id: str
    algorithm: str
    key: bytes


KeysOf = Callable[[str], Sequence[DeviceKey]]


def no_keys(device: str) -> Sequence[DeviceKey]:
    """Know no device keys; every manifest is then unsigned or of an unknown key."""
    return ()


def merkle_root(digests: Sequence[bytes]) -> bytes:
    """Hash a list of digests to one.

    Source: RFC 9162, section 2.1.1, written as its recursion.
    """
    if not digests:
        return hashlib.sha256(b"").digest()
    if len(digests) == 1:
        return hashlib.sha256(_LEAF + digests[0]).digest()
    split = 1 << (len(digests) - 1).bit_length() - 1
    pair = merkle_root(digests[:split]) + merkle_root(digests[split:])
    return hashlib.sha256(_NODE + pair).digest()


def check_manifest(envelope: EnvelopeBody, command: Command, keys_of: KeysOf) -> Manifest:
    """Read the manifest in an envelope and hold it against its command.

    Raises MalformedPayloadError when it cannot be believed.
    """
    verdict = _verdict(envelope, keys_of(command.device))
    body = read(ManifestBody, envelope.payload)
    if body.request_id != command.request_id or body.device != command.device:
        raise MalformedPayloadError("the manifest speaks of another request or device")
    _check_sums(body, command.max_bytes)
    _check_selection(body, command.selector)
    return Manifest(
        traces=tuple(
            Listed(trace_id=one.trace_id, bytes=one.bytes, digest=one.digest, whole=one.whole)
            for one in body.traces
        ),
        absent=tuple(
            Missing(device=command.device, trace_id=one.trace_id, reason=one.reason)
            for one in body.absent
        ),
        evicted=tuple(
            Evicted(
                from_ns=min(row.from_ns, INTEGER_MAX),
                to_ns=min(row.to_ns, INTEGER_MAX),
                count=row.count,
                reason=row.reason,
            )
            for row in body.evicted
        ),
        bytes=body.bytes,
        horizon_ns=body.horizon_ns,
        complete=body.complete,
        merkle_root=body.merkle_root,
        digest=hashlib.sha256(envelope.payload.encode()).hexdigest(),
        verdict=verdict,
    )


def incomplete_reason(manifest: Manifest) -> str:
    """Say in one word why a manifest does not hold everything."""
    reasons = [one.reason for one in manifest.absent if one.reason != "not_recorded"]
    if any(not one.whole for one in manifest.traces) or "evicted" in reasons or not reasons:
        return "evicted"
    return min(reasons)


def _check_sums(body: ManifestBody, max_bytes: int) -> None:
    root = merkle_root([bytes.fromhex(one.digest) for one in body.traces])
    if body.matched != len(body.traces) or body.bytes != sum(one.bytes for one in body.traces):
        raise MalformedPayloadError("the manifest does not add up")
    if body.merkle_root != root.hex():
        raise MalformedPayloadError("the manifest's Merkle root is not that of its digests")
    if body.bytes > max_bytes:
        raise MalformedPayloadError("the manifest is over the byte cap of its request")


def _check_selection(body: ManifestBody, selector: Selector) -> None:
    named = [one.trace_id for one in body.traces] + [one.trace_id for one in body.absent]
    if len(set(named)) != len(named):
        raise MalformedPayloadError("the manifest names a trace twice")
    if selector.trace_ids and set(named) != set(selector.trace_ids):
        raise MalformedPayloadError("the manifest does not name exactly what was asked for")
    if body.complete and not _may_be_complete(body, selector):
        raise MalformedPayloadError("the manifest claims to be complete and is not")


def _may_be_complete(body: ManifestBody, selector: Selector) -> bool:
    if any(one.reason != "not_recorded" for one in body.absent):
        return False
    if any(not one.whole for one in body.traces):
        return False
    if selector.from_ns is None or selector.to_ns is None:
        return not (body.absent and body.evicted)
    return not any(
        row.from_ns <= selector.to_ns and selector.from_ns <= row.to_ns for row in body.evicted
    )


def _verdict(envelope: EnvelopeBody, keys: Collection[DeviceKey]) -> str:
    """Try the device's keys; the key id orders the tries and decides nothing."""
    signature = envelope.signature
    if signature is None:
        return UNSIGNED
    signed = SIGNED_PREFIX + envelope.payload.encode()
    fitting = [key for key in keys if key.algorithm == signature.algorithm]
    if any(_verifies(key, signature, signed) for key in _ordered(fitting, signature.key_id)):
        return VERIFIED
    named = any(key.key_id == signature.key_id for key in keys)
    return BAD_SIGNATURE if named else UNKNOWN_KEY


def _ordered(keys: Iterable[DeviceKey], key_id: str) -> list[DeviceKey]:
    return sorted(keys, key=lambda key: key.key_id != key_id)


def _verifies(key: DeviceKey, signature: SignatureBody, signed: bytes) -> bool:
    value = bytes.fromhex(signature.value)
    if key.algorithm == "hmac-sha256":
        return hmac.compare_digest(hmac.digest(key.key, signed, "sha256"), value)
    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(value, signed)
    except InvalidSignature:
        return False
    return True
