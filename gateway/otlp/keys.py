"""Attribute keys of declarations, written once.

Law: a key here is part of the published interface; it is never given another meaning.
"""

from typing import Final

ROLLOUT_ID: Final = "edgeai.rollout.id"
MODEL: Final = "edgeai.model.name"
VERSION: Final = "edgeai.model.version"
PREVIOUS: Final = "edgeai.rollout.previous"
ALLOCATION: Final = "edgeai.rollout.allocation"
DEADLINE_S: Final = "edgeai.rollout.deadline_s"
DEVICES: Final = "edgeai.rollout.devices"
KIND: Final = "edgeai.rollout.kind"
OUTCOME: Final = "edgeai.rollout.outcome"
DEVICE_ID: Final = "device.id"
INSTANCE_ID: Final = "service.instance.id"
TRACE_ID: Final = "edgeai.trace.id"
LABEL_VALUE: Final = "edgeai.label.value"
ERROR_TYPE: Final = "error.type"
ANOMALY_ID: Final = "edgeai.anomaly.id"
BASELINE_ID: Final = "edgeai.baseline.id"
JOB_ID: Final = "edgeai.batch.job.id"
COST: Final = "edgeai.batch.cost"
CURRENCY: Final = "edgeai.batch.currency"
INFERENCES: Final = "edgeai.batch.inferences"
DURATION_S: Final = "edgeai.batch.duration_s"
