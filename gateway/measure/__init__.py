"""Measure: counts, windows, SLO burn, drift and freshness of everything, before sampling."""

from gateway.measure.measure import Measure
from gateway.measure.merge import merge
from gateway.measure.settings import MeasureSettings
from gateway.measure.snapshot import Snapshot

__all__ = ["Measure", "MeasureSettings", "Snapshot", "merge"]
