"""Every row of the golden table, over every transport and for every signal that it names.

Law: a test knows the wire and the table, nothing of the gateway's code. After each answer the same
connection takes a good request, unless the server has said that it ends it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.conformance.cases import CASES
from tests.conformance.checks import check_grpc, check_http, is_ok
from tests.conformance.http_driver import HttpAnswer
from tests.conformance.request import Sends
from tests.conformance.signals import Signal, Via
from tests.conformance.sites import PLAYED_BY, Site, line, running_site, state
from tests.conformance.table import Row, rows

pytestmark = pytest.mark.flow

SiteOf = Callable[[str], Site]

_TRANSPORTS: Final = {Via.GRPC: "grpc", Via.PROTOBUF: "http", Via.JSON: "json"}


def _tried() -> list[object]:
    return [
        pytest.param(row, signal, via, id=f"{row.case}-{_TRANSPORTS[via]}-{signal.name}")
        for row in rows()
        for via in row.vias
        for signal in row.signals
    ]


@pytest.fixture(scope="module")
def site_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteOf]:
    """Start each gateway when it is first asked for, and end all of them together."""
    sites: dict[str, Site] = {}
    with ExitStack() as stack:

        def start(server: str) -> Site:
            name = PLAYED_BY[server]
            if name not in sites:
                directory = tmp_path_factory.mktemp(name)
                sites[name] = stack.enter_context(running_site(name, directory))
            return sites[name]

        yield start


@pytest.mark.parametrize(("row", "signal", "via"), _tried())
def test_answer_is_that_of_the_table(site_of: SiteOf, row: Row, signal: Signal, via: Via) -> None:
    site = site_of(row.server)
    request = CASES[row.case](signal, via)
    with line(site, via) as opened:
        with state(site, row.server):
            site.kept(signal)
            answer = opened.send(signal, request)
            kept = site.kept(signal)
        if isinstance(answer, HttpAnswer):
            check_http(row, signal, via, request, answer)
            assert answer.continued == (request.sends is Sends.HEAD_FIRST)
        else:
            check_grpc(row, signal, request, answer)
        assert kept == row.kept
        if not (isinstance(answer, HttpAnswer) and answer.closes):
            again = opened.send(signal, site.good(signal, via))
            assert is_ok(again), f"after {row.case}: {again}"
            site.kept(signal)
