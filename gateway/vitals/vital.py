"""What a metric is: name, type, unit, labels and help."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class VitalType(StrEnum):
    """How a metric behaves, in the words of OpenMetrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vital:
    """One metric. `known` lists the values of labels whose set is closed.

    A series is exposed as 0 from the start when every label of a counter or gauge is in `known`.
    """

    name: str
    type: VitalType
    unit: str  # empty for counts of things that the name says
    labels: tuple[str, ...]
    help: str
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


COUNTER: Final = VitalType.COUNTER
GAUGE: Final = VitalType.GAUGE
HISTOGRAM: Final = VitalType.HISTOGRAM
