"""The gateways that the matrix is tried on, and the states that the table names.

Law: a state is there when its block begins, and the gateway has recovered when it ends.
"""

import hashlib
import json
import resource
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from gateway.receive.admission import SMALL_BODY_BYTES
from tests.conformance.checks import is_ok
from tests.conformance.grpc_driver import GrpcAnswer, call
from tests.conformance.http_driver import (
    HttpAnswer,
    HttpConnection,
    UnfinishedBodies,
    http_connection,
)
from tests.conformance.request import (
    BEARER,
    SMALL_BYTES,
    TOKEN,
    TOKEN_EXPIRED,
    Request,
)
from tests.conformance.signals import TRACES, Signal, Via, body_of
from tests.flow.site import scrape
from tests.ledger_check import check_identity
from tests.servers import Gateway, gateway, wait_until

SMALL_HOLDS_BYTES: Final = 4 * SMALL_BYTES
# Above three quarters a device may not add much, and the last part is kept for small bodies. Each
# body that fills the intake lacks its last byte, so that no request with an item fits.
SOFT_BYTES: Final = SMALL_HOLDS_BYTES * 3 // 4
STATE_S: Final = 10.0
RECEIVED: Final = "weir_received_items_total"

# The table's name of a server, and the gateway that plays it.
PLAYED_BY: Final[Mapping[str, str]] = {
    "default": "default",
    "tokens": "tokens",
    "small": "small",
    "full": "small",
    "ill disk": "small",
}


@dataclass(slots=True, kw_only=True)
class Site:
    """A gateway with its open channel, and how many items it had received when last asked."""

    gateway: Gateway
    channel: grpc.Channel
    authorization: str | None
    received: dict[str, int] = field(default_factory=dict)

    def kept(self, signal: Signal) -> int:
        """Return by how many items the counter has moved since it was asked last."""
        before = self.received.get(signal.name, 0)
        now = int(scrape(self.gateway).total(RECEIVED, signal=signal.name))
        self.received[signal.name] = now
        return now - before

    def good(self, signal: Signal, via: Via) -> Request:
        """Make a request of one item that this gateway takes."""
        return Request(body=body_of(signal, via), authorization=self.authorization)

    def probe(self) -> HttpAnswer:
        """Send spans on a connection of their own."""
        with http_connection(self.gateway.otlp_http) as connection:
            return connection.send(TRACES, Via.PROTOBUF, self.good(TRACES, Via.PROTOBUF))


class Line:
    """One HTTP connection or the site's gRPC channel, for one request after the other."""

    def __init__(self, site: Site, via: Via) -> None:
        self._site = site
        self._via = via
        self._connection: HttpConnection | None = None
        if via is not Via.GRPC:
            self._connection = HttpConnection(site.gateway.otlp_http)

    def send(self, signal: Signal, request: Request) -> HttpAnswer | GrpcAnswer:
        """Send one request."""
        if self._connection is None:
            return call(self._site.channel, signal, request)
        return self._connection.send(signal, self._via, request)

    def close(self) -> None:
        """Close the connection; the channel stays."""
        if self._connection is not None:
            self._connection.close()


@contextmanager
def line(site: Site, via: Via) -> Iterator[Line]:
    """Open a line for a block."""
    opened = Line(site, via)
    try:
        yield opened
    finally:
        opened.close()


# --- gateways ----------------------------------------------------------------------------------


def tokens_file(directory: Path) -> Path:
    """Write a file with a token that is valid and one whose time is over."""
    entries = [
        {
            "sha256": hashlib.sha256(token.encode()).hexdigest(),
            "device": device,
            "expires": expires,
        }
        for token, device, expires in (
            (TOKEN, "dock-7-camera-3", "2099-01-01T00:00:00Z"),
            (TOKEN_EXPIRED, "dock-7-camera-2", "2020-01-01T00:00:00Z"),
        )
    ]
    path = directory / "tokens.json"
    path.write_text(json.dumps(entries))
    return path


def overrides_of(name: str, directory: Path) -> tuple[str, ...]:
    """Return what sets one of the gateways apart."""
    match name:
        case "tokens":
            return (f"receive.tokens_file={tokens_file(directory)}",)
        case "small":
            return (
                f"receive.http.body_max={SMALL_BYTES}",
                f"receive.grpc.message_max={SMALL_BYTES}",
                f"receive.queue_max={SMALL_HOLDS_BYTES}",
            )
        case _:
            return ()


@contextmanager
def running_site(name: str, directory: Path) -> Iterator[Site]:
    """Run one of the gateways for a block; it must balance to the end, and end well."""
    # Requests come one by one here, so that no group is worth waiting for.
    overrides = ("journal.group=0ms", *overrides_of(name, directory))
    # A message above the limit of the server has to leave the client.
    options = [("grpc.max_send_message_length", -1)]
    with (
        gateway(directory, overrides=overrides) as running,
        grpc.insecure_channel(running.otlp_grpc, options=options) as channel,
    ):
        yield Site(
            gateway=running,
            channel=channel,
            authorization=BEARER if name == "tokens" else None,
        )
        check_identity(running.metrics())
    assert b"Traceback" not in running.server.log_path.read_bytes()


# --- states ------------------------------------------------------------------------------------


@contextmanager
def state(site: Site, server: str) -> Iterator[None]:
    """Put a gateway into the state that the table names."""
    match server:
        case "full":
            with _full(site):
                yield
        case "ill disk":
            with _ill_disk(site):
                yield
        case _:
            yield


@contextmanager
def _full(site: Site) -> Iterator[None]:
    """Fill the intake with bodies that do not end, until a request is refused."""
    # Large ones as far as they may go, and small ones, for which the rest is kept.
    large = SOFT_BYTES // SMALL_BYTES * [SMALL_BYTES]
    small = (SMALL_HOLDS_BYTES - SOFT_BYTES) // SMALL_BODY_BYTES * [SMALL_BODY_BYTES]
    bodies = UnfinishedBodies(site.gateway.otlp_http, TRACES, (*large, *small))

    def is_full() -> bool:
        # A request that is just being answered may have taken the room of one of them.
        is_refused = site.probe().status == 503
        return bodies.renew() == 0 and is_refused

    with closing(bodies):
        wait_until(is_full, timeout_s=STATE_S, what="the intake to be full")
        yield
    wait_until(lambda: is_ok(site.probe()), timeout_s=STATE_S, what="room in the intake")


@contextmanager
def _ill_disk(site: Site) -> Iterator[None]:
    """Let every write to a file fail, as an ill disk does."""
    pid = site.gateway.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    wait_until(lambda: is_ok(site.probe()), timeout_s=STATE_S, what="the disk to be well")
