"""The page on contracts has every key, and its examples are what it says they are."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from gateway.config.site import Knob
from gateway.contract.form import describe_contract
from gateway.contract.load import load_contracts
from gateway.contract.openslo_form import KINDS
from gateway.contract.release import describe_manifest, judge_release
from gateway.contract.schema import Indicator
from tests.process import ROOT
from tests.unit.contract.texts import HEAD, SIGNALS, write

PAGE: Final = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
EXAMPLES: Final = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def table(knobs: Sequence[Knob]) -> str:
    """Write keys as the rows of the page."""
    rows = [(f"`{knob.path}`", knob.type.replace("|", "or"), *knob[2:]) for knob in knobs]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def example(word: str) -> str:
    """Find the one example that has a word."""
    found: str
    (found,) = [text for text in EXAMPLES if word in text]
    return found


@pytest.mark.parametrize(
    "knobs", [describe_contract(), describe_manifest()], ids=["contract", "manifest"]
)
def test_every_key_is_on_the_page(knobs: list[Knob]) -> None:
    head = "| key | type and range | default | meaning |\n|---|---|---|---|\n"
    assert head + table(knobs) in PAGE, table(knobs)


def test_every_indicator_and_kind_is_on_the_page() -> None:
    for word in (*Indicator, *KINDS):
        assert f"`{word}`" in PAGE


def test_examples_of_objectives_are_sound(tmp_path: Path) -> None:
    labels = "labels: {signal: class, within: 24h, expect: 0.01}\n"
    write(tmp_path, HEAD + SIGNALS + labels + example("indicator: bandwidth"))
    write(tmp_path, example("kind: SLO"), "slo.yaml")
    (contract,) = load_contracts([tmp_path])
    assert {slo.indicator for slo in contract.slos} == set(Indicator)


def test_example_of_a_release_is_judged_as_told(tmp_path: Path) -> None:
    contracts = load_contracts([write(tmp_path, HEAD + example("budget_per_month"))])
    release = judge_release(write(tmp_path, example("growth"), "release.yaml"), contracts)
    assert release.findings == ()
    (one,) = release.predictions
    assert f"{one.total:.2f} USD a month" in PAGE
