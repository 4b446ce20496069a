"""Whatever bytes come in, the schema walker and its oracles take the same items or both refuse.

Bodies and texts are valid requests of all signals with random edits; the seed is in the header of
the run, WEIR_FUZZ makes the run long.
"""

import json
import random

from gateway.batch import Signal
from tests import otlp_json
from tests.fuzz import differential_runs
from tests.fuzz.test_kernel_bytes import edit
from tests.laws.test_wire_agrees_with_protobuf import agree, agree_on_json
from tests.signals import DEVICE, draw, plant

RUNS = differential_runs()
# Drawing costs more than editing, so each request serves a few times.
RUNS_PER_REQUEST = 10
EDITS_MAX = 3
SIGNALS = tuple(Signal)
# What steers a JSON reader, and values that stand at an edge of what is legal.
STEERING = (
    *(bytes((sign,)) for sign in b'{}[],:"\\ \n\x00\xff-.e0='),
    *(b"null true false NaN 1e3 1.0 1e400 -0.0 -1 9007199254740993 18446744073709551616".split()),
    *(b'"NaN" "-Infinity" "7" {} [] == \xef\xbb\xbf'.split()),
    *(rb"\u0000 \ud800 \udc00 \ud83d\ude00 \u00E9 \x \uD83D\u0041".split()),
    *(b'"x":[{}], "value":{}, "stringValue":"", "trace_id":1, "traceId":"0g",'.split()),
)


def edit_text(rng: random.Random, text: bytes) -> bytes:
    """Make a few random edits of a JSON text."""
    edited = bytearray(text)
    for _ in range(rng.randrange(EDITS_MAX + 1)):
        place = rng.randrange(len(edited) + 1)
        action = rng.randrange(8)
        if action == 0:
            del edited[place:]
        elif action <= 3:
            edited[place:place] = rng.choice(STEERING)
        elif action == 4:
            end = min(len(edited), place + rng.randrange(1, 40))
            edited[place:place] = edited[rng.randrange(place + 1) : end]
        elif action == 5:
            found = rng.choice(STEERING)
            edited[place : place + len(found)] = found
        elif action == 6 and place < len(edited):
            edited[place] ^= 1 << rng.randrange(8)
        else:
            del edited[place : place + rng.randrange(1, 4)]
    return bytes(edited)


def test_screen_and_protobuf_agree_on_edited_bytes(seed: int) -> None:
    rng = random.Random(seed)
    taken = 0
    for _ in range(RUNS // RUNS_PER_REQUEST):
        signal = rng.choice(SIGNALS)
        body = plant(draw(rng, signal, marked=rng.random() < 0.3).SerializeToString())
        for _ in range(RUNS_PER_REQUEST):
            taken += agree(signal, edit(rng, body), rng.choice(("", DEVICE)))
    # A fuzzer that only makes rubbish, or only valid bodies, tests nothing.
    assert 0.05 < taken / RUNS < 0.95


def test_transcode_and_slow_reader_agree_on_edited_text(seed: int) -> None:
    rng = random.Random(seed)
    taken = 0
    for _ in range(RUNS // RUNS_PER_REQUEST):
        signal = rng.choice(SIGNALS)
        plain = otlp_json.to_plain(draw(rng, signal))
        text = json.dumps(plain, ensure_ascii=rng.random() < 0.5).encode()
        for _ in range(RUNS_PER_REQUEST):
            taken += agree_on_json(signal, edit_text(rng, text))
    assert 0.05 < taken / RUNS < 0.95
