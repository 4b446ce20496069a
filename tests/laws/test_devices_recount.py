"""Law: the figures of a device are those of a recount of what it sent, whatever others send."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from gateway.batch import NO_CONTRACT
from gateway.measure.devices.devices import JITTER_SPAN_NS, NO_DELAY, OTHER, Devices, merge
from gateway.measure.match import Matcher
from gateway.measure.settings import MeasureSettings
from gateway.otlp.readings import Heard
from tests.conftest import FUZZ
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    batch,
    contract,
    payload,
    plan,
    request,
    span,
)

PLAN = plan(contract("a"), contract("b"))
MATCHER = Matcher(PLAN)
SETTINGS = MeasureSettings()
AHEAD_NS = round(SETTINGS.clock_ahead_s * SECOND_NS)
YEARS_NS = 10 * 365 * 86_400 * SECOND_NS
NAMES = ("north", "south", "east", "west", "")
VERSIONS = ("1", "2")
ROUNDS = 400 if FUZZ else 8


@dataclass(frozen=True)
class One:
    """One span: its times, and the model it is an inference of, if any."""

    start_ns: int
    end_ns: int
    model: str


@dataclass(frozen=True)
class Sent:
    """One request of spans, or one parcel when it has no spans."""

    device: str
    arrival_ns: int
    spans: tuple[One, ...]
    newest_ns: int
    items: int

    def body(self) -> bytes:
        made = []
        for at, one in enumerate(self.spans):
            each = span(1 + at, attributes={"edgeai.model.name": one.model} if one.model else {})
            each.start_time_unix_nano, each.end_time_unix_nano = one.start_ns, one.end_ns
            made.append(each)
        return request(made, {"device.id": self.device} if self.device else {})


def drawn(rng: np.random.Generator, count: int = 60) -> list[Sent]:
    """Requests and parcels of ten minutes, in the order in which they arrive."""
    found = []
    clocks = {name: int(rng.choice([0, 0, -YEARS_NS, YEARS_NS, 7 * SECOND_NS])) for name in NAMES}
    for arrival_s in np.sort(rng.choice(599_000, count, replace=False)).tolist():
        arrival_ns = START_NS + arrival_s * 1_000_000
        device = NAMES[rng.integers(len(NAMES))]
        spans = []
        for _ in range(int(rng.integers(0, 6))):
            end_ns = arrival_ns + clocks[device] - int(rng.integers(0, 90 * SECOND_NS))
            start_ns = end_ns - int(rng.integers(-2, 50)) * 1_000_000
            if rng.random() < 0.05:
                start_ns = end_ns = 0
            model = ("", "a", "b")[rng.integers(3)]
            spans.append(One(start_ns, end_ns, model))
        found.append(
            Sent(
                device=device,
                arrival_ns=arrival_ns,
                spans=tuple(spans),
                newest_ns=0 if rng.random() < 0.1 else arrival_ns + clocks[device] - 5_000,
                items=int(rng.integers(0, 9)),
            )
        )
    return found


def take(devices: Devices, group: Sequence[Sent]) -> None:
    """Take some requests as one batch, then the parcels of the group."""
    bodies = [payload(each.body(), arrival_ns=each.arrival_ns) for each in group if each.spans]
    if bodies:
        one = batch(PLAN, *bodies)
        runs = devices.find(one)
        start, end = (one.spans[name].astype(np.int64) for name in ("start_ns", "end_ns"))
        devices.add(one, runs, start, end)
        matched = MATCHER.contracts(one)
        series = np.where(matched == NO_CONTRACT, -1, 0)
        devices.infer(one, runs, matched, series, (("", VERSIONS[0]),))
    for each in group:
        if not each.spans:
            heard = Heard(device=each.device, newest_ns=each.newest_ns, items=each.items, bytes=7)
            devices.hear([heard], each.arrival_ns)


def measured(sent: Sequence[Sent], rng: np.random.Generator) -> Devices:
    devices = Devices(PLAN, SETTINGS)
    devices.turn(START_NS)
    start = 0
    while start < len(sent):
        size = int(rng.integers(1, 9))
        take(devices, sent[start : start + size])
        start += size
    return devices


def figures(devices: Devices) -> dict[str, dict[str, int]]:
    offsets, jitter = devices.offsets_ns(), devices.jitter_ns()
    named = ("spans", "items", "bytes", "invalid", "future", "last_arrival_ns", "last_event_ns")
    return {
        name: {
            **{each: int(getattr(devices, each)[at]) for each in (*named, "last_inference_ns")},
            "least": int(offsets[at]),
            "jitter": int(jitter[at]),
        }
        for at, name in enumerate(devices.names)
        if name != OTHER
    }


def recount(sent: Sequence[Sent]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    delays: dict[str, list[int]] = {}
    for each in sent:
        mine = found.setdefault(each.device, dict.fromkeys(_ZEROS, 0))
        ends = [one.end_ns for one in each.spans]
        newest_ns = max(ends) if ends else each.newest_ns
        latest_ns = each.arrival_ns + AHEAD_NS
        mine["spans"] += len(ends)
        mine["items"] += 0 if ends else each.items
        mine["bytes"] += len(each.body()) if ends else 7
        mine["invalid"] += sum(one.end_ns < max(one.start_ns, 1) for one in each.spans)
        mine["future"] += sum(end > latest_ns for end in ends)
        mine["last_arrival_ns"] = max(mine["last_arrival_ns"], each.arrival_ns)
        mine["last_event_ns"] = max(mine["last_event_ns"], min(newest_ns, latest_ns))
        if any(one.model for one in each.spans):
            mine["last_inference_ns"] = each.arrival_ns
        if newest_ns:
            delays.setdefault(each.device, []).append(each.arrival_ns - newest_ns)
    for name, mine in found.items():
        mine["least"] = min(delays.get(name, [NO_DELAY]))
        mine["jitter"] = NO_DELAY
        if mine["least"] != NO_DELAY and abs(mine["least"]) <= JITTER_SPAN_NS:
            inside = [max(-JITTER_SPAN_NS, min(JITTER_SPAN_NS, each)) for each in delays[name]]
            mean_ns = sum(each // 1_000 for each in inside) * 1_000 // len(inside)
            mine["jitter"] = max(0, mean_ns - mine["least"])
    return found


_ZEROS = (
    *("spans", "items", "bytes", "invalid", "future"),
    *("last_arrival_ns", "last_event_ns", "last_inference_ns"),
)


@pytest.mark.parametrize("step", range(ROUNDS))
def test_figures_are_those_of_a_recount(seed: int, step: int) -> None:
    rng = np.random.default_rng([seed, step])
    sent = drawn(rng)
    assert figures(measured(sent, rng)) == recount(sent)


@pytest.mark.parametrize("step", range(ROUNDS))
def test_the_order_and_the_number_of_sites_change_no_figure(seed: int, step: int) -> None:
    rng = np.random.default_rng([seed, step])
    sent = drawn(rng)
    shuffled = [sent[at] for at in rng.permutation(len(sent)).tolist()]
    assert figures(measured(shuffled, rng)) == recount(sent)
    states = [measured(sent[part::3], rng).state() for part in rng.permutation(3).tolist()]
    joined = Devices(PLAN, SETTINGS)
    joined.restore(merge(merge(states[0], states[1]), states[2]))
    assert figures(joined) == recount(sent)


@pytest.mark.parametrize("step", range(ROUNDS))
def test_what_one_device_sends_changes_no_figure_of_another(seed: int, step: int) -> None:
    rng = np.random.default_rng([seed, step])
    sent = drawn(rng)
    liar = NAMES[step % len(NAMES)]
    whole = figures(measured(sent, rng))
    without = figures(measured([each for each in sent if each.device != liar], rng))
    assert {name: mine for name, mine in whole.items() if name != liar} == without
