"""A device counts once in a rollout; one that says nothing has failed when its time is up."""

from collections import Counter
from typing import Any, Final

import pytest

from gateway.measure.rollouts import deployments as module
from gateway.measure.rollouts.deployments import DAY_NS, GRACE_NS, Deployments, merge
from gateway.otlp.declared import DeviceOutcome, RolloutKind, RolloutStart
from tests.unit.measure.build import SECOND_NS, START_NS

START: Final = RolloutStart(
    at_ns=START_NS,
    rollout="r-1",
    model="damage-net",
    version="v2",
    devices=4,
    deadline_s=3_600,
)
DEADLINE_NS: Final = START_NS + 3_600 * SECOND_NS


def started(**changes: Any) -> tuple[Deployments, Counter[str]]:
    """Devices of one rollout, and what is refused of them."""
    refused: Counter[str] = Counter()
    made = Deployments(refused)
    fields = {name: getattr(START, name) for name in START.__slots__}
    made.start(RolloutStart(**{**fields, **changes}), 0)
    return made, refused


def told(device: str, succeeded: bool = True, at_ns: int = START_NS + 1) -> DeviceOutcome:
    """What one device reports."""
    return DeviceOutcome(at_ns=at_ns, device=device, rollout="r-1", succeeded=succeeded)


def taken(of: Deployments, now_ns: int) -> list[tuple[int, int, int]]:
    """What is due by then: when, good and bad."""
    of.turn(now_ns)
    return [(due.at_ns, due.good, due.bad) for due in of.take()]


def test_the_first_end_of_a_device_counts() -> None:
    made, refused = started()
    made.outcome(told("a"))
    made.outcome(told("a"))
    made.outcome(told("a", succeeded=False))
    made.outcome(told("b", succeeded=False, at_ns=START_NS - 5))
    assert taken(made, START_NS + 2) == [(START_NS + 1, 1, 0), (START_NS, 0, 1)]
    assert taken(made, START_NS + 3) == []
    assert refused == {"repeated": 1, "changed_outcome": 1}
    assert made.counts("r-1") == (1, 1)


def test_devices_that_say_nothing_have_failed_at_the_deadline_for_good() -> None:
    made, refused = started()
    made.outcome(told("a"))
    assert taken(made, DEADLINE_NS - 1) == [(START_NS + 1, 1, 0)]
    assert taken(made, DEADLINE_NS + 7) == [(DEADLINE_NS, 0, 3)]
    made.outcome(told("b"))
    assert taken(made, DEADLINE_NS + 9) == []
    assert refused == {"late_outcome": 1}
    assert made.counts("r-1") == (1, 3)


def test_the_deadline_holds_after_the_end_as_well() -> None:
    made, _ = started()
    made.end(START, START_NS + 60 * SECOND_NS, is_rolled_back=False)
    assert taken(made, DEADLINE_NS - 1) == []
    assert taken(made, DEADLINE_NS) == [(DEADLINE_NS, 0, 4)]


def test_nobody_waits_for_devices_of_a_rollout_that_was_rolled_back() -> None:
    made, _ = started()
    made.outcome(told("a", succeeded=False))
    made.end(START, START_NS + 60 * SECOND_NS, is_rolled_back=True)
    assert taken(made, DEADLINE_NS) == [(START_NS + 1, 0, 1)]
    assert made.counts("r-1") == (0, 1)


def test_without_a_deadline_the_end_is_one() -> None:
    made, _ = started(deadline_s=None)
    end_ns = START_NS + DAY_NS
    assert taken(made, end_ns) == []
    made.end(START, end_ns, is_rolled_back=False)
    made.outcome(told("a", at_ns=end_ns + 1))
    assert taken(made, end_ns + GRACE_NS) == [(end_ns + 1, 1, 0), (end_ns + GRACE_NS, 0, 3)]


def test_more_devices_than_planned_are_no_negative_failures() -> None:
    made, _ = started(devices=1)
    for device in "abc":
        made.outcome(told(device))
    assert [each[1:] for each in taken(made, DEADLINE_NS)] == [(1, 0)] * 3


def test_a_forgotten_rollout_counts_what_it_still_waits_for() -> None:
    made, refused = started()
    made.outcome(told("a"))
    made.forget("r-1", START_NS + 5)
    assert taken(made, START_NS + 5) == [(START_NS + 1, 1, 0), (START_NS + 5, 0, 3)]
    made.outcome(told("b"))
    assert refused == {"unknown_rollout": 1}


def test_names_and_versions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTCOMES_MAX", 2)
    monkeypatch.setattr(module, "VERSIONS_MAX", 1)
    made, refused = started()
    for device in "abc":
        made.outcome(told(device))
    assert refused == {"too_many_outcomes": 1}
    # What was closed makes room.
    made.forget("r-1", START_NS)
    made.start(START, 0)
    made.outcome(told("d"))
    assert made.counts("r-1") == (1, 0)
    other = {name: getattr(START, name) for name in START.__slots__}
    made.start(RolloutStart(**{**other, "rollout": "r-2", "version": "v3"}), 0)
    assert refused["too_many_versions"] == 1


def test_thirty_days_are_kept() -> None:
    made, _ = started(kind=RolloutKind.RETRAIN)
    made.outcome(told("a"))
    made.end(RolloutStart(**_retrain()), START_NS + 1, is_rolled_back=False)
    taken(made, START_NS + 29 * DAY_NS)
    history = made.history["damage-net"]
    assert sum(counts[2] for counts in history.days.values()) == 1
    taken(made, START_NS + 31 * DAY_NS)
    assert all(day > START_NS // DAY_NS for day in history.days)
    assert not history.versions


def _retrain() -> dict[str, Any]:
    fields = {name: getattr(START, name) for name in START.__slots__}
    return {**fields, "kind": RolloutKind.RETRAIN}


def test_a_restart_loses_nothing_not_even_what_was_not_taken() -> None:
    made, _ = started()
    made.outcome(told("a"))
    made.outcome(told("b", succeeded=False))
    fresh = Deployments(Counter())
    fresh.restore(made.state(), {"damage-net": 5})
    assert [(due.contract, due.good, due.bad) for due in fresh.take()] == [(5, 1, 0), (5, 0, 1)]
    fresh.outcome(told("a", succeeded=False))
    assert fresh.counts("r-1") == (1, 1)
    gone = Deployments(Counter())
    gone.restore(made.state(), {})
    assert gone.take() == []


def test_two_sites_add_by_name() -> None:
    one, _ = started()
    two, _ = started()
    one.outcome(told("a"))
    one.outcome(told("b"))
    two.outcome(told("b", succeeded=False))
    two.outcome(told("c"))
    both = Deployments(Counter())
    both.restore(merge(one.state(), two.state()), {"damage-net": 0})
    assert both.counts("r-1") == (2, 1)
    swapped = Deployments(Counter())
    swapped.restore(merge(two.state(), one.state()), {"damage-net": 0})
    assert swapped.counts("r-1") == (2, 1)
    assert both.history["damage-net"].days == swapped.history["damage-net"].days
    assert sum(counts[0] for counts in both.history["damage-net"].days.values()) == 3
