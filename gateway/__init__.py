"""Weir: the telemetry gateway of one edge-AI site."""

from importlib.metadata import version

__version__ = version("weir")
