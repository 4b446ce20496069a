"""Freshness: who is silent, who is only idle, and what a pause of the gateway is not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from gateway.batch import NO_CONTRACT, Severity, Team
from gateway.config.sections import SamplingSection
from gateway.contract.plan import Plan, compile_plan
from gateway.contract.schema import Indicator, Slo
from gateway.measure.devices.devices import Devices
from gateway.measure.devices.freshness import SUBJECT, SUBJECT_SITE, Freshness, Ticks, merge
from gateway.measure.match import Matcher
from gateway.measure.settings import MeasureSettings
from gateway.measure.trouble import Trouble
from gateway.otlp.readings import Heard
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    batch,
    contract,
    payload,
    plan,
    request,
    span,
    success,
)

MINUTE_NS = 60 * SECOND_NS
MINUTE_S = 60
HOUR_S = 3_600
DAY_S = 86_400


def fresh(threshold: float | None = 300.0, objective: float = 0.99) -> Slo:
    return Slo(
        name="freshness",
        indicator=Indicator.FRESHNESS,
        objective=objective,
        window=30 * DAY_S,
        threshold=threshold,
    )


WATCHED = plan(contract("a", slos=(success(), fresh())), contract("b"))


class Site:
    """Devices that are heard, and how fresh they are found; times are seconds since the start."""

    def __init__(self, the_plan: Plan = WATCHED) -> None:
        self.plan = the_plan
        settings = MeasureSettings()
        self.devices = Devices(the_plan, settings)
        self.freshness = Freshness(the_plan, settings, self.devices)
        self._matcher = Matcher(the_plan)
        self.ticks: list[Ticks] = []

    def turn(self, at_s: float) -> None:
        now_ns = START_NS + round(at_s * SECOND_NS)
        self.devices.turn(now_ns)
        self.ticks += self.freshness.turn(now_ns)

    def beat(self, device: str, at_s: float, clock_s: float = 0.0) -> None:
        self.turn(at_s)
        now_ns = START_NS + round(at_s * SECOND_NS)
        newest_ns = max(0, now_ns + round(clock_s * SECOND_NS))
        self.devices.hear([Heard(device=device, newest_ns=newest_ns, items=1, bytes=9)], now_ns)

    def infer(self, device: str, at_s: float, model: str = "a") -> None:
        self.turn(at_s)
        own = {"edgeai.model.name": model}
        now_ns = START_NS + round(at_s * SECOND_NS)
        body = request([span(1, end_ns=now_ns, attributes=own)], {"device.id": device})
        one = batch(self.plan, payload(body, arrival_ns=now_ns))
        runs = self.devices.find(one)
        end_ns = one.spans["end_ns"].astype(np.int64)
        self.devices.add(one, runs, end_ns - 1, end_ns)
        matched = self._matcher.contracts(one)
        self.devices.infer(one, runs, matched, np.zeros(1, dtype=np.int64), ((model, "1"),))

    def troubles(self, at_s: float) -> dict[tuple[str, str], Trouble]:
        found = self.freshness.troubles(START_NS + round(at_s * SECOND_NS))
        assert len({(each.contract, each.subject) for each in found}) == len(found)
        return {(each.model, each.subject): each for each in found}

    def counted(self) -> dict[int, tuple[int, int]]:
        """Good and bad by minute since the start."""
        return {(each.at_ns - START_NS) // MINUTE_NS: (each.good, each.bad) for each in self.ticks}


def test_a_device_that_is_idle_for_a_day_is_not_silent() -> None:
    site = Site()
    site.infer("x", 0)
    for minute in range(1, 24 * 60 + 30):
        site.beat("x", minute * MINUTE_S)
        assert not site.troubles(minute * MINUTE_S)
    assert not any(each.bad for each in site.ticks)
    assert len(site.ticks) == 24 * 60 + 29  # minutes 0 to 24:28


def test_when_heartbeats_stop_it_pages_within_five_to_seven_minutes() -> None:
    site = Site()
    site.infer("x", 0)
    site.infer("y", 0)
    for minute in range(1, 24 * 60):
        site.beat("x", minute * MINUTE_S)
        site.beat("y", minute * MINUTE_S)
    stopped_s = (24 * 60 - 1) * MINUTE_S
    for at_s in range(stopped_s, stopped_s + 10 * MINUTE_S, 10):
        if at_s % MINUTE_S == 50:
            site.beat("y", at_s)
        found = site.troubles(at_s)
        if found:
            break
    assert at_s - stopped_s == 300
    trouble = found["a", SUBJECT]
    assert (trouble.severity, trouble.team) == (Severity.PAGE, Team.DEVICE_OPS)
    assert trouble.numbers["devices_silent"] == 1
    assert trouble.numbers["devices_expected"] == 2
    assert trouble.numbers["oldest_age_s"] == 300
    assert "x" not in trouble.summary.split()
    site.beat("x", at_s + 10)
    assert not site.troubles(at_s + 10)


def test_one_cause_is_one_trouble_with_the_count_of_devices() -> None:
    site = Site()
    for device in range(100):
        site.infer(f"d{device}", 0)
    for minute in range(1, 12):
        for device in range(60, 100):
            site.beat(f"d{device}", minute * MINUTE_S)
    (trouble,) = site.troubles(11 * MINUTE_S).values()
    assert trouble.numbers["devices_silent"] == 60
    assert trouble.numbers["silent_ratio"] == 0.6


@pytest.mark.parametrize(
    ("objective", "silent", "severity"),
    [
        (0.99, 1, Severity.TICKET),
        (0.99, 2, Severity.PAGE),
        (0.9, 8, Severity.TICKET),
        (0.9, 10, Severity.PAGE),
    ],
)
def test_it_pages_when_the_silent_share_burns_fast(
    objective: float, silent: int, severity: Severity
) -> None:
    site = Site(plan(contract("a", slos=(fresh(objective=objective),))))
    for device in range(10):
        site.infer(f"d{device}", 0)
    for minute in (3, 6):
        for device in range(silent, 10):
            site.beat(f"d{device}", minute * MINUTE_S)
    assert site.troubles(6 * MINUTE_S)["a", SUBJECT].severity is severity


def test_without_a_freshness_slo_it_is_a_ticket_and_there_are_no_ticks() -> None:
    site = Site()
    site.infer("x", 0, "b")
    site.turn(6 * MINUTE_S)
    assert site.troubles(6 * MINUTE_S)["b", SUBJECT].severity is Severity.TICKET
    assert not site.ticks


def test_a_site_that_is_silent_as_a_whole_is_told_as_such() -> None:
    site = Site()
    site.infer("x", 0)
    site.beat("y", 10)
    assert ("", SUBJECT_SITE) not in site.troubles(309)
    found = site.troubles(310)
    assert found["a", SUBJECT].severity is Severity.PAGE
    assert found["", SUBJECT_SITE].severity is Severity.TICKET
    assert found["", SUBJECT_SITE].contract == NO_CONTRACT
    assert found["", SUBJECT_SITE].numbers["devices_silent"] == 2
    # The device without a model is silent as well, and belongs to nobody.
    assert found["", SUBJECT].numbers["devices_silent"] == 1


def test_who_was_not_heard_for_a_day_or_was_dismissed_is_not_expected() -> None:
    site = Site()
    site.infer("gone", 0)
    site.infer("x", 0)
    for hour in range(1, 24):
        site.beat("x", hour * HOUR_S)
    assert site.troubles(23 * HOUR_S)["a", SUBJECT].numbers["devices_expected"] == 2
    site.beat("x", DAY_S)
    assert not site.troubles(DAY_S)
    site.devices.dismiss("x", START_NS + DAY_S * SECOND_NS)
    assert not site.troubles(DAY_S + HOUR_S)
    site.beat("x", DAY_S + HOUR_S)
    assert site.troubles(DAY_S + 2 * HOUR_S)


def test_a_device_keeps_its_model_through_a_week_without_work() -> None:
    site = Site()
    site.infer("x", 0)
    for hour in range(1, 8 * 24):
        site.beat("x", hour * HOUR_S)
        expected = site.freshness.views(START_NS + hour * HOUR_S * SECOND_NS)[0].expected
        assert expected == (1 if hour < 7 * 24 else 0)


def test_the_end_of_a_pause_gives_one_threshold_of_time() -> None:
    site = Site()
    for name in "xyz":
        site.infer(name, 0)
    for minute in range(1, 11):
        site.beat("x", minute * MINUTE_S)
        site.beat("y", minute * MINUTE_S)
    assert site.troubles(600)["a", SUBJECT].numbers["devices_silent"] == 1
    site.devices.resume(START_NS + HOUR_S * SECOND_NS)  # the gateway was away
    assert site.troubles(HOUR_S)["a", SUBJECT].numbers["devices_silent"] == 1
    site.beat("x", HOUR_S + 200)
    assert site.troubles(HOUR_S + 299)["a", SUBJECT].numbers["devices_silent"] == 1
    assert site.troubles(HOUR_S + 300)["a", SUBJECT].numbers["devices_silent"] == 2


def test_without_a_word_of_the_gateway_the_first_one_heard_ends_a_pause() -> None:
    site = Site()
    for name in "xy":
        site.infer(name, 0)
    site.beat("x", HOUR_S)
    assert not site.troubles(HOUR_S + 299)
    found = site.troubles(HOUR_S + 300)
    assert found["a", SUBJECT].numbers["devices_silent"] == 2
    site.beat("x", HOUR_S + 300)
    assert site.troubles(HOUR_S + 300)["a", SUBJECT].numbers["devices_silent"] == 1


def test_a_minute_that_was_judged_stays_as_it_was() -> None:
    site = Site()
    site.infer("x", 0)
    site.turn(10 * MINUTE_S + 30)
    before = site.counted()
    assert [before[minute] for minute in (4, 5, 10)] == [(1, 0), (0, 1), (0, 1)]
    site.beat("x", 10 * MINUTE_S + 31, clock_s=-5 * MINUTE_S)  # what was late tells no minute anew
    site.turn(12 * MINUTE_S)
    assert {minute: site.counted()[minute] for minute in before} == before
    assert site.counted()[11] == (1, 0)


@pytest.mark.parametrize("clock_s", [-10 * 365 * DAY_S, 10 * 365 * DAY_S])
def test_a_wrong_clock_makes_nobody_silent_and_hides_nobody(clock_s: float) -> None:
    site, right = Site(), Site()
    for each, wrong_s in ((site, clock_s), (right, 0.0)):
        for name in "xy":
            each.infer(name, 0)
        for minute in range(1, 20):
            each.beat("x", minute * MINUTE_S, clock_s=wrong_s)
    assert site.ticks == right.ticks
    assert site.troubles(1_140) == right.troubles(1_140)


def test_ticks_of_two_slos_of_a_contract_are_told_apart() -> None:
    site = Site(plan(contract("a", slos=(fresh(600.0), success(), fresh(120.0)))))
    site.infer("x", 0)
    site.turn(5 * MINUTE_S + 30)
    last = {each.place: (each.good, each.bad) for each in site.ticks[-2:]}
    assert last == {0: (1, 0), 1: (0, 1)}


@dataclass(frozen=True)
class Word:
    at_s: float
    device: str
    is_inference: bool


def words(seed: int) -> list[Word]:
    """Four hours of devices that come and go, with pauses in which nobody is heard."""
    rng = np.random.default_rng(seed)
    found = []
    for device in range(6):
        at_s = 0.0
        while at_s < 4 * HOUR_S:
            at_s += float(rng.choice([20, 45, 280, 310, 900], p=[0.5, 0.3, 0.1, 0.05, 0.05]))
            is_silent = (at_s // 1_800 + device) % 4 == 0 or 5_000 < at_s < 6_500
            if not is_silent:
                found.append(Word(at_s + device * 0.25, f"d{device}", bool(rng.random() < 0.3)))
    return sorted(found, key=lambda each: each.at_s)


def recount(told: Sequence[Word], end_s: float) -> dict[int, tuple[int, int]]:
    """Judge each minute from the list of words alone."""
    times = [each.at_s for each in told] + [end_s]
    judged: dict[int, tuple[int, int]] = {}
    first = int((times[0] - 30) // MINUTE_S)
    for minute in range(first + 1, int((end_s - 30) // MINUTE_S) + 1):
        turn_s = next(each for each in times if each >= minute * MINUTE_S + 30)
        known = [each for each in told if each.at_s < turn_s]
        site_s, paused_s, resumed_s = 0.0, 0.0, 0.0
        for each in known:
            if site_s and each.at_s - max(site_s, resumed_s) >= 300:
                paused_s, resumed_s = site_s, each.at_s
            site_s = each.at_s
        last = {each.device: each.at_s for each in known}
        counts: Counter[bool] = Counter()
        for device in {each.device for each in known if each.is_inference}:
            heard_s = last[device]
            if paused_s - 300 <= heard_s < resumed_s:
                heard_s = resumed_s
            counts[minute * MINUTE_S - heard_s >= 300] += 1
        if counts:
            judged[minute] = (counts[False], counts[True])
    return judged


def test_ticks_are_those_of_a_recount_with_and_without_idle_steps(seed: int) -> None:
    told = words(seed)
    end_s = 4 * HOUR_S + 900
    plain, idle = Site(), Site()
    rng = np.random.default_rng(seed)
    for each, after in zip(told, [*told[1:], None], strict=True):
        for site in (plain, idle):
            (site.infer if each.is_inference else site.beat)(each.device, each.at_s)
        if after is not None:
            for share in np.sort(rng.random(3)).tolist():
                idle.turn(each.at_s + share * (after.at_s - each.at_s))
    plain.turn(end_s)
    idle.turn(end_s)
    expected = recount(told, end_s)
    assert plain.counted() == expected
    assert idle.counted() == expected
    assert sum(bad for _, bad in expected.values()) > 50


def test_a_restart_changes_nothing(seed: int) -> None:
    told = words(seed)
    plain, before = Site(), Site()
    half = len(told) // 2
    for each in told:
        (plain.infer if each.is_inference else plain.beat)(each.device, each.at_s)
    for each in told[:half]:
        (before.infer if each.is_inference else before.beat)(each.device, each.at_s)
    after = Site()
    after.devices.restore(before.devices.state())
    after.freshness.restore(before.freshness.state())
    for each in told[half:]:
        (after.infer if each.is_inference else after.beat)(each.device, each.at_s)
    assert before.ticks + after.ticks == plain.ticks
    last_s = told[-1].at_s + 400
    assert after.troubles(last_s) == plain.troubles(last_s)


def test_after_a_long_pause_the_last_six_hours_are_judged() -> None:
    site = Site()
    site.infer("x", 0)
    site.turn(20 * HOUR_S)
    assert len(site.ticks) == 360
    assert not Site().freshness.turn(START_NS)


def test_the_later_minute_stays_when_sites_are_merged() -> None:
    one, two = Site(), Site()
    one.turn(600)
    two.turn(1_200)
    joined = merge(one.freshness.state(), two.freshness.state())
    assert np.array_equal(joined["minute"], two.freshness.state()["minute"])


def test_without_contracts_and_with_many_each_device_is_counted_where_it_belongs() -> None:
    none = Site(compile_plan((), SamplingSection()))
    none.beat("x", 0)
    assert none.troubles(299) == {}
    assert none.troubles(300)["", SUBJECT].numbers["devices_silent"] == 1
    models = [f"m{at}" for at in range(9)]
    many = Site(
        plan(*(contract(each, slos=(fresh(300.0 + at),)) for at, each in enumerate(models)))
    )
    for at, model in enumerate(models[:-1]):
        for device in range(at):
            many.infer(f"{model}-{device}", 0, model)
    many.turn(400)
    found = many.troubles(400)
    assert {each: found[each, SUBJECT].numbers["devices_silent"] for each in models[1:-1]} == {
        model: at for at, model in enumerate(models) if 0 < at < 8
    }
    last = [each for each in many.ticks if each.at_ns == START_NS + 6 * MINUTE_NS]
    assert {each.contract: (each.good, each.bad) for each in last} == {
        at: (0, at) for at in range(1, 8)
    }
    assert [(each.expected, each.silent) for each in many.freshness.views(START_NS)] == [
        *((at, 0) for at in range(8)),
        (0, 0),
    ]
