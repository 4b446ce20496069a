"""Answer a command: pin what matches, then state exactly what there is and what there is not.

Law: `complete` is claimed only if no evicted range can hide a record that the command means. What
is named in a manifest is pinned before the manifest exists. Whole traces only.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from collectors.device.command import Command
from collectors.device.evictions import Evicted
from collectors.device.ring import Ring
from collectors.device.segment import Entry
from gateway.errors import CorruptDataError

# Keeps the manifest under the message limit: about 240 bytes a trace as escaped JSON.
TRACES_MAX: Final = 2_000
# What is signed begins with this, so that a signature cannot be used for anything else.
SIGNED_PREFIX: Final = b"weir-retrieval-manifest-v1\n"
LEAF: Final = b"\x00"
NODE: Final = b"\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A device key. `algorithm` is "hmac-sha256" or "ed25519"."""

    key_id: str
    algorithm: str
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One trace that will be sent: its records, in order."""

    trace_id: bytes
    sequences: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the device says to a command, to be said again whenever it is asked.

    A refusal has a reason and nothing else; `manifest` is the JSON text that was signed.
    """

    refusal: str | None = None
    manifest: str = ""
    chunk_bytes: int = 0
    parts: tuple[Part, ...] = ()


@dataclass(slots=True)
class _Choice:
    complete: bool
    parts: list[Part] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    absent: dict[bytes, str] = field(default_factory=dict)
    uncertain: set[bytes] = field(default_factory=set)


def hmac_signer(key_id: str, key: bytes) -> Signer:
    """Sign with a key that the gateway shares."""
    return Signer(
        key_id=key_id,
        algorithm="hmac-sha256",
        sign=lambda data: hmac.digest(key, data, "sha256"),
    )


def merkle_root(digests: Iterable[bytes]) -> bytes:
    """Hash a list of digests to one.

    Source: RFC 9162, section 2.1.1; an odd node moves up unchanged, which gives the same tree.
    """
    level = [hashlib.sha256(LEAF + digest).digest() for digest in digests]
    if not level:
        return hashlib.sha256(b"").digest()
    while len(level) > 1:
        pairs = [
            hashlib.sha256(NODE + level[index] + level[index + 1]).digest()
            for index in range(0, len(level) - 1, 2)
        ]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def answer(ring: Ring, command: Command, *, device: str, now_ns: int) -> Answer:
    """Pin what a command means and state it."""
    with ring.still():
        choice = _choose(ring, command)
        evicted = ring.evicted()
        if choice.entries and not ring.pin(
            command.request_id,
            choice.entries,
            priority=command.priority,
            until_ns=now_ns + command.pin_ns,
        ):
            return Answer(refusal="pin_cap")
    parts, digests, damaged = _digest(ring, choice.parts)
    absent = {**choice.absent, **dict.fromkeys(damaged, "corrupt")}
    generations = {entry.generation for entry in choice.entries}
    body = {
        "request_id": command.request_id,
        "device": device,
        "created_ns": now_ns,
        "matched": len(parts),
        "bytes": sum(part.bytes for part in parts),
        "traces": [
            {
                "trace_id": part.trace_id.hex(),
                "bytes": part.bytes,
                "digest": digest.hex(),
                "whole": part.trace_id not in choice.uncertain,
            }
            for part, digest in zip(parts, digests, strict=True)
        ],
        "absent": [{"trace_id": key.hex(), "reason": absent[key]} for key in absent],
        "evicted": [_row(row) for row in evicted],
        "horizon_ns": ring.stats().horizon_ns,
        "segments": [
            {"generation": generation, "hash": digest.hex()}
            for generation, digest in ring.hashes(generations)
        ],
        "merkle_root": merkle_root(digests).hex(),
        "complete": choice.complete and not damaged,
    }
    return Answer(
        manifest=json.dumps(body, separators=(",", ":")),
        chunk_bytes=command.chunk_bytes,
        parts=tuple(parts),
    )


def envelope(manifest: str, signer: Signer | None) -> dict[str, Any]:
    """Wrap the manifest's text, so that what is signed is what is sent, byte for byte."""
    if signer is None:
        return {"payload": manifest, "signature": None}
    signature = signer.sign(SIGNED_PREFIX + manifest.encode())
    return {
        "payload": manifest,
        "signature": {
            "key_id": signer.key_id,
            "algorithm": signer.algorithm,
            "value": signature.hex(),
        },
    }


def chunk_plan(parts: Iterable[Part], chunk_bytes: int) -> list[list[Part]]:
    """Group traces into chunks; a trace larger than a chunk is a chunk of its own.

    The same parts give the same chunks, so that an upload can go on after a restart.
    """
    chunks: list[list[Part]] = []
    room = 0
    for part in parts:
        if not chunks or part.bytes > room:
            chunks.append([])
            room = chunk_bytes
        chunks[-1].append(part)
        room -= part.bytes
    return chunks


def read_chunk(ring: Ring, parts: Iterable[Part]) -> bytes:
    """Read the OTLP bytes of one chunk.

    Raises CorruptDataError when a record is gone although it was pinned.
    """
    return b"".join(_read(ring, part) for part in parts)


def _choose(ring: Ring, command: Command) -> _Choice:
    """Take whole traces in order until the byte cap or the pin cap says no."""
    found = _find(ring, command)
    window = command.window
    hidden = window is not None and ring.missing_between(window.from_ns, window.to_ns)
    choice = _Choice(complete=not hidden)
    held: set[int] = set()
    left = command.max_bytes
    for trace_id in command.trace_ids or sorted(found, key=_rank):
        entries = found.get(trace_id, ())
        if window is None:
            hidden = ring.missing(entries)
        if hidden:
            choice.complete = False
            choice.uncertain.add(trace_id)
        if not entries:
            choice.absent[trace_id] = "evicted" if hidden else "not_recorded"
            continue
        size = sum(entry.raw_bytes for entry in entries)
        segments = held | {entry.generation for entry in entries}
        if size > left or len(choice.parts) == TRACES_MAX or len(segments) > ring.pins_max:
            choice.complete = False
            choice.absent[trace_id] = "pin_cap" if len(segments) > ring.pins_max else "byte_cap"
            continue
        held = segments
        left -= size
        sequences = tuple(entry.sequence for entry in entries)
        choice.parts.append(Part(trace_id=trace_id, sequences=sequences, bytes=size))
        choice.entries.extend(entries)
    return choice


def _find(ring: Ring, command: Command) -> Mapping[bytes, tuple[Entry, ...]]:
    if command.window is None:
        return ring.find(command.trace_ids)
    found = ring.find_written(command.window.from_ns, command.window.to_ns)
    if not command.trace_ids:
        return found
    return {key: found[key] for key in command.trace_ids if key in found}


def _rank(trace_id: bytes) -> bytes:
    """Order traces alike on every device, so that all cut the same ones."""
    return hashlib.sha256(trace_id).digest()


def _digest(ring: Ring, parts: Iterable[Part]) -> tuple[list[Part], list[bytes], list[bytes]]:
    good: list[Part] = []
    digests: list[bytes] = []
    damaged: list[bytes] = []
    for part in parts:
        try:
            digests.append(hashlib.sha256(_read(ring, part)).digest())
            good.append(part)
        except CorruptDataError:
            damaged.append(part.trace_id)
    return good, digests, damaged


def _read(ring: Ring, part: Part) -> bytes:
    wanted = set(part.sequences)
    entries = ring.find([part.trace_id]).get(part.trace_id, ())
    chosen = [entry for entry in entries if entry.sequence in wanted]
    if len(chosen) != len(wanted):
        raise CorruptDataError("a record was overwritten")
    return b"".join(ring.read(entry) for entry in chosen)


def _row(row: Evicted) -> dict[str, Any]:
    return {
        "first_sequence": row.first_sequence,
        "last_sequence": row.last_sequence,
        "from_ns": row.from_ns,
        "to_ns": row.to_ns,
        "count": row.count,
        "reason": row.reason.name.lower(),
    }
