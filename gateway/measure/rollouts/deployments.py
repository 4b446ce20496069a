"""Which devices of a rollout got the new version, and how often models are deployed and retrained.

Law: a device counts once in a rollout, by the first end that it reports; one that was planned and
has reported none counts as failed when its time is up, and is never counted back. Figures of the
last 30 days are sums of whole UTC days, so they merge by adding. Bounded: OUTCOMES_MAX names of
devices in all open rollouts together, VERSIONS_MAX versions of a model.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.batch import NO_CONTRACT, Json
from gateway.measure.rollouts.rollout import Refusal
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, State, pack_json, unpack_json
from gateway.otlp.declared import DeviceOutcome, RolloutKind, RolloutStart

OUTCOMES_MAX: Final = 100_000
VERSIONS_MAX: Final = 256
DAYS: Final = 30
DAY_NS: Final = 86_400 * SECOND_NS
# Devices of a rollout without a deadline report until this long after its end.
GRACE_NS: Final = 600 * SECOND_NS
GOOD, BAD, RETRAINED = range(3)


@dataclass(slots=True)
class Deployment:
    """The devices of one open rollout. `devices` holds whether each has succeeded."""

    contract: int
    model: str
    start_ns: int
    deadline_ns: int | None
    planned: int
    devices: dict[str, bool] = field(default_factory=dict)
    end_ns: int | None = None
    is_rolled_back: bool = False

    @property
    def closes_ns(self) -> int | None:
        """When devices that have not reported count as failed; None while nobody can say."""
        if self.end_ns is not None and (self.is_rolled_back or self.deadline_ns is None):
            return self.end_ns + GRACE_NS
        return self.deadline_ns

    @property
    def succeeded(self) -> int:
        """How many devices have the new version."""
        return sum(self.devices.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Devices of one rollout that have come to an end. Units: good and bad are devices."""

    contract: int
    model: str
    at_ns: int
    good: int
    bad: int


@dataclass(slots=True)
class History:
    """What happened to one model. Shape: days maps a UTC day to [good, bad, retrained]."""

    days: dict[int, list[int]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)  # day on which it was first rolled out

    def count(self, at_ns: int, what: int, amount: int = 1) -> None:
        """Count on the day of an event."""
        self.days.setdefault(at_ns // DAY_NS, [0, 0, 0])[what] += amount

    def forget(self, now_ns: int) -> None:
        """Drop days that are no longer shown."""
        oldest = now_ns // DAY_NS - DAYS
        for day in [day for day in self.days if day <= oldest]:
            del self.days[day]
        for version in [each for each, day in self.versions.items() if day <= oldest]:
            del self.versions[version]


class Deployments:
    """Devices of open rollouts, and the last 30 days of every model."""

    def __init__(self, refused: Counter[str]) -> None:
        """Make an empty one that counts what it cannot use into `refused`."""
        self._refused = refused
        self.open: dict[str, Deployment] = {}
        self.closed: dict[str, tuple[int, int]] = {}  # succeeded and failed
        self.history: dict[str, History] = {}
        self._due: list[Due] = []
        self._outcomes = 0

    def start(self, start: RolloutStart, contract: int) -> None:
        """Open the devices of a rollout."""
        deadline_ns = None
        if start.deadline_s is not None:
            deadline_ns = start.at_ns + start.deadline_s * SECOND_NS
        self.open[start.rollout] = Deployment(
            contract=contract,
            model=start.model,
            start_ns=start.at_ns,
            deadline_ns=deadline_ns,
            planned=start.devices or 0,
        )
        versions = self._of(start.model).versions
        if start.version in versions or len(versions) < VERSIONS_MAX:
            day = start.at_ns // DAY_NS
            versions[start.version] = min(day, versions.get(start.version, day))
        else:
            self._refused[Refusal.TOO_MANY_VERSIONS] += 1

    def end(self, start: RolloutStart, at_ns: int, *, is_rolled_back: bool) -> None:
        """Note the end of a rollout."""
        found = self.open.get(start.rollout)
        if found is not None:
            found.end_ns, found.is_rolled_back = at_ns, is_rolled_back
        if start.kind is RolloutKind.RETRAIN:
            self._of(start.model).count(at_ns, RETRAINED)

    def outcome(self, told: DeviceOutcome) -> None:
        """Count a device, unless it has been counted."""
        found = self.open.get(told.rollout)
        if found is None:
            is_late = told.rollout in self.closed
            self._refused[Refusal.LATE_OUTCOME if is_late else Refusal.UNKNOWN_ROLLOUT] += 1
            return
        known = found.devices.get(told.device)
        if known is not None:
            is_same = known is told.succeeded
            self._refused[Refusal.REPEATED if is_same else Refusal.CHANGED_OUTCOME] += 1
            return
        if self._outcomes >= OUTCOMES_MAX:
            self._refused[Refusal.TOO_MANY_OUTCOMES] += 1
            return
        found.devices[told.device] = told.succeeded
        self._outcomes += 1
        # A device's clock may be behind that of whoever declared the rollout.
        at_ns = max(told.at_ns, found.start_ns)
        self._count(found, at_ns, int(told.succeeded), int(not told.succeeded))

    def _count(self, of: Deployment, at_ns: int, good: int, bad: int) -> None:
        due = Due(contract=of.contract, model=of.model, at_ns=at_ns, good=good, bad=bad)
        self._due.append(due)
        history = self._of(of.model)
        history.count(at_ns, GOOD, good)
        history.count(at_ns, BAD, bad)

    def _of(self, model: str) -> History:
        return self.history.setdefault(model, History())

    def turn(self, now_ns: int) -> None:
        """Close what is due by then."""
        for name, found in list(self.open.items()):
            closes_ns = found.closes_ns
            if closes_ns is not None and closes_ns <= now_ns:
                self._close(name, closes_ns)
        for history in self.history.values():
            history.forget(now_ns)

    def _close(self, name: str, at_ns: int) -> None:
        found = self.open.pop(name)
        reported = len(found.devices)
        missing = 0 if found.is_rolled_back else max(0, found.planned - reported)
        if missing:
            self._count(found, at_ns, 0, missing)
        self.closed[name] = (found.succeeded, reported - found.succeeded + missing)
        self._outcomes -= reported

    def forget(self, name: str, now_ns: int) -> None:
        """Forget a rollout; devices that are still expected have failed."""
        if name in self.open:
            self._close(name, now_ns)
        self.closed.pop(name, None)

    def take(self) -> list[Due]:
        """Hand out what has come to an end since the last call."""
        due, self._due = self._due, []
        return [each for each in due if each.contract != NO_CONTRACT]

    def counts(self, rollout: str) -> tuple[int, int]:
        """Return how many devices of a rollout have succeeded and failed."""
        found = self.open.get(rollout)
        if found is None:
            return self.closed.get(rollout, (0, 0))
        return found.succeeded, len(found.devices) - found.succeeded

    def state(self) -> State:
        """Write everything as text."""
        return {
            "open": pack_json({name: _note(each) for name, each in self.open.items()}),
            "closed": pack_json({name: list(each) for name, each in self.closed.items()}),
            "history": pack_json(
                {
                    model: [sorted(each.days.items()), each.versions]
                    for model, each in self.history.items()
                }
            ),
            "due": pack_json([[each.model, each.at_ns, each.good, each.bad] for each in self._due]),
        }

    def restore(self, state: Mapping[str, Array], contract_of: Mapping[str, int]) -> None:
        """Read everything back; `contract_of` gives the contract of each model of today's plan."""
        self.open = {
            name: _deployment(note, contract_of.get(note[0], NO_CONTRACT))
            for name, note in unpack_json(state["open"]).items()
        }
        self.closed = {
            name: (good, bad) for name, (good, bad) in unpack_json(state["closed"]).items()
        }
        self.history = {
            model: History(days={day: list(counts) for day, counts in days}, versions=versions)
            for model, (days, versions) in unpack_json(state["history"]).items()
        }
        self._due = [
            Due(
                contract=contract_of.get(model, NO_CONTRACT),
                model=model,
                at_ns=at_ns,
                good=good,
                bad=bad,
            )
            for model, at_ns, good, bad in unpack_json(state["due"])
        ]
        self._outcomes = sum(len(each.devices) for each in self.open.values())


def _note(of: Deployment) -> Json:
    times = [of.start_ns, of.deadline_ns, of.end_ns]
    return [of.model, *times, of.planned, of.devices, of.is_rolled_back]


def _deployment(note: Json, contract: int) -> Deployment:
    model, start_ns, deadline_ns, end_ns, planned, devices, is_rolled_back = note
    return Deployment(
        contract=contract,
        model=model,
        start_ns=start_ns,
        deadline_ns=deadline_ns,
        planned=planned,
        devices=devices,
        end_ns=end_ns,
        is_rolled_back=is_rolled_back,
    )


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Join open rollouts and add what has come to an end.

    A device that two sites tell of differently has failed.
    """
    opened = unpack_json(first["open"])
    for name, theirs in unpack_json(second["open"]).items():
        ours = opened.setdefault(name, theirs)
        both = ours[5].keys() & theirs[5].keys()
        joined = ours[5] | theirs[5]
        joined |= {device: ours[5][device] and theirs[5][device] for device in both}
        opened[name] = [ours[0], min(ours[1], theirs[1])]
        opened[name] += [_latest(ours[at], theirs[at]) for at in (2, 3)]
        opened[name] += [max(ours[4], theirs[4]), joined, ours[6] or theirs[6]]
    closed = unpack_json(first["closed"])
    for name, (good, bad) in unpack_json(second["closed"]).items():
        before = closed.get(name, [0, 0])
        closed[name] = [before[0] + good, before[1] + bad]
    history = unpack_json(first["history"])
    for model, (days, versions) in unpack_json(second["history"]).items():
        ours_days, ours_versions = history.get(model, [[], {}])
        total = {day: list(counts) for day, counts in ours_days}
        for day, counts in days:
            known = total.get(day, [0, 0, 0])
            total[day] = [one + two for one, two in zip(known, counts, strict=True)]
        for version, day in versions.items():
            ours_versions[version] = min(day, ours_versions.get(version, day))
        history[model] = [sorted(total.items()), ours_versions]
    due = unpack_json(first["due"]) + unpack_json(second["due"])
    return {
        "open": pack_json(opened),
        "closed": pack_json(closed),
        "history": pack_json(history),
        "due": pack_json(sorted(due)),
    }


def _latest(first: int | None, second: int | None) -> int | None:
    known = [each for each in (first, second) if each is not None]
    return max(known) if known else None
