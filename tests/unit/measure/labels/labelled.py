"""Contracts with labels, and a naive recount of what labels and predictions come to."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator, LabelRule, Role, SignalType, Slo
from gateway.contract.schema import Signal as ContractSignal
from gateway.measure.labels.labels import Labels
from gateway.measure.labels.predictions import NO_PREDICTION, UNSEEN_CLASS
from gateway.measure.labels.rules import Due, Mark
from gateway.measure.labels.state import load, save
from tests.unit.measure.build import DAY_S, SECOND_NS, contract, plan

HOUR_NS: Final = 3600 * SECOND_NS
DAY_NS: Final = 24 * HOUR_NS
RANGE: Final = 1 << 56
VALUES: Final = ("ok", "cracked", "wet")
NAMES: Final[tuple[tuple[str, str], ...]] = (
    ("damage-net", "1"),
    ("damage-net", "2"),
    ("counter", "1"),
    ("gate", "7"),
    ("plain", "1"),
    ("~other", "~other"),
)


def prediction(kind: SignalType, **changes: Any) -> ContractSignal:
    """A prediction of one type, under one attribute for each type."""
    fields: dict[str, Any] = {
        "name": "answer",
        "attribute": f"app.answer.{kind.value}",
        "type": kind,
        "role": Role.PREDICTION,
        "values": VALUES if kind is SignalType.ENUM else (),
    }
    return ContractSignal(**{**fields, **changes})


def lag_slo(name: str, threshold: float | None, objective: float = 0.9) -> Slo:
    """An objective of label lag."""
    return Slo(
        name=name,
        indicator=Indicator.LABEL_LAG,
        objective=objective,
        window=30 * DAY_S,
        threshold=threshold,
    )


def labelled(
    model: str,
    kind: SignalType = SignalType.ENUM,
    *,
    within: float = DAY_S,
    expect: float = 0.5,
    slos: tuple[Slo, ...] = (),
    **changes: Any,
) -> Any:
    """A contract with labels."""
    return contract(
        model,
        signals={"answer": prediction(kind, **changes)},
        labels=LabelRule(signal="answer", within=within, expect=expect),
        slos=slos,
    )


def labelled_plan() -> Plan:
    """Three contracts with labels, of all types and deadlines, and one without."""
    return plan(
        labelled("damage-net", slos=(lag_slo("in-a-day", None),)),
        labelled(
            "counter",
            SignalType.INT,
            within=6 * 3600.0,
            expect=1.0,
            slos=(lag_slo("in-an-hour", 3600.0), lag_slo("in-six", 6 * 3600.0)),
            range=(0.0, 9.0),
        ),
        labelled("gate", SignalType.BOOL, within=3600.0, expect=0.0),
        contract("plain", slos=()),
    )


def reloaded(labels: Labels, the_plan: Plan, labels_max: int = 1_000_000) -> Labels:
    """The same labels after a restart."""
    fresh = Labels(the_plan, labels_max)
    load(fresh, save(labels))
    return fresh


def due_events(found: list[Due]) -> list[tuple[int, tuple[str, ...], int, bool]]:
    """Write what fell due as plain rows."""
    return [
        (each.contract, each.slos, event_ns, bad)
        for each in found
        for event_ns, bad in zip(each.event_ns.tolist(), each.bad.tolist(), strict=True)
    ]


@dataclass(slots=True, kw_only=True)
class Row:
    """One prediction of the recount."""

    name: tuple[str, str]
    event_ns: int
    code: int
    judged: int = 0
    label: int | None = None
    label_ns: int = 0


@dataclass(slots=True)
class Recount:
    """Everything by its definition, one trace after the other, without any limit."""

    labels: Labels
    rows: dict[tuple[int, int], Row] = field(default_factory=dict)
    ended: list[Row] = field(default_factory=list)
    waiting: dict[tuple[int, int], tuple[Any, int]] = field(default_factory=dict)
    fates: Counter[str] = field(default_factory=Counter)
    judged_ns: int = 0
    due: list[tuple[int, tuple[str, ...], int, bool]] = field(default_factory=list)
    totals: Counter[tuple[str, bool]] = field(default_factory=Counter)
    repeated: int = 0
    too_old: int = 0

    def predicted(self, trace: int, contract: int, version: str, event_ns: int, code: int) -> None:
        """Take one inference."""
        rule = self.labels.rules.get(contract)
        if rule is None:
            return
        if event_ns + rule.within_ns + DAY_NS <= self.judged_ns:
            self.too_old += 1
        elif (trace, contract) in self.rows:
            self.repeated += 1
        else:
            self.rows[(trace, contract)] = Row(
                name=(rule.model, version), event_ns=event_ns, code=code
            )

    def label(self, trace: int, value: Any, arrival_ns: int, model: str = "") -> None:
        """Take one label."""
        self._join()
        rules = self.labels.rules
        named = [rule for rule in rules.values() if model in ("", rule.model)]
        if not named:
            self.fates["no_contract"] += 1
            return
        hits = [rule.contract for rule in named if (trace, rule.contract) in self.rows]
        if hits:
            self.fates[self._set(trace, hits, value, arrival_ns)] += 1
            return
        if all(rule.classes.maybe_code(value) is None for rule in named):
            self.fates["unknown_class"] += 1
            return
        key = (trace, named[0].contract if model else -1)
        if key in self.waiting:
            before, first_ns = self.waiting.pop(key)
            # A truth value is never a number, though Python has True == 1.
            is_same = before == value and isinstance(before, bool) == isinstance(value, bool)
            self.fates["duplicate" if is_same else "changed"] += 1
            arrival_ns = first_ns
        self.waiting[key] = (value, arrival_ns)

    def _set(self, trace: int, hits: list[int], value: Any, arrival_ns: int) -> str:
        if len(hits) > 1:
            return "ambiguous"
        row = self.rows[(trace, hits[0])]
        code = self.labels.rules[hits[0]].classes.maybe_code(value)
        if code is None:
            return "unknown_class"
        if row.label == code:
            return "duplicate"
        is_first = row.label is None
        if is_first:
            row.label_ns = arrival_ns
        row.label = code
        if not is_first:
            return "changed"
        return "no_prediction" if row.code == NO_PREDICTION else "counted"

    def _join(self) -> None:
        for key, (value, arrival_ns) in list(self.waiting.items()):
            trace, asked = key[0], list(self.labels.rules) if key[1] < 0 else [key[1]]
            hits = [each for each in asked if (trace, each) in self.rows]
            if hits:
                del self.waiting[key]
                self.fates[self._set(trace, hits, value, arrival_ns)] += 1

    def turn(self, judged_ns: int) -> None:
        """Judge what is due."""
        self._join()
        self.judged_ns = judged_ns
        for key, (_, arrival_ns) in list(self.waiting.items()):
            if arrival_ns + DAY_NS <= judged_ns:
                del self.waiting[key]
                self.fates["unknown_trace"] += 1
        for (trace, index), row in list(self.rows.items()):
            rule = self.labels.rules[index]
            is_expected = trace % RANGE >= rule.expected
            while row.judged < len(rule.ends_ns):
                end_ns = row.event_ns + rule.ends_ns[row.judged]
                if end_ns > judged_ns:
                    break
                slos = rule.slos[row.judged]
                row.judged += 1
                bad = row.label is None or row.label_ns > end_ns
                if is_expected and row.judged == len(rule.ends_ns):
                    self.totals[(rule.model, bad)] += 1
                if is_expected and slos:
                    self.due.append((index, slos, end_ns, bad))
            if row.event_ns + rule.within_ns + DAY_NS <= judged_ns:
                self.ended.append(self.rows.pop((trace, index)))

    def outcomes(self) -> list[tuple[tuple[str, str], int, bool]]:
        """Model with version, time and whether right, of every prediction with a label."""
        return [
            (row.name, row.event_ns, row.code == row.label)
            for row in (*self.ended, *self.rows.values())
            if row.label is not None and row.code != NO_PREDICTION
        ]


class World:
    """Random predictions and labels that come shuffled, late, early, twice and never."""

    def __init__(self, labels: Labels, recount: Recount, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.labels, self.recount = labels, recount
        self.contracts = {each.model: at for at, each in enumerate(labels_plan_contracts())}
        self.traces = [
            (int(hi) << 64) | int(lo)
            for hi, lo in self.rng.integers(0, 1 << 63, (400, 2), dtype=np.uint64)
        ]

    def trace(self) -> int:
        """An old trace or a new one."""
        if self.rng.random() < 0.3:
            at = int(self.rng.integers(len(self.traces)))
            hi, lo = self.rng.integers(0, 1 << 63, 2, dtype=np.uint64).tolist()
            self.traces[at] = (hi << 64) | lo
            return self.traces[at]
        return self.traces[int(self.rng.integers(len(self.traces)))]

    def predict(self, now_ns: int, count: int) -> None:
        """Let inferences come."""
        rng = self.rng
        traces = [self.trace() for _ in range(count)]
        series = rng.integers(0, len(NAMES), count)
        late_s = rng.choice([0.0, 5.0, 3e4, 1.7e5, 3e8], count, p=[0.5, 0.3, 0.1, 0.09, 0.01])
        event_ns = now_ns - (late_s * SECOND_NS).astype(np.int64)
        code = rng.choice(
            [0, 1, 2, NO_PREDICTION, UNSEEN_CLASS], count, p=[0.35, 0.25, 0.1, 0.15, 0.15]
        )
        owner = [
            self.contracts[NAMES[each][0]] if NAMES[each][0] != "~other" else trace % 4
            for each, trace in zip(series.tolist(), traces, strict=True)
        ]
        contract = np.array(owner, dtype=np.int64)
        # A gate has but two classes.
        code[(contract == self.contracts["gate"]) & (code == 2)] = 1
        self.labels.predicted(
            np.array([trace >> 64 for trace in traces], dtype=np.uint64),
            np.array([trace % (1 << 64) for trace in traces], dtype=np.uint64),
            contract=contract,
            series=series.astype(np.int64),
            names=NAMES,
            event_ns=event_ns,
            code=code.astype(np.int32),
        )
        for row in range(count):
            self.recount.predicted(
                traces[row],
                int(contract[row]),
                NAMES[int(series[row])][1],
                int(event_ns[row]),
                int(code[row]),
            )

    def tell(self, now_ns: int) -> None:
        """Let a label come."""
        values = ("ok", "cracked", "wet", "dry", 0, 1, 2, 2.0, 77, True, False, 0.5)
        models = ("", "", "damage-net", "counter", "gate", "plain", "nobody")
        value = values[int(self.rng.integers(len(values)))]
        model = models[int(self.rng.integers(len(models)))]
        trace = self.trace()
        self.labels.label(trace >> 64, trace % (1 << 64), value, now_ns, model)
        self.recount.label(trace, value, now_ns, model)


def told(traces: list[int], value: Any, model: str = "") -> list[Mark]:
    """The same label for many traces."""
    return [Mark(halves=(t >> 64, t % (1 << 64)), value=value, model=model) for t in traces]


def labels_plan_contracts() -> tuple[Any, ...]:
    """The contracts of `labelled_plan`, in the plan's order."""
    return labelled_plan().contracts
