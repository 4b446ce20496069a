"""Where the signals of each series are counted: the lanes of a plan, and their rows.

Law: a series opens its streams in one order: signals as the contract lists them, the confidence
of each class, and the weights of a sampler before the gateway, as soon as one is known. So lanes
and rows stand in the same order after a restart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from gateway.batch import Batch, Upstream
from gateway.contract.plan import Plan
from gateway.contract.schema import Signal
from gateway.measure.drift.conditional import Conditional, ConditionalLane, conditionals
from gateway.measure.drift.grid import Grid
from gateway.measure.drift.inclusion import INCLUSION, NO_PLACE, Inclusion
from gateway.measure.drift.lanes import Lane, LaneKey, measured
from gateway.measure.state import Int64
from gateway.tables import Bool

# The first lane, however late it gets its first row, so that alarms have one order.
INCLUSION_LANE: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Where a signal of a series is counted.

    `place` is that of the signal among those of its contract, NO_PLACE for weights. A stream of
    the events of one class has in `given` the place of the prediction and the bin of the class, in
    `part_of` the name of the signal that counts all events, and in `order` a digest of the classes
    where its name has only a place among them.
    """

    series: int
    model: str
    version: str
    signal: str
    contract: int
    lane: int
    row: int
    place: int
    given: tuple[int, int] | None = None
    part_of: str = ""
    order: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Model, version and signal."""
        return self.model, self.version, self.signal


class _Series(TypedDict):
    """What the streams of a series have in common."""

    series: int
    model: str
    version: str
    contract: int


class Counting:
    """All lanes of a plan. `readers` are those that read attributes."""

    def __init__(self, plan: Plan) -> None:
        self._slot_of = plan.slot_of
        self._measured = [measured(contract) for contract in plan.contracts]
        self._conditionals = [conditionals(contract) for contract in plan.contracts]
        self.places = max((len(signals) for signals in self._measured), default=0)
        self._inclusion = Inclusion(plan.contracts)
        self.lanes: list[Lane] = [self._inclusion.lane]
        self.readers: list[Lane] = []
        self._lane_of: dict[LaneKey, int] = {}
        self._by_class: dict[tuple[LaneKey, LaneKey], tuple[int, ConditionalLane]] = {}
        self._series: dict[int, _Series] = {}

    def open_series(
        self, series: int, contract: int, model: str, version: str, *, first: int, tick: int
    ) -> list[Stream]:
        """Open rows for the streams of a series, which get the numbers from `first` on."""
        names = _Series(series=series, model=model, version=version, contract=contract)
        self._series[series] = names
        made: list[Stream] = []
        places: dict[str, int] = {}
        for place, (signal, grid) in enumerate(self._measured[contract]):
            lane = self._reader(self._key_of(signal, grid))
            row = self.lanes[lane].append(series, place, first + len(made), tick)
            places[signal.name] = place
            made.append(Stream(**names, signal=signal.name, lane=lane, row=row, place=place))
        for each in self._conditionals[contract]:
            lane, divided = self._divided(each)
            row = divided.append(series, each.code, first + len(made), tick)
            made.append(
                Stream(
                    **names,
                    signal=each.name,
                    lane=lane,
                    row=row,
                    place=places[each.score.name],
                    given=(places[each.prediction.name], each.code),
                    part_of=each.score.name,
                    order=each.order,
                )
            )
        return made

    def open_weights(self, series: int, *, number: int, tick: int) -> Stream:
        """Open a row for the weights of a series; its contract has a sampler from now on."""
        names = self._series[series]
        self._inclusion.is_on[names["contract"]] = True
        row = self._inclusion.lane.append(series, NO_PLACE, number, tick)
        return Stream(**names, signal=INCLUSION, lane=INCLUSION_LANE, row=row, place=NO_PLACE)

    def is_sampled(self, contract: int) -> bool:
        """Say whether a sampler before the gateway is known of a contract."""
        return bool(self._inclusion.is_on[contract])

    def newly_sampled(self, said: Upstream, rows: Int64 | None, contract: Int64) -> list[int]:
        """Return the series of contracts whose events say a threshold for the first time."""
        found = self._inclusion.found(said, rows, contract)
        return [at for at, names in self._series.items() if names["contract"] in found]

    def sampled_before(self, saved: Sequence[tuple[str, str]]) -> list[int]:
        """Return the series whose weights were saved by model and version, in that order.

        Behind them stand other series of the same contracts, which a merge has brought.
        """
        of_name = {(each["model"], each["version"]): at for at, each in self._series.items()}
        held = [of_name[key] for key in saved if key in of_name]
        held = [each for each in held if self._inclusion.may(self._series[each]["contract"])]
        contracts = {self._series[each]["contract"] for each in held}
        others = [at for at, each in self._series.items() if each["contract"] in contracts]
        return [*held, *(each for each in others if each not in held)]

    def bins(self, batch: Batch, rows: Int64 | None) -> list[Int64]:
        """Find the bins of inferences, those of each reader, (rows,) each."""
        return [lane.bins(batch, rows) for lane in self.readers]

    def count(self, series: Int64, bins: Sequence[Int64]) -> None:
        """Count the signals of inferences. Shape: (rows,), also the bins of each reader."""
        for lane, found in zip(self.readers, bins, strict=True):
            lane.add(series, found)
        for _, divided in self._by_class.values():
            divided.add(series, bins)

    def count_late(
        self, series: Int64, bins: Sequence[Int64]
    ) -> Iterator[tuple[Lane, Int64, Int64]]:
        """Count inferences that are not judged. Yields lanes, their rows, and bins, (rows,) each.

        A row is NO_ROW where nothing is counted.
        """
        for lane, found in zip(self.readers, bins, strict=True):
            row = lane.rows_of(series)
            lane.count_late(row, found)
            yield lane, row, found
        for _, divided in self._by_class.values():
            row, found = divided.rows_of(series, bins)
            divided.lane.count_late(row, found)
            yield divided.lane, row, found

    def maybe_weigh(
        self, said: Upstream, rows: Int64 | None, series: Int64, late: Bool | None
    ) -> Int64 | None:
        """Count the weights of inferences; those that are `late` are not judged.

        Returns their bins, None where no sampler is known.
        """
        lane = self._inclusion.lane
        if not lane.stream:
            return None
        bins = self._inclusion.bins(said, rows)
        if late is None:
            lane.add(series, bins)
            return bins
        lane.add(series[~late], bins[~late])
        lane.count_late(lane.rows_of(series[late]), bins[late])
        return bins

    def _key_of(self, signal: Signal, grid: Grid) -> LaneKey:
        return LaneKey(slot=self._slot_of[signal.attribute], type=signal.type, grid=grid)

    def _reader(self, key: LaneKey) -> int:
        """Return the number of the lane that reads an attribute, made when it is the first."""
        if key not in self._lane_of:
            self._lane_of[key] = len(self.lanes)
            self.lanes.append(Lane(key))
            self.readers.append(self.lanes[-1])
        return self._lane_of[key]

    def _divided(self, wanted: Conditional) -> tuple[int, ConditionalLane]:
        """Return the lane of a confidence by classes, and its number; both readers are there."""
        keys = (
            self._key_of(wanted.score, wanted.grid),
            self._key_of(wanted.prediction, wanted.classes),
        )
        if keys not in self._by_class:
            scores, classes = (self.readers.index(self.lanes[self._lane_of[key]]) for key in keys)
            width = wanted.classes.width
            made = ConditionalLane(keys[0], scores=scores, classes=classes, width=width)
            self._by_class[keys] = (len(self.lanes), made)
            self.lanes.append(made.lane)
        return self._by_class[keys]
