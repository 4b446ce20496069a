"""Save, restore and merge the streams.

Law: a stream is saved under model, version, signal and grid, with the order of the classes where
it is named by a place among them. After a change of contracts only the
streams that still mean the same come back; the others start anew. A baseline file wins over what
was saved: the evidence goes on only against the same baseline.
"""

import json
from collections.abc import Mapping

import numpy as np

from gateway.batch import Json
from gateway.errors import CorruptDataError
from gateway.measure.drift import seasonstate
from gateway.measure.drift.baseline import Baseline, thawed
from gateway.measure.drift.collect import Collection
from gateway.measure.drift.counting import INCLUSION_LANE
from gateway.measure.drift.grid import Grid
from gateway.measure.drift.inclusion import WEIGHTS
from gateway.measure.drift.shadow import Superseded, saved
from gateway.measure.drift.streams import Streams
from gateway.measure.state import Array, Int64, State, pack_json, part, prefixed, union, unpack_json
from gateway.tables import UInt32


def save(streams: Streams) -> State:
    """Copy all streams."""
    items: list[Json] = []
    arrays: list[Int64] = []
    # Streams of weights are opened later than others of their series.
    order = sorted(range(len(streams.items)), key=lambda each: streams.items[each].series)
    for number in order:
        item = streams.items[number]
        lane = streams.lanes[item.lane]
        baseline, candidate = streams.baselines.get(number), streams.candidates.get(number)
        collection = streams.collections.get(number)
        superseded = streams.superseded.get(number)
        items.append(
            {
                "key": [*item.key, _meaning(streams, number)],
                "width": lane.grid.width,
                "opened": int(lane.opened[item.row]),
                "seen": int(lane.seen[item.row]),
                "due": int(lane.due[item.row]),
                "inherited": number in streams.inherited,
                "baseline": _described(baseline),
                "candidate": _described(candidate),
                "collection": collection and [collection.refusals, len(collection.blocks)],
                "superseded": superseded
                and [superseded.digest, superseded.events, superseded.at_ns],
                **({"row": item.row} if item.lane == INCLUSION_LANE else {}),
            }
        )
        arrays += [lane.total[item.row], lane.open[item.row]]
        arrays += [each.counts for each in (baseline, candidate) if each is not None]
        if collection is not None:
            arrays += [collection.last, *collection.blocks]
    rows = np.array(order, dtype=np.int64)
    keys = {number: item["key"] for number, item in zip(order, items, strict=True)}
    shadows = streams.shadows.state(keys)
    return {
        "items": pack_json(items),
        "counts": np.concatenate([np.zeros(0, dtype=np.int64), *arrays]),
        "tick": np.array([streams.tick], dtype=np.int64),
        "detectors": np.array([streams.budget.detectors], dtype=np.int64),
        **prefixed("bank", streams.bank.state(rows)),
        **prefixed("shadow", shadows),
        **prefixed("seasons", seasonstate.save(streams.seasons, _held(streams), order)),
    }


def _meaning(streams: Streams, number: int) -> str:
    """Return text that streams of one name share when they count the same."""
    order = streams.items[number].order
    return streams.grid(number).name + (f" of {order}" if order else "")


def _held(streams: Streams) -> list[Baseline]:
    """List the baselines that are saved."""
    beside = [baseline for _, baseline in streams.shadows.baselines()]
    return [*streams.baselines.values(), *streams.candidates.values(), *beside]


def _described(baseline: Baseline | None) -> Json:
    if baseline is None:
        return None
    return [baseline.phi, baseline.unsteady, baseline.digest, baseline.noise]


class _Reader:
    """Takes arrays off the front of the saved counts."""

    def __init__(self, counts: Array, hours: Mapping[str, UInt32]) -> None:
        self._counts = counts
        self._hours = hours
        self._at = 0

    def take(self, width: int) -> Int64:
        end = self._at + width
        if end > len(self._counts):
            raise CorruptDataError("the saved counts of streams are shorter than their list")
        taken: Int64 = self._counts[self._at : end].astype(np.int64)
        self._at = end
        return taken

    def baseline(self, grid: Grid | None, width: int, described: Json) -> Baseline | None:
        if described is None:
            return None
        counts = self.take(width)
        if grid is None:
            return None
        phi, unsteady, digest, *later = described
        noise = later[0] if later else 0.0
        hours = self._hours.get(digest)
        baseline = thawed(grid, counts, phi, unsteady=unsteady, noise=noise, hours=hours)
        if baseline.digest != digest:
            raise CorruptDataError(f"baseline {digest} does not match its counts")
        return baseline


def load(streams: Streams, state: Mapping[str, Array]) -> None:
    """Put saved streams back into those that the restored series have opened."""
    streams.tick = int(state["tick"][0])
    if "detectors" in state:
        streams.budget.restore(int(state["detectors"][0]))
    items = unpack_json(state["items"])
    _open_weights(streams, items)
    widths = _widths(items, len(state["counts"]))
    seasons = part("seasons", state)
    reader = _Reader(state["counts"], seasonstate.hours(seasons))
    rhythms = seasonstate.rhythms(seasons)
    bank = part("bank", state)
    stale: set[int] = set()
    ours: list[int] = []
    theirs: list[int] = []
    for index, (item, width) in enumerate(zip(items, widths, strict=True)):
        model, version, signal, meaning = item["key"]
        number = streams.number_of(model, version, signal)
        if number is not None and _meaning(streams, number) != meaning:
            number = None
        total, open_tick = reader.take(width), reader.take(width)
        grid = None if number is None else streams.grid(number)
        baseline = reader.baseline(grid, width, item["baseline"])
        candidate = reader.baseline(grid, width, item["candidate"])
        collection = _collection(reader, width, item["collection"])
        if number is None:
            continue
        ours.append(number)
        theirs.append(index)
        progress = {"opened": item["opened"], "seen": item["seen"]}
        streams.reset(number, total, open_tick, **progress)
        rhythm = rhythms.get(index)
        if streams.seasons.has(number):
            # What was learned without a season cannot be judged or gone on with by the hour.
            is_stale = baseline is not None and baseline.hours is None
            stale |= {number} if is_stale else set()
            baseline, candidate = (
                None if each is None or each.hours is None else each
                for each in (baseline, candidate)
            )
            collection = None if rhythm is None or is_stale else collection
        elif rhythm is not None:
            collection = None
        if baseline is not None:
            streams.arm(number, baseline)
        learns = streams.maybe_given(number) is None
        if candidate is not None and learns:
            streams.candidates[number] = candidate
        if item["inherited"] and learns and number not in stale:
            streams.inherited.add(number)
        if collection is not None and learns:
            if rhythm is not None:
                streams.seasons.rhythms[number] = rhythm
            streams.resume(number, collection, item["due"])
        elif seasonstate.waits(seasons, index) and streams.seasons.has(number):
            streams.seasons.waiting.add(number)
        elif number not in stale and (
            item["collection"] is not None  # what was collected in another way begins anew
            or (candidate is None and not (baseline and streams.is_large_enough(number, baseline)))
        ):
            streams.collect(number)
        if item.get("superseded"):
            digest, events, at_ns = item["superseded"]
            streams.superseded[number] = Superseded(digest=digest, events=events, at_ns=at_ns)
    rows = np.array(ours, dtype=np.int64)
    streams.bank.restore(rows, {name: array[theirs] for name, array in bank.items()})
    streams.seasons.late_events = seasonstate.late_events(seasons)
    for number in range(len(streams.items)):
        from_file = streams.maybe_given(number)
        held = streams.baselines.get(number)
        if (
            number in stale
            or number not in ours
            or (from_file is not None and (held is None or held.digest != from_file.digest))
        ):
            streams.begin(number)
    # After a change of contracts there may be room.
    streams.collect_waiting()
    _load_shadows(streams, part("shadow", state), seasonstate.hours(seasons))


def _load_shadows(
    streams: Streams, state: Mapping[str, Array], hours: Mapping[str, UInt32]
) -> None:
    """Put the shadows back of streams that learn and still mean the same."""
    for each in saved(state):
        model, version, signal, meaning = each.key
        number = streams.number_of(model, version, signal)
        if number is None or _meaning(streams, number) != meaning:
            continue
        if number in streams.baselines and streams.maybe_given(number) is None:
            baseline = each.baseline(streams.grid(number), hours)
            if streams.seasons.has(number) and baseline.hours is None:
                continue
            streams.shade(number, baseline, each.until_ns)
            streams.shadows.resume(number, each)


def _open_weights(streams: Streams, items: list[Json]) -> None:
    """Open the streams of weights that were saved, in the order in which they were opened."""
    saved = [item for item in items if item["key"][3] == WEIGHTS.name]
    # A merged state has no order of its own.
    saved.sort(key=lambda item: int(item.get("row", 0)))
    streams.resume_weights([(item["key"][0], item["key"][1]) for item in saved])


def _collection(reader: _Reader, width: int, described: Json) -> Collection | None:
    if described is None:
        return None
    refusals, blocks = described
    last = reader.take(width)
    return Collection(
        last=last, refusals=refusals, blocks=[reader.take(width) for _ in range(blocks)]
    )


def _arrays_of(item: Json) -> int:
    """Count the saved arrays of one stream."""
    collection = item["collection"]
    return (
        2
        + (item["baseline"] is not None)
        + (item["candidate"] is not None)
        + (0 if collection is None else 1 + collection[1])
    )


def _widths(items: list[Json], values: int) -> list[int]:
    """Return the grid width of each stream. Raises: CorruptDataError when the sizes disagree."""
    widths = [int(item["width"]) for item in items]
    if sum(_arrays_of(item) * width for item, width in zip(items, widths, strict=True)) != values:
        raise CorruptDataError("the saved counts of streams do not fit their list")
    return widths


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add the counts of two states by stream.

    A baseline stays where both have the same one or only one of them has any. Evidence does not
    add: detectors start anew, and so does what was being collected. Shadows are dropped with it.
    """
    read = [_totals(state) for state in (first, second)]
    names, _ = union([*read[0]], [*read[1]])
    items: list[Json] = []
    arrays: list[Int64] = []
    for key in names:
        found = [each[key] for each in read if key in each]
        described = [(item["baseline"], counts) for item, _, counts in found if item["baseline"]]
        agreed = described[0] if len({each[0][2] for each in described}) == 1 else None
        total = np.sum([each[1] for each in found], axis=0)
        items.append(
            {
                "key": json.loads(key),
                "width": len(total),
                "opened": max(each[0]["opened"] for each in found),
                "seen": 0,
                "due": 0,
                "inherited": False,
                "baseline": agreed and agreed[0],
                "candidate": None,
                "collection": None,
            }
        )
        arrays += [total, np.zeros_like(total)]
        if agreed:
            arrays.append(agreed[1])
    empty = part("bank", first)
    bank = {
        name: np.full(
            (len(names), *array.shape[1:]),
            -np.inf if name in ("log_m", "lasting") else 0,
            dtype=array.dtype,
        )
        for name, array in empty.items()
    }
    return {
        "items": pack_json(items),
        "counts": np.concatenate([np.zeros(0, dtype=np.int64), *arrays]),
        "tick": np.maximum(first["tick"], second["tick"]),
        "detectors": np.array(
            [max(int(each.get("detectors", [0])[0]) for each in (first, second))], dtype=np.int64
        ),
        **prefixed("bank", bank),
        **prefixed("seasons", seasonstate.merge(part("seasons", first), part("seasons", second))),
    }


def _totals(state: Mapping[str, Array]) -> dict[str, tuple[Json, Int64, Int64]]:
    """Return each stream's description, its counts, and its baseline's counts if there are any."""
    items = unpack_json(state["items"])
    reader = _Reader(state["counts"], {})
    found = {}
    for item, width in zip(items, _widths(items, len(state["counts"])), strict=True):
        arrays = [reader.take(width) for _ in range(_arrays_of(item))]
        found[json.dumps(item["key"])] = (item, arrays[0] + arrays[1], arrays[2:3])
    return {
        key: (item, total, reference[0] if reference else np.zeros(0, dtype=np.int64))
        for key, (item, total, reference) in found.items()
    }
