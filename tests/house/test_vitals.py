"""One catalogue of metric names: what is shown, alerted on or exposed is in it, and only there.

Law: `gateway.vitals.VITALS` is the truth. A name in a rule, a board or the gateway's sources that
is not in it would be an empty panel or an alert that can never fire.
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from gateway.vitals import VITALS, Vital, VitalType
from tests.house.source import Module, modules, parse, text_files
from tests.process import ROOT

# The names and labels that are promised to the outside, in the order of the public page.
PROMISED: Final = {
    "weir_received_items_total": {"signal", "transport"},
    "weir_refused_items_total": {"signal", "reason"},
    "weir_forwarded_items_total": {"destination", "signal"},
    "weir_sampled_out_items_total": {"rule"},
    "weir_dropped_items_total": {"reason"},
    "weir_quarantined_items_total": {"reason"},
    "weir_pending_items": set(),
    "weir_bytes_total": {"stage"},
    "weir_ack_seconds": set(),
    "weir_batch_spans": set(),
    "weir_inference_total": {"model", "version", "outcome"},
    "weir_inference_duration_seconds": set(),
    "weir_slo_window_events": {"slo", "window", "outcome"},
    "weir_slo_burn_rate": {"slo", "window"},
    "weir_slo_budget_remaining_ratio": {"slo"},
    "weir_drift_psi": {"model", "version", "signal"},
    "weir_drift_alarm_log_evidence": set(),
    "weir_device_freshness_seconds": {"device"},
    "weir_anomalies_total": {"kind", "model"},
    "weir_dives": {"state"},
    "weir_info": {"version", "kernel"},
}
HISTOGRAM_SUFFIXES: Final = ("_bucket", "_count", "_sum")
UNITS: Final = {"bytes": "_bytes", "seconds": "_seconds", "ratio": "_ratio"}
# `weir_…` texts that are no metrics: the namespace of Python packages and of log names.
_NAME: Final = re.compile(r"(?<![A-Za-z0-9_.$])weir_[a-z0-9_]+")


def known(name: str) -> bool:
    """Tell whether a series name belongs to a metric of the catalogue."""
    if name in VITALS:
        return True
    for suffix in HISTOGRAM_SUFFIXES:
        base = name.removesuffix(suffix)
        if base != name and base in VITALS:
            return VITALS[base].type is VitalType.HISTOGRAM
    return False


def names_in(text: str) -> set[str]:
    """Find metric names in a rule, a query or a page."""
    return set(_NAME.findall(text))


def names_in_source(module: Module) -> set[str]:
    """Find metric names among the string constants of a module, docstrings left out."""
    found = set()
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _NAME.fullmatch(node.value)
        ):
            found.add(node.value)
    return found


def ill_named(vitals: Iterable[Vital]) -> list[str]:
    """List names that break the conventions: prefix, unit, `_total` on counters only."""
    found = []
    for vital in vitals:
        stem = vital.name.removesuffix("_total")
        if not re.fullmatch(r"weir_[a-z][a-z0-9_]*", vital.name):
            found.append(f"{vital.name}: prefix or letters")
        if (vital.type is VitalType.COUNTER) != vital.name.endswith("_total"):
            found.append(f"{vital.name}: _total is for counters, and for all of them")
        if vital.unit and not stem.endswith(UNITS.get(vital.unit, f"_{vital.unit}")):
            found.append(f"{vital.name}: does not end in its unit {vital.unit}")
        if vital.name.endswith(HISTOGRAM_SUFFIXES):
            found.append(f"{vital.name}: looks like a part of a histogram")
        if not vital.help.endswith("."):
            found.append(f"{vital.name}: help is no sentence")
    return found


def _files(folder: str) -> list[Path]:
    return [path for path in text_files() if path.is_relative_to(ROOT / folder)]


@pytest.mark.parametrize("folder", ["alerts", "dashboards"])
def test_rules_and_boards_use_known_names(folder: str) -> None:
    found = {
        str(path.relative_to(ROOT)): unknown
        for path in _files(folder)
        if (
            unknown := {
                name for name in names_in(path.read_text(encoding="utf-8")) if not known(name)
            }
        )
    }
    assert not found


def test_gateway_uses_known_names() -> None:
    found = {
        module.path: unknown
        for module in modules("gateway")
        if (unknown := {name for name in names_in_source(module) if not known(name)})
    }
    assert not found


@pytest.mark.parametrize("name", PROMISED)
def test_promised_metric_is_in_the_catalogue_with_its_labels(name: str) -> None:
    assert name in VITALS
    assert set(VITALS[name].labels) >= PROMISED[name]


def test_catalogue_keeps_the_conventions() -> None:
    assert not ill_named(VITALS.values())
    assert [name for name, vital in VITALS.items() if vital.name != name] == []


def test_unknown_names_are_found() -> None:
    text = 'rate(weir_refused_items_total[5m]) + weir_ack_seconds_bucket{le="1"} + weir_rain'
    assert {name for name in names_in(text) if not known(name)} == {"weir_rain"}
    assert not known("weir_pending_items_bucket")
    module = parse("gateway.api.metrics", 'NAME = "weir_snow_total"\nOTHER = "a weir_text"')
    assert names_in_source(module) == {"weir_snow_total"}


@pytest.mark.parametrize(
    ("name", "kind", "unit"),
    [
        ("weir_rain_total", VitalType.GAUGE, ""),
        ("weir_rain", VitalType.COUNTER, ""),
        ("weir_rain_ms", VitalType.GAUGE, "seconds"),
        ("rain_total", VitalType.COUNTER, ""),
        ("weir_rain_bucket", VitalType.GAUGE, ""),
    ],
)
def test_ill_named_metric_is_found(name: str, kind: VitalType, unit: str) -> None:
    assert ill_named([Vital(name=name, type=kind, unit=unit, labels=(), help="Rain.")])
