"""Decide which spans leave the site, and with which sampling threshold.

Law: a span that a rule keeps has threshold 0, and so has its trace within the batch; every other
span is kept iff its trace's R >= T, with T from its contract's rate and budget. The threshold that
leaves is the maximum of T and the one that came in, so adjusted counts stay unbiased. R is the
explicit `rv`, else the low 56 bits of the trace id: spans of one trace are decided alike, here and
at every other stage. Cost: one pass per rule of each contract in the batch.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Batch, Findings, Verdict
from gateway.contract.plan import Plan
from gateway.decide.budget import Budgets
from gateway.decide.rules import compile_rules
from gateway.otlp.kernel import factorize_ids
from gateway.otlp.threshold import (
    RANDOM_MASK,
    RANGE,
    rounded,
    threshold_of,
)
from gateway.tables import NO_RANDOMNESS, NO_THRESHOLD, UInt8, UInt64

Int64 = NDArray[np.int64]
Array = NDArray[Any]

DEFAULT_MODEL: Final = "default"
RATE: Final = 0
# Reasons are one byte; rules and models past it share the last two.
REASONS_MAX: Final = 256
OTHER_RULE: Final = "keep:~other"
OTHER_SAMPLED: Final = "sampled:~other"
# Digits of a threshold that a budget chose; a rate from the configuration is written in full.
BUDGET_DIGITS: Final = 4


class Decide:
    """The sampler of one plan."""

    def __init__(self, plan: Plan) -> None:
        contracts = (*plan.contracts, None)  # the last one is the built-in default, index -1
        self._rules = [compile_rules(plan, contract) for contract in contracts]
        rates = [
            plan.rate if each is None or each.sampling.rate is None else each.sampling.rate
            for each in contracts
        ]
        self._threshold = [threshold_of(rate) for rate in rates]
        self._rate = np.array(rates)
        # Group 0 is the site's budget; a contract with a budget of its own is a group of its own.
        limits = [float(np.inf if plan.bytes_per_second is None else plan.bytes_per_second)]
        group = []
        for contract in contracts:
            own = None if contract is None else contract.sampling.bytes_per_second
            group.append(0 if own is None else len(limits))
            limits += [] if own is None else [float(own)]
        self._group = np.array(group, dtype=np.int64)
        self._budgets = Budgets(np.array(limits), self._group, self._rate)
        self._unbilled = np.zeros(len(limits), dtype=np.int64)
        models = [DEFAULT_MODEL if each is None else each.model for each in contracts]
        self._name_reasons(models)

    def _name_reasons(self, models: list[str]) -> None:
        texts = dict.fromkeys(rule.text for rules in self._rules for rule in rules)
        kept = [f"keep:{text}" for text in texts]
        sampled = [f"sampled:{model}" for model in models]
        room = REASONS_MAX - 3  # "rate" and the two that others share
        kept_room = min(len(kept), room // 2)
        sampled_room = min(len(sampled), room - kept_room)
        self._reasons = (
            "rate",
            *kept[:kept_room],
            *sampled[:sampled_room],
            OTHER_RULE,
            OTHER_SAMPLED,
        )
        other = len(self._reasons)
        self._kept_reason = {
            text: 1 + at if at < kept_room else other - 2 for at, text in enumerate(texts)
        }
        self._sampled_reason = np.array(
            [1 + kept_room + at if at < sampled_room else other - 1 for at in range(len(sampled))],
            dtype=np.uint8,
        )

    @property
    def contracts(self) -> int:
        """Count of contracts, without the built-in default."""
        return len(self._group) - 1

    def judge(self, batch: Batch, findings: Findings) -> Verdict:
        """Decide every row of a batch."""
        self._budgets.turn(batch.arrival_ns)
        spans = batch.spans
        contract = findings.contract
        reason = self._by_rule(batch, findings)
        by_rule = reason != RATE
        threshold_in, randomness = findings.upstream.threshold, findings.upstream.randomness
        random = np.where(
            randomness == np.uint64(NO_RANDOMNESS),
            spans["trace_lo"] & np.uint64(RANDOM_MASK),
            randomness,
        )
        group = self._group[contract]
        own = self._thresholds()[np.where(by_rule, 0, 1), contract]
        keep = random >= own
        # A stage before us that let this span through cannot have used that threshold.
        has_threshold = threshold_in != np.uint64(NO_THRESHOLD)
        is_false = has_threshold & (random < threshold_in)
        threshold = np.where(has_threshold, np.maximum(own, threshold_in), own)
        threshold[is_false] = np.uint64(NO_THRESHOLD)
        # The default, -1, is the last row.
        self._budgets.offer(contract.astype(np.int64) % len(self._group), by_rule)
        np.add.at(self._unbilled, group[keep], 1)
        return Verdict(
            keep=keep,
            reason=np.where(keep, reason, self._sampled_reason[contract]),
            reasons=self._reasons,
            threshold=threshold,
            randomness=randomness,
        )

    def spent(self, encoded_bytes: Int64, arrival_ns: int) -> None:
        """Take into account what the rows that were judged last became.

        Shape: encoded_bytes (contracts + 1,), the last one for spans without a contract.
        """
        self._budgets.turn(arrival_ns)
        total = np.zeros(len(self._unbilled), dtype=np.int64)
        np.add.at(total, self._group, encoded_bytes.astype(np.int64))
        self._budgets.spend(self._unbilled, total)
        self._unbilled[:] = 0

    def _thresholds(self) -> UInt64:
        """Return T of this window. Shape: (2, contracts + 1): kept by rule, and the rest."""
        table = np.zeros((2, len(self._group)), dtype=np.uint64)
        for contract, group in enumerate(self._group.tolist()):
            storm, calm = self._budgets.probability[group].tolist()
            table[0, contract] = 0 if storm >= 1 else _coarse(storm)
            rate = float(self._rate[contract])
            full = self._threshold[contract]
            table[1, contract] = full if calm >= rate else max(full, _coarse(calm))
        return table

    def _by_rule(self, batch: Batch, findings: Findings) -> UInt8:
        """Return for each row the reason of the first rule that keeps its trace, else RATE."""
        contract = findings.contract
        reason = np.full(len(contract), RATE, dtype=np.uint8)
        present = np.flatnonzero(np.bincount(contract + 1, minlength=len(self._rules)))
        for index in (present - 1).tolist():
            whole = len(present) == 1
            mine = None if whole else contract == index
            for rule in self._rules[index]:
                held = rule.holds(batch, findings) & (reason == RATE)
                reason[held if mine is None else held & mine] = self._kept_reason[rule.text]
        return _spread_over_traces(batch, reason)

    def state(self) -> dict[str, Array]:
        """Copy everything that a restart needs."""
        return {**self._budgets.state(), "unbilled": self._unbilled.copy()}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put a state back; one of a plan with other budgets is left out, and they start anew."""
        same = state["unbilled"].shape == self._unbilled.shape
        if same and state["offered"].shape[0] == len(self._group):
            self._budgets.restore(state)
            self._unbilled = state["unbilled"].copy()


def _coarse(probability: float) -> int:
    """Return a short T that keeps at most this share, and something at all."""
    return min(rounded(threshold_of(probability), BUDGET_DIGITS), RANGE - 1)


def _spread_over_traces(batch: Batch, reason: UInt8) -> UInt8:
    """Give all spans of a trace the smallest reason of those that a rule keeps."""
    rows = np.flatnonzero(reason != RATE)
    if len(rows) in (0, len(reason)):
        return reason
    codes, first = factorize_ids(batch.spans["trace_hi"], batch.spans["trace_lo"])
    if len(first) == len(reason):
        return reason
    best = np.full(len(first), REASONS_MAX, dtype=np.int64)
    np.minimum.at(best, codes[rows], reason[rows].astype(np.int64))
    of_trace = np.where(best == REASONS_MAX, RATE, best).astype(np.uint8)
    return np.where(reason == RATE, of_trace[codes], reason)
