"""The detector and its peers behind one interface: counts of a tick in, a statistic out.

Law: a statistic that passes a threshold is an alarm; thresholds are set by simulation to the same
average run length, never as shipped, so that delays can be compared. The reference shares are known
to all of them. Peers of the river library see single events and have parameters instead of a
threshold; they are compared at a run length that they can reach in a minute.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, Protocol

import numpy as np

from gateway.measure.drift.baseline import COARSE_BINS_MAX, Baseline
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.indices import jeffreys, psi
from gateway.measure.state import Int64
from gateway.tables import Float64

EWMA_WEIGHTS: Final = (0.03, 0.1, 0.3)
WINDOW_EVENTS: Final = (200, 1_000, 5_000)
MAX_SEARCH_STEPS: Final = 6


class Detector(Protocol):
    """A detector on tick counts of many streams."""

    name: str

    def begin(self, streams: int) -> None:
        """Forget everything."""

    def step(self, counts: Int64) -> Float64:
        """Take one tick of all streams and return the statistic. Shape: (streams, bins)."""


class Weir:
    """The e-detector as it runs, without a bound so that it never resets."""

    def __init__(self, baseline: Baseline, tolerance: float = 0.0) -> None:
        self.name = "Weir e-detector"
        self._baseline, self._tolerance = baseline, tolerance
        self._bank, self._tick = Bank(), 0

    def begin(self, streams: int) -> None:
        """Arm every stream with the same baseline."""
        self._bank, self._tick = Bank(), 0
        self._bank.reserve(streams)
        for row in range(streams):
            self._bank.arm(row, self._baseline, self._tolerance, np.inf)

    def step(self, counts: Int64) -> Float64:
        """Return log M."""
        self._tick += 1
        streams = len(counts)
        padded = np.zeros((streams, COARSE_BINS_MAX), dtype=np.int64)
        padded[:, : counts.shape[1]] = counts
        self._bank.step(np.arange(streams), padded, np.full(streams, self._tick))
        return self._bank.evidence[:streams].copy()


class QtEwma:
    """Chi-squared of an EWMA of tick shares: QT-EWMA (2022), arXiv 2208.14801."""

    def __init__(self, shares: Float64, weight: float) -> None:
        self.name = f"EWMA chi-squared {weight:g}"
        self._shares, self._weight = shares, weight
        self._smooth = np.zeros((0, len(shares)))

    def begin(self, streams: int) -> None:
        """Start at the reference."""
        self._smooth = np.tile(self._shares, (streams, 1))

    def step(self, counts: Int64) -> Float64:
        """Return chi-squared of the smoothed shares."""
        share = counts / counts.sum(axis=1, keepdims=True)
        self._smooth += self._weight * (share - self._smooth)
        distance: Float64 = ((self._smooth - self._shares) ** 2 / self._shares).sum(axis=1)
        return distance


class TumblingPsi:
    """PSI of windows that do not overlap, Jeffreys-smoothed."""

    def __init__(self, shares: Float64, window_events: int, tick_events: int) -> None:
        self.name = f"PSI, windows of {window_events:,}"
        self._shares = shares
        self._ticks = max(1, window_events // tick_events)
        self._held = np.zeros((0, len(shares)), dtype=np.int64)
        self._count = 0

    def begin(self, streams: int) -> None:
        """Start a window."""
        self._held = np.zeros((streams, len(self._shares)), dtype=np.int64)
        self._count = 0

    def step(self, counts: Int64) -> Float64:
        """Return PSI at the end of a window, nothing before."""
        self._held += counts
        self._count += 1
        if self._count < self._ticks:
            return np.full(len(counts), -np.inf)
        found = psi(jeffreys(self._held), self._shares)
        self._held[:] = 0
        self._count = 0
        return found


def detectors(baseline: Baseline, tick_events: int) -> list[Detector]:
    """Return the detector and those of its peers that work on counts."""
    shares = baseline.shares
    return [
        Weir(baseline),
        *(QtEwma(shares, weight) for weight in EWMA_WEIGHTS),
        *(TumblingPsi(shares, window, tick_events) for window in WINDOW_EVENTS),
    ]


def thresholds(
    found: Sequence[Detector],
    draw: Callable[[], Int64],
    run_lengths: Sequence[int],
) -> dict[str, list[float]]:
    """Return the thresholds at which streams without change run so long on average.

    A threshold is passed within its own run length with probability 1 - 1/e, where alarms come at
    a constant rate. `draw` gives the counts of one tick of all streams.
    """
    first = draw()
    highest = {each.name: np.full(len(first), -np.inf) for each in found}
    chosen: dict[str, list[float]] = {each.name: [] for each in found}
    for each in found:
        each.begin(len(first))
    for tick in range(1, max(run_lengths) + 1):
        counts = first if tick == 1 else draw()
        for each in found:
            np.maximum(highest[each.name], each.step(counts), out=highest[each.name])
        if tick in run_lengths:
            for name, values in highest.items():
                chosen[name].append(float(np.sort(values)[int(len(values) * np.exp(-1))]))
    return chosen


def maybe_river() -> Any | None:
    """Return river's drift module, None where it is not installed."""
    try:
        return import_module("river.drift")
    except ImportError:
        return None


EventDetector = Callable[[float], Any]


def event_detectors(drift: Any) -> dict[str, tuple[EventDetector, float, float]]:
    """Return makers by parameter, and between which parameters to look; larger alarms less."""
    return {
        "ADWIN": (lambda x: drift.ADWIN(delta=float(np.exp(-x))), -2.0, 8.0),
        "PageHinkley": (lambda x: drift.PageHinkley(threshold=float(np.exp(x))), -3.0, 5.0),
        "KSWIN": (lambda x: drift.KSWIN(alpha=float(np.exp(-x)), seed=1), 4.0, 14.0),
    }


def alarms_of(detector: Any, values: Float64) -> int:
    """Count alarms over a run of events; river's detectors begin anew after each."""
    count = 0
    for value in values.tolist():
        detector.update(value)
        count += bool(detector.drift_detected)
    return count


def parameter_of(
    make: EventDetector, low: float, high: float, runs: Float64, run_length: int
) -> tuple[float, float]:
    """Search the parameter that gives the run length. Returns it and the run length it had."""
    measured = float("inf")
    for _ in range(MAX_SEARCH_STEPS):
        middle = (low + high) / 2
        alarms = sum(alarms_of(make(middle), run) for run in runs)
        measured = runs.size / max(alarms, 1)
        low, high = (middle, high) if measured < run_length else (low, middle)
    return (low + high) / 2, measured


def event_delay(detector: Any, before: Float64, after: Float64) -> int | None:
    """Return how many events after the change the first alarm comes, None if it does not."""
    for value in before.tolist():
        detector.update(value)
    for number, value in enumerate(after.tolist(), 1):
        detector.update(value)
        if detector.drift_detected:
            return number
    return None
