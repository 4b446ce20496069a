"""What the API shows of drift: plain data, filled in by `measured`.

Law: as in `sources`. Evidence and its bound are natural logarithms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class SupersededState:
    """A superseded baseline that goes on judging its signal in the shadow, and pages nobody.

    It does until `until_ns`; `alarms` counts since the promotion that superseded it, which is also
    when its evidence started.
    """

    id: str
    events: int
    until_ns: int
    log_evidence: float
    log_evidence_bound: float
    alarms: int
    last_alarm_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRate:
    """How many inferences a model has a second, and in which range they may change.

    `now` is of the last one to two hours; everything but `state` is None while it is learned.
    """

    state: str
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    now: float | None = None
    log_evidence: float | None = None
    bound: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftState:
    """One signal against its baseline.

    Shape: expected and current are shares per bin, bins their labels; history holds debiased PSI of
    recent blocks of ticks, oldest first; `indices` are the others, by name. Indices and evidence
    are None while the baseline is learned. One that is not `calibrated` is too small for the
    tolerance: it has indices and never alarms. `superseded` is None when no baseline is in the
    shadow. The row of a model's event rate has no version and no shares, but `event_rate`.
    `relative_drift_index` is 1 at what noise alone reaches.
    `attribution` stands with a confidence that is judged by class too: how much of the change lies
    in `class`, and how much in `confidence_given_class`. Units: nats, less what chance gives.
    """

    model: str
    version: str
    signal: str
    baseline: str
    alarm: bool
    tolerance: float
    psi: float | None
    log_evidence: float | None
    log_evidence_bound: float | None = None
    psi_debiased: float | None = None
    psi_debiased_low: float | None = None
    psi_debiased_high: float | None = None
    calibrated: bool | None = None
    relative_drift_index: float | None = None
    bins: tuple[str, ...] = ()
    expected: tuple[float, ...] = ()
    current: tuple[float, ...] = ()
    history: tuple[float, ...] = ()
    indices: Mapping[str, float] = field(default_factory=dict)
    superseded: SupersededState | None = None
    event_rate: EventRate | None = None
    attribution: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBudget:
    """Whether false alarms are counted per signal or per site, and how many detectors there are.

    `detectors` is the most that ever ran together; it never falls.
    """

    per: str = "signal"
    detectors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedSignal:
    """A signal that has drifted, as the report has it. Units: log_evidence nats."""

    model: str
    version: str
    signal: str
    log_evidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """The signals that have drifted, strongest first, and how many of them may be false."""

    promise: str = ""
    signals: tuple[ReportedSignal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineState:
    """A baseline: collecting, inherited, candidate, frozen or superseded.

    `id` is empty while it is collected. `calibrated` says whether it is large enough for the
    tolerance, None where that is not known; `source` is site or file. `hours` counts those of the
    week in which it has events, 0 without a season; `labelled` counts the predictions of a baseline
    file of which it is known whether they were right. `superseded` is what a superseded one says
    while it is in the shadow, and can be promoted back; None for all others.
    """

    id: str
    model: str
    version: str
    signal: str
    state: str
    events: int
    events_wanted: int
    calibrated: bool | None = None
    source: str = "site"
    hours: int = 0
    labelled: int = 0
    superseded: SupersededState | None = None


NO_BUDGET: Final = DriftBudget()
NO_REPORT: Final = DriftReport()
