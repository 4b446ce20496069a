"""What a person writes on the command line is understood exactly, or refused with advice."""

from typing import Any, Final

import pytest
import typer

from collectors.options import access_of, duration_s, size_bytes
from collectors.transport import WireProtocol
from gateway.errors import StartError

NOTHING: Final[dict[str, Any]] = {
    "protocol": WireProtocol.HTTP,
    "header": None,
    "token_file": None,
    "ca": None,
    "cert": None,
    "key": None,
    "insecure": False,
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15.0), ("250ms", 0.25), ("1.5m", 90.0), ("24h", 86_400.0), ("2d", 172_800.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["15", "0s", "-1s", "3x", "", "1 s", "1e3s", "9" * 30 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 15s"):
        duration_s(text)


@pytest.mark.parametrize(("text", "size"), [("256KiB", 262_144), ("16MiB", 1 << 24)])
def test_sizes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["16", "1KiB", "16MB", "65GiB", "-1MiB", ""])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write 16MiB"):
        size_bytes(text)


def test_headers_have_a_name_and_a_value() -> None:
    given = {**NOTHING, "header": ["x-site=dock 7", "y = a=b "]}
    assert access_of("http://127.0.0.1", **given).headers == {"x-site": "dock 7", "y": "a=b"}
    with pytest.raises(StartError, match="--header name=value"):
        access_of("http://127.0.0.1", **{**NOTHING, "header": ["x"]})


def test_there_is_an_endpoint() -> None:
    with pytest.raises(StartError, match="write --endpoint"):
        access_of(None, **NOTHING)
