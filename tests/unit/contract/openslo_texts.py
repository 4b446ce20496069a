"""OpenSLO documents that tests start from and change."""

from pathlib import Path
from typing import Final

import pytest

from gateway.contract.load import load_contracts
from gateway.contract.schema import Contract
from gateway.errors import Finding, InvalidConfigError
from tests.unit.contract.texts import HEAD, SIGNALS, write

LABELS: Final = "labels: {signal: class, within: 24h, expect: 0.01}\n"

RATIO: Final = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: answers
  displayName: Answers of the damage model
  labels: {team: [vision]}
spec:
  description: Nearly every parcel gets an answer.
  service: damage-net
  indicator:
    metadata: {name: answered}
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: weir
            spec: {indicator: success}
        total:
          metricSource:
            type: weir
            spec: {indicator: success}
  timeWindow:
    - duration: 4w
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - displayName: Answered
      target: 0.999
"""

THRESHOLD: Final = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: quick}
spec:
  service: damage-net
  indicatorRef: duration
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{op: lte, value: 0.1, targetPercent: 95}]
---
apiVersion: openslo/v1
kind: SLI
metadata: {name: duration}
spec:
  thresholdMetric:
    metricSource: {metricSourceRef: gateway, spec: {indicator: latency, unit: s}}
---
apiVersion: openslo/v1
kind: DataSource
metadata: {name: gateway}
spec: {type: Weir, connectionDetails: {}}
"""

ALERTED: Final = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: warm}
spec:
  service: dock
  indicatorRef: cold
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
  alertPolicies:
    - alertPolicyRef: fast
    - kind: AlertPolicy
      metadata: {name: slow}
      spec:
        alertWhenBreaching: true
        conditions:
          - kind: AlertCondition
            metadata: {name: slow}
            spec:
              severity: ticket
              condition: {kind: burnrate, op: gte, threshold: 1, lookbackWindow: 3d}
        notificationTargets:
          - kind: AlertNotificationTarget
            metadata: {name: mail}
            spec: {target: alertmanager}
---
apiVersion: openslo/v1
kind: AlertPolicy
metadata: {name: fast}
spec:
  alertWhenBreaching: true
  alertWhenResolved: false
  conditions: [{conditionRef: hour}]
  notificationTargets: [{targetRef: on-call}]
---
apiVersion: openslo/v1
kind: AlertCondition
metadata: {name: hour}
spec:
  severity: page
  condition: {kind: burnrate, op: gt, threshold: 14.4, lookbackWindow: 1h, alertAfter: 0m}
---
apiVersion: openslo/v1
kind: AlertNotificationTarget
metadata: {name: on-call}
spec: {target: alertmanager}
---
apiVersion: openslo/v1
kind: SLI
metadata: {name: cold}
spec:
  ratioMetric:
    bad: {metricSource: {type: weir, spec: {indicator: cold_start}}}
    total: {metricSource: {type: weir, spec: {indicator: cold_start}}}
---
apiVersion: openslo/v1
kind: Service
metadata: {name: dock, annotations: {edgeai.model.name: damage-net}}
spec: {description: The loading dock.}
"""

WRITTEN: Final = """\
slos:
  - {name: answers, indicator: success, objective: 0.999, window: 28d}
  - {name: quick, indicator: latency, objective: 0.95, window: 30d, threshold: 100ms}
  - name: warm
    indicator: cold_start
    objective: 0.99
    alerts:
      - {long: 1h, short: 5m, factor: 14.4, severity: page}
      - {long: 3d, short: 6h, factor: 1, severity: ticket}
"""


def loaded_with(folder: Path, *texts: str, contract: str = HEAD + SIGNALS) -> Contract:
    """Load a contract with OpenSLO documents beside it."""
    write(folder, contract)
    for number, text in enumerate(texts):
        write(folder, text, f"slos/{number}.yaml")
    (found,) = load_contracts([folder])
    return found


def refused(folder: Path, *texts: str, contract: str = HEAD + SIGNALS) -> tuple[Finding, ...]:
    """List the findings of OpenSLO documents beside a contract."""
    with pytest.raises(InvalidConfigError) as caught:
        loaded_with(folder, *texts, contract=contract)
    return caught.value.findings
