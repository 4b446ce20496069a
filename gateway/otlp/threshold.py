"""Thresholds of consistent probability sampling, as numbers and as text.

Law: a span is kept iff R >= T; p = (2**56 - T) / 2**56. Only T may change on the way and only
upwards; R is the trace's for good. Cost: a tracestate is parsed once for each distinct text of a
batch, and a batch without any costs one look.
Source: OpenTelemetry, "TraceState: Probability Sampling".
"""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import Batch, Upstream
from gateway.otlp.kernel import factorize
from gateway.tables import NO_RANDOMNESS, NO_THRESHOLD

BITS: Final = 56
RANGE: Final = 1 << BITS
DIGITS: Final = 14
RANDOM_MASK: Final = RANGE - 1
VENDOR_KEY: Final = b"ot"
# Longer states are not ours: the whole of `ot` has at most 256 characters.
STATE_BYTES_MAX: Final = 4096
_THRESHOLD = re.compile(rb"[0-9a-f]{1,14}")
_RANDOMNESS = re.compile(rb"[0-9a-f]{14}")


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a tracestate says; NO_THRESHOLD and NO_RANDOMNESS where it says nothing valid.

    `malformed` says that it has a threshold which is none.
    """

    threshold: int
    randomness: int
    malformed: bool


def threshold_of(probability: float) -> int:
    """Return T of a probability in [0, 1]; RANGE, which no R reaches, for 0 alone."""
    threshold = round((1 - probability) * RANGE)
    if threshold == RANGE and probability > 0:
        # 1 - p has no room for a p this small.
        return RANGE - max(1, round(probability * RANGE))
    return threshold


def probability_of(threshold: int) -> float:
    """Return the probability with which T keeps a span."""
    return (RANGE - threshold) / RANGE


def rounded(threshold: int, digits: int) -> int:
    """Return T with few hex digits, so that its text is short; leading f digits do not count.

    Rounds up, so a budget that asked for T is not passed. At most RANGE.
    """
    leading = 0
    while leading < DIGITS and (threshold >> (BITS - 4 * (leading + 1))) & 0xF == 0xF:
        leading += 1
    step = 1 << max(0, BITS - 4 * (leading + digits))
    return min(RANGE, -(-threshold // step) * step)


def encode(threshold: int) -> str:
    """Write T as the text of `th`: padded to 14 digits, then without trailing zeros."""
    return f"{threshold:0{DIGITS}x}".rstrip("0") or "0"


def decode(text: str) -> int:
    """Read the text of a valid `th`."""
    return int(text.ljust(DIGITS, "0"), 16)


def parse(tracestate: bytes) -> Incoming:
    """Read `ot=th:…;rv:…` of a tracestate. What is malformed counts as absent."""
    threshold, randomness, malformed = NO_THRESHOLD, NO_RANDOMNESS, False
    for member in tracestate.split(b","):
        key, _, value = member.strip(b" \t").partition(b"=")
        if key != VENDOR_KEY:
            continue
        for pair in value.split(b";"):
            name, _, text = pair.partition(b":")
            if name == b"th":
                malformed = _THRESHOLD.fullmatch(text) is None
                threshold = threshold if malformed else decode(text.decode())
            elif name == b"rv" and _RANDOMNESS.fullmatch(text):
                randomness = int(text, 16)
        break
    return Incoming(threshold=threshold, randomness=randomness, malformed=malformed)


def upstream(batch: Batch) -> Upstream:
    """Read what each row's tracestate says of the samplers before this gateway."""
    spans = batch.spans
    threshold = np.full(len(spans), NO_THRESHOLD, dtype=np.uint64)
    randomness = np.full(len(spans), NO_RANDOMNESS, dtype=np.uint64)
    malformed = np.zeros(len(spans), dtype=np.bool_)
    length = spans["state_length"]
    rows = np.flatnonzero((length > 0) & (length <= STATE_BYTES_MAX))
    has_threshold = False
    if len(rows):
        offset, size = spans["state_offset"][rows], length[rows]
        codes, first = factorize(batch.arena, offset, size)
        read = [parse(batch.text(int(offset[head]), int(size[head]))) for head in first.tolist()]
        threshold[rows] = np.array([each.threshold for each in read], dtype=np.uint64)[codes]
        randomness[rows] = np.array([each.randomness for each in read], dtype=np.uint64)[codes]
        has_threshold = any(each.threshold != NO_THRESHOLD for each in read)
        malformed[rows] = np.array([each.malformed for each in read], dtype=np.bool_)[codes]
    return Upstream(
        threshold=threshold,
        randomness=randomness,
        malformed=malformed,
        has_threshold=has_threshold,
    )
