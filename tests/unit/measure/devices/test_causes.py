"""Who can mend a failed inference."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gateway.batch import Team
from gateway.measure.devices.causes import KNOWN_MAX, PATTERNS, Causes, merge, team_for
from gateway.measure.match import Matcher
from tests.unit.measure.build import SECOND_NS, START_NS, batch, contract, payload, plan, request
from tests.unit.measure.build import span as make_span

PLAN = plan(contract("a"), contract("b"))
MATCHER = Matcher(PLAN)
DEVICE, MODEL = Team.DEVICE_OPS, Team.ML_ENGINEERING
CLASSES: Mapping[str, Team] = {
    "OutOfMemoryError": DEVICE,
    "torch.cuda.OutOfMemoryError": DEVICE,
    "CUDA_ERROR_OUT_OF_MEMORY": DEVICE,
    "std::bad_alloc": DEVICE,
    "OOMKilled": DEVICE,
    "CUDA_ERROR_ILLEGAL_ADDRESS": DEVICE,
    "TensorRTError": DEVICE,
    "AcceleratorTimeout": DEVICE,
    "DriverMismatch": DEVICE,
    "ThermalThrottling": DEVICE,
    "thermal_shutdown": DEVICE,
    "power-loss": DEVICE,
    "disk_full": DEVICE,
    "ENOSPC": DEVICE,
    "IOError": DEVICE,
    "camera.Disconnected": DEVICE,
    "ConnectionRefusedError": DEVICE,
    "NaNOutput": MODEL,
    "NANDetected": MODEL,
    "nan": MODEL,
    "ShapeMismatch": MODEL,
    "GpuShapeMismatch": MODEL,
    "DriftDetected": MODEL,
    "InvalidOutputError": MODEL,
    "LabelOutOfRange": MODEL,
    "LowConfidence": MODEL,
    # Not known, though a pattern stands within a word.
    "room": MODEL,
    "finance": MODEL,
    "empowered": MODEL,
    "timeout": MODEL,
    "_OTHER": MODEL,
    "500": MODEL,
    "": MODEL,
    "größe\u2028💥": MODEL,
}


@pytest.mark.parametrize(("error", "team"), CLASSES.items())
def test_a_class_of_errors_has_a_team(error: str, team: Team) -> None:
    assert team_for(error) is team


@pytest.mark.parametrize(
    ("team", "pattern"), [(team, each) for team, patterns in PATTERNS for each in patterns]
)
def test_every_pattern_decides_in_every_way_of_writing(team: Team, pattern: str) -> None:
    words = pattern.split()
    for text in (" ".join(words), "_".join(words).upper(), "".join(map(str.capitalize, words))):
        assert team_for(text) is team


class Site:
    def __init__(self) -> None:
        self.causes = Causes(PLAN)
        self.causes.turn(START_NS)

    def fail(self, *errors: Any, model: str = "a", at_s: float = 0, failed: bool = True) -> None:
        now_ns = START_NS + round(at_s * SECOND_NS)
        spans = [
            make_span(
                1 + at,
                failed=failed,
                end_ns=now_ns,
                attributes={"edgeai.model.name": model}
                | ({} if error is None else {"error.type": error}),
            )
            for at, error in enumerate(errors)
        ]
        one = batch(PLAN, payload(request(spans), arrival_ns=now_ns))
        self.causes.add(
            one,
            MATCHER.contracts(one),
            one.spans["status"] == 2,
            one.spans["end_ns"].astype(np.int64),
        )

    def counts(self) -> dict[str, tuple[int, int]]:
        return {
            view.model: (view.failed[DEVICE], view.failed[MODEL]) for view in self.causes.views()
        }


def test_failed_inferences_are_counted_by_who_can_mend_them() -> None:
    site = Site()
    site.fail("OutOfMemoryError", "OutOfMemoryError", "NaN", None, 7, "x" * 5_000)
    site.fail("OutOfMemoryError", failed=False)
    site.fail("disk", model="b")
    site.fail("disk", model="unknown")
    assert site.counts() == {"a": (2, 4), "b": (1, 0)}


def test_the_majority_of_the_last_hour_labels_a_burn() -> None:
    site = Site()
    assert site.causes.team_of(0) is MODEL
    site.fail("OutOfMemoryError", "OutOfMemoryError", "nan")
    assert site.causes.team_of(0) is DEVICE
    assert site.causes.team_of(1) is MODEL
    site.fail("nan", at_s=1)
    assert site.causes.team_of(0) is MODEL  # as many of both
    site.fail("disk", at_s=60)
    assert site.causes.team_of(0) is DEVICE
    site.causes.turn(START_NS + 3_600 * SECOND_NS)
    assert site.causes.team_of(0) is DEVICE
    site.causes.turn(START_NS + 3_720 * SECOND_NS)
    assert site.causes.team_of(0) is MODEL


def test_counts_are_those_of_a_recount_in_any_order_and_any_parts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    texts = list(CLASSES)
    story = [
        (texts[rng.integers(len(texts))], "ab"[rng.integers(2)], float(rng.integers(0, 600)))
        for _ in range(300)
    ]
    expected: Counter[tuple[str, Team]] = Counter(
        (model, CLASSES[text]) for text, model, _ in story
    )
    one, two, whole = Site(), Site(), Site()
    for at, each in enumerate(rng.permutation(len(story)).tolist()):
        text, model, at_s = story[each]
        for site in (whole, (one, two)[at % 2]):
            site.fail(text, model=model, at_s=at_s)
    joined = Site()
    joined.causes.restore(merge(one.causes.state(), two.causes.state()))
    assert joined.counts() == whole.counts()
    assert joined.counts() == {
        model: (expected[model, DEVICE], expected[model, MODEL]) for model in "ab"
    }
    assert [joined.causes.team_of(at) for at in (0, 1)] == [
        whole.causes.team_of(at) for at in (0, 1)
    ]


def test_texts_that_devices_choose_do_not_fill_the_memory() -> None:
    site, batches = Site(), KNOWN_MAX // 500 + 2
    for start in range(batches):
        site.fail(*(f"disk {start * 500 + at}" for at in range(500)))
    assert len(site.causes._known) <= KNOWN_MAX
    assert site.counts()["a"] == (batches * 500, 0)
