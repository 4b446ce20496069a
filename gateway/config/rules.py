"""The closed list of things that a check may find, with one sentence for each.

Law: every Finding of the configuration carries one of these names; the names are part of what is
visible from outside (they are the rule ids of the SARIF output) and are never given a new meaning.
"""

from enum import StrEnum
from typing import Final


class FindingRule(StrEnum):
    """Names of rules."""

    UNREADABLE = "unreadable"
    YAML_SYNTAX = "yaml-syntax"
    YAML_FEATURE = "yaml-feature"
    DUPLICATE_KEY = "duplicate-key"
    UNKNOWN_KEY = "unknown-key"
    UNKNOWN_FILE = "unknown-file"
    MISSING = "missing"
    WRONG_TYPE = "wrong-type"
    OUT_OF_RANGE = "out-of-range"
    UNKNOWN_VALUE = "unknown-value"
    INVALID_VALUE = "invalid-value"
    LIMIT = "limit"
    OVERRIDE = "override"
    NO_SUCH_FILE = "no-such-file"
    NOT_AVAILABLE = "not-available"
    EXPOSED_LISTENER = "exposed-listener"
    PLAINTEXT_DESTINATION = "plaintext-destination"
    TLS_PAIR = "tls-pair"
    DUPLICATE_NAME = "duplicate-name"
    KNOB_LAW = "knob-law"
    URL = "url"
    HEADER = "header"
    KEY_FILE = "key-file"
    KEEP_RULE = "keep-rule"
    PLACEHOLDER = "placeholder"
    EXPIRED = "expired"
    KEY_SCRIPT = "key-script"
    MIXED_SCRIPT = "mixed-script"
    RESERVED_KEY = "reserved-key"
    BASELINE = "baseline"
    SIGNAL_RANGE = "signal-range"
    SIGNAL_VALUES = "signal-values"
    SIGNAL_ROLE = "signal-role"
    TEXT_PASSED = "text-passed"
    IDENTIFIER_PASSED = "identifier-passed"
    UNBOUNDED_NUMBER = "unbounded-number"
    TOKEN_TYPE = "token-type"  # noqa: S105  a rule's name
    LOOSER_EXPORT = "looser-export"
    DUPLICATE_MODEL = "duplicate-model"
    DUPLICATE_MATCH = "duplicate-match"
    METRIC_STREAM = "metric-stream"
    SLO_THRESHOLD = "slo-threshold"
    SLO_WINDOW = "slo-window"
    SLO_UNDETECTABLE = "slo-undetectable"
    SLO_OBJECTIVE = "slo-objective"
    SLO_ALERTS = "slo-alerts"
    SLO_ALLOWANCE = "slo-allowance"
    SLO_LABELS = "slo-labels"
    LABEL_SIGNAL = "label-signal"
    COST_FEATURE = "cost-feature"
    OPENSLO = "openslo"
    OPENSLO_REFERENCE = "openslo-reference"
    UNKNOWN_MODEL = "unknown-model"
    RELEASE = "release"
    RELEASE_COST = "release-cost"


DESCRIPTIONS: Final[dict[FindingRule, str]] = {
    FindingRule.UNREADABLE: "The file cannot be read, is too large or is not UTF-8.",
    FindingRule.YAML_SYNTAX: "The text is not YAML.",
    FindingRule.YAML_FEATURE: "Anchors, tags, deep nesting and odd keys are not read.",
    FindingRule.DUPLICATE_KEY: "A key stands twice in one mapping.",
    FindingRule.UNKNOWN_KEY: "No knob has this name.",
    FindingRule.UNKNOWN_FILE: "The file is neither a contract nor a site file.",
    FindingRule.MISSING: "A key that must be written is not there.",
    FindingRule.WRONG_TYPE: "The value has the wrong type.",
    FindingRule.OUT_OF_RANGE: "The value is outside the range of its knob.",
    FindingRule.UNKNOWN_VALUE: "The value is not one of those that are possible.",
    FindingRule.INVALID_VALUE: "The text of the value cannot be read.",
    FindingRule.LIMIT: "There are more entries than the limit allows.",
    FindingRule.OVERRIDE: "A --set option cannot be applied.",
    FindingRule.NO_SUCH_FILE: "A file or folder that is named does not exist.",
    FindingRule.NOT_AVAILABLE: "The feature is specified and not available yet.",
    FindingRule.EXPOSED_LISTENER: "A listener off loopback lacks TLS or identity.",
    FindingRule.PLAINTEXT_DESTINATION: "Telemetry would leave the machine in plaintext.",
    FindingRule.TLS_PAIR: "A certificate and its key belong together.",
    FindingRule.DUPLICATE_NAME: "Two things that are told apart by name share one.",
    FindingRule.KNOB_LAW: "Two knobs contradict each other.",
    FindingRule.URL: "The URL cannot be used.",
    FindingRule.HEADER: "The header cannot be sent.",
    FindingRule.KEY_FILE: "The file with a key cannot be used.",
    FindingRule.KEEP_RULE: "The keep rule cannot be read or does not fit its signal.",
    FindingRule.PLACEHOLDER: "Owner and purpose must be real.",
    FindingRule.EXPIRED: "The contract has expired: somebody has to confirm it.",
    FindingRule.KEY_SCRIPT: "A name has characters that look like others.",
    FindingRule.MIXED_SCRIPT: "A text mixes scripts or hides characters.",
    FindingRule.RESERVED_KEY: "The namespace belongs to the gateway.",
    FindingRule.BASELINE: "The baseline file is not whole or does not fit its contract.",
    FindingRule.SIGNAL_RANGE: "The range of a signal is not sane.",
    FindingRule.SIGNAL_VALUES: "The closed set of an enum is not sane.",
    FindingRule.SIGNAL_ROLE: "The role of a signal does not fit its type.",
    FindingRule.TEXT_PASSED: "Free text would leave the site as it is.",
    FindingRule.IDENTIFIER_PASSED: "An identifier would leave the site as it is.",
    FindingRule.UNBOUNDED_NUMBER: "A number without a range would leave the site.",
    FindingRule.TOKEN_TYPE: "A token of so few or so fine values hides nothing or joins nothing.",
    FindingRule.LOOSER_EXPORT: "More would leave the site than is readable at the site.",
    FindingRule.DUPLICATE_MODEL: "Two contracts are for the same model.",
    FindingRule.DUPLICATE_MATCH: "Two contracts claim the same spans.",
    FindingRule.METRIC_STREAM: "Metrics of several devices would leave as one series.",
    FindingRule.SLO_THRESHOLD: "The threshold does not fit what the objective counts.",
    FindingRule.SLO_WINDOW: "An alert would fire while the objective is kept.",
    FindingRule.SLO_UNDETECTABLE: "The alert of the objective could never fire.",
    FindingRule.SLO_OBJECTIVE: "This indicator has no share of good events to promise.",
    FindingRule.SLO_ALERTS: "The objective's own alerts are not sane.",
    FindingRule.SLO_ALLOWANCE: "Bandwidth needs an allowance of bytes, others have none.",
    FindingRule.SLO_LABELS: "Label lag can be counted only where labels are due.",
    FindingRule.LABEL_SIGNAL: "Labels are compared with a prediction that takes few values.",
    FindingRule.COST_FEATURE: "Feature and features of the cost belong together.",
    FindingRule.OPENSLO: "The OpenSLO document asks for what is not measured here.",
    FindingRule.OPENSLO_REFERENCE: "An OpenSLO document names another one that is not there.",
    FindingRule.UNKNOWN_MODEL: "No contract is for the model that is named.",
    FindingRule.RELEASE: "The release manifest does not fit the contract of its model.",
    FindingRule.RELEASE_COST: "The release would cost more than the contract accepts.",
}
