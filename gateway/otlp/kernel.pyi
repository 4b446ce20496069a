"""Types of the compiled kernel; what each function does is documented in kernel.pyx."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.tables import Bytes, Int32, Table, UInt8, UInt32, UInt64

SOURCE_DIGEST: str
REJECTIONS: tuple[str, ...]

class Literals:
    def __init__(self, texts: Sequence[bytes]) -> None: ...
    def codes(self, arena: Bytes, offset: UInt32, length: UInt32) -> Int32: ...

class Scanner:
    def __init__(
        self,
        *,
        keys_max: int,
        depth_max: int,
        spans_max: int,
        items_max: int,
        text_bytes_max: int,
        arena_bytes_max: int,
    ) -> None: ...
    def intern(self, key: bytes) -> int: ...
    def key_text(self, key: int) -> bytes: ...
    def scan(
        self,
        body: bytes,
        arrival_ns: int,
        identity: int,
        transport: int,
        wire_bytes: int,
        device: bytes,
    ) -> tuple[int, int, int, int]: ...
    def take(self) -> dict[str, Any]: ...
    @property
    def spans(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def keys(self) -> int: ...

def factorize(arena: Bytes, offset: UInt32, length: UInt32) -> tuple[Int32, Int32]: ...
def factorize_ids(hi: UInt64, lo: UInt64) -> tuple[Int32, Int32]: ...
def gather(arena: Bytes, offset: UInt32, length: UInt32) -> tuple[Bytes, UInt32]: ...
def gather_parts(
    arenas: list[Bytes], part: Int32, offset: UInt32, length: UInt32
) -> tuple[Bytes, NDArray[np.int64]]: ...
def pivot(attributes: Table, slot_of_key: Int32, slots: int, owners: int) -> Int32: ...
def pack_fields(
    arena: Bytes,
    spans: UInt8,
    attributes: UInt8,
    events: UInt8,
    links: UInt8,
    drop: UInt8,
    drop_events: UInt8,
    drop_links: UInt8,
    head: UInt8,
) -> tuple[Bytes, UInt32]: ...
def encode_spans(
    text: Bytes,
    spans: Table,
    resources: Table,
    scopes: Table,
    keys: Table,
    kinds: UInt8,
    values: UInt64,
    present: UInt8,
    order: Int32,
) -> bytes: ...
