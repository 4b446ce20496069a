"""Byte budgets that act as a sampling threshold fixed before a trace is seen.

Law: the probability of a window of one second depends on earlier windows only, so T stays an exact
weight. What was sent above the budget is a debt that later windows pay back, so the mean holds over
every burst; nothing is ever dropped for a full queue. Spans that a rule keeps leave with
probability 1 until they alone are more than the budget; then their probability falls too, and `th`
says by how much.

Offered rows are counted exactly; bytes for each row are learned from what was encoded.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.tables import Float64

Int64 = NDArray[np.int64]
Array = NDArray[Any]

WINDOW_NS: Final = 1_000_000_000
# Weight of the newest window in the smoothed rate; a rise counts at once.
WEIGHT: Final = 0.5
# A debt is paid back over this many windows, but never with more than this share of the budget:
# after a burst the site is not left blind. A debt above an hour of budget is forgiven.
PAY_BACK_WINDOWS: Final = 10
PAY_BACK_SHARE_MAX: Final = 0.75
DEBT_WINDOWS_MAX: Final = 3600
# A key that is sampled less than one in a million tells nothing any more.
PROBABILITY_MIN: Final = 2.0**-20
# What a row is taken to cost before the first was encoded; that of ten attributes.
ROW_BYTES_FIRST: Final = 400.0


class Budgets:
    """Budgets of groups of contracts.

    Shape: limit, spent, debt, row_bytes (groups,); offered and rate (contracts, 2), the last axis
    is rows that a rule keeps, and the rest; probability (groups, 2).
    """

    def __init__(self, bytes_per_s: Float64, group: Int64, sampling_rate: Float64) -> None:
        self._limit = bytes_per_s
        self._group = group
        self._sampling_rate = sampling_rate
        groups = len(bytes_per_s)
        self._window = -1
        self._offered = np.zeros((len(group), 2), dtype=np.int64)
        self._rate = np.zeros((len(group), 2))
        self._spent = np.zeros(groups, dtype=np.int64)
        self._debt = np.zeros(groups)
        self._row_bytes = np.full(groups, ROW_BYTES_FIRST)
        self.probability = np.ones((groups, 2))

    def turn(self, arrival_ns: int) -> None:
        """Close the windows that are over and set the probabilities of the one that begins."""
        window = arrival_ns // WINDOW_NS
        if window <= self._window:
            return
        passed = window - self._window if self._window >= 0 else 1
        self._window = window
        # A rise is believed at once, a fall by and by.
        smooth = (1 - WEIGHT) * self._rate + WEIGHT * self._offered
        self._rate = np.maximum(smooth, self._offered) * (1 - WEIGHT) ** min(passed - 1, 64)
        limit = np.where(np.isfinite(self._limit), self._limit, 0.0)
        owed = self._debt + self._spent - limit * passed
        self._debt = np.clip(owed, 0.0, limit * DEBT_WINDOWS_MAX)
        self._offered[:] = 0
        self._spent[:] = 0
        for group in np.flatnonzero(np.isfinite(self._limit)).tolist():
            self.probability[group] = self._chosen(group)

    def _chosen(self, group: int) -> tuple[float, float]:
        """Return the probabilities at which a group's demand fits its budget."""
        limit = float(self._limit[group])
        back = min(float(self._debt[group]) / PAY_BACK_WINDOWS, limit * PAY_BACK_SHARE_MAX)
        allowed = limit - back
        mine = self._group == group
        demand = self._rate[mine] * self._row_bytes[group]
        by_rule = float(demand[:, 0].sum())
        storm = 1.0 if by_rule <= allowed else max(allowed / by_rule, PROBABILITY_MIN)
        left = max(allowed - by_rule, 0.0)
        return storm, _ceiling(left, demand[:, 1], self._sampling_rate[mine])

    def offer(self, contract: Int64, by_rule: NDArray[np.bool_]) -> None:
        """Count offered rows, whether they are kept or not. Shape: both (rows,)."""
        key = contract * 2 + np.where(by_rule, 0, 1)
        self._offered += np.bincount(key, minlength=self._offered.size).reshape(-1, 2)

    def spend(self, rows: Int64, sent_bytes: Int64) -> None:
        """Count what was encoded: kept rows and their bytes by group."""
        self._spent += sent_bytes
        used = rows > 0
        cost = sent_bytes[used] / rows[used]
        self._row_bytes[used] += WEIGHT * (cost - self._row_bytes[used])

    def state(self) -> dict[str, Array]:
        """Copy everything."""
        state: dict[str, Array] = {name: getattr(self, f"_{name}").copy() for name in _FIELDS}
        state["probability"] = self.probability.copy()
        state["window"] = np.array([self._window], dtype=np.int64)
        return state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put everything back; the limits stay those of the plan."""
        for name in _FIELDS:
            setattr(self, f"_{name}", state[name].copy())
        self.probability = state["probability"].copy()
        self._window = int(state["window"][0])


_FIELDS: Final = ("offered", "rate", "spent", "debt", "row_bytes")


def _ceiling(allowed: float, demand: Float64, rate: Float64) -> float:
    """Return the highest probability p at which demand of min(rate, p) fits what is allowed."""
    if float((demand * rate).sum()) <= allowed:
        return 1.0
    # Contracts whose rate is below the ceiling keep it; the others share what is left.
    order = np.argsort(rate, kind="stable")
    fixed = np.concatenate(([0.0], np.cumsum((demand * rate)[order])[:-1]))
    open_demand = np.cumsum(demand[order][::-1])[::-1]
    for at, contract in enumerate(order.tolist()):
        if open_demand[at] <= 0:
            continue
        ceiling = (allowed - fixed[at]) / float(open_demand[at])
        if ceiling <= rate[contract]:
            return max(float(ceiling), PROBABILITY_MIN)
    return 1.0
