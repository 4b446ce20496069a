"""Measure: counts, windows, SLO burn, drift and freshness of everything, before sampling."""

from gateway.measure.measure import Measure
from gateway.measure.merge import merge
from gateway.measure.settings import FalseAlarms, MeasureSettings
from gateway.measure.snapshot import Snapshot

__all__ = ["FalseAlarms", "Measure", "MeasureSettings", "Snapshot", "merge"]
