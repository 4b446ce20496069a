"""Collectors against a real gateway: outages, restarts of either side, TLS, tokens, certificates.

Law: what a collector counts as delivered is what `/metrics` counts as received, to the item; only a
gateway that is killed may have received a request that it could not acknowledge.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from collectors.client import Access, Client
from collectors.host import Host, request_of, sources_of
from collectors.transport import WireProtocol
from tests.flow.auth import DEVICE, TOKEN, Credential, make_papers, write_tokens
from tests.flow.site import scrape, site_file
from tests.process import ROOT, free_port, wait_until
from tests.servers import Gateway, collector, gateway

pytestmark = pytest.mark.flow

WAIT_S: Final = 60.0
ROUNDS: Final = 30
LABELS: Final = 400
BACKOFF: Final[dict[str, Any]] = {"backoff_s_min": 0.02, "backoff_s_max": 0.2}


def received(gateway: Gateway, signal: str) -> int:
    """Read how many items of a signal the gateway has received."""
    return int(scrape(gateway).total("weir_received_items_total", signal=signal))


class Site:
    """A gateway that comes and goes at the same addresses."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._grpc, self._http = free_port(), free_port()
        self._config = site_file(directory, None)
        self._lives = ExitStack()
        self.gateway = self.start()

    def start(self) -> Gateway:
        """Start it on what it left behind; the life before is at its end."""
        self._lives.close()
        life = gateway(
            self._directory,
            config=self._config,
            overrides=[
                f"receive.grpc.listen=127.0.0.1:{self._grpc}",
                f"receive.http.listen=127.0.0.1:{self._http}",
            ],
        )
        self.gateway = self._lives.enter_context(life)
        return self.gateway

    def close(self) -> None:
        """End it; what it has counted must balance."""
        self._lives.close()

    def access(self, protocol: WireProtocol) -> Access:
        """Point at it."""
        port = self._http if protocol is WireProtocol.HTTP else self._grpc
        return Access(endpoint=f"http://127.0.0.1:{port}", protocol=protocol, timeout_s=5.0)


@contextmanager
def site_in(directory: Path) -> Iterator[Site]:
    """Run a site for a block."""
    site = Site(directory)
    with closing(site):
        yield site


def send_rounds(client: Client, host: Host, rounds: int) -> None:
    """Send readings of this machine."""
    for number in range(rounds):
        client.send(request_of(host.read(), device="dock-host", host="dock", time_ns=number + 1))


def label_lines(first: int, count: int) -> str:
    """Write labels for traces that nobody has seen."""
    rows = ({"trace_id": f"{n + 1:032x}", "value": n % 4} for n in range(first, first + count))
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_an_outage_and_a_restart_of_both_sides_lose_nothing(tmp_path: Path) -> None:
    host = Host(sources_of())
    labels, buffer = tmp_path / "labels.jsonl", tmp_path / "buffer"
    labels.write_text(label_lines(0, LABELS // 2))
    with site_in(tmp_path / "site") as site:
        access = site.access(WireProtocol.HTTP)
        where = ("--endpoint", access.endpoint)
        with collector("labels", tmp_path, str(labels), "--follow", "--batch", "50", *where):
            first = Client(access, buffer_dir=buffer, **BACKOFF)
            send_rounds(first, host, ROUNDS)
            assert first.flush(WAIT_S)
            wait_for(site, "logs", LABELS // 2)
            assert site.gateway.server.stop() == 0
            # The gateway is away, the collector is restarted, and both were at work.
            send_rounds(first, host, ROUNDS)
            with labels.open("a") as more:
                more.write(label_lines(LABELS // 2, LABELS // 2))
            before = first.close(0.05)
            assert before.lost == 0
            assert before.waiting > 0
            job(tmp_path, *where, "--buffer", str(tmp_path / "jobs"), "--drain", "50ms")
            second = Client(access, buffer_dir=buffer, **BACKOFF)
            assert second.counts.found == before.waiting
            send_rounds(second, host, ROUNDS)
            site.start()
            assert second.flush(WAIT_S)
            after = second.close()
            # The next job also tells of the one that nobody heard of.
            job(tmp_path, *where, "--buffer", str(tmp_path / "jobs"))
            wait_for(site, "logs", LABELS + 2)
        assert (after.lost, after.waiting) == (0, 0)
        assert before.delivered + after.delivered == before.offered + after.offered
        assert received(site.gateway, "metrics") == before.delivered + after.delivered
        assert received(site.gateway, "logs") == LABELS + 2
        assert received(site.gateway, "traces") == 2
        assert json.loads((tmp_path / "labels.jsonl.sent.json").read_text())["line"] == LABELS


def wait_for(site: Site, signal: str, count: int) -> None:
    """Wait until the gateway has received so many items."""
    wait_until(
        lambda: received(site.gateway, signal) >= count,
        timeout_s=WAIT_S,
        what=lambda: f"{count} {signal}, there are {received(site.gateway, signal)}",
    )


def job(directory: Path, *where: str) -> None:
    """Run a batch job that enriches two traces."""
    traces = directory / "traces"
    traces.write_text(f"{1:032x}\n{2:032x}\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "collectors.batch", "--job", "nightly-7"),
            *("--model", "damage-net", "--cost-per-hour", "1.20", "--traces", str(traces)),
            *(*where, "--", "true"),
        ],
        cwd=ROOT,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_killed_gateway_has_all_that_it_acknowledged(tmp_path: Path) -> None:
    host = Host(sources_of())
    with site_in(tmp_path) as site:
        client = Client(site.access(WireProtocol.GRPC), **BACKOFF)
        kills, points = 2, len(request_points(host))
        for _ in range(kills):
            send_rounds(client, host, ROUNDS)
            wait_until(lambda: client.counts.delivered, timeout_s=WAIT_S, what="a delivery")
            site.gateway.kill()
            send_rounds(client, host, ROUNDS)
            site.start()
        assert client.flush(WAIT_S)
        counts = client.close()
        assert (counts.delivered, counts.lost) == (counts.offered, 0)
        # One request is under way at a time, so that a kill repeats one at most.
        twice = received(site.gateway, "metrics") - counts.delivered
        assert 0 <= twice <= kills * points


def request_points(host: Host) -> list[object]:
    """List the points of one round; the first two tell how many there can be."""
    host.read()
    return [each for _ in range(2) for each in host.read()]


@pytest.mark.parametrize("protocol", list(WireProtocol))
def test_tokens_and_certificates(tmp_path: Path, protocol: WireProtocol) -> None:
    papers = make_papers(tmp_path / "papers")
    cert, key = papers.authority.server()
    tls = {"cert": str(cert), "key": str(key), "client_ca": str(papers.authority.path)}
    token, tokens = tmp_path / "token", tmp_path / "tokens.json"
    token.write_text(TOKEN)
    write_tokens(tokens, (TOKEN, 1))
    config = site_file(tmp_path, None, receive={"tls": tls, "tokens_file": str(tokens)})
    with gateway(tmp_path, config=config) as target:
        address = target.otlp_http if protocol is WireProtocol.HTTP else target.otlp_grpc
        nameless = papers.clients[Credential.NAMELESS]
        right = papers.clients[Credential.RIGHT]
        common: dict[str, Any] = {
            "endpoint": f"https://{address}",
            "protocol": protocol,
            "ca": papers.authority.path,
        }
        by_certificate = Access(**common, cert=right[0], key=right[1])
        by_token = Access(**common, cert=nameless[0], key=nameless[1], token_file=token)
        stranger = Access(**common, cert=nameless[0], key=nameless[1])
        host, sent = Host(sources_of()), 0
        for access in (by_certificate, by_token):
            for device in (DEVICE, "camera-4"):
                with Client(access, **BACKOFF) as client:
                    client.send(request_of(host.read(), device=device, host="", time_ns=1))
                    assert client.flush(WAIT_S)
                counts = client.counts
                assert (counts.rejected == 0) == (device == DEVICE)
                sent += counts.delivered
        with Client(stranger, **BACKOFF) as client:
            client.send(request_of(host.read(), device=DEVICE, host="", time_ns=1))
            assert client.flush(WAIT_S)
        assert client.counts.refused > 0
        assert "401" in client.counts.refusal or "UNAUTHENTICATED" in client.counts.refusal
        # A gateway that the authority does not vouch for is told nothing.
        with Client(Access(**{**common, "ca": None}), **BACKOFF) as client:
            client.send(request_of(host.read(), device=DEVICE, host="", time_ns=1))
            wait_until(lambda: client.counts.retries, timeout_s=WAIT_S, what="an attempt")
            assert client.close(0.0).delivered == 0
        assert received(target, "metrics") == sent
