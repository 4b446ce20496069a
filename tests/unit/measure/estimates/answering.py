"""A site whose models answer with a confidence and a class, and whose labels come later."""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from gateway.batch import Anomaly, Batch
from gateway.contract.plan import Plan
from gateway.contract.schema import LabelRule
from gateway.measure import Measure, MeasureSettings
from gateway.measure.estimates.views import EstimateView
from gateway.otlp.declared import Label
from gateway.tables import Bool, Float64
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    VALUES,
    batch,
    contract,
    declared,
    payload,
    plan,
    request,
    span,
)

SETTINGS: Final = MeasureSettings(baseline_events=2_000, slo_quiet_s=600)
SIZE: Final = 500


def labelled_plan(**changes: Any) -> Plan:
    """A plan of one contract with labels."""
    fields = {"labels": LabelRule(signal="class", within=7 * 86_400.0), **changes}
    return plan(contract(**fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was answered. Shape: all (answers,)."""

    traces: list[bytes]
    classes: list[str]
    confidence: Float64


class Site:
    """Sends answers of one version after the other, and labels for them."""

    def __init__(self, the_plan: Plan | None = None, seed: int = 1, size: int = SIZE) -> None:
        self.plan = the_plan or labelled_plan()
        self.measure = Measure(self.plan, SETTINGS)
        self.rng = np.random.default_rng(seed)
        self.now_ns = START_NS
        self.told: list[Anomaly] = []
        self.size = size
        self._sequence = 0
        self._templates: dict[str, Batch] = {}

    def _template(self, version: str) -> Batch:
        if version not in self._templates:
            spans = [
                span(
                    1 + number,
                    attributes={
                        "edgeai.model.name": "damage-net",
                        "edgeai.inference.confidence": 0.5,
                        "edgeai.inference.class": VALUES[number % len(VALUES)],
                        "edgeai.input.brightness": 0.5,
                    },
                )
                for number in range(self.size)
            ]
            body = request(spans, {"device.id": "d", "edgeai.model.version": version})
            self._templates[version] = batch(self.plan, payload(body))
        return self._templates[version]

    def answer(
        self, confidence: Float64, classes: Any = None, *, version: str = "1", after_s: float = 10
    ) -> Answers:
        """Let a batch of answers come; classes are indices of VALUES, all alike when None."""
        self.now_ns += round(after_s * SECOND_NS)
        base = self._template(version)
        if classes is None:
            classes = self.rng.integers(0, len(VALUES), self.size)
        spans = base.spans.copy()
        for half in ("trace_hi", "trace_lo"):
            spans[half] = self.rng.integers(1, 1 << 63, self.size, dtype=np.uint64)
        spans["end_ns"] = self.now_ns - 5_000_000
        spans["start_ns"] = spans["end_ns"] - np.uint64(1_000_000)
        attributes = base.span_attributes.copy()
        slot = self.plan.slot_of
        attributes["number"][base.slots[slot["edgeai.inference.confidence"]]] = confidence.view(
            np.uint64
        )
        named = base.slots[slot["edgeai.inference.class"]]
        for field in ("offset", "length"):
            attributes[field][named] = base.span_attributes[field][named[: len(VALUES)]][classes]
        requests = base.requests.copy()
        requests["arrival_ns"] = self.now_ns
        self._sequence += 1
        fields = {name: getattr(base, name) for name in base.__slots__}
        one = Batch(
            **{
                **fields,
                "sequence": self._sequence,
                "arrival_ns": self.now_ns,
                "spans": spans,
                "span_attributes": attributes,
                "requests": requests,
            }
        )
        self.told += self.measure.observe(one).anomalies
        ids = zip(spans["trace_hi"].tolist(), spans["trace_lo"].tolist(), strict=True)
        return Answers(
            traces=[hi.to_bytes(8, "big") + lo.to_bytes(8, "big") for hi, lo in ids],
            classes=[VALUES[each] for each in classes],
            confidence=confidence,
        )

    def label(self, answers: Answers, right: Bool) -> None:
        """Let the truth come: the class that was answered, or the next one."""
        labels = [
            Label(
                at_ns=self.now_ns,
                trace_id=trace,
                value=name if is_right else VALUES[(VALUES.index(name) + 1) % len(VALUES)],
            )
            for trace, name, is_right in zip(
                answers.traces, answers.classes, right.tolist(), strict=True
            )
        ]
        self.measure.hear(declared(self.now_ns, *labels))

    def learn(
        self, batches: int, *, a: float = 8, b: float = 2, off: float = 0.0, version: str = "1"
    ) -> None:
        """Answer, and label all of it; the model is right as often as it says, and `off` more."""
        for _ in range(batches):
            confidence = self.rng.beta(a, b, self.size)
            answers = self.answer(confidence, version=version)
            self.label(answers, self.rng.random(self.size) < confidence + off)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += round(seconds * SECOND_NS)
        self.told += self.measure.advance(self.now_ns)

    def view(self, version: str = "1") -> EstimateView:
        """Show the estimate of a version."""
        shown = self.measure.snapshot().operations.estimates
        (found,) = [each for each in shown if each.version == version]
        return found

    def restart(self, the_plan: Plan | None = None) -> "Site":
        """The same site after a restart."""
        fresh = Site(the_plan or self.plan, size=self.size)
        fresh.measure.restore(self.measure.state())
        fresh.rng, fresh.now_ns, fresh._sequence = self.rng, self.now_ns, self._sequence
        return fresh


def without(view: EstimateView) -> EstimateView:
    """A view but for the evidence, which stays at its site."""
    calibration = replace(view.calibration, evidence=0.0, surplus=0.0)
    return replace(view, calibration=calibration)
