"""One declared rollout: what was declared, what was counted since, and how loud it has become.

Law: counts are integers in stretches of time that lie on a fixed raster of the clock, so any order
of the same events gives the same counts and two sites add. A rollout that outlives its stretches
doubles their length, which adds neighbours. Bounded: STRATA_MAX stretches for each objective.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from gateway.batch import AnomalyKind, Severity, Team
from gateway.measure.rollouts.allocation import (
    CONTROL_ALL,
    CONTROL_BAD,
    JUDGEMENTS,
    ROLLOUT_ALL,
    ROLLOUT_BAD,
    Level,
    Spend,
    spend_of,
)
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Int64
from gateway.measure.trouble import Trouble
from gateway.otlp.declared import RolloutStart
from gateway.tables import Bool

STRATUM_NS: Final = 300 * SECOND_NS
STRATA_MAX: Final = 256
NEVER_NS: Final = (1 << 63) - 1


class RolloutState(StrEnum):
    """Where a rollout is."""

    PLANNED = "planned"  # its start has not been judged yet
    ACTIVE = "active"
    WARNED = "warned"  # half of its allocation is spent
    HALTED = "halted"  # all of its allocation is spent, until it ends
    ENDED = "ended"


class Refusal(StrEnum):
    """Why something that was declared could not be used as it was."""

    UNKNOWN_MODEL = "unknown_model"  # no contract has it
    UNKNOWN_ROLLOUT = "unknown_rollout"
    REPEATED = "repeated"  # the same once more
    CONFLICT = "conflict"  # the same id with other content
    TOO_OLD = "too_old"
    TOO_MANY = "too_many_rollouts"
    ENDED_TWICE = "ended_twice"
    ENDS_BEFORE_START = "ends_before_start"
    EXPIRED = "expired"  # nobody has ended it
    FORGOTTEN = "forgotten"  # of those that have ended, to make room
    LATE_OUTCOME = "late_outcome"  # of a device that has already counted as failed
    CHANGED_OUTCOME = "changed_outcome"
    TOO_MANY_OUTCOMES = "too_many_outcomes"
    TOO_MANY_VERSIONS = "too_many_versions"
    AMBIGUOUS = "ambiguous_inferences"  # of two rollouts of one version, without an id


@dataclass(slots=True)
class Rollout:
    """A rollout of one model.

    Shape: objectives, slos, allocations, befores, spends and spents have one place per objective;
    counts (stretches, objectives, 4), stretch i begins at (first + i) * width_ns.
    Units: allocations and spents are shares of the period's budget, befores of bad events.
    """

    start: RolloutStart
    contract: int
    objectives: tuple[int, ...]
    slos: tuple[str, ...]
    allocations: list[float]
    befores: list[float]
    end_ns: int = NEVER_NS
    outcome: str = ""
    state: RolloutState = RolloutState.PLANNED
    is_counting: bool = True
    onset_ns: int = 0
    streaks: list[int] = field(default_factory=lambda: [0, 0, 0])  # calm, warned, halted
    width_ns: int = STRATUM_NS
    first: int = 0
    counts: Int64 = field(default_factory=lambda: np.zeros((0, 0, 4), dtype=np.int64))
    spends: list[Spend] = field(default_factory=list)
    spents: list[float] = field(default_factory=list)
    is_changed: bool = True  # whether anything was counted since the last judgement

    def __post_init__(self) -> None:
        places = len(self.objectives)
        # A model without objectives that a rollout can spend has stretches all the same.
        if self.counts.shape[1] != places or not len(self.counts):
            self.counts = np.zeros((1, places, 4), dtype=np.int64)
            self.first = self.start.at_ns // self.width_ns
        self.spends = self.spends or [Spend() for _ in range(places)]
        self.spents = self.spents or [0.0] * places

    @property
    def has_ended(self) -> bool:
        """Whether its end was declared."""
        return self.state is RolloutState.ENDED

    def holds(self, event_ns: Int64) -> Bool:
        """Tell which event times lie within it, both ends included. Shape: (rows,)."""
        found: Bool = (event_ns >= self.start.at_ns) & (event_ns <= self.end_ns)
        return found

    def add(self, event_ns: Int64, bads: Sequence[Bool], *, control: bool) -> None:
        """Count events of the rollout or its control.

        Shape: event_ns (rows,), bads one per objective, each (rows,).
        """
        if len(event_ns) == 0:
            return
        newest = int(event_ns.max())
        while newest // self.width_ns - self.first >= STRATA_MAX:
            self.coarsen()
        self._reserve(newest // self.width_ns - self.first + 1)
        at = event_ns // self.width_ns - self.first
        cells = len(self.counts)
        bad, every = (CONTROL_BAD, CONTROL_ALL) if control else (ROLLOUT_BAD, ROLLOUT_ALL)
        self.counts[:, :, every] += np.bincount(at, minlength=cells)[:, None]
        for place, wrong in enumerate(bads):
            self.counts[:, place, bad] += np.bincount(at[wrong], minlength=cells)
        self.is_changed = True

    def coarsen(self) -> None:
        """Double the length of the stretches."""
        first = self.first // 2
        place = (self.first + np.arange(len(self.counts))) // 2 - first
        wider = np.zeros((int(place[-1]) + 1, *self.counts.shape[1:]), dtype=np.int64)
        np.add.at(wider, place, self.counts)
        self.counts, self.first, self.width_ns = wider, first, 2 * self.width_ns

    def _reserve(self, cells: int) -> None:
        """Make room; the length follows from the newest event alone."""
        if cells > len(self.counts):
            more = np.zeros((cells - len(self.counts), *self.counts.shape[1:]), dtype=np.int64)
            self.counts = np.concatenate((self.counts, more))

    def counted(self) -> list[Spend]:
        """Compare with the control what was counted for each objective."""
        if not self.is_changed:
            return self.spends
        return [
            spend_of(self.counts[:, place], before) for place, before in enumerate(self.befores)
        ]

    def judged(self, level: Level, at_ns: int) -> None:
        """Take one judgement: a level counts when JUDGEMENTS in a row reach it, halted stays."""
        for each in Level:
            reached = level is Level.OK if each is Level.OK else level >= each
            self.streaks[each] = min(self.streaks[each] + 1, JUDGEMENTS) if reached else 0
        if self.state is RolloutState.HALTED:
            return
        if self.streaks[Level.HALT] >= JUDGEMENTS:
            self.state = RolloutState.HALTED
        elif self.streaks[Level.WARN] >= JUDGEMENTS:
            self.state = RolloutState.WARNED
        elif self.streaks[Level.OK] >= JUDGEMENTS or self.state is RolloutState.PLANNED:
            self.state = RolloutState.ACTIVE
        is_told = self.state in (RolloutState.WARNED, RolloutState.HALTED)
        if not is_told:
            self.onset_ns = 0
        elif not self.onset_ns:
            self.onset_ns = at_ns

    @property
    def worst(self) -> int | None:
        """The objective that has lost the largest part of its allocation."""
        if not self.objectives:
            return None
        parts = [
            spent / allocation if allocation else float(spend.is_supported) * spend.excess
            for spent, allocation, spend in zip(
                self.spents, self.allocations, self.spends, strict=True
            )
        ]
        return int(np.argmax(parts))


def trouble_of(rollout: Rollout) -> Trouble:
    """Say that a rollout has spent half of its allocation, or that it has to halt."""
    place = rollout.worst
    assert place is not None  # nothing is spent without an objective
    start, spend = rollout.start, rollout.spends[place]
    spent, allocation = rollout.spents[place], rollout.allocations[place]
    halts = rollout.state is RolloutState.HALTED
    control = spend.control_bad / spend.control_events if spend.control_events else 0.0
    advice = "halt it" if halts else "watch it"
    against = (
        f"{control:.2%} of {spend.control_events} with the version before"
        if spend.is_confident
        else "little ran with the version before at the same time, so confidence is low"
    )
    of = f"of {allocation:.1%} that it has" if allocation else "and nothing was left for it"
    share = spend.rollout_bad / max(spend.rollout_events, 1)
    return Trouble(
        kind=AnomalyKind.ROLLOUT,
        severity=Severity.PAGE if halts else Severity.TICKET,
        team=Team.ML_ENGINEERING,
        contract=rollout.contract,
        model=start.model,
        version=start.version,
        subject=start.rollout,
        summary=(
            f"{advice}: rollout {start.rollout} of {start.model} {start.version} has spent "
            f"{spent:.1%} of the error budget of {rollout.slos[place]}, {of}; "
            f"{share:.2%} of {spend.rollout_events} inferences were bad, {against}"
        ),
        onset_ns=rollout.onset_ns,
        numbers={
            "spent_ratio": spent,
            "allocation_ratio": allocation,
            "rollout_bad_events": float(spend.rollout_bad),
            "rollout_events": float(spend.rollout_events),
            "control_bad_events": float(spend.control_bad),
            "control_events": float(spend.control_events),
            "excess_events": spend.excess,
            "is_confident": float(spend.is_confident),
        },
    )
