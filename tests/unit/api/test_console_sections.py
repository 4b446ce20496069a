"""The console shows what the API says, and says so when there is nothing."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.api.operations import (
    AccuracyState,
    BandwidthState,
    Calibration,
    CostPart,
    CostState,
    Estimate,
    EstimatedAccuracy,
    EstimatedState,
)
from gateway.api.sources import MeasureSnapshot
from tests.unit.api.declared import ROLLOUT
from tests.unit.api.fakes import MEASURE, NOW_NS, World
from tests.unit.api.http import Client

DOM: Final = Path(__file__).with_name("console_dom.js")
NODE: Final = shutil.which("node")
NODE_S: Final = 30
HOSTILE: Final = "<img src=x onerror=alert(1)>"
pytestmark = pytest.mark.skipif(NODE is None, reason="Debian package nodejs")

Json = Any  # an element of the page, or a text

MONTH: Final = Estimate(labels=40, accuracy_ratio=0.9, low_ratio=0.769, high_ratio=0.96)
ACCURACY: Final = AccuracyState(
    model="damage-net",
    version="2.0",
    right=1_036,
    wrong=4,
    day=None,
    month=MONTH,
    all_time=MONTH,
    confusion=(),
)
ESTIMATED: Final = EstimatedState(
    assumption="assumes P(correct | confidence) is stable",
    reference="2.0",
    reference_from_file=False,
    labelled_events=1_040,
    window_events=500,
    reason=None,
    cbpe=EstimatedAccuracy(accuracy_ratio=0.81, low_ratio=0.78, high_ratio=0.84),
    atc_ratio=0.8,
    disagreement=False,
    contradicted=None,
    class_prior=None,
    class_prior_reason="a class has too few labels",
    mean_confidence_ratio=0.8,
    saturated_ratio=0.1,
    low_confidence_ratio=0.05,
    class_entropy_nats=1.2,
    calibration=Calibration(
        log_evidence=5.0,
        log_evidence_bound=4.6,
        surplus_ratio=-0.1,
        error_ratio=0.1,
        alarm=True,
    ),
)
COST: Final = CostState(
    model="damage-net",
    currency="USD",
    per_inference=0.00002,
    spent=30.5,
    batch_jobs=2.25,
    budget=40.0,
    spent_ratio=0.7625,
    projected=52.0,
    parts=(CostPart(version="2.0", feature="dock", inferences=9, cost=0.00018),),
    months={"2025-10": 30.5},
)
BANDWIDTH: Final = BandwidthState(
    model="damage-net",
    slo="bytes",
    allowance_bytes=4 << 20,
    spent_bytes=3 << 20,
    start_ns=NOW_NS,
    end_ns=NOW_NS,
    pace_ratio=None,
    exhausted_ns=None,
)
DEVICE: Final = replace(
    MEASURE.devices[0],
    device=HOSTILE,
    freshness_s=400.0,
    silent=True,
    clock_offset_s=-3.25,
    clock_jitter_s=0.02,
    model="damage-net",
    version="2.0",
    accelerator="gpu",
    headroom_ratio=0.04,
    conditions=("battery_low",),
)


async def drawn(client: Client) -> dict[str, Json]:
    """Let the script of the page draw once; returns the elements that have an id."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE,
        DOM,
        str(client.make_url("")).rstrip("/"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), NODE_S)
    assert (process.returncode, errors) == (0, b"")
    page: dict[str, Json] = json.loads(output)
    assert "as of" in words(page["age"]), words(page["age"])
    return page


def elements(node: Json) -> Iterator[Json]:
    """Yield an element and all elements in it."""
    if not isinstance(node, str):
        yield node
        for child in node["children"]:
            yield from elements(child)


def words(node: Json) -> str:
    """Return the text of an element."""
    if isinstance(node, str):
        return node
    return " ".join(text for text in map(words, node["children"]) if text)


def bars(node: Json) -> list[tuple[str, str]]:
    """List width and class of what fills each bar."""
    return [
        (bar["children"][0]["style"]["width"], bar["children"][0]["attributes"]["class"])
        for bar in elements(node)
        if bar["attributes"].get("class") == "bar"
    ]


async def test_rollouts_show_what_they_may_spend_and_have_spent(
    client: Client, world: World
) -> None:
    spend = ROLLOUT.spends[0]
    halted = replace(
        ROLLOUT,
        id="r-2",
        state="halted",
        previous="",
        devices=None,
        failed=0,
        spends=(replace(spend, spent_ratio=0.5, confident=False),),
    )
    world.declarations.known["r-2"] = halted
    page = await drawn(client)
    text = words(page["rollouts"])
    assert "warned damage-net 1.9 → 2.0" in text
    assert "30 of 40 devices, 2 failed" in text
    assert "15.0 % of 25.0 %" in text
    assert "halted damage-net 2.0" in text
    assert "50.0 % of 25.0 %, unsure" in text
    assert "93.8 % of 32 devices succeeded, 1 retrained" in text
    assert "3 not used: unknown model" in text
    assert bars(page["rollouts"]) == [("60%", "warn"), ("100%", "bad")]


async def test_a_rollout_for_which_nothing_is_left_has_spent_all_with_the_first_event(
    client: Client, world: World
) -> None:
    spend = replace(ROLLOUT.spends[0], allocation_ratio=0.0)
    for spent, shown in ((0.0, ("0%", "")), (0.01, ("100%", "bad"))):
        spends = (replace(spend, spent_ratio=spent),)
        world.declarations.known["r-1"] = replace(ROLLOUT, spends=spends)
        assert bars((await drawn(client))["rollouts"]) == [shown]


async def test_accuracy_has_its_interval(client: Client, world: World) -> None:
    world.measure = replace(MEASURE, accuracy=(ACCURACY,))
    page = await drawn(client)
    assert "damage-net 2.0 1,036 4 – 90.0 % (76.9–96.0)" in words(page["accuracy"])
    (drawing,) = [each for each in elements(page["accuracy"]) if each["name"] == "svg"]
    interval = drawing["children"][1]["attributes"]
    assert (float(interval["x"]), float(interval["width"])) == pytest.approx((76.9, 19.1))


async def test_an_estimate_stands_beside_what_labels_told(client: Client, world: World) -> None:
    world.measure = replace(MEASURE, accuracy=(ACCURACY, replace(ACCURACY, estimated=ESTIMATED)))
    page = await drawn(client)
    assert words(page["accuracy"]).endswith("81.0 % (78.0–84.0)")
    marked = [
        each["attributes"]
        for each in elements(page["accuracy"])
        if "title" in each["attributes"] and each["name"] == "span"
    ]
    assert [(each["title"], each.get("class")) for each in marked] == [
        ("assumes P(correct | confidence) is stable", "warn")
    ]


async def test_costs_and_bytes_stand_beside_their_budgets(client: Client, world: World) -> None:
    free = replace(COST, model="free", budget=None, projected=None, parts=(), batch_jobs=0.0)
    world.measure = replace(MEASURE, costs=(COST, free), bandwidth=(BANDWIDTH,))
    page = await drawn(client)
    text = words(page["costs"])
    assert "damage-net 30.50 USD spent projected 52.00 USD budget 40.00 USD" in text
    assert "2.0 dock 0.00018 USD batch jobs 2.25 USD" in text
    assert "free 30.50 USD spent too early to project no budget" in text
    assert "3.0 MiB of 4.0 MiB" in text
    assert bars(page["costs"]) == [("76.25%", ""), ("100%", "bad"), ("75%", "")]


async def test_devices_are_shown_with_what_is_wrong_and_text_stays_text(
    client: Client, world: World
) -> None:
    world.measure = replace(MEASURE, devices=(DEVICE, *MEASURE.devices * 20))
    page = await drawn(client)
    text = words(page["devices"])
    assert f"{HOSTILE} damage-net 2.0 gpu 7 min −3.3 s 20.0 ms 4 % battery low" in text
    assert "and 11 that were heard later" in text
    classes = {words(each): each["attributes"].get("class") for each in elements(page["devices"])}
    assert classes["7 min"] == classes["4 %"] == "bad"
    assert not [each for node in page.values() for each in elements(node) if each["name"] == "img"]


async def test_sections_without_anything_say_so(client: Client, world: World) -> None:
    world.measure = MeasureSnapshot()
    world.declarations.known.clear()
    page = await drawn(client)
    assert words(page["rollouts"]) == "3 not used: unknown model"
    assert words(page["accuracy"]) == "No label has met its inference yet."
    assert words(page["costs"]) == "No contract has a cost or an allowance of bytes."
    assert words(page["devices"]) == "No device was heard yet."
    assert words(page["slos"]) == "No objective is declared."
