"""Join the truth about a trace to what was predicted: accuracy, and how late labels are.

Law: every label that is heard has one fate of a closed list, or waits. The first inference of a
trace under a contract is the one that a label is compared with, and of two labels the newest
counts. A label may come before its inference: it waits for a day. What is kept is bounded, by a
uniform sample of traces (see `predictions`), so accuracy stays unbiased, and counts of labels are
those of the sample.

A label is due when its trace is in the share that the contract expects: randomness of the trace id
at or above the threshold of that share. It is judged once, when its deadline passes by the time
that is judged, and never again: good if a label had arrived by then. An event of a label_lag
objective therefore stands at its deadline, and a window shows the traces whose labels fell due in
it. A prediction stays for a day after its last deadline while there is room, so late labels still
count for accuracy.

Cost: inferences are appended to columns, and hashed when the first label or deadline comes. Two
calls of `turn` do what the later one alone does.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from gateway.batch import Batch
from gateway.contract.plan import Plan
from gateway.measure.drift.lanes import Lane
from gateway.measure.groups import Groups
from gateway.measure.labels.accuracy import Accuracy
from gateway.measure.labels.answers import answers
from gateway.measure.labels.classes import plain_text
from gateway.measure.labels.predictions import (
    ANY_CONTRACT,
    GONE,
    NEVER_NS,
    NO_LABEL,
    NO_PREDICTION,
    NO_SCORE,
    OVERDUE,
    RANDOM_MASK,
    Predictions,
    is_kept,
)
from gateway.measure.labels.rules import (
    LAG_EDGES_S,
    Due,
    Fate,
    Lag,
    Mark,
    Outcome,
    Rule,
    Told,
    rule_of,
)
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64
from gateway.tables import UInt64

LABELS_MAX: Final = 1_000_000
WAITING_MAX: Final = 16_384
WAITING_NS: Final = 86_400 * SECOND_NS
OVERDUE_NS: Final = 86_400 * SECOND_NS
GENERATION_MIN_NS: Final = 3600 * SECOND_NS
_NO_RULE: Final = -2


class Labels:
    """All labels of a plan. Units: labels_max rows of predictions.

    `joined` hears of every prediction that a label is compared with.
    """

    def __init__(
        self,
        plan: Plan,
        labels_max: int = LABELS_MAX,
        joined: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._tell_joined = joined
        self.rules: dict[int, Rule] = {
            index: rule_of(plan, index, contract, contract.labels)
            for index, contract in enumerate(plan.contracts)
            if contract.labels is not None
        }
        self.rule_of_model = {rule.model: rule for rule in self.rules.values()}
        self._is_ruled = np.zeros(len(plan.contracts) + 1, dtype=np.bool_)
        self._is_ruled[list(self.rules)] = True
        self._is_whole = len(self.rules) == len(plan.contracts)
        self._first_end_ns = np.zeros(len(plan.contracts), dtype=np.int64)
        self._kept_ns = np.zeros(len(plan.contracts), dtype=np.int64)
        for index, rule in self.rules.items():
            self._first_end_ns[index] = rule.ends_ns[0]
            self._kept_ns[index] = rule.within_ns + OVERDUE_NS
        longest = max((rule.within_ns for rule in self.rules.values()), default=0)
        self._generation_ns = max(longest, GENERATION_MIN_NS)
        self._kept_ns_min = min((int(self._kept_ns[each]) for each in self.rules), default=0)
        self.groups = Groups([contract.model for contract in plan.contracts])
        self.predictions = Predictions(self.groups, labels_max)
        self.accuracy = Accuracy()
        self.lags = {rule.model: Lag(lags=[0] * (len(LAG_EDGES_S) + 1)) for rule in self._ruled()}
        self.fates = dict.fromkeys(Fate, 0)
        # Value and arrival of labels without a trace, by trace and contract, oldest first.
        self.waiting: dict[tuple[int, int, int], tuple[str | float | bool, int]] = {}
        self.judged_ns = 0
        self.joined = 0  # of `Predictions.appended`
        self.offered = 0
        self.sampled_out = 0
        self.too_old = 0
        # The highest thresholds of the last two generations, for labels of traces left out then.
        self.peaks = [0, 0]

    def _ruled(self) -> list[Rule]:
        return list(self.rules.values())

    def observe(
        self,
        batch: Batch,
        rows: Int64 | None,
        *,
        contract: Int64,
        series: Int64,
        names: Sequence[tuple[str, str]],
        event_ns: Int64,
        lanes: Sequence[Lane],
        bins: Sequence[Int64],
    ) -> None:
        """Keep the predictions of a batch's inferences. Shape: all (rows,); rows None for all."""
        if not self.rules:
            return
        at = slice(None) if rows is None else rows
        lo = batch.spans["trace_lo"][at]
        picked = self._wanted(lo, contract)
        if picked is not None:
            if len(picked) == 0:
                return
            lo, contract, series = lo[picked], contract[picked], series[picked]
            event_ns = event_ns[picked]
            rows = picked if rows is None else rows[picked]
            bins = [each[picked] for each in bins]
            at = rows
        code, score = answers(self.rules, batch, rows, contract, lanes, bins)
        self._append(
            batch.spans["trace_hi"][at],
            lo,
            contract=contract,
            series=series,
            names=names,
            event_ns=event_ns,
            code=code,
            score=score,
        )

    def predicted(
        self,
        hi: UInt64,
        lo: UInt64,
        *,
        contract: Int64,
        series: Int64,
        names: Sequence[tuple[str, str]],
        event_ns: Int64,
        code: Array,
        score: Array | None = None,
    ) -> None:
        """Keep predictions whose codes are known. Shape: all (rows,), names (series,)."""
        score = np.full(len(lo), NO_SCORE, dtype=np.uint8) if score is None else score
        picked = self._wanted(lo, contract)
        if picked is not None:
            hi, lo, contract, series = hi[picked], lo[picked], contract[picked], series[picked]
            event_ns, code, score = event_ns[picked], code[picked], score[picked]
        self._append(
            hi,
            lo,
            contract=contract,
            series=series,
            names=names,
            event_ns=event_ns,
            code=code,
            score=score,
        )

    def _wanted(self, lo: UInt64, contract: Int64) -> Int64 | None:
        """Choose the rows of contracts with labels that the sample takes; None for all."""
        threshold = self.predictions.threshold
        if self._is_whole:
            self.offered += len(lo)
            if threshold == 0:
                return None
            picked: Int64 = np.flatnonzero(is_kept(lo, threshold))
            self.sampled_out += len(lo) - len(picked)
            return picked
        picked = np.flatnonzero(self._is_ruled[contract])
        self.offered += len(picked)
        if threshold:
            kept = is_kept(lo[picked], threshold)
            self.sampled_out += int(len(kept) - np.count_nonzero(kept))
            picked = picked[kept]
        return picked

    def _append(
        self,
        hi: UInt64,
        lo: UInt64,
        *,
        contract: Int64,
        series: Int64,
        names: Sequence[tuple[str, str]],
        event_ns: Int64,
        code: Array,
        score: Array,
    ) -> None:
        if len(lo) and int(event_ns.min()) <= self.judged_ns - self._kept_ns_min:
            kept = event_ns > self.judged_ns - self._kept_ns[contract]
            self.too_old += int(len(kept) - np.count_nonzero(kept))
            hi, lo, contract, series = hi[kept], lo[kept], contract[kept], series[kept]
            event_ns, code, score = event_ns[kept], code[kept], score[kept]
        if len(lo) == 0:
            return
        group = self.groups.find(contract, series, names)
        self.accuracy.reserve(len(self.groups))
        due_ns = event_ns + self._first_end_ns[contract]
        self.predictions.append(hi, lo, group, due_ns, code, score)
        self.peaks[0] = max(self.peaks[0], self.predictions.threshold)

    def label(
        self, hi: int, lo: int, value: str | float | bool, arrival_ns: int, model: str = ""
    ) -> None:
        """Hear one label."""
        self.hear((Mark(halves=(hi, lo), value=value, model=model),), arrival_ns)

    def hear(self, labels: Sequence[Told], arrival_ns: int) -> None:
        """Join labels to their predictions, in their order. Units: arrival_ns at the gateway."""
        if not labels:
            return
        self.accuracy.advance(arrival_ns)
        self._join()
        self.predictions.settle()
        keys = [(*each.halves, self._contract_of(each.model)) for each in labels]
        found, several = self._find(keys)
        for key, each, row, is_several in zip(keys, labels, found, several, strict=True):
            fate = self._maybe_fate(key, each.value, arrival_ns, row, is_several=is_several)
            if fate is not None:
                self.fates[fate] += 1

    def _contract_of(self, model: str) -> int:
        if not model:
            return ANY_CONTRACT if self.rules else _NO_RULE
        rule = self.rule_of_model.get(model)
        return _NO_RULE if rule is None else rule.contract

    def _find(self, keys: Sequence[tuple[int, int, int]]) -> tuple[list[int], list[bool]]:
        found, several = self.predictions.find(
            np.array([key[0] for key in keys], dtype=np.uint64),
            np.array([key[1] for key in keys], dtype=np.uint64),
            np.array([key[2] for key in keys], dtype=np.int64),
        )
        return found.tolist(), several.tolist()

    def _maybe_fate(
        self,
        key: tuple[int, int, int],
        value: str | float | bool,
        arrival_ns: int,
        row: int,
        *,
        is_several: bool,
    ) -> Fate | None:
        """Take a label; None when it waits for its trace."""
        if key[2] == _NO_RULE:
            return Fate.NO_CONTRACT
        if row >= 0:
            return Fate.AMBIGUOUS if is_several else self._set(row, value, arrival_ns)
        asked = self._ruled() if key[2] == ANY_CONTRACT else [self.rules[key[2]]]
        if all(rule.classes.maybe_code(value) is None for rule in asked):
            return Fate.UNKNOWN_CLASS
        if key[1] & int(RANDOM_MASK) < self.predictions.threshold:
            return Fate.SAMPLED_OUT
        return self._wait(key, value, arrival_ns)

    def _wait(
        self, key: tuple[int, int, int], value: str | float | bool, arrival_ns: int
    ) -> Fate | None:
        before = self.waiting.pop(key, None)
        if before is not None:
            # Whether it came in time is a matter of the first one.
            self.waiting[key] = (value, before[1])
            return Fate.DUPLICATE if plain_text(before[0]) == plain_text(value) else Fate.CHANGED
        if len(self.waiting) >= WAITING_MAX:
            del self.waiting[next(iter(self.waiting))]
            self.fates[Fate.WAITING_FULL] += 1
        self.waiting[key] = (value, arrival_ns)
        return None

    def _set(self, row: int, value: str | float | bool, arrival_ns: int) -> Fate:
        """Label a row, for the first time or again."""
        table = self.predictions
        group = int(table.group[row])
        rule = self.rules[int(self.groups.contract[group])]
        code = rule.classes.maybe_code(value)
        if code is None:
            return Fate.UNKNOWN_CLASS
        before = int(table.label[row])
        if before == code:
            return Fate.DUPLICATE
        event_ns = self.event_ns(row, rule)
        if before == NO_LABEL:
            lag_ns = max(0, arrival_ns - event_ns)
            ends = np.searchsorted(rule.ends_ns, lag_ns)
            if ends < len(rule.ends_ns):
                table.good_from[row] = ends
            edge = int(np.searchsorted(LAG_EDGES_S, lag_ns / SECOND_NS))
            self.lags[rule.model].lags[edge] += 1
        table.label[row] = code
        predicted = int(table.code[row])
        if predicted != NO_PREDICTION:
            for label, by in ((before, -1), (code, 1)):
                if label != NO_LABEL:
                    self.accuracy.add(
                        group=group,
                        contract=rule.contract,
                        event_ns=event_ns,
                        predicted=predicted,
                        label=label,
                        by=by,
                    )
            self._tell_joined(
                Outcome(
                    group=group,
                    contract=rule.contract,
                    score=int(table.score[row]),
                    is_right=predicted == code,
                    was_right=None if before == NO_LABEL else predicted == before,
                    arrival_ns=arrival_ns,
                )
            )
        if before != NO_LABEL:
            return Fate.CHANGED
        return Fate.NO_PREDICTION if predicted == NO_PREDICTION else Fate.COUNTED

    def event_ns(self, row: int, rule: Rule) -> int:
        """Return when the inference of a row was, from the deadline that it waits for."""
        stage = int(self.predictions.stage[row])
        after_ns = rule.within_ns + OVERDUE_NS if stage == OVERDUE else rule.ends_ns[stage]
        return int(self.predictions.due_ns[row]) - after_ns

    def _join(self) -> None:
        """Join labels that wait to traces that have come since."""
        if self.joined == self.predictions.appended:
            return
        self.joined = self.predictions.appended
        if not self.waiting:
            return
        self.predictions.settle()
        keys = list(self.waiting)
        found, several = self._find(keys)
        for key, row, is_several in zip(keys, found, several, strict=True):
            if row >= 0:
                value, arrival_ns = self.waiting.pop(key)
                fate = Fate.AMBIGUOUS if is_several else self._set(row, value, arrival_ns)
                self.fates[fate] += 1

    def turn(self, judged_ns: int) -> list[Due]:
        """Judge labels whose deadline has passed by the time that is judged."""
        if judged_ns <= self.judged_ns:
            return []
        self._join()
        first = self.judged_ns // self._generation_ns + 1
        self.judged_ns = judged_ns
        self.accuracy.advance(judged_ns)
        self._give_up()
        found: list[Due] = []
        for generation in range(first, judged_ns // self._generation_ns + 1):
            if not any(self.peaks):
                break
            # As it was at the end of the generation, whenever that is noticed.
            found += self._fallen_due(generation * self._generation_ns)
            open_rows = np.count_nonzero(self.predictions.stage[: self.predictions.count] < OVERDUE)
            self.predictions.relax(int(open_rows))
            self.peaks = [self.predictions.threshold, self.peaks[0]]
        return found + self._fallen_due(judged_ns)

    def _give_up(self) -> None:
        """Count labels whose trace has not come within the time that they wait."""
        peak = max(self.peaks)
        for key, (_, arrival_ns) in list(self.waiting.items()):
            if arrival_ns + WAITING_NS <= self.judged_ns:
                del self.waiting[key]
                is_out = key[1] & int(RANDOM_MASK) < peak
                self.fates[Fate.SAMPLED_OUT if is_out else Fate.UNKNOWN_TRACE] += 1

    def _fallen_due(self, now_ns: int) -> list[Due]:
        """Judge every deadline that has passed, and let go what is long over."""
        table = self.predictions
        if now_ns < table.next_due_ns:
            return []
        table.settle()
        found: list[Due] = []
        while len(rows := table.due(now_ns)):
            contract, stage = self.groups.contract[table.group[rows]], table.stage[rows]
            over = rows[stage == OVERDUE]
            table.stage[over], table.due_ns[over] = GONE, NEVER_NS
            for index in np.unique(contract).tolist():
                rule = self.rules[index]
                for number in range(len(rule.ends_ns)):
                    some = rows[(contract == index) & (stage == number)]
                    if len(some):
                        found += self._judge(rule, number, some)
        table.rest()
        return found

    def _judge(self, rule: Rule, stage: int, rows: Int64) -> list[Due]:
        table = self.predictions
        event_ns = table.due_ns[rows]
        expected = is_kept(table.lo[rows], rule.expected)
        bad = (table.good_from[rows] > stage)[expected]
        if stage + 1 < len(rule.ends_ns):
            table.stage[rows] = stage + 1
            table.due_ns[rows] = event_ns + (rule.ends_ns[stage + 1] - rule.ends_ns[stage])
        else:
            table.stage[rows] = OVERDUE
            table.due_ns[rows] = event_ns + OVERDUE_NS
            lag = self.lags[rule.model]
            lag.bad += int(np.count_nonzero(bad))
            lag.good += int(len(bad) - np.count_nonzero(bad))
        if len(bad) == 0 or not rule.slos[stage]:
            return []
        return [
            Due(
                contract=rule.contract,
                slos=rule.slos[stage],
                event_ns=event_ns[expected],
                bad=bad,
            )
        ]
