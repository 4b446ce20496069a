"""What the gateway's answer means for a request: taken, try again later, or refused for good.

Law: what may be tried again is OTLP's to say, in `gateway.otlp.answers`.
"""

import random
from dataclasses import dataclass
from typing import Final

import grpc

from gateway.otlp.answers import (
    RETRY_AFTER_S_MAX,
    is_retryable_grpc,
    is_retryable_http,
    maybe_retry_info_s,
    partial_success,
    plain,
    status_text,
)

# Part of a hint that is added at random, so that senders told the same do not return together.
HINT_SPREAD_RATIO: Final = 0.1
BACKOFF_DOUBLINGS_MAX: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The request was taken, all but `rejected` items; `message` may warn or say why."""

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """The same request may be sent again. Units: hint_s is the server's wish, None without one."""

    message: str
    hint_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The request must not be sent again."""

    message: str


Outcome = Taken | Later | Refused


def outcome_of_http(status: int, body: bytes, protobuf: bool, hint_s: float | None) -> Outcome:
    """Read an HTTP answer; `protobuf` says that its content type is OTLP's."""
    if 200 <= status < 300:
        if not protobuf and body:
            # A captive portal or a proxy answers anything with a page.
            return Later(message=f"HTTP {status} with a body that is not OTLP")
        return taken(body)
    text = status_text(body) if protobuf else ""
    message = f"HTTP {status}" + (f": {text}" if text else "")
    if is_retryable_http(status):
        return Later(message=message, hint_s=hint_s)
    return Refused(message=message)


def outcome_of_grpc(error: grpc.RpcError) -> Later | Refused:
    """Read a failed call."""
    code, hint_s = error.code(), maybe_retry_info_s(error)
    message = f"gRPC {code.name}: {plain(error.details() or '')}"
    if is_retryable_grpc(code, hint_s):
        return Later(message=message, hint_s=hint_s)
    return Refused(message=message)


def taken(body: bytes) -> Taken:
    """Read how many items were rejected."""
    rejected, message = partial_success(body)
    return Taken(rejected=rejected, message=message)


def pause_s(
    failures: int, hint_s: float | None, rng: random.Random, *, least_s: float, most_s: float
) -> float:
    """Say how long to wait after so many failures in a row; a hint replaces the exponential.

    Source: M. Brooker, "Exponential Backoff and Jitter", 2015: full jitter.
    """
    if hint_s is not None:
        hint = min(max(hint_s, least_s), RETRY_AFTER_S_MAX)
        return hint * (1.0 + rng.uniform(0.0, HINT_SPREAD_RATIO))
    doublings = min(max(0, failures - 1), BACKOFF_DOUBLINGS_MAX)
    return rng.uniform(0.0, min(most_s, least_s * 2.0**doublings))
