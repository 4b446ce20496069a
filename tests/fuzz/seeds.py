"""Make the seeds in `corpus/`: valid requests of every kind, and hostile ones by hand.

Law: the same files each time; finds that were added by hand are left alone. Run it with
`python -m tests.fuzz.seeds`.
"""

import gzip
import json
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import zstandard

from gateway.batch import Signal
from tests import otlp_json
from tests.fuzz import test_kernel_bytes
from tests.fuzz.targets import DEVICES, SIGNALS
from tests.signals import draw, plant

CORPUS: Final = Path(__file__).parent / "corpus"
SEED: Final = 20_240_229
BODY_BYTES_MIN: Final = 60
BODY_BYTES_MAX: Final = 1_200
CUT_TEXTS: Final = (b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98")  # UTF-8 without its last byte

Seeds = Iterator[tuple[str, int, bytes]]  # name, options, body


def field(number: int, content: bytes) -> bytes:
    """Write a field of bytes, text or message whose content is below 16 KiB."""
    size = len(content)
    length = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
    return bytes((number << 3 | 2,)) + length + content


def nested(levels: int) -> bytes:
    """Write an AnyValue of arrays inside one another."""
    value = field(1, b"x")
    for _ in range(levels):
        value = field(5, field(1, value))
    return value


def span(*more: bytes, trace_id: bytes = b"t" * 16, span_id: bytes = b"s" * 8) -> bytes:
    """Write a span with ids and more fields."""
    return field(1, trace_id) + field(2, span_id) + b"".join(more)


def request(*items: bytes, resource: bytes = b"", scope: bytes = b"") -> bytes:
    """Write a request of one resource and one scope around spans or log records."""
    around = field(1, scope) if scope else b""
    inside = field(2, around + b"".join(field(2, item) for item in items))
    return field(1, (field(1, resource) if resource else b"") + inside)


def pair(key: bytes, value: bytes) -> bytes:
    """Write a KeyValue."""
    return field(1, key) + field(2, value)


def hostile_bodies() -> Iterator[tuple[str, bytes]]:
    """Write what a protobuf reader may get wrong, around spans or log records."""
    # Field 3 is a text of both: trace_state, severity_text.
    good = span(field(3, b"text"))
    foreign = field(1, pair(b"device.id", field(1, b"edge-2")))
    yield "nothing", b""
    yield "one-byte", b"\x0a"
    yield "empty-everything", request(b"")
    yield "long-varint", field(1, b"\x08" + b"\xff" * 10 + b"\x01")
    yield "varint-of-ten-bytes", request(good + b"\x30" + b"\xff" * 9 + b"\x01")
    yield "tag-of-five-bytes", request(good + b"\xfa\xff\xff\xff\x0f\x00")
    yield "tag-above-32-bits", request(good + b"\x88\x80\x80\x80\x10\x01")
    yield "length-of-64-bits", request(good + b"\x2a" + b"\xff" * 9 + b"\x01")
    yield "field-zero", request(good + b"\x02\x00")
    yield "group", request(good + b"\x0b\x0c")
    yield "wire-type-7", request(good + b"\x0f")
    yield "cut-fixed64", request(good + b"\x39\x01\x02")
    yield "cut-fixed32", request(good + b"\x85\x01\x01")
    yield "status-twice", request(good + field(15, b"") + field(15, b""))
    yield "resource-twice", field(1, field(1, b"") + field(1, b"") + field(2, field(2, good)))
    yield "ids-twice", request(good + span(trace_id=b"", span_id=bytes(8)))
    yield "ids-of-wrong-size", request(span(trace_id=b"t"), span(span_id=b"s" * 9), good)
    yield "text-not-utf8", request(good, span(field(3, b"\xed\xa0\x80")), good)
    for cut in CUT_TEXTS:
        yield f"text-cut-{len(cut)}", request(good, span(field(3, cut)))
        # The first byte of the unknown field behind it would continue the text.
        yield f"text-cut-{len(cut)}-inside", request(span(field(3, cut), b"\x80\x01\x01"), good)
    yield "resource-not-utf8", request(good, resource=field(1, pair(b"\xff", b"")))
    yield "scope-not-utf8", request(good, scope=field(1, b"\xf4\x90\x80\x80"))
    yield "device-of-another", request(good, resource=foreign)
    yield "devices-of-two", request(good, resource=foreign) + request(good)
    yield "string-index", request(good + field(9, pair(b"k", b"\x40\x01")))
    yield "two-members", request(good + field(9, pair(b"k", b"\x10\x01\x18\x01")))
    for levels in (2, 16, 17):
        yield f"nested-{levels}", request(good + field(9, pair(b"k", nested(levels))))
    yield "many-keys", request(span(*(field(9, pair(b"key%d" % n, b"")) for n in range(20))))
    yield "many-spans", request(*[good] * 7)
    yield "long-text", request(span(field(3, b"n" * 61)), good)
    yield (
        "events-and-links",
        request(
            span(
                *[field(11, field(2, b"e") + field(3, pair(b"a", field(1, b"v"))))] * 2,
                *[field(13, field(1, b"t" * 16) + field(4, pair(b"a", nested(1))))] * 2,
            ),
            span(field(11, field(3, pair(b"gone", b""))), span_id=b""),
        ),
    )


def hostile_texts() -> Iterator[tuple[str, bytes]]:
    """Write what a JSON reader may get wrong."""

    def log(value: str) -> bytes:
        return (
            '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":%s}]}]}]}' % value  # noqa: UP031
        ).encode("utf-8", "surrogatepass")

    yield "nothing", b""
    yield "spaces", b" \t\r\n{ } "
    yield "mark-before", b"\xef\xbb\xbf{}"
    yield "trailing-zero", b"{}\0"
    for cut in CUT_TEXTS:
        yield f"text-cut-{len(cut)}", b'{"x":"' + cut
    yield "open", b'{"resourceLogs":[{'
    yield "deep", b'{"x":' + b"[" * 70 + b"]" * 70 + b"}"
    yield "deep-value", log('{"arrayValue":{"values":[' * 18 + "{}" + "]}}" * 18)
    yield (
        "integers",
        log('{"intValue":"-9223372036854775808","x":[1e3,-0,1.0,18446744073709551616]}'),
    )
    for value in (
        "1e400",
        "1e-400",
        "2.2250738585072011e-308",
        "-0.0",
        '"NaN"',
        '"1.5"',
        "9" * 400,
    ):
        name = value[:9].strip('"')
        yield f"double-{name}", log(f'{{"doubleValue":{value}}}')
    yield "double-long", log(f'{{"doubleValue":0.{"1234567890" * 30}e10}}')
    yield "escapes", log(r'{"stringValue":"\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00"}')
    yield "surrogate-alone", log(r'{"stringValue":"\ud800x"}')
    yield "surrogate-raw", log('{"stringValue":"\ud800"}')
    yield "escaped-key", log(r'{"stringV\u0061lue":"x","\u0000":1}')
    yield "control", log('{"stringValue":"\x01"}')
    yield "twice", log('{"stringValue":"a","stringValue":"b"}')
    yield "two-members", log('{"stringValue":"a","boolValue":true}')
    yield "nulls", log('{"stringValue":null,"arrayValue":{"values":[null]}}')
    for value in ("AA==", "AA", "-_8", "A", "A===", "AB==", "A A="):
        yield (
            f"base64-{value.replace('=', 'z').replace(' ', 's')}",
            log(f'{{"bytesValue":"{value}"}}'),
        )
    yield "string-index", log('{"stringValueStrindex":1}')
    yield "hex", log('{},"traceId":"0123456789abcdefABCDEF0123456789","spanId":"0g"')


def _zstd(data: bytes, *, write_content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=write_content_size).compress(data)


def hostile_streams() -> Iterator[tuple[str, int, bytes]]:
    """Write gzip (0) and zstd (1) streams of every shape."""
    text = b"telemetry " * 30
    noise = random.Random(SEED).randbytes(300)
    plain = gzip.compress(text, mtime=0)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated = raw.compress(text) + raw.flush()
    trailer = struct.pack("<II", zlib.crc32(text), len(text))
    head = b"\x1f\x8b\x08%c\0\0\0\0\0\x03"
    yield "plain", 0, plain
    yield "stored", 0, gzip.compress(noise, 0, mtime=0)
    yield "empty", 0, gzip.compress(b"", mtime=0)
    yield "members", 0, plain * 3
    yield "member-cut", 0, plain + plain[:-5]
    yield "trailing-zeros", 0, plain + bytes(8)
    yield "all-fields", 0, head % 30 + b"\x03\0abcname\0comment\0\0\0" + deflated + trailer
    yield "name", 0, head % 8 + b"name\0" + deflated + trailer
    yield "members-empty", 0, gzip.compress(b"", mtime=0) * 65
    yield "bomb", 0, gzip.compress(bytes(30_000), mtime=0)
    frame = _zstd(text)
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(noise)
    parts = zstandard.ZstdCompressor(level=1).compressobj()
    streamed = b"".join(
        parts.compress(text) + parts.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for _ in range(3)
    )
    streamed += parts.flush()
    skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
    magic = b"\x28\xb5\x2f\xfd"
    yield "plain", 1, frame
    yield "checksum", 1, whole
    yield "no-size", 1, _zstd(text, write_content_size=False)
    yield "streamed", 1, streamed
    yield "empty", 1, _zstd(b"")
    yield "frames", 1, frame + whole + frame
    yield "frame-cut", 1, frame + whole[:-3]
    yield "skippable", 1, skippable + frame + skippable
    yield "skippable-only", 1, skippable
    yield "skippable-cut", 1, skippable[:4] + b"\xff" * 4
    yield "block-of-one-byte", 1, magic + b"\x20\x40" + b"\x03\x02\0" + b"x"
    yield "block-reserved", 1, magic + b"\x20\x40" + b"\x07\x02\0" + b"x"
    yield "blocks-empty", 1, magic + b"\0\x58" + b"\0\0\0" * 50 + b"\x01\0\0"
    yield "window-huge", 1, magic + b"\0\xff" + b"\x01\0\0"
    yield "dictionary", 1, magic + b"\x23\x01\0\0\0\x40" + b"\x01\0\0"
    yield "bomb", 1, _zstd(bytes(30_000))


def _requests(rng: random.Random, signal: Signal, count: int, *, marked: bool) -> Iterator[bytes]:
    """Draw requests that are neither trivial nor large."""
    while count:
        body = draw(rng, signal, marked=marked).SerializeToString()
        if BODY_BYTES_MIN <= len(body) <= BODY_BYTES_MAX:
            count -= 1
            yield plant(body)


def scan_seeds(rng: random.Random) -> Seeds:
    """Make bodies of traces."""
    for number, body in enumerate(_requests(rng, Signal.TRACES, 12, marked=True)):
        yield f"drawn-{number}", number % 4, body
    for number in range(6):
        yield f"plain-{number}", number % 2, test_kernel_bytes.draw(rng)[:BODY_BYTES_MAX]
    for number, (name, body) in enumerate(hostile_bodies()):
        yield f"hostile-{name}", number % 4, body


def screen_seeds(rng: random.Random) -> Seeds:
    """Make bodies of all signals."""
    for row, signal in enumerate(SIGNALS):
        for number, body in enumerate(_requests(rng, signal, 8, marked=True)):
            yield f"{signal.name.lower()}-{number}", row << 2 | number % 4, body
    for number, (name, body) in enumerate(hostile_bodies()):
        yield f"hostile-{name}", (1 + number % 2) << 2 | number % len(DEVICES) << 1, body


def transcode_seeds(rng: random.Random) -> Seeds:
    """Make texts of all signals."""
    for row, signal in enumerate(SIGNALS):
        made = 0
        while made < 8:
            plain = otlp_json.to_plain(draw(rng, signal))
            text = json.dumps(plain, ensure_ascii=made % 2 == 0).encode()
            if 2 * BODY_BYTES_MIN <= len(text) <= 2 * BODY_BYTES_MAX:
                yield f"{signal.name.lower()}-{made}", row << 2 | made % 2, text
                made += 1
    for name, text in hostile_texts():
        yield f"hostile-{name}", SIGNALS.index(Signal.LOGS) << 2, text


def inflate_seeds(_: random.Random) -> Seeds:
    """Make streams, each under another ceiling and step."""
    for number, (name, encoding, stream) in enumerate(hostile_streams()):
        options = encoding | (3 - number % 3) << 1 | number % 4 << 3
        yield f"{('gzip', 'zstd')[encoding]}-{name}", options, stream


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Make all seeds: target, name, and input."""
    makers = {
        "scan": scan_seeds,
        "screen": screen_seeds,
        "transcode": transcode_seeds,
        "inflate": inflate_seeds,
    }
    for target, make in makers.items():
        for name, options, body in make(random.Random(SEED)):
            yield target, name, bytes((options,)) + body


def write() -> None:
    """Write the seeds."""
    for target, name, content in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write()
