"""Types of the compiled schema walker; what each function does is documented in wire.pyx."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

SOURCE_DIGEST: str
LEVELS_MAX: int

class Limits(Protocol):
    @property
    def spans_max(self) -> int: ...
    @property
    def items_max(self) -> int: ...
    @property
    def depth_max(self) -> int: ...
    @property
    def text_bytes_max(self) -> int: ...

class Schema:
    def __init__(self, messages: Sequence[Any]) -> None: ...

class Screened(NamedTuple):
    body: bytes
    accepted: int
    rejected: int
    reason: str
    mismatched: int = 0

def screen(schema: Schema, body: bytes, *, limits: Limits, device: bytes = b"") -> Screened: ...
def transcode(schema: Schema, text: bytes, *, limits: Limits) -> tuple[bytes, int]: ...
