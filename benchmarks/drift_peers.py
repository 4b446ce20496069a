"""The detector and its peers behind one interface: counts of a tick in, a statistic out.

Law: a statistic that passes a threshold is an alarm; thresholds are set by simulation to the same
average run length, never as shipped, so that delays can be compared. The reference shares are known
to all of them. A detector with several references watches as many lanes of each stream: row
`stream * lanes + lane` of its counts. Peers of the river library see single events and have
parameters instead of a threshold; they are compared at a run length that they reach in a minute.
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

    def step(self, counts: Int64, rows: Int64 | None = None) -> Float64:
        """Take one tick of all rows, or of those named, and return the statistic of each.

        Shape: counts (rows, bins), every row with at least one event.
        """


class Weir:
    """The e-detector as it runs, without a bound so that it never resets."""

    def __init__(self, baselines: Sequence[Baseline], tolerance: float = 0.0) -> None:
        self.name = "Weir e-detector"
        self._baselines, self._tolerance = baselines, tolerance
        self._bank, self._tick, self._rows = Bank(), 0, 0

    def begin(self, streams: int) -> None:
        """Arm every stream with the same baselines."""
        self._bank, self._tick = Bank(), 0
        self._rows = streams * len(self._baselines)
        self._bank.reserve(self._rows)
        for row in range(self._rows):
            baseline = self._baselines[row % len(self._baselines)]
            self._bank.arm(row, baseline, self._tolerance, np.inf)

    def step(self, counts: Int64, rows: Int64 | None = None) -> Float64:
        """Return log M."""
        self._tick += 1
        mine = np.arange(self._rows) if rows is None else rows
        padded = np.zeros((len(mine), COARSE_BINS_MAX), dtype=np.int64)
        padded[:, : counts.shape[1]] = counts
        self._bank.step(mine, padded, np.full(len(mine), self._tick))
        return self._bank.evidence[mine]


class QtEwma:
    """Chi-squared of an EWMA of tick shares: QT-EWMA (2022), arXiv 2208.14801.

    Shape: shares (lanes, bins), 0 where a lane has no such bin.
    """

    def __init__(self, shares: Float64, weight: float) -> None:
        self.name = f"EWMA chi-squared {weight:g}"
        self._lanes, self._weight = shares, weight
        self._shares = self._inverse = self._smooth = np.zeros((0, shares.shape[1]))

    def begin(self, streams: int) -> None:
        """Start at the reference."""
        self._shares = np.tile(self._lanes, (streams, 1))
        self._inverse = np.where(self._shares > 0, 1 / np.maximum(self._shares, 1e-300), 0.0)
        self._smooth = self._shares.copy()

    def step(self, counts: Int64, rows: Int64 | None = None) -> Float64:
        """Return chi-squared of the smoothed shares."""
        mine = slice(None) if rows is None else rows
        smooth = self._smooth[mine]
        share = counts / counts.sum(axis=1, keepdims=True)
        smooth = smooth + self._weight * (share - smooth)
        self._smooth[mine] = smooth
        far = (smooth - self._shares[mine]) ** 2 * self._inverse[mine]
        distance: Float64 = far.sum(axis=1)
        return distance


class TumblingPsi:
    """PSI of windows that do not overlap, Jeffreys-smoothed.

    Shape: shares (lanes, bins), 0 after the last bin of a lane.
    """

    def __init__(self, shares: Float64, window_events: int) -> None:
        self.name = f"PSI, windows of {window_events:,}"
        self._lanes, self._window_events = shares, window_events
        self._shares = np.zeros((0, shares.shape[1]))
        self._held = np.zeros(self._shares.shape, dtype=np.int64)

    def begin(self, streams: int) -> None:
        """Start a window."""
        self._shares = np.tile(self._lanes, (streams, 1))
        self._held = np.zeros(self._shares.shape, dtype=np.int64)

    def step(self, counts: Int64, rows: Int64 | None = None) -> Float64:
        """Return PSI at the end of a window, nothing before."""
        mine = slice(None) if rows is None else rows
        held = self._held[mine] + counts
        found = np.full(len(counts), -np.inf)
        full = np.flatnonzero(held.sum(axis=1) >= self._window_events)
        if len(full):
            shares = self._shares[mine][full]
            found[full] = psi(jeffreys(held[full], (shares > 0).sum(axis=1)), shares)
            held[full] = 0
        self._held[mine] = held
        return found


def detectors(baselines: Sequence[Baseline]) -> list[Detector]:
    """Return the detector and those of its peers that work on counts, for as many lanes.

    Counts of one lane have the bins of its baseline, those of several COARSE_BINS_MAX each.
    """
    width = baselines[0].bins if len(baselines) == 1 else COARSE_BINS_MAX
    shares = np.zeros((len(baselines), width))
    for lane, baseline in enumerate(baselines):
        shares[lane, : baseline.bins] = baseline.shares
    return [
        Weir(baselines),
        *(QtEwma(shares, weight) for weight in EWMA_WEIGHTS),
        *(TumblingPsi(shares, window) for window in WINDOW_EVENTS),
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
