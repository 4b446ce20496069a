"""Read query parameters, all of them bounded in number, length and range.

Law: nothing of a query string reaches a room unchecked; what is wrong is named together with what
to write instead.
"""

import json
import re
from fractions import Fraction
from typing import Final

from aiohttp import web

from gateway.errors import InvalidQueryError

PARAMETERS_MAX: Final = 32
LENGTH_MAX: Final = 512
TAGS_LENGTH_MAX: Final = 4_096
TAGS_MAX: Final = 16
NS_MAX: Final = (1 << 64) - 1

_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_GO_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_GO_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def check_known(request: web.Request, known: frozenset[str], *, strict: bool) -> None:
    """Refuse too many, too long, repeated and (when strict) unknown parameters."""
    names = list(request.query.keys())
    if len(names) > PARAMETERS_MAX:
        raise InvalidQueryError(f"send at most {PARAMETERS_MAX} query parameters")
    for name in names:
        if strict and name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise InvalidQueryError(f"unknown query parameter {name[:64]!r}; known here: {allowed}")
        limit = TAGS_LENGTH_MAX if name == "tags" else LENGTH_MAX
        if name in known and len(request.query[name]) > limit:
            raise InvalidQueryError(f"{name} is longer than {limit} characters")
        if name in known and len(request.query.getall(name)) > 1:
            raise InvalidQueryError(f"send {name} once")


def maybe_text(request: web.Request, name: str) -> str | None:
    """Read a text; an empty one counts as not sent."""
    return request.query.get(name) or None


def maybe_choice(request: web.Request, name: str, choices: tuple[str, ...]) -> str | None:
    """Read one of a closed set of words."""
    value = maybe_text(request, name)
    if value is not None and value not in choices:
        raise InvalidQueryError(f"{name} is one of {', '.join(choices)}")
    return value


def maybe_integer(request: web.Request, name: str, low: int, high: int) -> int | None:
    """Read an integer within a range."""
    value = maybe_text(request, name)
    if value is None:
        return None
    if not _INTEGER.fullmatch(value) or not low <= int(value) <= high:
        raise InvalidQueryError(f"{name} is an integer from {low} to {high}")
    return int(value)


def maybe_go_duration_ns(request: web.Request, name: str) -> int | None:
    """Read a duration as Go writes it, such as `1.2s` or `1h2m`; nanoseconds."""
    value = maybe_text(request, name)
    if value is None:
        return None
    total = Fraction(0)
    place = 0
    while place < len(value):
        part = _GO_PART.match(value, place)
        if part is None:
            raise InvalidQueryError(f"{name} is a duration such as 100ms, 1.2s or 1h2m")
        total += Fraction(part[1]) * _GO_NS[part[2]]
        place = part.end()
    if total > NS_MAX >> 1:
        raise InvalidQueryError(f"{name} is longer than 292 years")
    return int(total)


def tags(request: web.Request) -> dict[str, str]:
    """Read Jaeger's tags: a JSON object of strings."""
    value = maybe_text(request, "tags")
    if value is None:
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidQueryError("tags is a JSON object of strings") from error
    if not isinstance(found, dict) or not all(isinstance(item, str) for item in found.values()):
        raise InvalidQueryError("tags is a JSON object of strings")
    if len(found) > TAGS_MAX:
        raise InvalidQueryError(f"send at most {TAGS_MAX} tags")
    return found
