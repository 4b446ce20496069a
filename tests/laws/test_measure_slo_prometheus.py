"""Law: on steady streams an SLO fires in the same evaluation as Prometheus with the classic rules.

Prometheus runs the multi-window multi-burn-rate rules of the Google SRE workbook on counters of the
same events; promtool steps its rule manager. What differs on purpose is shown from the raw events:
a page that is held back has no support among them.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import yaml
from scipy import stats

from gateway.batch import Severity
from gateway.contract.slo import budget_of
from gateway.measure.settings import MeasureSettings
from gateway.measure.slo.burn import is_firing
from gateway.measure.slo.objectives import Objectives
from gateway.measure.state import Int64
from gateway.tables import Bool
from tests.conftest import FUZZ
from tests.process import PROMTOOL, require
from tests.unit.measure.build import DAY_S, SECOND_NS, START_NS, contract, plan, success

MINUTE_NS: Final = 60 * SECOND_NS
OBJECTIVES: Final = (0.99, 0.995, 0.999, 0.9995)
SEVERITIES: Final = (Severity.PAGE, Severity.TICKET)
STREAMS: Final = 50 if FUZZ else 4
# Evaluations beside a change, on both sides, that Prometheus is asked for; elsewhere every tenth.
NEAR: Final = 6
ELSEWHERE: Final = 10
# The classic tables, written out, and not taken from what is tested: factor, long and short window.
CLASSIC: Final[Mapping[int, Mapping[Severity, tuple[tuple[float, str, str], ...]]]] = {
    30: {
        Severity.PAGE: ((14.4, "1h", "5m"), (6, "6h", "30m")),
        Severity.TICKET: ((3, "1d", "2h"), (1, "3d", "6h")),
    },
    28: {
        Severity.PAGE: ((13.44, "1h", "5m"), (5.6, "6h", "30m")),
        Severity.TICKET: ((2.8, "1d", "2h"), (14 / 15, "3d", "6h")),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How streams are drawn and looked at. Units: minutes; events of each minute."""

    interval: int
    lead: tuple[int, int]
    fault: tuple[int, int]
    end: int
    total: tuple[int, int]


# Six hours are full well before the end; three days take the coarser evaluation.
FAST: Final = Shape(interval=1, lead=(0, 420), fault=(5, 240), end=720, total=(20, 300))
SLOW: Final = Shape(
    interval=5,
    lead=(0, 1440) if FUZZ else (0, 600),
    fault=(300, 3000) if FUZZ else (300, 900),
    end=5760 if FUZZ else 1740,
    total=(20, 150),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A steady stream with one fault: events each minute, bad ones at the end of each interval."""

    days: int
    objective: float
    total: int
    bad: int
    lead: int
    fault: int

    def bad_in(self, minute: int, interval: int) -> int:
        """Count the bad events of a minute."""
        is_bad = self.lead < minute <= self.lead + self.fault and minute % interval == 0
        return self.bad if is_bad else 0


def draw(rng: np.random.Generator, days: int, shape: Shape) -> Stream:
    """Draw a stream whose fault starts and ends with an evaluation."""
    lead, fault = (
        int(rng.integers(*each)) // shape.interval * shape.interval
        for each in (shape.lead, shape.fault)
    )
    total = int(rng.integers(*shape.total))
    # From a fault that is hardly one to a total one.
    bad = 1 + int((total - 1) * rng.random() ** 3)
    objective = float(rng.choice(OBJECTIVES))
    return Stream(days=days, objective=objective, total=total, bad=bad, lead=lead, fault=fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the engine says at each evaluation.

    Shape: plain, the classic condition by the engine's windows, and pages, what it tells
    (evaluations, streams); longs (evaluations, streams, pairs, (bad, total)) of the pages.
    """

    plain: dict[Severity, Bool]
    pages: Bool
    longs: Int64


def plain_of(board: Objectives, severity: Severity) -> list[bool]:
    """Say for each SLO whether a pair of a severity fires, by its windows as judged."""
    return [
        any(
            all(
                is_firing(np.array(bad), np.array(good + bad), np.array(pair.factor * item.budget))
                for good, bad in (
                    board.counts(at, pair.long_s),
                    board.counts(at, pair.short_s),
                )
            )
            for pair in item.pairs
            if pair.severity is severity
        )
        for at, item in enumerate(board.items)
    ]


def longs_of(board: Objectives) -> list[list[tuple[int, int]]]:
    """Read (bad, total) of the long windows of the pages."""
    return [
        [
            (bad, good + bad)
            for good, bad in (board.counts(at, pair.long_s) for pair in item.pairs[:2])
        ]
        for at, item in enumerate(board.items)
    ]


def told(streams: Sequence[Stream], shape: Shape, rng: np.random.Generator) -> Told:
    """Feed the streams to the engine, each as the SLO of its own contract."""
    contracts = [
        contract(f"model-{at:03}", slos=(success(each.objective, each.days * DAY_S),))
        for at, each in enumerate(streams)
    ]
    board = Objectives(plan(*contracts), MeasureSettings())
    lateness_ns = round(MeasureSettings().lateness_s) * SECOND_NS
    sizes = np.array([each.total for each in streams])
    rows = np.repeat(np.arange(len(streams)), sizes)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    durations = np.ones(len(rows), dtype=np.int64)
    list(board.turn(START_NS + lateness_ns))
    plain: dict[Severity, list[list[bool]]] = {severity: [] for severity in SEVERITIES}
    pages, longs = [], []
    for minute in range(1, shape.end + 1):
        bad = np.array([each.bad_in(minute, shape.interval) for each in streams])
        event_ns = START_NS + (minute - 1) * MINUTE_NS + rng.integers(0, MINUTE_NS, len(rows))
        board.add(rows, event_ns, event_ns, number < bad[rows], durations)
        *_, (_, burns) = board.turn(START_NS + minute * MINUTE_NS + lateness_ns)
        if minute % shape.interval == 0:
            for severity in SEVERITIES:
                plain[severity].append(plain_of(board, severity))
            paging = {burn.objective for burn in burns if burn.pages}
            pages.append([at in paging for at in range(len(streams))])
            longs.append(longs_of(board))
    return Told(
        plain={severity: np.array(each) for severity, each in plain.items()},
        pages=np.array(pages),
        longs=np.array(longs),
    )


def rule(at: int, stream: Stream, severity: Severity) -> dict[str, Any]:
    """Write the classic rule of one stream."""

    def above(factor: float, window: str) -> str:
        label = f'{{stream="{at}"}}[{window}]'
        ratio = f"rate(errors_total{label}) / rate(requests_total{label})"
        return f"({ratio} > {factor!r} * {budget_of(stream.objective)!r})"

    pairs = [
        f"({above(factor, long)} and {above(factor, short)})"
        for factor, long, short in CLASSIC[stream.days][severity]
    ]
    return {"alert": f"{severity.value}{at}", "expr": " or ".join(pairs)}


def series(at: int, stream: Stream, shape: Shape) -> list[dict[str, str]]:
    """Write the counters of a stream, one sample for each evaluation."""
    step, last = shape.interval, shape.end // shape.interval
    lead = stream.lead // step
    # A sample at the time of its interval's end.
    rising = min(stream.fault // step, last - lead)
    values = f"0x{lead}"
    if rising:
        values += f" {stream.bad}+{stream.bad}x{rising - 1}"
    if last - lead - rising:
        values += f" {stream.bad * rising}x{last - lead - rising - 1}"
    label = f'{{stream="{at}"}}'
    return [
        {"series": f"requests_total{label}", "values": f"0+{stream.total * step}x{last}"},
        {"series": f"errors_total{label}", "values": values},
    ]


def asked(firing: Bool) -> list[int]:
    """Choose evaluations: those around changes, but for the one beside each, and some others.

    Prometheus may change one evaluation earlier or later, so the two beside a change say nothing.
    """
    changes = np.flatnonzero(np.diff(firing.astype(np.int64))) + 1
    near = (changes[:, None] + np.arange(-NEAR, NEAR)).ravel()
    beside = (changes[:, None] + np.array([-1, 0])).ravel()
    chosen = np.union1d(near, np.arange(0, len(firing), ELSEWHERE))
    chosen = np.setdiff1d(chosen, beside)
    return [int(each) for each in chosen if 0 <= each < len(firing)]


def promtool_says(
    folder: Path,
    streams: Sequence[Stream],
    shape: Shape,
    severity: Severity,
    firing: Bool,
) -> str:
    """Run the rules of all streams; return what promtool finds different, "" if nothing."""
    rules = [rule(at, stream, severity) for at, stream in enumerate(streams)]
    groups = {"groups": [{"name": "classic", "rules": rules}]}
    (folder / "rules.yml").write_text(yaml.safe_dump(groups))
    checks = [
        {
            "eval_time": f"{(evaluation + 1) * shape.interval}m",
            "alertname": f"{severity.value}{at}",
            "exp_alerts": [{"exp_labels": {"stream": str(at)}}] if firing[evaluation, at] else [],
        }
        for at in range(len(streams))
        for evaluation in asked(firing[:, at])
    ]
    test = {
        "interval": f"{shape.interval}m",
        "input_series": [
            each for at, stream in enumerate(streams) for each in series(at, stream, shape)
        ],
        "alert_rule_test": checks,
    }
    whole = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": f"{shape.interval}m",
        "tests": [test],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        [str(require(PROMTOOL)), "test", "rules", "test.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def streams_of(rng: np.random.Generator, shape: Shape) -> list[Stream]:
    """Draw streams of both periods."""
    return [draw(rng, (30, 28)[at % 2], shape) for at in range(STREAMS)]


def show_held_back(prometheus: Bool, said: Told, streams: Sequence[Stream]) -> int:
    """Show from raw events that each page that was held back had no support; count them."""
    held = np.argwhere(prometheus & ~said.pages)
    for evaluation, at in held.tolist():
        stream = streams[at]
        pairs = CLASSIC[stream.days][Severity.PAGE]
        for (factor, _, _), (bad, total) in zip(pairs, said.longs[evaluation, at], strict=True):
            limit = factor * budget_of(stream.objective)
            if bad < 3 or bad / total <= limit:
                continue
            interval = stats.binomtest(int(bad), int(total)).proportion_ci(0.9, method="wilson")
            # The guard's z of 1.645 is a little above the exact quantile.
            assert interval.low <= limit * (1 + 1e-3), (stream, bad, total)
    return len(held)


@pytest.mark.parametrize("shape", [FAST, SLOW], ids=["pages", "tickets"])
def test_it_fires_when_prometheus_does(seed: int, tmp_path: Path, shape: Shape) -> None:
    rng = np.random.default_rng((seed, shape.interval))
    streams = streams_of(rng, shape)
    said = told(streams, shape, rng)
    severity = Severity.PAGE if shape is FAST else Severity.TICKET
    firing = said.plain[severity]
    assert firing.any()
    assert not firing.all()
    assert promtool_says(tmp_path, streams, shape, severity, firing) == ""
    # A rule that says the contrary would be found out.
    assert "FAILED" in promtool_says(tmp_path, streams, shape, severity, ~firing)
    if shape is FAST:
        assert not (said.pages & ~firing).any()
        show_held_back(firing, said, streams)


def test_pages_that_are_held_back_have_no_support(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = Shape(interval=1, lead=(60, 200), fault=(5, 60), end=300, total=(1, 8))
    streams = [
        Stream(days=30, objective=0.999, total=each.total, bad=1, lead=each.lead, fault=each.fault)
        for each in (draw(rng, 30, shape) for _ in range(8))
    ]
    said = told(streams, shape, rng)
    assert show_held_back(said.plain[Severity.PAGE], said, streams) > 0
    assert said.pages.any()
