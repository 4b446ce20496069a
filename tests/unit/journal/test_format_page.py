"""docs/journal.md says what the code does: sizes, offsets, magic numbers and limits."""

import re
import struct
from pathlib import Path
from typing import Final

import pytest

from gateway.home import FREE_BYTES_MIN
from gateway.journal import cipher, frame, keys, log, quarantine
from gateway.journal.commit import JOURNAL_SHARES

PAGE: Final = (Path(__file__).resolve().parents[3] / "docs" / "journal.md").read_text()
# Heading of a table and the structures whose fields it lists, one after the other.
TABLES: Final = {
    "### Segment header": (frame._SEGMENT, frame._SEGMENT_KEY),
    "### Frame header": (frame._FRAME,),
    "### Payload": (frame._ENTRY,),
    "### Encrypted payload": (cipher._PREFIX,),
}
_FIELD: Final = re.compile(r"(\d*)([sBHIQ])")


def fields_of(layout: struct.Struct) -> list[int]:
    """List the sizes of the fields of a packed structure."""
    sizes = []
    for count, code in _FIELD.findall(layout.format.lstrip("<")):
        sizes.append(int(count) if code == "s" else struct.calcsize(f"<{code}"))
    assert sum(sizes) == layout.size
    return sizes


def section(heading: str) -> str:
    """Return the text from a heading to the next."""
    _, _, rest = PAGE.partition(f"{heading}\n")
    assert rest, heading
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("heading", TABLES)
def test_every_field_stands_at_its_offset(heading: str) -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", section(heading), re.MULTILINE)
    expected, offset = [], 0
    for layout in TABLES[heading]:
        for size in fields_of(layout):
            expected.append((offset, size))
            offset += size
    assert [(int(at), int(size)) for at, size in rows] == expected


def test_sizes_and_magic_numbers_are_those_of_the_code() -> None:
    segment, frames = section("### Segment header"), section("### Frame header")
    assert f"`{frame.SEGMENT_MAGIC.hex()}`" in segment
    plain, encrypted = frame.SEGMENT_HEADER_BYTES, frame.SEGMENT_HEADER_BYTES_MAX
    assert f"{plain} bytes plain, {encrypted} bytes encrypted" in segment
    assert f"`{frame.FRAME_MAGIC.hex()}`" in frames
    assert frames.lstrip().startswith(f"{frame.FRAME_HEADER_BYTES} bytes.")
    for version, codec in frame.CODECS.items():
        assert f"codec: {codec} " in frames or f"{codec} zstd and AES-256-GCM" in frames
        assert f"version: {version} " in frames or f", {version} encrypted" in frames


def test_limits_are_those_of_the_code() -> None:
    whole = " ".join(PAGE.split())
    mib = 1 << 20
    assert f"at most {frame.RAW_BYTES_MAX // mib} MiB" in whole
    assert f"identity, at most {frame.IDENTITY_BYTES_MAX} " in whole
    assert f"A segment is at most {log.SEGMENT_BYTES // mib} MiB and at most a quarter" in whole
    assert log.SEGMENTS_MIN == JOURNAL_SHARES == 4
    assert f"({quarantine.QUARANTINE_BYTES_MAX // mib} MiB in all)" in whole
    assert f"The last {FREE_BYTES_MIN // mib} MiB of the disk" in whole
    assert f"at most {keys.COMMAND_S:g} s, and may print at most" in whole
    assert f"{keys.TEXT_BYTES_MAX >> 10} KiB" in whole
    assert f"{2 * cipher.KEY_BYTES} hexadecimal digits" in whole
    assert f"The tag of {cipher.TAG_BYTES} bytes" in whole
    assert cipher._KEY_ID_PURPOSE.decode() in whole
    assert cipher._SEGMENT_PURPOSE.decode() in whole
