"""The catalogue of Weir's own metrics: name, type, unit, labels and help, each written once.

Law: what is not here is not exposed; the renderer refuses other names and other labels, and
dashboards and alerts may only use these. Names carry base units; counters end in `_total`.
"""

from collections.abc import Mapping
from typing import Final

from gateway.vitals.measured import MEASURED
from gateway.vitals.own import DIVE_STATES, OWN, STAGES
from gateway.vitals.vital import Vital, VitalType

__all__ = ["DIVE_STATES", "STAGES", "VITALS", "Vital", "VitalType"]

VITALS: Final[Mapping[str, Vital]] = {vital.name: vital for vital in (*OWN, *MEASURED)}
