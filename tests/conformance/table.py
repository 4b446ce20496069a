"""The golden table, read from its Markdown page.

Law: a cell that cannot be understood is an error, so that no expectation is skipped silently.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import grpc

from tests.conformance.signals import SIGNALS, Signal, Via
from tests.process import ROOT

PAGE: Final = ROOT / "tests" / "golden" / "otlp_matrix.md"
COLUMNS: Final = (
    "case",
    "rule",
    "signals",
    "via",
    "server",
    "what is sent",
    "gRPC",
    "HTTP",
    "answer",
    "kept",
)
MAP_COLUMNS: Final = ("HTTP", "Status.code", "gRPC")
SERVERS: Final = frozenset({"default", "tokens", "small", "full", "ill disk"})
NONE: Final = "–"

_HTTP: Final = re.compile(r"([1-5]\d\d)((?: \+ [A-Z][A-Za-z-]+)*)")
_GRPC: Final = re.compile(r"([A-Z_]+)( \+ RetryInfo)?")
_ANSWER: Final = re.compile(
    r"(?:(empty)|partial (\d+) of (\d+)|Status( \+ BadRequest)?)((?: \"[^\"]+\")*)"
)
_HEADERS: Final = frozenset({"Retry-After", "WWW-Authenticate", "Allow", "Accept-Encoding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the response says: nothing, a count of refused items, or a Status."""

    is_status: bool
    bad_request: bool
    rejected: int
    items: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case. `http_status` and `grpc_code` are None where the row is not for that transport."""

    case: str
    rule: str
    signals: tuple[Signal, ...]
    vias: tuple[Via, ...]
    server: str
    grpc_code: grpc.StatusCode | None
    grpc_retries: bool
    http_status: int | None
    http_headers: frozenset[str]
    answer: Answer
    kept: int

    @property
    def retries(self) -> bool:
        """Whether the client is told to come back."""
        return self.grpc_retries or "Retry-After" in self.http_headers


def _letters(text: str, known: Mapping[str, object], what: str) -> list[str]:
    if not text or len(set(text)) != len(text) or not set(text) <= set(known):
        raise ValueError(f"{what}: {text!r}")
    return list(text)


def _row(cells: Mapping[str, str]) -> Row:
    signals = {signal.letter: signal for signal in SIGNALS}
    vias = {via.value: via for via in Via}
    grpc_cell = None if cells["gRPC"] == NONE else _GRPC.fullmatch(cells["gRPC"])
    http_cell = None if cells["HTTP"] == NONE else _HTTP.fullmatch(cells["HTTP"])
    answer = _ANSWER.fullmatch(cells["answer"])
    headers = frozenset(http_cell[2].split(" + ")[1:]) if http_cell else frozenset()
    row = Row(
        case=cells["case"],
        rule=cells["rule"],
        signals=tuple(signals[each] for each in _letters(cells["signals"], signals, "signals")),
        vias=tuple(vias[each] for each in _letters(cells["via"], vias, "via")),
        server=cells["server"],
        grpc_code=grpc.StatusCode[grpc_cell[1]] if grpc_cell else None,
        grpc_retries=bool(grpc_cell and grpc_cell[2]),
        http_status=int(http_cell[1]) if http_cell else None,
        http_headers=headers,
        answer=_answer(answer),
        kept=int(cells["kept"]),
    )
    if row.server not in SERVERS or not headers <= _HEADERS or not row.rule:
        raise ValueError("server, header or rule")
    if (Via.GRPC in row.vias) != (row.grpc_code is not None):
        raise ValueError("via and the gRPC cell disagree")
    if (set(row.vias) != {Via.GRPC}) != (row.http_status is not None):
        raise ValueError("via and the HTTP cell disagree")
    return row


def _answer(found: re.Match[str] | None) -> Answer:
    if found is None:
        raise ValueError("answer")
    return Answer(
        is_status=found[0].startswith("Status"),
        bad_request=bool(found[4]),
        rejected=int(found[2] or 0),
        items=int(found[3] or 0),
        words=tuple(re.findall(r'"([^"]+)"', found[5])),
    )


def _tables(text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield line number and cells, by column name, of every row of every table."""
    columns: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|"):
            columns = ()
            continue
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if not columns:
            columns = cells
        elif set(line) - set("|-"):
            if len(cells) != len(columns):
                raise ValueError(f"line {number}: {len(cells)} cells, {len(columns)} columns")
            yield number, dict(zip(columns, cells, strict=True))


def parse_rows(text: str) -> list[Row]:
    """Read all cases of a page.

    Raises: ValueError that names the line.
    """
    rows = []
    for number, cells in _tables(text):
        if tuple(cells) == COLUMNS:
            try:
                rows.append(_row(cells))
            except (ValueError, KeyError) as error:
                raise ValueError(f"line {number}: {error}") from error
        elif tuple(cells) != MAP_COLUMNS:
            raise ValueError(f"line {number}: unknown columns {tuple(cells)}")
    return rows


def parse_map(text: str) -> dict[int, tuple[int, grpc.StatusCode]]:
    """Read the status map of a page: HTTP status to Status.code and gRPC code."""
    return {
        int(cells["HTTP"]): (int(cells["Status.code"]), grpc.StatusCode[cells["gRPC"]])
        for _, cells in _tables(text)
        if tuple(cells) == MAP_COLUMNS
    }


@cache
def rows(page: Path = PAGE) -> tuple[Row, ...]:
    """Return all cases of the golden page."""
    return tuple(parse_rows(page.read_text(encoding="utf-8")))


@cache
def status_map(page: Path = PAGE) -> Mapping[int, tuple[int, grpc.StatusCode]]:
    """Return the status map of the golden page."""
    return parse_map(page.read_text(encoding="utf-8"))
