"""What a case puts on the wire, for any transport.

Law: a request says only what is sent; what must come back is said by the table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tests.conformance.signals import Signal, Via

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

# The limits of the servers that the table names.
SMALL_BYTES: Final = 64 << 10
GRPC_BYTES: Final = 4 << 20
HTTP_BYTES: Final = 20 << 20

# Device tokens of the server that asks for them.
TOKEN: Final = "dock-7-camera-3-token"
TOKEN_EXPIRED: Final = "dock-7-camera-2-token"
BEARER: Final = f"Bearer {TOKEN}"


class Sends(Enum):
    """How much of a request is sent before the answer is awaited."""

    ALL = auto()
    HEAD = auto()  # headers only, whatever they promise
    HEAD_FIRST = auto()  # the body after the server has asked for it with 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. None takes what the signal and the encoding say.

    Shape: `encodings` are the Content-Encoding lines; over gRPC only gzip. `chunk_bytes` above 0
    sends chunks. `declared_bytes` is the Content-Length where it is not that of the body.
    `unrepeated` are texts that an answer may not hold, beside the mark and the credential.
    """

    body: bytes = b""
    method: str = "POST"
    path: str | None = None
    rpc: str | None = None
    content_type: str | None = None
    has_content_type: bool = True
    encodings: tuple[str, ...] = ()
    authorization: str | None = None
    sends: Sends = Sends.ALL
    expects_continue: bool = False
    chunk_bytes: int = 0
    declared_bytes: int | None = None
    unrepeated: tuple[str, ...] = ()


Make = Callable[[Signal, Via], Request]


def media_type(via: Via) -> str:
    """Return the content type of an encoding."""
    return JSON if via is Via.JSON else PROTOBUF
