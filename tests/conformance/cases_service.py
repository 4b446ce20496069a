"""Requests of the sections "Paths, methods and services", "Credentials" and "Overload"."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from tests.conformance.cases_encoding import HUGE_BYTES, gzipped, padded
from tests.conformance.cases_items import good
from tests.conformance.request import (
    BEARER,
    SMALL_BYTES,
    TOKEN,
    TOKEN_EXPIRED,
    Make,
    Request,
    Sends,
)
from tests.conformance.signals import MARK, Signal, Via, body_of

PROFILES_PATH: Final = "/v1development/profiles"
PROFILES_RPC: Final = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
CHUNK_BYTES: Final = 100


def _at(path: Callable[[Signal], str]) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        return Request(body=body_of(signal, via), path=path(signal))

    return make


def _with(method: str, *, has_body: bool) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        return Request(body=body_of(signal, via) if has_body else b"", method=method)

    return make


def _called(rpc: Callable[[Signal], str]) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        return Request(body=body_of(signal, via), rpc=rpc(signal))

    return make


def _allowed(authorization: str, sends: Sends = Sends.ALL) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        return Request(
            body=body_of(signal, via),
            authorization=authorization,
            sends=sends,
            expects_continue=sends is Sends.HEAD_FIRST,
        )

    return make


def _refused(authorization: str | None) -> Make:
    """Send headers only."""

    def make(signal: Signal, via: Via) -> Request:
        return Request(
            authorization=authorization,
            sends=Sends.HEAD,
            declared_bytes=len(body_of(signal, via)),
            expects_continue=via is not Via.GRPC,
        )

    return make


def _refused_first(declared_bytes: int | None, encodings: tuple[str, ...]) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        request = _refused(f"Bearer {MARK}")(signal, via)
        return replace(
            request,
            declared_bytes=declared_bytes or request.declared_bytes,
            encodings=encodings,
        )

    return make


def _chunked(signal: Signal, via: Via) -> Request:
    return replace(good(3)(signal, via), chunk_bytes=CHUNK_BYTES)


def _too_large(signal: Signal, via: Via) -> Request:
    return Request(body=padded(signal, via, SMALL_BYTES + 1))


def _truncated(signal: Signal, via: Via) -> Request:
    return Request(body=body_of(signal, via, 3)[:-1])


CASES: Final[Mapping[str, Make]] = {
    "path-unknown": _at(lambda signal: f"/v1/{MARK}-{signal.name}"),
    "path-version": _at(lambda signal: f"/v2/{signal.name}"),
    "path-root": _at(lambda _: "/"),
    "path-profiles": _at(lambda _: PROFILES_PATH),
    "method-get": _with("GET", has_body=False),
    "method-put": _with("PUT", has_body=True),
    "method-delete": _with("DELETE", has_body=False),
    "rpc-unknown-method": _called(lambda signal: f"/{signal.service}/Import"),
    "rpc-unknown-service": _called(lambda signal: f"/{signal.service}2/Export"),
    "rpc-profiles": _called(lambda _: PROFILES_RPC),
    "token-right": _allowed(BEARER),
    "token-lower-case-scheme": _allowed(f"bearer {TOKEN}"),
    "token-expect": _allowed(BEARER, Sends.HEAD_FIRST),
    "token-none": _refused(None),
    "token-empty": _refused("Bearer"),
    "token-other-scheme": _refused(f"Basic {TOKEN}"),
    "token-wrong": _refused(f"Bearer {MARK}"),
    "token-expired": _refused(f"Bearer {TOKEN_EXPIRED}"),
    "token-before-size": _refused_first(HUGE_BYTES, ()),
    "token-before-type": _refused_first(None, ("br",)),
    "full": good(3),
    "full-gzip": gzipped(good(3)),
    "full-chunked": _chunked,
    "full-too-large": _too_large,
    "full-wrong-path": _at(lambda signal: f"/v1/{MARK}-{signal.name}"),
    "ill-disk": good(3),
    "ill-disk-bad-data": _truncated,
}
