"""What is known of each device: when it was heard, how much it sends, how wrong its clock is.

Law: all figures merge, by sums, maxima and minima. Past devices_max further devices count together
as "~other". What one device sends changes the figures of no other: everything is kept by device,
and no figure but the delay is made of a device's own time.

Clock: an item that ends at e and arrives at a was under way for a - e by the gateway's clock less
the device's offset. The least a - e of the last ten to twenty minutes is an upper bound of how far
the device's clock is behind; where it is negative, the clock is ahead by at least that much.
Jitter is the mean of a - e over the newest item of each request, less the least. Over all spans the
mean would tell how long an exporter gathers a batch, not how steady the way is.

Complexity: figures are reduced over runs first, so that a span costs a few passes of numpy and no
scattered add.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from gateway.batch import Batch
from gateway.contract.plan import Plan
from gateway.measure.devices.hosts import Hosts
from gateway.measure.devices.hosts import merge as merge_hosts
from gateway.measure.devices.placement import Placement
from gateway.measure.devices.placement import merge as merge_placement
from gateway.measure.devices.runs import Runs, starts
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.state import (
    Array,
    Int64,
    State,
    grown,
    pack_json,
    part,
    prefixed,
    union,
    unpack_json,
)
from gateway.measure.texts import ABSENT, OVERFLOW, Interner
from gateway.otlp.columns import resource_texts
from gateway.otlp.readings import Heard
from gateway.tables import Bool, Int32

OTHER: Final = "~other"
OTHER_INDEX: Final = 0
# The gateway's own senders, such as its API, are no devices.
OWN_PREFIX: Final = "~"
NO_DELAY: Final = (1 << 63) - 1
GENERATION_NS: Final = 600 * SECOND_NS
# Delays are summed within a day: a clock that is further off has no jitter that could be told, and
# 10^8 requests of one generation still fit.
JITTER_SPAN_NS: Final = 86_400 * SECOND_NS
MICROSECOND_NS: Final = 1_000
# After nothing at all was heard for this long, each device gets time to be heard again.
PAUSE_NS: Final = 300 * SECOND_NS
# Half of the int64 range in nanoseconds: 146 years, and differences still fit.
TIME_NS_MAX: Final = 1 << 62

Name = tuple[str, str]  # model, version


class Devices:
    """Devices by index; index 0 is what did not fit."""

    def __init__(self, plan: Plan, settings: MeasureSettings) -> None:
        self._id_slot = plan.slot_of["device.id"]
        self._instance_slot = plan.slot_of["service.instance.id"]
        self._ahead_ns = round(settings.clock_ahead_s * SECOND_NS)
        self._known = Interner(settings.devices_max + 1)
        self._known.index(OTHER.encode())
        self.last_event_ns = np.zeros(1, dtype=np.int64)  # of anything heard
        self.last_arrival_ns = np.zeros(1, dtype=np.int64)  # of anything heard
        self.last_inference_ns = np.zeros(1, dtype=np.int64)  # when the newest inference arrived
        self.dismissed_ns = np.zeros(1, dtype=np.int64)  # when it was said to be gone
        self.spans = np.zeros(1, dtype=np.int64)
        self.items = np.zeros(1, dtype=np.int64)  # metric points and log records
        self.bytes = np.zeros(1, dtype=np.int64)
        self.invalid = np.zeros(1, dtype=np.int64)  # spans that end before they start, or never
        self.future = np.zeros(1, dtype=np.int64)  # spans that end too far in the future
        self.invalid_readings = np.zeros(1, dtype=np.int64)
        self._least_now = np.full(1, NO_DELAY, dtype=np.int64)
        self._least_before = np.full(1, NO_DELAY, dtype=np.int64)
        self._delay_us_now = np.zeros(1, dtype=np.int64)
        self._delay_us_before = np.zeros(1, dtype=np.int64)
        self._requests_now = np.zeros(1, dtype=np.int64)
        self._requests_before = np.zeros(1, dtype=np.int64)
        self._generation = 0
        # The newest arrival from any device; when it ended before the last pause, and when it went
        # on then. A pause of the gateway and one of the whole site look the same.
        self.site_ns = 0
        self.paused_ns = 0
        self.resumed_ns = 0
        self.overflow_spans = 0
        self.overflow_items = 0
        self.models = Placement(plan)
        self.hosts = Hosts()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all devices by index."""
        return self._known.names

    def find(self, batch: Batch) -> Runs:
        """Find the runs of a batch and the device of each.

        An authenticated sender speaks for itself only; an anonymous one is named by device.id, else
        by service.instance.id.
        """
        start = starts(batch.spans)
        request, resource = batch.spans["request"][start], batch.spans["resource"][start]
        found = self._of_resources(batch)[resource]
        if any(batch.identities) or np.count_nonzero(found == ABSENT):
            known = [self._known.index(name.encode()) for name in batch.identities]
            identity = batch.requests["identity"][request]
            by_identity = np.array(known, dtype=np.int32)[identity]
            is_named = np.array([bool(name) for name in batch.identities])[identity]
            found = np.where(is_named | (found == ABSENT), by_identity, found)
        count = np.append(start[1:], len(batch.spans)) - start
        lost = found == OVERFLOW
        if np.count_nonzero(lost):
            self.overflow_spans += int(count[lost].sum())
            found[lost] = OTHER_INDEX
        self._reserve(len(self._known))
        return Runs(
            start=start,
            count=count,
            request=request,
            resource=resource,
            device=found.astype(np.int64),
            arrival_ns=batch.requests["arrival_ns"].astype(np.int64)[request],
        )

    def _of_resources(self, batch: Batch) -> Int32:
        offset, length, present = resource_texts(batch, self._id_slot)
        found = self._known.indices(batch.arena, offset, length, present)
        if np.count_nonzero(found == ABSENT):
            offset, length, present = resource_texts(batch, self._instance_slot)
            present &= found == ABSENT
            if present.any():
                more = self._known.indices(batch.arena, offset, length, present)
                found = np.where(present, more, found)
        return found

    def add(self, batch: Batch, runs: Runs, start_ns: Int64, end_ns: Int64) -> None:
        """Count all spans of a batch. Shape: start_ns and end_ns (spans,)."""
        if len(runs.start) == 0:
            return
        newest = np.maximum.reduceat(end_ns, runs.start)
        self._hear(runs.device, runs.arrival_ns, newest)
        np.add.at(self.spans, runs.device, runs.count)
        # A request comes from one device; where it does not, its bytes are the first span's.
        of_request = np.full(len(batch.requests), -1, dtype=np.int64)
        of_request[runs.request[::-1]] = runs.device[::-1]
        held = of_request >= 0
        np.add.at(
            self.bytes, of_request[held], batch.requests["body_length"][held].astype(np.int64)
        )
        # An end of 0 is one that was not sent.
        self._count(self.invalid, runs, end_ns < np.maximum(start_ns, 1))
        latest = runs.arrival_ns + self._ahead_ns
        if np.count_nonzero(newest > latest):
            self._count(self.future, runs, end_ns > runs.rows(latest))

    @staticmethod
    def _count(total: Int64, runs: Runs, which: Bool) -> None:
        if np.count_nonzero(which):
            np.add.at(total, runs.device, np.add.reduceat(which.astype(np.int64), runs.start))

    def infer(
        self, batch: Batch, runs: Runs, contract: Array, series: Array, names: Sequence[Name]
    ) -> None:
        """Note which models ran where. Shape: contract and series (spans,), see `Placement`."""
        at = self.models.add(batch, runs, contract, series, names)
        np.maximum.at(self.last_inference_ns, runs.device[at], runs.arrival_ns[at])

    def hear(self, heard: Sequence[Heard], arrival_ns: int) -> None:
        """Count a parcel of metrics or logs."""
        index: list[int] = []
        some = [each for each in heard if not each.device.startswith(OWN_PREFIX)]
        for each in some:
            found = self._known.index(each.device.encode())
            if found == OVERFLOW:
                self.overflow_items += each.items
                found = OTHER_INDEX
            index.append(found)
        self._reserve(len(self._known))
        device = np.array(index, dtype=np.int64)
        newest = np.array([min(each.newest_ns, TIME_NS_MAX) for each in some], dtype=np.int64)
        self._hear(device, np.full(len(some), arrival_ns, dtype=np.int64), newest)
        for total, added in (
            (self.items, [each.items for each in some]),
            (self.bytes, [each.bytes for each in some]),
            (self.invalid_readings, [each.invalid for each in some]),
        ):
            np.add.at(total, device, np.array(added, dtype=np.int64))
        for at, each in zip(index, some, strict=True):
            if each.readings and at != OTHER_INDEX:
                self.hosts.add(at, each.readings, arrival_ns)

    def _hear(self, device: Int64, arrival_ns: Int64, newest_ns: Int64) -> None:
        """Note the newest item of some requests, 0 for one without a time. Shape: (requests,)."""
        if len(device) == 0:
            return
        self.resume(int(arrival_ns.min()))
        self.site_ns = max(self.site_ns, int(arrival_ns.max()))
        np.maximum.at(self.last_arrival_ns, device, arrival_ns)
        event_ns = np.minimum(newest_ns, arrival_ns + self._ahead_ns)
        np.maximum.at(self.last_event_ns, device, event_ns)
        timed = newest_ns > 0
        if np.count_nonzero(timed) < len(timed):
            device, arrival_ns, newest_ns = device[timed], arrival_ns[timed], newest_ns[timed]
        delay_ns = arrival_ns - newest_ns
        np.minimum.at(self._least_now, device, delay_ns)
        np.add.at(self._delay_us_now, device, _within(delay_ns) // MICROSECOND_NS)
        np.add.at(self._requests_now, device, 1)

    def turn(self, judged_ns: int) -> None:
        """Start a new generation of delays when it is time; called at every judgement."""
        generation = judged_ns // GENERATION_NS
        if generation <= self._generation:
            return
        for name, fill in _GENERATIONS.items():
            fresh = np.full_like(self._least_now, fill)
            now = getattr(self, f"{name}_now")
            follows = generation == self._generation + 1
            setattr(self, f"{name}_before", now if follows else fresh.copy())
            setattr(self, f"{name}_now", fresh)
        self._generation = generation

    @property
    def generation_ns(self) -> int:
        """Start of the generation before, from which on delays are known."""
        return max(0, self._generation - 1) * GENERATION_NS

    def offsets_ns(self) -> Int64:
        """Return the least delay of each device, NO_DELAY where none was seen lately."""
        least: Int64 = np.minimum(self._least_now, self._least_before)[: len(self)]
        return least

    def behind_ns(self) -> Int64:
        """Return the least delay of the last whole generation and since, 0 where none was seen."""
        whole = self._least_before[: len(self)]
        return np.where(whole == NO_DELAY, 0, np.maximum(self.offsets_ns(), 0))

    def jitter_ns(self) -> Int64:
        """Return the mean less the least delay, NO_DELAY where there is none that can be told."""
        count = (self._requests_now + self._requests_before)[: len(self)]
        total = (self._delay_us_now + self._delay_us_before)[: len(self)]
        least = self.offsets_ns()
        mean_ns = total * MICROSECOND_NS // np.maximum(count, 1)
        known = (count > 0) & (_within(least) == least)
        jitter = np.maximum(mean_ns - np.where(known, least, 0), 0)
        return np.where(known, jitter, NO_DELAY)

    def resume(self, at_ns: int) -> None:
        """Say that the gateway listens (again) from now on, if it was a while."""
        if self.site_ns and at_ns - max(self.site_ns, self.resumed_ns) >= PAUSE_NS:
            self.paused_ns, self.resumed_ns = self.site_ns, at_ns

    def heard_ns(self, within_ns: Array | int) -> Int64:
        """Return when each device was heard last, with the benefit of a pause.

        A device that had been heard within that time when a pause began counts as heard when it was
        over: in a pause nobody could be heard. Shape: (devices,).
        """
        heard = self.last_arrival_ns[: len(self)]
        benefits = (heard < self.resumed_ns) & (heard >= self.paused_ns - within_ns)
        return np.where(benefits, self.resumed_ns, heard)

    def dismiss(self, name: str, at_ns: int) -> bool:
        """Expect a device no more until it is heard again; False when it is not known."""
        if name not in self.names:
            return False
        self.dismissed_ns[self.names.index(name)] = at_ns
        return True

    def _reserve(self, count: int) -> None:
        if count <= len(self.spans):
            return
        for name in _ADDED + _LATEST:
            setattr(self, name, grown(getattr(self, name), count))
        for name in _LEAST:
            setattr(self, name, grown(getattr(self, name), count, NO_DELAY))

    def state(self) -> State:
        """Copy names and figures."""
        count = len(self)
        counters = [self._generation, self.overflow_spans, self.overflow_items]
        return {
            "names": pack_json(list(self.names)),
            "counters": np.array(counters, dtype=np.int64),
            "site": np.array([self.site_ns, self.paused_ns, self.resumed_ns], dtype=np.int64),
            **{name: getattr(self, name)[:count].copy() for name in _ADDED + _LATEST + _LEAST},
            **prefixed("models", self.models.state()),
            **prefixed("hosts", self.hosts.state()),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put names and figures back."""
        names = unpack_json(state["names"])
        self._known.load([name.encode() for name in names])
        self._reserve(len(names))
        self._generation, self.overflow_spans, self.overflow_items = state["counters"].tolist()
        self.site_ns, self.paused_ns, self.resumed_ns = state["site"].tolist()
        for name in _ADDED + _LATEST + _LEAST:
            getattr(self, name)[: len(names)] = state[name]
        self.models.restore(part("models", state))
        self.hosts.restore(part("hosts", state))


def _within(delay_ns: Int64) -> Int64:
    within: Int64 = np.minimum(np.maximum(delay_ns, -JITTER_SPAN_NS), JITTER_SPAN_NS)
    return within


# Figures of this generation and of the one before, and what each is where nothing was heard.
_GENERATIONS: Final[Mapping[str, int]] = {"_least": NO_DELAY, "_delay_us": 0, "_requests": 0}
_ADDED: Final = (
    *("spans", "items", "bytes", "invalid", "future", "invalid_readings"),
    *("_delay_us_now", "_delay_us_before", "_requests_now", "_requests_before"),
)
_LATEST: Final = ("last_event_ns", "last_arrival_ns", "last_inference_ns", "dismissed_ns")
_LEAST: Final = ("_least_now", "_least_before")


def _aligned(state: Mapping[str, Array], generation: int) -> State:
    """Move the figures of a state to the generation that they are in by a later time."""
    moved = dict(state)
    for name, fill in _GENERATIONS.items():
        now, before = state[f"{name}_now"], state[f"{name}_before"]
        fresh = np.full_like(now, fill)
        age = generation - int(state["counters"][0])
        moved[f"{name}_now"] = now if age == 0 else fresh
        moved[f"{name}_before"] = before if age == 0 else now if age == 1 else fresh
    return moved


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Join two states by device name."""
    names, where = union(unpack_json(first["names"]), unpack_json(second["names"]))
    place = np.asarray(where, dtype=np.intp)
    counters = first["counters"] + second["counters"]
    counters[0] = max(first["counters"][0], second["counters"][0])
    one, two = _aligned(first, int(counters[0])), _aligned(second, int(counters[0]))
    site = np.maximum(first["site"], second["site"])
    total: State = {"names": pack_json(names), "counters": counters, "site": site}
    for name in _ADDED + _LATEST + _LEAST:
        fill = NO_DELAY if name in _LEAST else 0
        row = np.full(len(names), fill, dtype=np.int64)
        row[: len(one[name])] = one[name]
        if name in _ADDED:
            row[place] += two[name]
        else:
            join = np.maximum if name in _LATEST else np.minimum
            row[place] = join(row[place], two[name])
        total[name] = row
    models = merge_placement(part("models", first), part("models", second), where)
    hosts = merge_hosts(part("hosts", first), part("hosts", second), where)
    return total | prefixed("models", models) | prefixed("hosts", hosts)
