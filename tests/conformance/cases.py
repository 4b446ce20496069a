"""All cases of the matrix, by their name in the table."""

from collections.abc import Mapping
from typing import Final

from tests.conformance import (
    cases_encoding,
    cases_items,
    cases_json,
    cases_protobuf,
    cases_service,
)
from tests.conformance.request import Make

_PARTS: Final = (
    cases_items.CASES,
    cases_encoding.CASES,
    cases_protobuf.CASES,
    cases_json.CASES,
    cases_service.CASES,
)


def _joined() -> dict[str, Make]:
    joined: dict[str, Make] = {}
    for part in _PARTS:
        assert not joined.keys() & part.keys(), "a case is there twice"
        joined |= part
    return joined


CASES: Final[Mapping[str, Make]] = _joined()
