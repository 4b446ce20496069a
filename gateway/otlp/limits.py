"""What one request and one batch may hold, for all signals.

Law: every limit has a name, a unit and a reason; nothing is sized before it is counted.
"""

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request and one batch may hold.

    Units: counts per request, bytes, levels of AnyValue. Each has its reason.
    """

    # Two bytes on the wire become a row of 136 bytes, so the count is bounded before the table is.
    # Data points and log records, which become messages of that size, share it.
    spans_max: int = 65_536
    # Attributes, events, links, resources and scopes of a request together; 40 to 64 bytes each,
    # twice while a batch is closed. Bodies of 20 MiB hold so many of 40 bytes.
    items_max: int = 524_288
    # upb and the pure Python decoder stop near 50 levels; real traces use two.
    depth_max: int = 16
    text_bytes_max: int = 1 << 20
    # Distinct attribute keys a site may show in its life; later ones are kept, but not by number.
    keys_max: int = 8_192
    # A batch is handed on long before this; it only bounds what one group may hold.
    arena_bytes_max: int = 256 << 20


DEFAULT_LIMITS: Final = Limits()
# Metrics and logs become message objects of about 100 bytes for each repeated value.
PARCEL_LIMITS: Final = replace(DEFAULT_LIMITS, items_max=262_144)
