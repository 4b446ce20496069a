"""An emulated fleet for the demo, the flow tests and the benchmarks."""

from collectors.fleet.fleet import Fleet, FleetCounts

__all__ = ["Fleet", "FleetCounts"]
