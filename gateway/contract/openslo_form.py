"""OpenSLO v1 documents as types: the keys of the specification, spelled as it spells them.

Law: only structure is checked here. A key that the specification has and Weir cannot follow is a
field as well, so that it is refused by name in `openslo` and not as an unknown key.
Source: OpenSLO specification, apiVersion openslo/v1.
"""

from typing import Any, Final

from pydantic import Field

from gateway.config.knobs import Section

API_VERSION: Final = "openslo/v1"
TEXT_MAX: Final = 1050  # characters of a description, by the specification


class Metadata(Section):
    """Name of an object, and what people note about it."""

    name: str = Field(min_length=1, max_length=255, description="write the name of the object")
    displayName: str | None = None
    labels: dict[str, Any] = Field(default_factory=dict, max_length=64)
    annotations: dict[str, Any] = Field(default_factory=dict, max_length=64)


class Described(Section):
    """Base of all specs."""

    description: str | None = Field(default=None, max_length=TEXT_MAX)


class SourceForm(Section):
    """Where numbers come from."""

    metricSourceRef: str | None = None
    type: str | None = None
    spec: dict[str, Any] = Field(default_factory=dict, max_length=64)


class MetricForm(Section):
    """One metric."""

    metricSource: SourceForm = Field(description="write metricSource: {type: weir, spec: …}")


class RatioForm(Section):
    """Good or bad events of all."""

    counter: bool | None = None
    good: MetricForm | None = None
    bad: MetricForm | None = None
    total: MetricForm | None = None
    raw: MetricForm | None = None
    rawType: str | None = None


class SliSpec(Described):
    """What is counted."""

    thresholdMetric: MetricForm | None = None
    ratioMetric: RatioForm | None = None


class InlineSli(Section):
    """An indicator inside an SLO."""

    metadata: Metadata | None = None
    spec: SliSpec = Field(description="write spec: {ratioMetric: …}")


class TimeWindow(Section):
    """The period of an SLO."""

    duration: str = Field(description="write a duration such as 30d or 4w")
    isRolling: bool | None = None
    calendar: Any = None


class ObjectiveForm(Section):
    """What is promised."""

    displayName: str | None = None
    op: str | None = None
    value: float | None = None
    target: float | None = None
    targetPercent: float | None = None
    timeSliceTarget: Any = None
    timeSliceWindow: Any = None
    indicator: Any = None
    indicatorRef: Any = None
    compositeWeight: Any = None


class Condition(Section):
    """When an alert fires."""

    kind: str = "burnrate"
    op: str | None = None
    threshold: float = Field(description="write the burn rate, such as 14.4")
    lookbackWindow: str = Field(description="write a duration such as 1h")
    alertAfter: str | None = None


class ConditionSpec(Described):
    """A condition and how loud it is."""

    severity: str = Field(description="write page or ticket")
    condition: Condition = Field(description="write condition: {kind: burnrate, …}")


class ConditionUse(Section):
    """A condition by name, or written out."""

    conditionRef: str | None = None
    kind: str | None = None
    metadata: Metadata | None = None
    spec: ConditionSpec | None = None


class TargetSpec(Described):
    """Who is told."""

    target: str = Field(description="write target: alertmanager")


class TargetUse(Section):
    """A target by name, or written out."""

    targetRef: str | None = None
    kind: str | None = None
    metadata: Metadata | None = None
    spec: TargetSpec | None = None


class PolicySpec(Described):
    """When and whom an alert tells."""

    alertWhenNoData: bool = False
    alertWhenResolved: bool = False
    alertWhenBreaching: bool = False
    conditions: tuple[ConditionUse, ...] = Field(default=(), max_length=64)
    notificationTargets: tuple[TargetUse, ...] = Field(default=(), max_length=64)


class PolicyUse(Section):
    """A policy by name, or written out."""

    alertPolicyRef: str | None = None
    kind: str | None = None
    metadata: Metadata | None = None
    spec: PolicySpec | None = None


class SloSpec(Described):
    """An SLO."""

    service: str = Field(max_length=128, description="write the name of the model")
    indicator: InlineSli | None = None
    indicatorRef: str | None = None
    timeWindow: tuple[TimeWindow, ...] = Field(default=(), max_length=64)
    budgetingMethod: str = Field(description="write budgetingMethod: Occurrences")
    objectives: tuple[ObjectiveForm, ...] = Field(
        max_length=64, description="write objectives: [{target: 0.999}]"
    )
    alertPolicies: tuple[PolicyUse, ...] = Field(default=(), max_length=64)


class SourceSpec(Described):
    """A data source."""

    type: str = Field(description="write type: weir")
    connectionDetails: Any = None


class Object(Section):
    """Base of all objects."""

    apiVersion: str
    kind: str
    metadata: Metadata = Field(description="write metadata: {name: …}")


class SloObject(Object):
    """kind: SLO."""

    spec: SloSpec = Field(description="write the spec of the SLO")


class SliObject(Object):
    """kind: SLI."""

    spec: SliSpec = Field(description="write spec: {ratioMetric: …}")


class PolicyObject(Object):
    """kind: AlertPolicy."""

    spec: PolicySpec = Field(description="write spec: {conditions: …}")


class ConditionObject(Object):
    """kind: AlertCondition."""

    spec: ConditionSpec = Field(description="write spec: {severity: page, condition: …}")


class TargetObject(Object):
    """kind: AlertNotificationTarget."""

    spec: TargetSpec = Field(description="write spec: {target: alertmanager}")


class ServiceObject(Object):
    """kind: Service."""

    spec: Described = Field(default=Described(), description="write spec: {}")


class SourceObject(Object):
    """kind: DataSource."""

    spec: SourceSpec = Field(description="write spec: {type: weir}")


KINDS: Final[dict[str, type[Object]]] = {
    "SLO": SloObject,
    "SLI": SliObject,
    "AlertPolicy": PolicyObject,
    "AlertCondition": ConditionObject,
    "AlertNotificationTarget": TargetObject,
    "Service": ServiceObject,
    "DataSource": SourceObject,
}
