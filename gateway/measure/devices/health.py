"""What is wrong with devices: clocks, accelerators, model loads, hosts, integrity.

Law: one trouble for each thing and model (or site), with the count of devices in it; a device is
never named in what leaves. Everything is derived at a judgement from counts that others keep, so
nothing here remembers what it has told; integrity alone is latched, see `integrity`.
Each signal has its own way not to flap, at its constants.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, AnomalyKind, Severity, Team
from gateway.contract.plan import Plan
from gateway.measure.devices import integrity, minutes
from gateway.measure.devices.causes import team_for
from gateway.measure.devices.devices import NO_DELAY, OTHER_INDEX, Devices
from gateway.measure.devices.hosts import SCALE, Condition
from gateway.measure.devices.integrity import Integrity
from gateway.measure.devices.minutes import Minutes
from gateway.measure.devices.placement import CPU
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, State, part, prefixed
from gateway.measure.trouble import Trouble

MINUTE_NS: Final = 60 * SECOND_NS
# An item cannot come before it ended, so this far ahead is proof; five seconds are far more than
# what NTP leaves. The least delay of ten to twenty minutes does not swing about it.
CLOCK_AHEAD_NS: Final = 5 * SECOND_NS
# Behind is an upper bound only: a device that sends late looks the same. So it has to hold for a
# whole generation, in which an exporter sends at least once without a backlog.
CLOCK_BEHIND_NS: Final = 30 * SECOND_NS
# A model that left its accelerator and is on the CPU stays in trouble; after a day that is where it
# runs. Another move is told for ten minutes: it may be meant.
FALLBACK_NS: Final = 86_400 * SECOND_NS
MOVED_NS: Final = 10 * MINUTE_NS
# Seen on the new one for a minute: one inference while a driver restarts is no move.
MOVED_FOR_NS: Final = MINUTE_NS
LOAD_MINUTES: Final = 10
LOADS_FAILED_MIN: Final = 3
LOADS_FAILED_RATIO: Final = 0.1
_LOADED, _FAILED_DEVICE, _FAILED_MODEL = range(3)
_FAILED: Final = (_FAILED_DEVICE, _FAILED_MODEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadsView:
    """Model loads since the beginning; the model is empty for those without a contract."""

    model: str
    loaded: int
    failed: int


class Health:
    """Troubles of devices, and the counts that nobody else keeps."""

    def __init__(self, plan: Plan, devices: Devices) -> None:
        self._devices = devices
        self._models = (*(contract.model for contract in plan.contracts), "")
        self._loads = Minutes(self._models, LOAD_MINUTES, 3)
        self.integrity = Integrity(plan)

    def turn(self, judged_ns: int) -> None:
        """Move delays and loads to a judged time, before its troubles are asked for.

        Not to the newest time: a replay without idle steps passes many judgements at once, and each
        of them has to find what it found then.
        """
        self._devices.turn(judged_ns)
        self._loads.turn(judged_ns)

    def loaded(self, *, model: str, error: str, at_ns: int) -> None:
        """Count a model load; `error` is empty when it did not fail."""
        row = self._models.index(model) if model in self._models else len(self._models) - 1
        column = _LOADED
        if error:
            is_device = team_for(error) is Team.DEVICE_OPS
            column = _FAILED_DEVICE if is_device else _FAILED_MODEL
        self._loads.add(np.array([row]), np.array([column]), np.array([at_ns], dtype=np.int64))

    def troubles(self, now_ns: int) -> list[Trouble]:
        """List all that is wrong at a judged time."""
        return [
            *self.integrity.troubles(),
            *self._clocks(),
            *self._accelerators(now_ns),
            *self._model_loads(),
            *self._hosts(now_ns),
        ]

    def _clocks(self) -> list[Trouble]:
        offsets = self._devices.offsets_ns()
        ahead_ns = np.where(offsets == NO_DELAY, 0, np.maximum(-offsets, 0))
        behind_ns = self._devices.behind_ns()
        # What did not fit is many devices with many clocks.
        ahead_ns[OTHER_INDEX] = behind_ns[OTHER_INDEX] = 0
        ahead = int((ahead_ns > CLOCK_AHEAD_NS).sum())
        behind = int((behind_ns > CLOCK_BEHIND_NS).sum())
        if not ahead and not behind:
            return []
        return [
            _of_site(
                AnomalyKind.CLOCK_SKEW,
                summary=f"the clocks of {ahead} devices are ahead; {behind} devices have a clock "
                "that is behind, or send everything late",
                onset_ns=self._devices.generation_ns,
                numbers={
                    "devices_ahead": ahead,
                    "devices_behind": behind,
                    "devices_heard": int((offsets != NO_DELAY).sum()),
                    "ahead_s_max": int(ahead_ns.max()) / SECOND_NS,
                    "behind_s_max": int(behind_ns.max()) / SECOND_NS,
                },
            )
        ]

    def _accelerators(self, now_ns: int) -> list[Trouble]:
        models = self._devices.models
        told_for = np.where(models.accelerator == CPU, FALLBACK_NS, MOVED_NS)
        told = models.moved() & (now_ns - models.moved_ns < told_for)
        told &= models.last_ns - models.moved_ns >= MOVED_FOR_NS
        found: list[Trouble] = []
        for contract in np.unique(models.contract[told]).tolist():
            of_contract = models.contract == contract
            rows = told & of_contract
            moved, to_cpu = int(rows.sum()), int((models.accelerator[rows] == CPU).sum())
            model = self._models[contract]
            found.append(
                Trouble(
                    kind=AnomalyKind.ACCELERATOR,
                    severity=Severity.TICKET,
                    team=Team.DEVICE_OPS,
                    contract=contract,
                    model=model,
                    version="",
                    subject="accelerator",
                    summary=f"{model} runs on another accelerator than before on {moved} devices, "
                    f"on the CPU of {to_cpu} of them",
                    onset_ns=int(models.moved_ns[rows].min()),
                    numbers={
                        "devices_moved": moved,
                        "devices_on_cpu": to_cpu,
                        "devices": int(of_contract.sum()),
                    },
                )
            )
        return found

    def _model_loads(self) -> list[Trouble]:
        found: list[Trouble] = []
        for row, counts in enumerate(self._loads.recent().tolist()):
            failed, total = counts[_FAILED_DEVICE] + counts[_FAILED_MODEL], sum(counts)
            if failed < LOADS_FAILED_MIN and failed < max(LOADS_FAILED_RATIO * total, 1):
                continue
            is_device = counts[_FAILED_DEVICE] > counts[_FAILED_MODEL]
            model = self._models[row]
            found.append(
                Trouble(
                    kind=AnomalyKind.MODEL_LOAD,
                    severity=Severity.TICKET,
                    team=Team.DEVICE_OPS if is_device else Team.ML_ENGINEERING,
                    contract=row if model else NO_CONTRACT,
                    model=model,
                    version="",
                    subject="load",
                    summary=f"{failed} of {total} loads of {model or 'models without a contract'} "
                    f"failed within {LOAD_MINUTES} minutes",
                    onset_ns=self._loads.oldest_ns(row, _FAILED),
                    numbers={
                        "loads_failed": failed,
                        "loads": total,
                        "loads_failed_device": counts[_FAILED_DEVICE],
                    },
                )
            )
        return found

    def _hosts(self, now_ns: int) -> list[Trouble]:
        hosts = self._devices.hosts
        wrong = hosts.wrong(now_ns)
        count = {each: int(wrong[:, each].sum()) for each in Condition}
        found: list[Trouble] = []
        busy, weak = slice(0, Condition.THROTTLED), slice(Condition.THROTTLED, len(Condition))
        saturated = wrong[:, busy].any(axis=1)
        if saturated.any():
            left = hosts.headroom(now_ns)[saturated]
            numbers = {
                f"devices_{each.name.lower()}": count[each]
                for each in Condition
                if each < Condition.THROTTLED and count[each]
            }
            found.append(
                _of_site(
                    AnomalyKind.SATURATION,
                    summary=f"{int(saturated.sum())} devices have had a resource nine tenths full "
                    "or more for minutes",
                    onset_ns=_since(hosts.since_ns[: len(hosts), busy], wrong[:, busy]),
                    numbers={
                        "devices_saturated": int(saturated.sum()),
                        "devices_read": len(hosts),
                        "headroom_ratio_min": max(0, int(left.min())) / SCALE,
                        **numbers,
                    },
                )
            )
        if wrong[:, weak].any():
            found.append(
                _of_site(
                    AnomalyKind.POWER,
                    summary=f"{count[Condition.THROTTLED]} devices are throttled, "
                    f"{count[Condition.TOO_HOT]} too hot, {count[Condition.BATTERY_LOW]} about to "
                    "run out of battery",
                    onset_ns=_since(hosts.since_ns[: len(hosts), weak], wrong[:, weak]),
                    numbers={
                        "devices_affected": int(wrong[:, weak].any(axis=1).sum()),
                        "devices_throttled": count[Condition.THROTTLED],
                        "devices_too_hot": count[Condition.TOO_HOT],
                        "devices_battery_low": count[Condition.BATTERY_LOW],
                        "devices_read": len(hosts),
                    },
                )
            )
        return found

    def loads(self) -> tuple[LoadsView, ...]:
        """Copy how many loads of each model there were."""
        return tuple(
            LoadsView(
                model=model,
                loaded=counts[_LOADED],
                failed=counts[_FAILED_DEVICE] + counts[_FAILED_MODEL],
            )
            for model, counts in zip(self._models, self._loads.ever.tolist(), strict=True)
        )

    def state(self) -> State:
        """Copy the counts of loads and violations."""
        return {
            **prefixed("loads", self._loads.state()),
            **prefixed("integrity", self.integrity.state()),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put the counts back."""
        self._loads.restore(part("loads", state))
        self.integrity.restore(part("integrity", state))


def _since(since_ns: Array, wrong: Array) -> int:
    return int(since_ns[wrong].min())


def _of_site(
    kind: AnomalyKind, *, summary: str, onset_ns: int, numbers: Mapping[str, float]
) -> Trouble:
    """Make a trouble of the devices of the site, whatever models they run."""
    return Trouble(
        kind=kind,
        severity=Severity.TICKET,
        team=Team.DEVICE_OPS,
        contract=NO_CONTRACT,
        model="",
        version="",
        subject="devices",
        summary=summary,
        onset_ns=onset_ns,
        numbers=numbers,
    )


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states."""
    return {
        **prefixed("loads", minutes.merge(part("loads", first), part("loads", second))),
        **prefixed(
            "integrity", integrity.merge(part("integrity", first), part("integrity", second))
        ),
    }
