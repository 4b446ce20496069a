"""Which devices are silent: expected to be heard and not heard, which is not the same as idle.

Law: a device is expected while it was heard within a day and nobody has dismissed it, and it
belongs to the contracts whose inferences it has sent within a week; metrics and logs are heard as
well as spans. At the end of each judged minute each expected device of a contract with a freshness
SLO is good or bad once, and stays so. Everything is judged by the gateway's time of arrival: a
device's clock, however wrong, makes it neither fresh nor silent, and late data is not silence but
delay. All depends on arrivals and judged time alone, so that a replay comes to the same.

A pause: when nothing was heard from any device for a while, it may have been the gateway that did
not listen. Devices that had been heard before it get one threshold of time from its end.
Complexity: numpy over (device, contract) pairs, once a minute and once per judgement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, AnomalyKind, Severity, Team
from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator
from gateway.contract.slo import budget_of
from gateway.measure.devices.devices import OTHER_INDEX, Devices
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.state import Array, Int64, State
from gateway.measure.trouble import Trouble
from gateway.tables import Bool

MINUTE_NS: Final = 60 * SECOND_NS
DAY_NS: Final = 86_400 * SECOND_NS
THRESHOLD_NS: Final = 300 * SECOND_NS
EXPECTED_NS: Final = DAY_NS
# A device that is heard keeps its models through a week without work: a day off is no farewell.
ATTACHED_NS: Final = 7 * DAY_NS
# The share of silent devices that pages, in budgets: the fastest pair of the standard windows.
PAGE_FACTOR: Final = 14.4
# With a wide budget that factor is above one, but a whole fleet that is silent has to page.
PAGE_SHARE_MAX: Final = 0.9
# After a longer pause without batches or idle steps only the last six hours get ticks.
JUDGED_MINUTES_MAX: Final = 360
SUBJECT: Final = "silence"
SUBJECT_SITE: Final = "site"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """Devices of one contract at the end of one minute.

    `place` numbers the freshness SLOs of the contract in their order. Units: at_ns Unix ns.
    """

    contract: int
    place: int
    at_ns: int
    good: int
    bad: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessView:
    """How many devices of one model are expected and how many of them are silent.

    Units: seconds; oldest_age_s is that of the device that was not heard for longest.
    """

    model: str
    expected: int
    silent: int
    threshold_s: float
    oldest_age_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Devices of one contract. Shape: heard_ns (devices,), silent and all of them."""

    threshold_ns: int
    heard_ns: Int64
    silent_ns: Int64


class Freshness:
    """Ticks and silence of the devices of all contracts."""

    def __init__(self, plan: Plan, settings: MeasureSettings, devices: Devices) -> None:
        self._devices = devices
        self._lateness_ns = round(settings.lateness_s * SECOND_NS)
        self._models = tuple(contract.model for contract in plan.contracts)
        rules = [
            [slo for slo in contract.slos if slo.indicator is Indicator.FRESHNESS]
            for contract in plan.contracts
        ]
        self._thresholds = [
            tuple(
                THRESHOLD_NS if slo.threshold is None else round(slo.threshold * SECOND_NS)
                for slo in each
            )
            for each in rules
        ]
        self._budgets = [tuple(budget_of(slo.objective) for slo in each) for each in rules]
        self._minute = 0

    def turn(self, now_ns: int) -> list[Ticks]:
        """Judge the minutes that the watermark passed."""
        minute = (now_ns - self._lateness_ns) // MINUTE_NS
        if minute <= self._minute:
            return []
        # What was before the first batch is no time in which anybody was expected.
        first = max(self._minute, minute - JUDGED_MINUTES_MAX) if self._minute else minute
        self._minute = minute
        if not any(self._thresholds):
            return []
        return [each for at in range(first + 1, minute + 1) for each in self._ticks(at * MINUTE_NS)]

    def _ticks(self, at_ns: int) -> list[Ticks]:
        found: list[Ticks] = []
        attached = self._attached(at_ns)
        for place in range(max(map(len, self._thresholds))):
            wanted = {
                contract: thresholds[place]
                for contract, thresholds in enumerate(self._thresholds)
                if place < len(thresholds)
            }
            for contract, group in self._groups(attached, wanted, at_ns).items():
                bad = len(group.silent_ns)
                good = len(group.heard_ns) - bad
                if good or bad:
                    found.append(
                        Ticks(contract=contract, place=place, at_ns=at_ns, good=good, bad=bad)
                    )
        return found

    def expected(self, at_ns: int) -> Bool:
        """Say which devices are expected to be heard. Shape: (devices,)."""
        heard = self._devices.last_arrival_ns[: len(self._devices)]
        dismissed = self._devices.dismissed_ns[: len(self._devices)]
        found: Bool = (heard > dismissed) & (at_ns - heard < EXPECTED_NS)
        found[OTHER_INDEX] = False
        return found

    def _attached(self, at_ns: int) -> list[Int64]:
        """List the expected devices of each contract."""
        models = self._devices.models
        device = models.device
        held = (at_ns - models.last_ns < ATTACHED_NS) & self.expected(at_ns)[device]
        device, contract = device[held], models.contract[held]
        order = np.argsort(contract, kind="stable")
        ends = np.searchsorted(contract[order], np.arange(1, len(self._models)))
        return np.split(device[order], ends)

    def _groups(
        self, attached: Sequence[Int64], wanted: Mapping[int, int], at_ns: int
    ) -> dict[int, _Group]:
        """Group devices by contract. `wanted` gives the threshold of each one that is wanted."""
        heard = {each: self._devices.heard_ns(each) for each in set(wanted.values())}
        found: dict[int, _Group] = {}
        for contract, threshold_ns in wanted.items():
            heard_ns = heard[threshold_ns][attached[contract]]
            found[contract] = _Group(
                threshold_ns=threshold_ns,
                heard_ns=heard_ns,
                silent_ns=heard_ns[at_ns - heard_ns >= threshold_ns],
            )
        return found

    def _all_groups(self, at_ns: int) -> dict[int, _Group]:
        """Group all expected devices, those without a contract under NO_CONTRACT."""
        attached = self._attached(at_ns)
        wanted = {contract: self._threshold_ns(contract) for contract in range(len(self._models))}
        alone = self.expected(at_ns)
        for each in attached:
            alone[each] = False
        # NO_CONTRACT is -1 and so the last place.
        attached.append(np.flatnonzero(alone))
        wanted[NO_CONTRACT] = THRESHOLD_NS
        return self._groups(attached, wanted, at_ns)

    def _threshold_ns(self, contract: int) -> int:
        return min(self._thresholds[contract], default=THRESHOLD_NS)

    def troubles(self, now_ns: int) -> list[Trouble]:
        """List who is silent: one trouble per contract, one for devices that have none, and one
        when nobody at all is heard."""
        found = [
            self._trouble(contract, group, now_ns)
            for contract, group in self._all_groups(now_ns).items()
            if len(group.silent_ns)
        ]
        site_ns = max(self._devices.site_ns, self._devices.resumed_ns)
        expected = int(self.expected(now_ns).sum())
        if expected and now_ns - site_ns >= THRESHOLD_NS:
            found.append(self._site_trouble(expected, site_ns, now_ns))
        return found

    def _trouble(self, contract: int, group: _Group, now_ns: int) -> Trouble:
        silent, expected = len(group.silent_ns), len(group.heard_ns)
        model = self._models[contract] if contract != NO_CONTRACT else ""
        share = silent / expected
        pages = contract != NO_CONTRACT and any(
            share > min(PAGE_FACTOR * budget, PAGE_SHARE_MAX) for budget in self._budgets[contract]
        )
        oldest_ns = int(group.silent_ns.min())
        whose = f"of {model} " if model else "without a model "
        return Trouble(
            kind=AnomalyKind.SILENCE,
            severity=Severity.PAGE if pages else Severity.TICKET,
            team=Team.DEVICE_OPS,
            contract=contract,
            model=model,
            version="",
            subject=SUBJECT,
            summary=f"{silent} of {expected} devices {whose}are silent: nothing was heard of them "
            f"for {group.threshold_ns / SECOND_NS:g} s, not even a heartbeat",
            onset_ns=oldest_ns + group.threshold_ns,
            numbers={
                "devices_silent": silent,
                "devices_expected": expected,
                "silent_ratio": share,
                "oldest_age_s": (now_ns - oldest_ns) / SECOND_NS,
                "threshold_s": group.threshold_ns / SECOND_NS,
            },
        )

    def _site_trouble(self, expected: int, site_ns: int, now_ns: int) -> Trouble:
        # The contracts page for their devices; this tells that the cause is not with any of them.
        return Trouble(
            kind=AnomalyKind.SILENCE,
            severity=Severity.TICKET,
            team=Team.DEVICE_OPS,
            contract=NO_CONTRACT,
            model="",
            version="",
            subject=SUBJECT_SITE,
            summary=f"nothing is heard from any of {expected} devices: the network, the power of "
            "the site or the gateway's listeners",
            onset_ns=site_ns + THRESHOLD_NS,
            numbers={
                "devices_silent": expected,
                "devices_expected": expected,
                "silent_ratio": 1.0,
                "oldest_age_s": (now_ns - site_ns) / SECOND_NS,
                "threshold_s": THRESHOLD_NS / SECOND_NS,
            },
        )

    def views(self, now_ns: int) -> tuple[FreshnessView, ...]:
        """Copy how many devices of each model are expected and silent."""
        return tuple(
            FreshnessView(
                model=self._models[contract],
                expected=len(group.heard_ns),
                silent=len(group.silent_ns),
                threshold_s=group.threshold_ns / SECOND_NS,
                oldest_age_s=max(0, now_ns - int(group.heard_ns.min())) / SECOND_NS
                if len(group.heard_ns)
                else None,
            )
            for contract, group in self._all_groups(now_ns).items()
            if contract != NO_CONTRACT
        )

    def state(self) -> State:
        """Copy the last judged minute."""
        return {"minute": np.array([self._minute], dtype=np.int64)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put the last judged minute back."""
        self._minute = int(state["minute"][0])


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Go on from the later minute: earlier ones have been judged at one site at least."""
    return {"minute": np.maximum(first["minute"], second["minute"])}
