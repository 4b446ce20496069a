"""What is known of each device: when it was last heard, how much it sends, how wrong its clock is.

Law: all figures merge, by sums, maxima and minima. Past devices_max further devices count together
as "~other".

Clock: a span that ends at e and arrives at a was under way for a - e by the gateway's clock less
the device's offset. The least a - e of the last ten to twenty minutes is an upper bound of how far
the device's clock is behind; where it is negative, the clock is ahead by at least that much.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from gateway.batch import Batch
from gateway.contract.plan import Plan
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, grown, pack_json, union, unpack_json
from gateway.measure.texts import ABSENT, OVERFLOW, Interner
from gateway.otlp.columns import resource_texts
from gateway.tables import Int32

OTHER: Final = "~other"
OTHER_INDEX: Final = 0
NO_DELAY: Final = (1 << 63) - 1
GENERATION_NS: Final = 600 * SECOND_NS


class Devices:
    """Devices by index; index 0 is what did not fit."""

    def __init__(self, plan: Plan, devices_max: int) -> None:
        self._id_slot = plan.slot_of["device.id"]
        self._instance_slot = plan.slot_of["service.instance.id"]
        self._known = Interner(devices_max + 1)
        self._known.index(OTHER.encode())
        self.last_event_ns = np.zeros(1, dtype=np.int64)
        self.last_arrival_ns = np.zeros(1, dtype=np.int64)
        self.spans = np.zeros(1, dtype=np.int64)
        self.bytes = np.zeros(1, dtype=np.int64)
        self._least_now = np.full(1, NO_DELAY, dtype=np.int64)
        self._least_before = np.full(1, NO_DELAY, dtype=np.int64)
        self._generation = 0
        self.overflow_spans = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all devices by index."""
        return self._known.names

    def find(self, batch: Batch) -> Int32:
        """Find the device of each span: the identity of its sender, else what it says of itself.

        An authenticated sender speaks for itself only; an anonymous one is named by device.id, else
        by service.instance.id.
        """
        offset, length, present = resource_texts(batch, self._id_slot)
        of_resource = self._known.indices(batch.arena, offset, length, present)
        if (of_resource == ABSENT).any():
            offset, length, present = resource_texts(batch, self._instance_slot)
            present &= of_resource == ABSENT
            if present.any():
                more = self._known.indices(batch.arena, offset, length, present)
                of_resource = np.where(present, more, of_resource)
        found: Int32 = of_resource[batch.spans["resource"]]
        if any(batch.identities) or (found == ABSENT).any():
            known = [self._known.index(name.encode()) for name in batch.identities]
            identity = batch.requests["identity"][batch.spans["request"]]
            by_identity = np.array(known, dtype=np.int32)[identity]
            is_named = np.array([bool(name) for name in batch.identities])[identity]
            found = np.where(is_named | (found == ABSENT), by_identity, found)
        lost = found == OVERFLOW
        if lost.any():
            self.overflow_spans += int(lost.sum())
            found[lost] = OTHER_INDEX
        self._reserve(len(self._known))
        return found

    def add(
        self, batch: Batch, device: Int64, end_ns: Int64, event_ns: Int64, arrival_ns: Int64
    ) -> None:
        """Count all spans of a batch. Shape: all (spans,)."""
        np.add.at(self.spans, device, 1)
        np.maximum.at(self.last_event_ns, device, event_ns)
        np.maximum.at(self.last_arrival_ns, device, arrival_ns)
        np.minimum.at(self._least_now, device, arrival_ns - end_ns)
        # A request comes from one device; where it does not, its bytes are the first span's.
        of_request = np.full(len(batch.requests), -1, dtype=np.int64)
        of_request[batch.spans["request"][::-1]] = device[::-1]
        held = of_request >= 0
        np.add.at(
            self.bytes, of_request[held], batch.requests["body_length"][held].astype(np.int64)
        )

    def turn(self, now_ns: int) -> None:
        """Start a new generation of delay minima when it is time."""
        generation = now_ns // GENERATION_NS
        if generation <= self._generation:
            return
        follows = generation == self._generation + 1
        fresh = np.full_like(self._least_now, NO_DELAY)
        self._least_before = self._least_now if follows else fresh.copy()
        self._least_now = fresh
        self._generation = generation

    def offsets_ns(self) -> Int64:
        """Return the least delay of each device, NO_DELAY where none was seen lately."""
        least: Int64 = np.minimum(self._least_now, self._least_before)[: len(self)]
        return least

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
        return {
            "names": pack_json(list(self.names)),
            "counters": np.array([self._generation, self.overflow_spans], dtype=np.int64),
            **{name: getattr(self, name)[:count].copy() for name in _ADDED + _LATEST + _LEAST},
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put names and figures back."""
        names = unpack_json(state["names"])
        self._known.load([name.encode() for name in names])
        self._reserve(len(names))
        self._generation, self.overflow_spans = state["counters"].tolist()
        for name in _ADDED + _LATEST + _LEAST:
            getattr(self, name)[: len(names)] = state[name]


_ADDED: Final = ("spans", "bytes")
_LATEST: Final = ("last_event_ns", "last_arrival_ns")
_LEAST: Final = ("_least_now", "_least_before")


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Join two states by device name."""
    names, where = union(unpack_json(first["names"]), unpack_json(second["names"]))
    place = np.asarray(where, dtype=np.intp)
    counters = first["counters"] + second["counters"]
    counters[0] = max(first["counters"][0], second["counters"][0])
    total: State = {"names": pack_json(names), "counters": counters}
    for name in _ADDED + _LATEST + _LEAST:
        fill = NO_DELAY if name in _LEAST else 0
        row = np.full(len(names), fill, dtype=np.int64)
        row[: len(first[name])] = first[name]
        if name in _ADDED:
            row[place] += second[name]
        else:
            join = np.maximum if name in _LATEST else np.minimum
            row[place] = join(row[place], second[name])
        total[name] = row
    return total
