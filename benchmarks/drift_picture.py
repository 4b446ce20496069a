"""Draw the drift benchmark: delay against false alarms, and the evidence of one stream.

Law: the left half shows measured figures of the run and nothing else; the right half is one stream
with a fixed seed, so that the picture is the same each time.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.drift_change import changes, reference
from benchmarks.drift_search import FORM_EVENTS, OURS, TICKS_PER_30_DAYS
from gateway.measure.drift.baseline import COARSE_BINS_MAX
from gateway.measure.drift.detector import Bank

SEED: Final = 11
QUIET_TICKS: Final = 90
CHANGED_TICKS: Final = 40
PSI: Final = 0.05
INK: Final = "#1b1b1b"
ACCENT: Final = "#0b62a4"
CHANGED: Final = "#b85c00"
GREY: Final = "#5f6b73"
OTHERS: Final = ("#b85c00", "#d98e2b", "#e8c27a", "#5f6b73", "#8b98a1", "#b9c3ca")


def evidence() -> tuple[np.ndarray[Any, Any], float, float, float]:
    """Return log M by tick of a stream that changes, its bound, and ticks of onset and alarm."""
    rng = np.random.default_rng(SEED)
    baseline = reference(False, rng)
    p = baseline.shares / baseline.shares.sum()
    change = next(each for each in changes(baseline, (PSI,)) if each.kind == "spread only")
    bank = Bank()
    bank.reserve(1)
    bound = float(np.log(TICKS_PER_30_DAYS))
    bank.arm(0, baseline, 0.0, bound)
    bank.clear(0, 1)
    told: list[float] = []
    for tick in range(1, QUIET_TICKS + CHANGED_TICKS + 1):
        law = p if tick <= QUIET_TICKS else change.shares
        counts = np.zeros((1, COARSE_BINS_MAX), dtype=np.int64)
        counts[0, : baseline.bins] = rng.multinomial(FORM_EVENTS, law)
        alarms = bank.step(np.array([0]), counts, np.array([tick + 1]))
        told.append(float(bank.evidence[0]))
        if alarms:
            return np.array(told), bound, float(alarms[0].onset_ns - 1), float(tick)
    return np.array(told), bound, float("nan"), float("nan")


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Write the picture of a run as PNG. Raises: ImportError without matplotlib."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    plots = import_module("matplotlib.pyplot")
    with plots.rc_context({"font.size": 10, "axes.edgecolor": INK, "text.color": INK}):
        figure, (left, right) = plots.subplots(1, 2, figsize=(12.5, 4.9), layout="constrained")
        _delays(left, figures)
        _evidence(right)
        figure.savefig(path, dpi=130, metadata={"Software": None})
        plots.close(figure)


def _delays(axes: Any, figures: Mapping[str, Any]) -> None:
    alarms = TICKS_PER_30_DAYS / np.array(figures["run_lengths"], dtype=np.float64)
    peers = iter(OTHERS)
    for name, events in figures["delay_events"].items():
        is_ours = name == OURS
        axes.plot(
            alarms,
            events,
            marker="o",
            markersize=5 if is_ours else 3.5,
            linewidth=2.6 if is_ours else 1.4,
            color=ACCENT if is_ours else next(peers),
            label=name,
            zorder=3 if is_ours else 2,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("false alarms of one signal in 30 days of 10 s ticks (measured)")
    axes.set_ylabel("events to the alarm, geometric mean over the change bank")
    axes.set_title("Delay against false alarms, 50 events a tick", loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter("{x:,.0f}")
    axes.tick_params(which="minor", labelsize=7)
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    low, high = axes.get_ylim()
    axes.set_ylim(low, 2 * high)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper left")


def _evidence(axes: Any) -> None:
    log_m, bound, onset, alarm = evidence()
    ticks = np.arange(1, len(log_m) + 1)
    axes.plot(ticks, log_m, color=ACCENT, linewidth=1.8, label="log evidence")
    axes.axhline(bound, color=INK, linewidth=1, linestyle="--")
    axes.text(1, bound + 0.2, "log A: one false alarm in 30 days", fontsize=9)
    axes.axvline(QUIET_TICKS, color=CHANGED, linewidth=1.2)
    axes.text(QUIET_TICKS - 2, -2.0, "change", ha="right", color=CHANGED, fontsize=9)
    axes.axvline(onset, color=GREY, linewidth=1.4, linestyle=":")
    told = f"onset estimate, {onset - QUIET_TICKS:+.0f} ticks"
    axes.text(QUIET_TICKS - 2, -3.2, told, ha="right", color=GREY, fontsize=9)
    axes.plot([alarm], [log_m[-1]], marker="o", color=INK, markersize=6)
    told = f"alarm after {alarm - QUIET_TICKS:.0f} ticks"
    axes.text(alarm + 2, log_m[-1] + 0.2, told, fontsize=9)
    axes.set_xlim(0, QUIET_TICKS + CHANGED_TICKS)
    axes.set_ylim(-4, bound + 2.5)
    axes.set_xlabel("tick of 50 events")
    axes.set_ylabel("log evidence, nats")
    axes.set_title(f"One stream: spread changes, mean does not, PSI {PSI:g}", loc="left")
    axes.grid(alpha=0.25, linewidth=0.5)
