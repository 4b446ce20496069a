"""Event rates for tests: made, given a reference, and fed tick by tick."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from gateway.contract.schema import DriftRule
from gateway.measure.drift.fleet import Budget
from gateway.measure.drift.rates import (
    REFERENCE,
    RateAlarm,
    RateEnd,
    Rates,
)
from gateway.measure.drift.seasonal import HOUR_NS, HOURS
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.state import Int64, State
from gateway.tables import Float64
from tests.unit.measure.build import START_NS, contract, plan
from tests.unit.measure.drift.test_ratebaseline import folded

TICK_NS: Final = 10 * SECOND_NS
# A whole hour, so that an hour of the test is one of the clock.
BEGIN_NS: Final = START_NS // HOUR_NS * HOUR_NS
HOUR_OF_BEGIN: Final = (BEGIN_NS // HOUR_NS + 72) % HOURS


def made(
    models: int = 1, *, tolerance: float | None = 0.2, quiet_s: float = 3600, **rule: Any
) -> Rates:
    """Rates of some models, all judged in the same way, and of one that is not."""
    judged = DriftRule(rate_tolerance=tolerance, **rule)
    listed = [contract(f"model-{number}", drift=judged) for number in range(models)]
    settings = MeasureSettings(drift_quiet_s=quiet_s)
    return Rates(plan(contract("other"), *listed), settings, Budget(settings.false_alarms))


def armed(rates: Rates, hours: Int64) -> None:
    """Give every row a reference. Shape: hours (models, TICKS * whole hours)."""
    for row, counts in enumerate(hours):
        rates.sums[row, REFERENCE] = folded(counts)
        rates.filling[row, REFERENCE] = False
        rates.arm(row)
    rates.started[:] = True


class Site:
    """Sends counts of inferences tick by tick; a tick is heard of even if it brings none."""

    def __init__(self, rates: Rates, *, settled: bool = True) -> None:
        self.rates = rates
        self.tick = BEGIN_NS // TICK_NS
        self.told: list[RateAlarm | RateEnd] = []
        self.rates.heard(BEGIN_NS)
        if settled:
            self.rates.judged_from = 0

    @property
    def now_ns(self) -> int:
        return self.tick * TICK_NS

    def send(self, counts: Int64 | Sequence[int], *, event_ns: int | None = None) -> None:
        """Take one tick of (models,) counts and go on to the next."""
        self.rates.heard(self.now_ns + SECOND_NS)
        rows = np.repeat(np.array(self.rates.contracts), np.asarray(counts))
        self.rates.add(rows, np.full(len(rows), event_ns or self.now_ns))
        self.tick += 1
        self.told += self.rates.turn(self.now_ns)

    def alarms(self) -> list[RateAlarm]:
        return [each for each in self.told if isinstance(each, RateAlarm)]


def same(one: State, two: State) -> bool:
    return one.keys() == two.keys() and all(
        np.array_equal(one[name], two[name]) and one[name].dtype == two[name].dtype for name in one
    )


def live(means: Float64, phi: float, rng: np.random.Generator) -> Int64:
    """Draw counts with these means, and with phi times the variance of independent events."""
    if phi == 1:
        return rng.poisson(means)
    return rng.negative_binomial(means / (phi - 1), 1 / phi)


def lived(rates: Rates, mean: float, ticks: int, rng: np.random.Generator, site: Site) -> None:
    for count in rng.poisson(mean, ticks).tolist():
        site.send([count])
