"""What an emulated device sees and how its model behaves, as distributions.

Law: everything is drawn from the generator that is passed in; the same seed gives the same
confidences, classes, operators and durations, whatever the clock does.
"""

import math
import random
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

MODEL_NAME: Final = "damage-net"
GOOD_VERSION: Final = "1.4.0"
BAD_VERSION: Final = "1.5.0"
CLASSES: Final = ("ok", "cracked", "wet", "torn")
OPERATORS: Final = 12
NOTES: Final = (
    "pallet {n} at gate {gate}",
    "re-scan of parcel {n}",
    "driver asked for a second look at {n}",
    "",
)
# Shares of a trace's duration that its three stages take; the rest is the root's own time.
STAGES: Final = (("preprocess", 0.15), ("inference", 0.70), ("postprocess", 0.10))


class Phase(StrEnum):
    """What the fleet is going through."""

    HEALTHY = "healthy"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Distributions of one device.

    Units: confidence and brightness are the two parameters of a Beta distribution; duration is
    log-normal with its median in ms; shares are probabilities.
    """

    version: str = GOOD_VERSION
    confidence: tuple[float, float] = (8.0, 2.0)
    brightness: tuple[float, float] = (6.0, 4.0)
    class_shares: tuple[float, ...] = (0.90, 0.05, 0.03, 0.02)
    median_ms: float = 40.0
    sigma: float = 0.22
    slow_share: float = 0.0
    slow_factor: float = 1.0
    # Under a thousandth, so that a healthy fleet keeps a success SLO of 99.9 %.
    error_share: float = 0.0002


HEALTHY: Final = Conditions()
# The light at the dock fails and wet parcels come in.
DRIFTED: Final = replace(
    HEALTHY,
    confidence=(5.0, 4.0),
    brightness=(2.5, 7.5),
    class_shares=(0.62, 0.08, 0.26, 0.04),
)
# A release that was compiled for another accelerator.
BAD_RELEASE: Final = replace(
    HEALTHY, version=BAD_VERSION, slow_share=0.35, slow_factor=6.0, error_share=0.08
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """One drawn inference. Units: duration_ns."""

    version: str
    confidence: float
    brightness: float
    label: str
    operator: str
    note: str
    duration_ns: int
    failed: bool


def draw(conditions: Conditions, rng: random.Random) -> Inference:
    """Draw one inference."""
    duration_ms = conditions.median_ms * math.exp(conditions.sigma * rng.gauss(0.0, 1.0))
    if rng.random() < conditions.slow_share:
        duration_ms *= conditions.slow_factor
    note = NOTES[rng.randrange(len(NOTES))]
    return Inference(
        version=conditions.version,
        confidence=rng.betavariate(*conditions.confidence),
        brightness=rng.betavariate(*conditions.brightness),
        label=rng.choices(CLASSES, conditions.class_shares)[0],
        operator=f"operator-{rng.randrange(OPERATORS):02d}",
        note=note.format(n=rng.randrange(100_000), gate="ABCD"[rng.randrange(4)]),
        duration_ns=int(duration_ms * 1e6),
        failed=rng.random() < conditions.error_share,
    )


def assign(devices: int, seed: int, drift_share: float, bad_share: float) -> list[Conditions]:
    """Choose which devices drift and which get the bad release; nobody gets both.

    A device that changes its version starts a new series, in which a drift against the baseline
    of the old one cannot show; apart, both can be seen.
    """
    order = list(range(devices))
    random.Random(f"{seed}:assign").shuffle(order)  # noqa: S311 - a scenario, not a secret
    drifting = round(devices * drift_share)
    released = min(devices - drifting, round(devices * bad_share))
    conditions = [HEALTHY] * devices
    for index in order[:drifting]:
        conditions[index] = DRIFTED
    for index in order[drifting : drifting + released]:
        conditions[index] = BAD_RELEASE
    return conditions
