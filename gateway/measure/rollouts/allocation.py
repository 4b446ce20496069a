"""What a rollout may spend of an error budget, what it has spent, and how loud that is told.

Law: a rollout spends only its excess over a control that ran at the same time. Both are compared
within short stretches of time and the differences are added, so that an hour that is bad for all
charges nobody, even when most of the traffic has moved to the new version by then. Pure arithmetic
on integers that were counted elsewhere.

Notation: b bad and n all events, r of the rollout and c of its control; B error budget of the
objective, n_P events of its period, a the allocation, S the spend, both shares of the budget B·n_P:

    S = max(0, sum over stretches of b_r - (b_c / n_c)·n_r) / (B·n_P)

Source: slo-alerting-dashboards.md section 8; the stretches are strata as in Mantel and Haenszel,
Journal of the National Cancer Institute 22(4), 1959.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

from gateway.contract.schema import Indicator
from gateway.measure.slo.burn import BAD_EVENTS_MIN, wilson_lower
from gateway.measure.state import Int64

# Of an allocation: told as a ticket, and as a page that says halt.
WARN_SHARE: Final = 0.5
HALT_SHARE: Final = 1.0
# A rollout that does not say what it needs gets at most this part of what is left.
REMAINING_SHARE: Final = 0.5
# Judgements in a row that must agree before a level is told.
JUDGEMENTS: Final = 2
# The control is not concurrent when it is missing for more than this part of a rollout's events.
ALONE_SHARE_MAX: Final = 0.5

ROLLOUT_BAD, ROLLOUT_ALL, CONTROL_BAD, CONTROL_ALL = range(4)


class Level(IntEnum):
    """How much of its allocation a rollout has spent."""

    OK = 0
    WARN = 1
    HALT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Counts of a rollout and its control for one objective.

    Units: events; expected is how many of the rollout's would have been bad as the control's were;
    alone is how many had no control beside them.
    """

    rollout_bad: int = 0
    rollout_events: int = 0
    control_bad: int = 0
    control_events: int = 0
    expected: float = 0.0
    alone: int = 0

    @property
    def excess(self) -> float:
        """Bad events that the rollout alone has caused."""
        return max(0.0, self.rollout_bad - self.expected)

    @property
    def is_confident(self) -> bool:
        """Whether there was a control beside most of the rollout."""
        return self.alone <= ALONE_SHARE_MAX * self.rollout_events

    def share(self, budget: float, period_events: int) -> float:
        """Return S, the excess as a share of the period's budget; 0 without events."""
        events = max(period_events, self.rollout_events)
        return self.excess / (budget * events) if events else 0.0

    @property
    def is_supported(self) -> bool:
        """Whether the rollout is surely worse than its control, by enough bad events."""
        if self.rollout_bad < BAD_EVENTS_MIN:
            return False
        bound = wilson_lower(np.array([self.rollout_bad]), np.array([self.rollout_events]))
        return bool(bound[0] > self.expected / self.rollout_events)


def spend_of(strata: Int64, before: float) -> Spend:
    """Add up what was counted in stretches of time.

    A stretch without a control is compared with the control of all the others, and where there is
    none at all with `before`, the share of bad events from before the rollout.
    Shape: strata (stretches, 4), in the order of ROLLOUT_BAD, ROLLOUT_ALL, CONTROL_BAD,
    CONTROL_ALL.
    """
    total = strata.sum(axis=0).tolist()
    rest = total[CONTROL_BAD] / total[CONTROL_ALL] if total[CONTROL_ALL] else before
    held = strata[strata[:, ROLLOUT_ALL] > 0]
    all_control = held[:, CONTROL_ALL]
    has_control = all_control > 0
    share = np.where(has_control, held[:, CONTROL_BAD] / np.maximum(all_control, 1), rest)
    return Spend(
        rollout_bad=total[ROLLOUT_BAD],
        rollout_events=total[ROLLOUT_ALL],
        control_bad=total[CONTROL_BAD],
        control_events=total[CONTROL_ALL],
        expected=float((share * held[:, ROLLOUT_ALL]).sum()),
        alone=int(held[~has_control, ROLLOUT_ALL].sum()),
    )


def allocate(*, asked: float | None, rule: float, remaining: float, reserved: float) -> float:
    """Return the allocation a of a new rollout, never more than what nobody else holds.

    Units: shares of the period's budget; asked is None when the rollout does not say, rule is what
    its contract says then, remaining is what is left and reserved what other rollouts hold of it.
    """
    free = max(0.0, remaining - reserved)
    wanted = min(rule, REMAINING_SHARE * free) if asked is None else asked
    return min(wanted, free)


def level_of(spend: Spend, spent: float, allocation: float) -> Level:
    """Judge once. A spend that is large enough to halt but has no support is a warning."""
    supported = spend.is_supported
    if spent >= HALT_SHARE * allocation:
        return Level.HALT if supported else Level.WARN
    if spent >= WARN_SHARE * allocation and supported:
        return Level.WARN
    return Level.OK


def suppresses(
    indicator: Indicator,
    *,
    now_ns: int,
    quiet_until_ns: int | None,
    control_is_burning: bool,
) -> bool:
    """Tell whether a burn is not to be told now because a rollout accounts for it.

    It costs all the same. `quiet_until_ns` is the end of the rollout plus the short window of the
    burn, the far future while it runs, None without a rollout. What violates integrity is always
    told, and so is what the control suffers from as well: that is not the rollout's doing.
    """
    if indicator is Indicator.INTEGRITY or quiet_until_ns is None:
        return False
    return now_ns < quiet_until_ns and not control_is_burning
