"""Any line is one label or one reason; lines are given once, however a file grows."""

import os
from contextlib import suppress
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.labelfile import (
    LINE_BYTES_MAX,
    Bad,
    BadLineError,
    Label,
    Layout,
    Reader,
    ValueType,
)
from collectors.tail import Line, Lines, Place
from gateway.errors import StartError

ID: Final = "00112233445566778899aabbccddeeff"


@pytest.mark.parametrize(
    ("line", "label"),
    [
        (f'{{"trace_id":"{ID}","value":"wet"}}', {"value": "wet"}),
        (f'{{"trace_id":"{ID.upper()}","value":true}}', {"value": True}),
        (f'{{"trace_id":"{ID}","value":-3,"model":"net"}}', {"value": -3, "model": "net"}),
        (f'{{"trace_id":"{ID}","value":0.5,"time":"1970-01-01T01:00:01.5+01:00"}}',
         {"value": 0.5, "time_ns": 1_500_000_000}),
        (f'{{"trace_id":"{ID}","value":1e3,"time":12,"model":null}}',
         {"value": 1000.0, "time_ns": 12}),
    ],
)  # fmt: skip
def test_json_lines(line: str, label: dict[str, Any]) -> None:
    found = Reader(Layout.JSONL).read(f"{line}\r\n".encode())
    assert found == Label(trace_id=bytes.fromhex(ID), **label)
    assert type(found.value) is type(label["value"])


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ValueType.STRING, "007", "007"),
        (ValueType.INT, "007", 7),
        (ValueType.DOUBLE, "7", 7.0),
        (ValueType.BOOL, "True", True),
        (ValueType.STRING, '"a, ""b"""', 'a, "b"'),
    ],
)
def test_csv_lines(kind: ValueType, text: str, value: Any) -> None:
    reader = Reader(Layout.CSV, kind)
    assert reader.wants_header
    reader.take_header(b"\xef\xbb\xbftime, value,trace_id\r\n")
    found = reader.read(f"7,{text},{ID}\n".encode())
    assert (found.value, found.time_ns, type(found.value)) == (value, 7, type(value))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff\xfe", Bad.ENCODING),
        (b'{"trace_id":"' + b"x" * LINE_BYTES_MAX, Bad.TOO_LONG),
        (b"{", Bad.SYNTAX),
        (b"[]", Bad.SYNTAX),
        (b"[" * 30_000, Bad.SYNTAX),
        (b'{"value":1,"value":2}', Bad.SYNTAX),
        (b'{"value":NaN}', Bad.SYNTAX),
        (b'{"label":1}', Bad.COLUMNS),
        (b'{"value":1}', Bad.TRACE_ID),
        (b'{"value":1,"trace_id":7}', Bad.TRACE_ID),
        (b'{"value":1,"trace_id":"' + b"0" * 32 + b'"}', Bad.TRACE_ID),
        (b'{"value":1,"trace_id":"0x112233445566778899aabbccddeeff"}', Bad.TRACE_ID),
        (f'{{"trace_id":"{ID}"}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":null}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":""}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":[1]}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":1e999}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":9223372036854775808}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":"a\\nb"}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":"\\ud800"}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":"{"ä" * 129}"}}'.encode(), Bad.VALUE),
        (f'{{"trace_id":"{ID}","value":1,"model":3}}'.encode(), Bad.MODEL),
        (f'{{"trace_id":"{ID}","value":1,"time":"2026-01-01T00:00:00"}}'.encode(), Bad.TIME),
        (f'{{"trace_id":"{ID}","value":1,"time":"noon"}}'.encode(), Bad.TIME),
        (f'{{"trace_id":"{ID}","value":1,"time":-1}}'.encode(), Bad.TIME),
        (f'{{"trace_id":"{ID}","value":1,"time":true}}'.encode(), Bad.TIME),
    ],
)
def test_a_bad_line_has_a_reason(line: bytes, reason: Bad) -> None:
    with pytest.raises(BadLineError) as caught:
        Reader(Layout.JSONL).read(line)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        (f"{ID},a,b", ValueType.STRING, Bad.COLUMNS),
        (f"{ID}", ValueType.STRING, Bad.COLUMNS),
        (f'{ID},"a', ValueType.STRING, Bad.SYNTAX),
        (f"{ID},", ValueType.STRING, Bad.VALUE),
        (f"{ID},1.5", ValueType.INT, Bad.VALUE),
        (f"{ID},nan", ValueType.DOUBLE, Bad.VALUE),
        (f"{ID},yes", ValueType.BOOL, Bad.VALUE),
        ("x,1", ValueType.STRING, Bad.TRACE_ID),
    ],
)
def test_a_bad_line_of_csv_has_a_reason(line: str, kind: ValueType, reason: Bad) -> None:
    reader = Reader(Layout.CSV, kind)
    reader.take_header(b"trace_id,value")
    with pytest.raises(BadLineError) as caught:
        reader.read(line.encode())
    assert caught.value.reason is reason


@pytest.mark.parametrize("header", [b"id,value", b"trace_id", b"trace_id,value,value", b'"', b""])
def test_a_header_that_cannot_be_used_is_refused(header: bytes) -> None:
    with pytest.raises(StartError, match="header"):
        Reader(Layout.CSV).take_header(header)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_label_or_a_reason(line: bytes) -> None:
    readers = [Reader(Layout.JSONL), Reader(Layout.CSV)]
    readers[1].take_header(b"trace_id,value")
    for reader in readers:
        with suppress(BadLineError):
            assert reader.read(line).trace_id


@given(
    st.lists(st.integers(0, 90), max_size=12),
    st.lists(st.integers(1, 60), min_size=1, max_size=12),
    st.booleans(),
)
def test_lines_are_given_once_however_the_file_grows(
    sizes: list[int], pieces: list[int], ended: bool
) -> None:
    """Each line as it is, those that are too long cut; places are those of a plain split."""
    most = 50
    rows = [bytes([97 + n % 26]) * size for n, size in enumerate(sizes)]
    data = b"\n".join(rows) + (b"\n" if ended and rows else b"")
    reading, writing = os.pipe()
    try:
        lines, at = Lines(reading, Place(), most), 0
        given_lines: list[Line] = []
        for turn in range(len(data) + 1):
            if at >= len(data):
                break
            piece = data[at : at + pieces[turn % len(pieces)]]
            at += os.write(writing, piece)
            # A pipe that has data never waits; one without would, so that ask only for whole lines.
            while data[:at].count(b"\n") > len(given_lines):
                line = lines.maybe_next()
                if line is not None:
                    given_lines.append(line)
        os.close(writing)
        writing = -1
        while not lines.at_end:
            assert lines.maybe_next() is None
        rest = lines.maybe_rest()
        given_lines += [rest] if rest else []
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    expected = data.splitlines(keepends=True)
    assert [line.number for line in given_lines] == list(range(1, len(expected) + 1))
    end = 0
    for line, whole in zip(given_lines, expected, strict=True):
        end += len(whole)
        assert line.end == end
        if len(whole.rstrip(b"\n")) <= most:
            assert line.data == whole
        else:
            assert len(line.data) > most
            assert whole.startswith(line.data.rstrip(b"\n"))
