"""A release that would cost more than its contract accepts is refused, to the cent."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contract.load import load_contracts
from gateway.contract.release import (
    Release,
    describe_manifest,
    judge_release,
    releases_json,
    releases_text,
)
from tests.unit.contract.texts import HEAD, write

COST: Final = (
    "cost: {currency: USD, per_inference: 0.00002, budget_per_month: 40, feature: app.use, "
    "features: [sorting, returns]}\n"
)
MANIFEST: Final = """\
model: damage-net
version: 2.0.0
currency: USD
expected_inferences_per_month: 1200000
features: {sorting: 0.7, returns: 0.2}
batch_jobs:
  - {name: nightly, runs_per_month: 30, cost_per_run: 0.05}
"""


def judged(folder: Path, manifest: str = MANIFEST, cost: str = COST) -> Release:
    contracts = load_contracts([write(folder, HEAD + cost)])
    return judge_release(write(folder, manifest, "release.yaml"), contracts)


def test_prediction_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    release = judged(tmp_path)
    assert release.findings == ()
    (one,) = release.predictions
    assert one.inference_cost == 24.0
    assert one.features == (("sorting", 16.8), ("returns", 4.8), ("other", 2.4))
    assert one.batch_jobs == (("nightly", 1.5),)
    assert (one.total, one.budget, one.share) == (25.5, 40, 0.6375)
    assert not one.is_near
    assert releases_text(release.predictions) == (
        "release damage-net 2.0.0: 25.50 USD a month expected; the budget is 40.00, 63.7% of it\n"
        "    24.00 for 1200000 inferences\n"
        "        16.80 for sorting\n"
        "        4.80 for returns\n"
        "        2.40 for other\n"
        "    1.50 for batch job nightly\n"
    )
    (content,) = releases_json(release.predictions)
    json.dumps(content, allow_nan=False)
    assert (content["total"], content["budget_ratio"], content["warning"]) == (25.5, 0.6375, False)


def test_day_counts_as_one_of_thirty_one_with_its_growth(tmp_path: Path) -> None:
    text = MANIFEST.replace("per_month: 1200000", "per_day: 40000\ngrowth: 0.1")
    (one,) = judged(tmp_path, text).predictions
    assert one.inferences == 40_000 * 31 * 1.1
    assert one.inference_cost == 27.28


def test_cost_of_an_inference_may_be_another_one(tmp_path: Path) -> None:
    (one,) = judged(tmp_path, MANIFEST + "per_inference: 0.00001\n").predictions
    assert one.inference_cost == 12.0


def test_release_that_costs_its_budget_to_the_cent_passes(tmp_path: Path) -> None:
    text = MANIFEST.replace("1200000", "1925000")  # 38.50 and 1.50
    release = judged(tmp_path, text)
    assert release.findings == ()
    assert release.predictions[0].share == 1.0
    assert "    warning: 80% of the budget are reached\n" in releases_text(release.predictions)


def test_release_above_its_budget_is_refused(tmp_path: Path) -> None:
    release = judged(tmp_path, MANIFEST.replace("1200000", "1925001"))
    (finding,) = release.findings
    assert (finding.rule, finding.line, finding.column) == ("release-cost", 4, 32)
    assert finding.message == (
        "damage-net 2.0.0 is expected to cost 40.00002 USD a month (38.50 for inferences, 1.50 for "
        f"batch jobs), above the budget of 40.00 in {tmp_path / 'contract.yaml'}"
    )
    assert "vision@example.com" in finding.instead
    assert len(release.predictions) == 1


@pytest.mark.parametrize(("count", "near"), [(1_524_999, False), (1_525_000, True)])
def test_warning_begins_at_four_fifths(tmp_path: Path, count: int, near: bool) -> None:
    (one,) = judged(tmp_path, MANIFEST.replace("1200000", str(count))).predictions
    assert one.is_near == near


@pytest.mark.parametrize(
    ("old", "new", "rule", "place", "message"),
    [
        (
            "damage-net",
            "damage",
            "unknown-model",
            (1, 8),
            "no sound contract that is checked is for the model 'damage'",
        ),
        ("USD", "EUR", "release", (3, 11), None),
        ("USD", "usd", "invalid-value", (3, 11), "currency: 'usd' cannot be read"),
        ("2.0.0", "2.0", "wrong-type", (2, 10), "version: must be text, not 2.0"),
        ("version: 2.0.0\n", "", "missing", (1, 1), "version is missing"),
        ("model:", "modle:", "unknown-key", (1, 1), "unknown key 'modle' in the file"),
        (
            "expected_inferences_per_month: 1200000\n",
            "",
            "release",
            (1, 1),
            "a manifest has expected_inferences_per_month or expected_inferences_per_day",
        ),
        (
            "1200000",
            "1\nexpected_inferences_per_day: 1",
            "release",
            (1, 1),
            "a manifest has expected_inferences_per_month or expected_inferences_per_day",
        ),
        (
            "1200000",
            "1\ngrowth: 0.1",
            "release",
            (5, 1),
            "growth: what is expected in a month has its growth in it",
        ),
        (
            "1200000",
            "-1",
            "out-of-range",
            (4, 32),
            "expected_inferences_per_month: must be at least 0, not -1",
        ),
        (
            "returns: 0.2",
            "return: 0.2",
            "release",
            (5, 26),
            "features: the contract has no feature 'return'",
        ),
        (
            "returns: 0.2",
            "returns: 0.4",
            "release",
            (5, 1),
            "features: the shares add up to 1.1",
        ),
        (
            "returns: 0.2",
            "other: 0.2",
            "release",
            (5, 1),
            "features: the shares add up to 0.9",
        ),
        (
            "returns: 0.2",
            "returns: 2",
            "out-of-range",
            (5, 35),
            "features.returns: must be at most 1, not 2",
        ),
        (
            "cost_per_run: 0.05",
            "cost_per_run: .inf",
            "out-of-range",
            (7, 55),
            "batch_jobs[0].cost_per_run: must be a finite number, not inf",
        ),
    ],
)
def test_manifest_that_cannot_be_judged_is_refused(
    tmp_path: Path, old: str, new: str, rule: str, place: tuple[int, int], message: str | None
) -> None:
    release = judged(tmp_path, MANIFEST.replace(old, new, 1))
    finding = next(each for each in release.findings if each.rule == rule)
    assert (finding.rule, finding.line, finding.column) == (rule, *place)
    assert message is None or finding.message == message
    assert finding.instead
    assert release.predictions == ()


@pytest.mark.parametrize(
    ("cost", "line", "message"),
    [
        ("", 1, "the contract of 'damage-net' has no cost to judge by"),
        (
            COST.replace("budget_per_month: 40, ", ""),
            1,
            "the contract of 'damage-net' has no cost.budget_per_month to judge by",
        ),
        (
            "cost: {currency: USD, per_inference: 1, budget_per_month: 1}\n",
            5,
            "the contract counts no features",
        ),
    ],
)
def test_contract_that_cannot_judge_is_told(
    tmp_path: Path, cost: str, line: int, message: str
) -> None:
    (finding,) = judged(tmp_path, cost=cost).findings
    assert (finding.rule, finding.line, finding.message) == ("release", line, message)


def test_manifest_that_is_not_there_is_unusable(tmp_path: Path) -> None:
    (finding,) = judge_release(tmp_path / "none.yaml", ()).findings
    assert finding.rule == "unreadable"


def test_nothing_costs_nothing(tmp_path: Path) -> None:
    text = MANIFEST.replace("1200000", "0").replace("0.05", "0")
    (one,) = judged(tmp_path, text, COST.replace("40", "0")).predictions
    assert (one.total, one.share, one.is_near) == (0.0, None, False)


def test_every_key_of_a_manifest_is_described() -> None:
    assert all(knob.description for knob in describe_manifest())


MONEY = st.decimals(0, 1000, places=4, allow_nan=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**7), MONEY, MONEY, st.integers(0, 1000))
def test_release_is_refused_exactly_above_its_budget(
    tmp_path: Path, count: int, unit: object, budget: object, runs: int
) -> None:
    cost = f"cost: {{currency: USD, per_inference: {unit}, budget_per_month: {budget}}}\n"
    text = MANIFEST.replace("features: {sorting: 0.7, returns: 0.2}\n", "")
    text = text.replace("1200000", str(count)).replace("30,", f"{runs},")
    exact = count * Fraction(str(unit)) + runs * Fraction("0.05")
    found = judged(tmp_path, text, cost).findings
    assert bool(found) == (exact > Fraction(str(budget)))
