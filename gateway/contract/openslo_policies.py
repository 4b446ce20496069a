"""Alert policies of OpenSLO to pairs of windows.

Law: one policy is one pair. Its condition is a burn rate over one window; the short window, which
OpenSLO does not have, is a twelfth of it in whole slots, as in the standard table. What a policy
says beyond that is refused by name: a pair has no waiting time, no alert for missing data, and whom
an alert reaches is Alertmanager's business. Pure.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from gateway.batch import Severity
from gateway.config.units import format_duration, parse_duration
from gateway.config.validate import nearest, show
from gateway.contract.openslo_form import (
    ConditionSpec,
    ConditionUse,
    PolicySpec,
    PolicyUse,
    TargetSpec,
    TargetUse,
)
from gateway.contract.openslo_objects import Objects, Outline, Spot, duration_text
from gateway.contract.slo import SHORT_SLOTS_MIN, slot_s_of

TARGET: Final = "alertmanager"
_SHORT_OF_LONG: Final = 12
_SEVERITIES: Final = tuple(each.value for each in Severity)
_REFUSED: Final = (
    ("alertWhenNoData", "no data has no burn rate; an SLO of freshness finds silent devices"),
    ("alertWhenResolved", "Alertmanager tells the end of an alert, by send_resolved"),
)

Spec = TypeVar("Spec", PolicySpec, ConditionSpec, TargetSpec)


def map_policies(policies: Sequence[PolicyUse], spot: Spot, objects: Objects, to: Outline) -> bool:
    """Put the pairs of all policies; answer whether all could be mapped."""
    is_whole = True
    to.mark(("alerts",), spot)
    for index, use in enumerate(policies):
        found = _resolve(PolicySpec, "AlertPolicy", "alertPolicyRef", use, spot.at(index), objects)
        is_whole &= found is not None and _put_policy(index, *found, objects, to)
    return is_whole


def _resolve(
    spec_type: type[Spec],
    kind: str,
    reference: str,
    use: PolicyUse | ConditionUse | TargetUse,
    spot: Spot,
    objects: Objects,
) -> tuple[Spec, Spot] | None:
    """Find a spec that is written out, or named."""
    name, spec = getattr(use, reference), use.spec
    if (name is None) == (spec is None):
        message = f"{kind} is given either by {reference} or by its spec"
        spot.refuse(message, f"write {reference}, or kind, metadata and spec")
        return None
    if isinstance(spec, spec_type):
        if use.kind not in (None, kind):
            spot.at("kind").refuse(f"kind: {show(use.kind)} cannot stand here", f"write {kind}")
            return None
        return spec, spot.at("spec")
    entry = objects.find(kind, name, spot.at(reference))
    found = getattr(entry.form, "spec", None) if entry is not None else None
    if entry is None or not isinstance(found, spec_type):
        return None
    return found, entry.spot.at("spec")


def _put_policy(index: int, policy: PolicySpec, spot: Spot, objects: Objects, to: Outline) -> bool:
    is_whole = True
    for key, why in _REFUSED:
        if getattr(policy, key):
            spot.at(key).refuse(f"{key}: {why}", f"write {key}: false", of_key=True)
            is_whole = False
    if not policy.alertWhenBreaching:
        spot.refuse("the policy alerts of nothing", "write alertWhenBreaching: true", of_key=True)
        is_whole = False
    for number, use in enumerate(policy.notificationTargets):
        at = spot.at("notificationTargets", number)
        target = _resolve(TargetSpec, "AlertNotificationTarget", "targetRef", use, at, objects)
        if target is None:
            is_whole = False
        elif target[0].target.lower() != TARGET:
            message = f"the target {target[0].target!r} is not sent to"
            advice = f"write {TARGET}; its routes decide who is told"
            target[1].at("target").refuse(message, advice)
            is_whole = False
    at = spot.at("conditions")
    if len(policy.conditions) != 1:
        message = f"a policy has one condition, not {len(policy.conditions)}"
        where = at.at(1) if policy.conditions else spot
        where.refuse(message, "write one policy for each condition")
        return False
    found = _resolve(
        ConditionSpec, "AlertCondition", "conditionRef", policy.conditions[0], at.at(0), objects
    )
    return found is not None and _put_condition(index, *found, to) and is_whole


def _put_condition(index: int, spec: ConditionSpec, spot: Spot, to: Outline) -> bool:
    condition, at = spec.condition, spot.at("condition")
    is_whole = True

    def refuse(where: Spot, message: str, instead: str) -> None:
        nonlocal is_whole
        where.refuse(message, instead)
        is_whole = False

    if spec.severity not in _SEVERITIES:
        message = f"severity: {spec.severity!r} is not one of Weir's"
        advice = nearest(spec.severity, _SEVERITIES, what="write one of")
        refuse(spot.at("severity"), message, advice)
    if condition.kind != "burnrate":
        message = f"kind: a condition of kind {condition.kind!r} is not counted here"
        refuse(at.at("kind"), message, "write burnrate")
    if condition.op not in (None, "gt", "gte"):
        refuse(at.at("op"), f"op: {condition.op!r} would fire while nothing burns", "write gt")
    if condition.alertAfter not in (None, "0m", "0h", "0d"):
        message = f"alertAfter: an alert is not held back for {condition.alertAfter}"
        advice = "write 0m: the short window, a twelfth of lookbackWindow, must burn as well"
        refuse(at.at("alertAfter"), message, advice)
    window = at.at("lookbackWindow")
    text = duration_text(condition.lookbackWindow, window)
    if text is None or not is_whole:
        return False
    row: dict[str, tuple[Any, Spot]] = {
        "long": (text, window),
        "short": (format_duration(short_of(parse_duration(text))), window),
        "factor": (condition.threshold, at.at("threshold")),
        "severity": (spec.severity, spot.at("severity")),
    }
    for key, (value, where) in row.items():
        to.put(("alerts", index, key), value, where)
    return True


def short_of(long_s: float) -> float:
    """Choose the short window of a long one: a twelfth, up to whole slots, and enough of them."""
    width = slot_s_of(long_s / _SHORT_OF_LONG)
    return max(SHORT_SLOTS_MIN * width, math.ceil(long_s / _SHORT_OF_LONG / width) * width)
