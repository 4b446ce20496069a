"""Figures and how they are printed: machine, size, median, spread.

Law: a figure is never printed without its spread and its size, and never rounded to more than
three digits.
"""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

PACKAGES: Final = ("numpy", "protobuf", "grpcio", "aiohttp", "uvloop", "pyarrow", "zstandard")
THOUSAND: Final = 1e3
MILLION: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Median and quartiles of repeated measurements of one figure."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    repeats: int

    def over(self, peer: "Summary") -> float:
        """Return how many times this median is the peer's."""
        return self.median / peer.median


def summarize(values: Sequence[float]) -> Summary:
    """Reduce measurements to median and quartiles."""
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return Summary(median=median, low=low, high=high, repeats=len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One printed table; cells are text, the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one benchmark gives: tables for a person, figures for a program."""

    tables: tuple[Table, ...]
    figures: dict[str, Any]


def number(value: float) -> str:
    """Write three digits with k or M."""
    for unit, suffix in ((MILLION, "M"), (THOUSAND, "k")):
        if abs(value) >= unit:
            return f"{_digits(value / unit)} {suffix}"
    return _digits(value)


def _digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(summary: Summary) -> str:
    """Write a median with its quartiles."""
    return f"{number(summary.median)} [{number(summary.low)}, {number(summary.high)}]"


def render(table: Table) -> str:
    """Lay a table out with aligned columns."""
    lines = [table.columns, *table.rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(table.columns))]
    out = [table.title]
    for line in lines:
        cells = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.append("  " + "   ".join(cells).rstrip())
    return "\n".join([*out, *(f"  {note}" for note in table.notes)])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def machine() -> dict[str, str]:
    """Describe the machine, the versions and how busy it is."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{pages * page_bytes / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "versions": versions,
        "load average": load,
    }


def plain(value: Any) -> Any:
    """Turn summaries inside figures into dictionaries, for JSON."""
    if isinstance(value, Summary):
        return asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return value
