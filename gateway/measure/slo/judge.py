"""Judge all SLOs at once by the sums of their windows.

Law: a judgement depends on the sums alone. At most one burn of an SLO is told, the loudest; of
equally loud pairs the fastest.
Complexity: a few vector operations over pairs x SLOs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gateway.batch import Severity
from gateway.contract.schema import BurnWindow
from gateway.measure.slo.burn import (
    BACKFILL_SHARE,
    BAD_EVENTS_MIN,
    NO_LIMIT,
    RARE,
    Rule,
    is_improbable,
    rules_of,
)
from gateway.measure.slo.objective import Objective
from gateway.measure.state import Int64
from gateway.tables import Bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """One SLO that burns at one judgement: its loudest pair, and why. A backfill has no pair that
    fires; its pair is the slowest one.
    """

    objective: int
    pair: BurnWindow
    rule: Rule
    at_ns: int

    @property
    def pages(self) -> bool:
        """Say whether it wakes a person."""
        return self.rule >= Rule.PAGE

    @property
    def confident(self) -> bool:
        """Say whether there are events enough to be sure."""
        return self.rule is not Rule.UNSUPPORTED


class Judge:
    """The pairs of all SLOs. `place` says where the sums of a window stand."""

    def __init__(self, items: tuple[Objective, ...], place: Mapping[int, int]) -> None:
        self._items = items
        shape = (max((len(item.pairs) for item in items), default=0), len(items))
        self._long = np.zeros(shape, dtype=np.int64)
        self._short = np.zeros(shape, dtype=np.int64)
        self._limit = np.full(shape, NO_LIMIT)
        self._pages = np.zeros(shape, dtype=np.bool_)
        for index, item in enumerate(items):
            for at, pair in enumerate(item.pairs):
                self._long[at, index] = place[int(pair.long_s)]
                self._short[at, index] = place[int(pair.short_s)]
                self._limit[at, index] = pair.factor * item.budget
                self._pages[at, index] = pair.severity is Severity.PAGE
        self._every = np.arange(len(items))
        self._budget = np.array([item.budget for item in items], dtype=np.float64)
        self._period = np.array([place[item.windows_s[-1]] for item in items], dtype=np.int64)
        self._rare = np.array(
            [
                index
                for index, item in enumerate(items)
                if item.slo.indicator in RARE and item.pairs
            ],
            dtype=np.int64,
        )

    def judge(self, sums: Int64, arrived_bad: Int64, at_ns: int) -> list[Burn]:
        """Say what burns. `arrived_bad` counts bad late events of the last hour.

        Shape: sums (windows, slos, 2), arrived_bad (slos,).
        """
        bad = sums[:, :, 1]
        if not len(self._limit) or not bad.any():
            return []
        total = sums.sum(axis=2)
        rules = rules_of(
            self._limit,
            self._pages,
            bad[self._long, self._every],
            total[self._long, self._every],
            bad[self._short, self._every],
            total[self._short, self._every],
        )
        if len(self._rare):
            self._judge_rare(rules, bad, total)
        best, loudest = rules.argmax(axis=0), rules.max(axis=0)
        backfilled = self._is_backfilled(arrived_bad, total) & (loudest < Rule.BACKFILL)
        return [
            Burn(
                objective=index,
                pair=self._items[index].pairs[-1 if backfilled[index] else best[index]],
                rule=Rule.BACKFILL if backfilled[index] else Rule(int(loudest[index])),
                at_ns=at_ns,
            )
            for index in np.flatnonzero(loudest.astype(np.bool_) | backfilled).tolist()
        ]

    def _judge_rare(self, rules: Int64, bad: Int64, total: Int64) -> None:
        """Let the count rule alone decide about pages of rare events, over the fastest window."""
        rare = self._rare
        rules[:, rare] = np.minimum(rules[:, rare], Rule.TICKET)
        fast = self._long[0, rare]
        found = is_improbable(bad[fast, rare], total[fast, rare], self._budget[rare])
        rules[0, rare[found]] = Rule.COUNT

    def _is_backfilled(self, arrived_bad: Int64, total: Int64) -> Bool:
        """Say where late events alone have spent much of the period's budget within the hour."""
        least = BACKFILL_SHARE * self._budget * total[self._period, self._every]
        backfilled: Bool = (arrived_bad >= np.maximum(least, BAD_EVENTS_MIN)) & (
            self._limit[0] < NO_LIMIT
        )
        return backfilled
