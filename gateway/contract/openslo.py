"""OpenSLO v1 documents to objectives: what they say in Weir's terms, or why it cannot be said.

Law: nothing is guessed and nothing passed over. Each key either maps, is a note for readers
(displayName, description, labels, annotations), or is refused by name at its line. A mapped
objective is judged by the laws of contracts, with findings at the OpenSLO keys. Pure.
Complexity: linear in the documents, times the references of an SLO.
Source: OpenSLO specification, apiVersion openslo/v1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from pydantic import Field

from gateway.config.knobs import Section
from gateway.config.marks import ROOT
from gateway.config.rules import FindingRule
from gateway.config.units import format_duration
from gateway.config.validate import show, validate
from gateway.contract.form import INDICATORS, IndicatorField, SloForm
from gateway.contract.objectives import BUDGETLESS, Written
from gateway.contract.openslo_form import (
    MetricForm,
    Object,
    ObjectiveForm,
    SliObject,
    SliSpec,
    SloObject,
)
from gateway.contract.openslo_objects import (
    Entry,
    Objects,
    Outline,
    Spot,
    duration_text,
)
from gateway.contract.openslo_policies import map_policies
from gateway.contract.schema import Indicator

SOURCE_TYPE: Final = "weir"
MODEL_KEY: Final = "edgeai.model.name"
PAGE_KEY: Final = "edgeai.slo.page"
OCCURRENCES: Final = "Occurrences"
OTHER_METHODS: Final = ("Timeslices", "RatioTimeslices")
PERCENT: Final = 100
_COMPOSITE: Final = ("indicator", "indicatorRef", "compositeWeight")
_TIMESLICES: Final = ("timeSliceTarget", "timeSliceWindow")


class WeirSpec(Section):
    """What `metricSource.spec` says for `type: weir`."""

    indicator: IndicatorField = Field(description="write indicator: success")
    threshold: str | None = None
    unit: str | None = None


class WeirSource(Section):
    """The spec of a source, so that messages name it."""

    spec: WeirSpec = Field(description="write spec: {indicator: success}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """One objective of an OpenSLO document, and the model that it names at a place."""

    model: str
    model_at: Spot
    written: Written


def map_slos(objects: Objects) -> list[Mapped]:
    """Map every SLO whose documents are sound, ordered by name; findings are in the documents."""
    found = [_map(entry, objects) for entry in objects.of_kind("SLO")]
    mapped = [each for each in found if each is not None]
    return sorted(mapped, key=lambda each: (each.written.slo.name, each.written.title))


def _map(entry: Entry, objects: Objects) -> Mapped | None:
    form = entry.form
    if not isinstance(form, SloObject):
        return None
    spec, spot = form.spec, entry.spot.at("spec")
    to = Outline(entry.spot.document.file, entry.spot.place("metadata", "name"))
    to.put(("name",), form.metadata.name, entry.spot.at("metadata", "name"))
    model = _model(entry, form, objects)
    is_whole = _put_window(form, spot, to)
    is_whole &= _check_method(spec.budgetingMethod, spot)
    objective = _only_objective(spec.objectives, spot)
    sli = _sli(form, spot, objects)
    if objective is not None:
        at = spot.at("objectives", 0)
        is_whole &= _put_target(objective, at, to)
        is_whole &= sli is not None and _put_indicator(*sli, objective, at, objects, to)
    is_whole &= map_policies(spec.alertPolicies, spot.at("alertPolicies"), objects, to)
    is_whole &= _put_page(form, entry.spot, to)
    if model is None or objective is None or not is_whole:
        return None
    checked = validate(SloForm, to.document)
    if checked.value is None:
        entry.spot.document.findings += to.document.findings
        return None
    title = f"SLO {form.metadata.name!r} of {entry.spot.document.file}"
    written = Written(
        slo=checked.value,
        document=to.document,
        at=ROOT,
        title=title,
        is_sound=checked.is_sound,
    )
    name, model_at = model
    return Mapped(model=name, model_at=model_at, written=written)


def _model(entry: Entry, form: SloObject, objects: Objects) -> tuple[str, Spot] | None:
    """Find the model that an SLO is for: a label of it or of its service, else the service."""
    service = objects.get("Service", form.spec.service)
    for owner in (entry, service):
        if owner is None or owner.form is None:
            continue
        named = _noted(MODEL_KEY, owner.form, owner.spot)
        for name, spot in named:
            if not isinstance(name, str) or name != named[0][0]:
                spot.refuse(f"{MODEL_KEY}: {show(name)} names no one model", "write one name")
                return None
        if named:
            return named[0]
    return form.spec.service, entry.spot.at("spec", "service")


def _noted(key: str, form: Object, spot: Spot) -> list[tuple[Any, Spot]]:
    """List what labels and annotations of an object say under a key."""
    metadata = form.metadata
    return [
        (table[key], spot.at("metadata", part, key))
        for part, table in (("labels", metadata.labels), ("annotations", metadata.annotations))
        if key in table
    ]


def _put_window(form: SloObject, spot: Spot, to: Outline) -> bool:
    windows = form.spec.timeWindow
    if not windows:
        return True  # the period of contracts, which the specification leaves to us
    at = spot.at("timeWindow", 0)
    if len(windows) > 1:
        spot.at("timeWindow", 1).refuse("an SLO has one time window", "keep one of them")
        return False
    if windows[0].calendar is not None:
        message = "a calendar-aligned time window is not counted here"
        at.at("calendar").refuse(message, "write duration: 30d and isRolling: true", of_key=True)
        return False
    if windows[0].isRolling is not True:
        at.refuse("the time window is not said to roll", "write isRolling: true")
        return False
    text = duration_text(windows[0].duration, at.at("duration"))
    if text is not None:
        to.put(("window",), text, at.at("duration"))
    return text is not None


def _check_method(method: str, spot: Spot) -> bool:
    if method == OCCURRENCES:
        return True
    message = f"the budgeting method {method!r} is not counted here"
    if method not in OTHER_METHODS:
        message = f"{method!r} is no budgeting method"
    spot.at("budgetingMethod").refuse(message, f"write {OCCURRENCES}")
    return False


def _only_objective(objectives: Sequence[ObjectiveForm], spot: Spot) -> ObjectiveForm | None:
    at = spot.at("objectives")
    if not objectives:
        at.refuse("the SLO has no objective", "write objectives: [{target: 0.999}]", of_key=True)
        return None
    is_whole = True
    for index, each in enumerate(objectives):
        for what, keys in (("composite SLO", _COMPOSITE), ("time slice", _TIMESLICES)):
            for key in keys:
                if getattr(each, key) is not None:
                    message = f"{key}: a {what} is not counted here"
                    at.at(index, key).refuse(message, f"delete {key}", of_key=True)
                    is_whole = False
    if len(objectives) > 1:
        message = "several objectives would count the same events"
        at.at(1).refuse(message, "keep one, and write another SLO for another indicator")
        return None
    return objectives[0] if is_whole else None


def _put_target(objective: ObjectiveForm, at: Spot, to: Outline) -> bool:
    if (objective.target is None) == (objective.targetPercent is None):
        message = "an objective has either target or targetPercent"
        at.refuse(message, "write target: 0.999, or targetPercent: 99.9")
        return False
    if objective.target is not None:
        to.put(("objective",), objective.target, at.at("target"))
        return True
    percent = objective.targetPercent or 0.0
    if not 0 < percent < PERCENT:
        message = f"targetPercent: {percent:g} leaves no budget or asks for nothing"
        advice = "write a percentage above 0 and below 100, such as 99.9"
        at.at("targetPercent").refuse(message, advice, rule=FindingRule.OUT_OF_RANGE)
        return False
    share = float(Fraction(repr(percent)) / PERCENT)
    to.put(("objective",), share, at.at("targetPercent"))
    return True


def _sli(form: SloObject, spot: Spot, objects: Objects) -> tuple[SliSpec, Spot] | None:
    inline, name = form.spec.indicator, form.spec.indicatorRef
    if (inline is None) == (name is None):
        message = "an SLO has either indicator or indicatorRef"
        spot.refuse(message, "write indicator: {spec: {ratioMetric: …}}, or the name of an SLI")
        return None
    if inline is not None:
        return inline.spec, spot.at("indicator", "spec")
    entry = objects.find("SLI", name or "", spot.at("indicatorRef"))
    if entry is None or not isinstance(entry.form, SliObject):
        return None
    return entry.form.spec, entry.spot.at("spec")


def _put_indicator(
    sli: SliSpec, spot: Spot, objective: ObjectiveForm, at: Spot, objects: Objects, to: Outline
) -> bool:
    if (sli.ratioMetric is None) == (sli.thresholdMetric is None):
        message = "an indicator has either ratioMetric or thresholdMetric"
        spot.refuse(message, "write ratioMetric: {good: …, total: …}")
        return False
    if sli.thresholdMetric is not None:
        metric, here = sli.thresholdMetric, spot.at("thresholdMetric")
        return _put_threshold_metric(metric, here, objective, at, objects, to)
    for key in ("op", "value"):
        if getattr(objective, key) is not None:
            message = f"{key}: a ratio is compared with its target alone"
            at.at(key).refuse(message, f"delete {key}", of_key=True)
            return False
    return _put_ratio_metric(sli, spot.at("ratioMetric"), objects, to)


def _put_ratio_metric(sli: SliSpec, spot: Spot, objects: Objects, to: Outline) -> bool:
    ratio = sli.ratioMetric
    assert ratio is not None
    for key in ("raw", "rawType"):
        if getattr(ratio, key) is not None:
            message = f"{key}: a ratio that was computed elsewhere is not read"
            spot.at(key).refuse(message, "write good and total", of_key=True)
            return False
    if ratio.counter is False:
        message = "counter: false says that the numbers are no counts of events"
        spot.at("counter").refuse(message, "write counter: true, or delete it")
        return False
    parts = [(key, getattr(ratio, key)) for key in ("good", "bad", "total")]
    given = [(key, metric) for key, metric in parts if metric is not None]
    if [key for key, _ in given] not in (["good", "total"], ["bad", "total"]):
        message = "a ratio has total and either good or bad"
        spot.refuse(message, "write good and total, each with metricSource: {type: weir, spec: …}")
        return False
    specs = [_spec(metric, spot.at(key), objects) for key, metric in given]
    first, total = specs
    if first is None or total is None:
        return False
    at = spot.at(given[0][0], "metricSource", "spec")
    total_at = spot.at("total", "metricSource", "spec")
    if first.unit is not None or total.unit is not None:
        (at if first.unit is not None else total_at).refuse("a ratio has no unit", "delete unit")
        return False
    if total.indicator != first.indicator or total.threshold not in (None, first.threshold):
        message = "good or bad events are a part of all events of the same indicator"
        total_at.refuse(message, f"write indicator: {first.indicator}")
        return False
    if first.threshold is not None:
        to.put(("threshold",), first.threshold, at.at("threshold"))
    return _put_name(first, at, to)


def _put_threshold_metric(
    metric: MetricForm,
    spot: Spot,
    objective: ObjectiveForm,
    at: Spot,
    objects: Objects,
    to: Outline,
) -> bool:
    spec = _spec(metric, spot, objects)
    if spec is None:
        return False
    here = spot.at("metricSource", "spec")
    if spec.indicator != Indicator.LATENCY.value:
        message = f"a thresholdMetric of {spec.indicator} is not counted here"
        here.at("indicator").refuse(message, "write latency, or a ratioMetric")
        return False
    if spec.threshold is not None:
        message = "threshold: the objective of a thresholdMetric has its value"
        here.at("threshold").refuse(message, "delete threshold", of_key=True)
        return False
    if spec.unit not in (None, "s"):
        message = f"unit: {spec.unit!r} is not the unit of durations here"
        here.at("unit").refuse(message, "write s, and value in seconds")
        return False
    if objective.op != "lte":
        message = f"op: {show(objective.op)} is not how a duration is judged"
        at.at("op").refuse(message, "write op: lte")
        return False
    if objective.value is None:
        at.refuse("a thresholdMetric needs a value", "write value: 0.1, in seconds")
        return False
    seconds = format_duration(objective.value) if 0 < objective.value < 1e9 else "0s"
    to.put(("threshold",), seconds, at.at("value"))
    return _put_name(spec, here, to)


def _put_name(spec: WeirSpec, at: Spot, to: Outline) -> bool:
    if Indicator(spec.indicator) in BUDGETLESS:
        message = f"{spec.indicator} has no target, and an OpenSLO objective must have one"
        at.at("indicator").refuse(message, "write it into the contract")
        return False
    to.put(("indicator",), spec.indicator, at.at("indicator"))
    return True


def _spec(metric: MetricForm, spot: Spot, objects: Objects) -> WeirSpec | None:
    """Read what a metric says of Weir's own source."""
    source, at = metric.metricSource, spot.at("metricSource")
    kinds: list[tuple[Any, Spot]] = []
    if source.type is not None:
        kinds.append((source.type, at.at("type")))
    if source.metricSourceRef is not None:
        entry = objects.find("DataSource", source.metricSourceRef, at.at("metricSourceRef"))
        if entry is None or entry.form is None:
            return None
        spec = getattr(entry.form, "spec", None)
        kinds.append((getattr(spec, "type", None), entry.spot.at("spec", "type")))
        if getattr(spec, "connectionDetails", None):
            here = entry.spot.at("spec", "connectionDetails")
            message = "connectionDetails: Weir connects to no source of metrics"
            here.refuse(message, "delete connectionDetails", of_key=True)
            return None
    if not kinds:
        at.refuse("the metric names no source", "write type: weir")
        return None
    for kind, where in kinds:
        if not isinstance(kind, str) or kind.lower() != SOURCE_TYPE:
            message = f"the metric source {show(kind)} is not read: Weir counts events by itself"
            where.refuse(message, f"write type: weir and spec: {{indicator: {INDICATORS[0]}}}")
            return None
    part = at.part("spec")
    checked = validate(WeirSource, part)
    spot.document.findings += part.findings
    return checked.value.spec if checked.value is not None and not part.findings else None


def _put_page(form: SloObject, spot: Spot, to: Outline) -> bool:
    """Let a note say that tickets are enough."""
    for value, at in _noted(PAGE_KEY, form, spot):
        if value not in ("true", "false"):
            at.refuse(f"{PAGE_KEY}: {show(value)} is no answer", 'write "true" or "false"')
            return False
        to.put(("page",), value == "true", at)
    return True
