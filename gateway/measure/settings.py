"""Knobs of the measurements, in the units in which they are used.

Law: a setting is a number or a choice; nothing here reads a file.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SECOND_NS: Final = 1_000_000_000
# How far `advance` stays behind the clock, so that a group that is still being written when an
# idle step happens lands in the same tick in which a replay would put it.
ADVANCE_GRACE_NS: Final = 2 * SECOND_NS


class FalseAlarms(StrEnum):
    """For whom the budget of false alarms of a contract holds."""

    SIGNAL = "signal"  # for each detector by itself
    SITE = "site"  # for all detectors of the site together


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """Limits and periods of the measurements. Units: seconds and counts, as named."""

    drift_tick_s: float = 10.0
    # Events of which a baseline is learned, at least; see `drift.streams` for how many more.
    baseline_events: int = 4000
    false_alarms: FalseAlarms = FalseAlarms.SIGNAL
    # Pairs of model and version; later ones count in the series ("~other", "~other").
    series_max: int = 1024
    devices_max: int = 100_000
    # Traces whose predictions wait for a label; of more, a sample waits.
    labels_max: int = 262_144
    # How far alert evaluation stays behind the newest arrival.
    lateness_s: float = 30.0
    # How far an event time may lie in the future before it is clamped.
    clock_ahead_s: float = 120.0
    # How long a drift or a burn must be gone before its anomaly is resolved.
    drift_quiet_s: float = 3600.0
    slo_quiet_s: float = 600.0
    # Identities that may declare rollouts, batch jobs and acknowledgements.
    deployers: frozenset[str] = frozenset()

    @property
    def drift_tick_ns(self) -> int:
        """Length of a drift tick in nanoseconds."""
        return round(self.drift_tick_s * SECOND_NS)
