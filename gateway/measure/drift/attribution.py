"""Where a change of a series lies: in its classes, in their confidence, or in how it is sampled.

Law: by the chain rule KL(class, confidence) = KL(class) + sum of q_c KL(confidence | c), so the two
parts add up to what changed of both. With a season both are of the hour.
Reads only. Source: drift.md section 2.
"""

from gateway.measure.drift.baseline import UNUSUAL
from gateway.measure.drift.compared import Compared, compare
from gateway.measure.drift.inclusion import WEIGHTS, effective
from gateway.measure.drift.streams import Streams
from gateway.measure.snapshot import AttributionView, WeightsView


def maybe_attribution(
    streams: Streams, series: int, compared: Compared | None = None
) -> AttributionView | None:
    """Split the change of the recent window, None while a part has no baseline or no events.

    `compared` has the streams of the series among its rows, if they are compared already.
    """
    items = {number: streams.items[number] for number in streams.of_series(series)}
    parts = [(number, item.given) for number, item in items.items() if item.given is not None]
    if not parts:
        return None
    found = compare(streams, list(items)) if compared is None else compared
    of_place = {item.place: number for number, item in items.items() if item.given is None}
    classes = of_place[parts[0][1][0]]
    row = _maybe_row(found, classes)
    if row is None:
        return None
    group = streams.baselines[classes].group
    inner = [
        (float(found.q[row, group[code]]), at)
        for number, (_, code) in parts
        if group[code] != UNUSUAL and (at := _maybe_row(found, number)) is not None
    ]
    if not inner:
        return None
    return AttributionView(
        signal=items[parts[0][0]].part_of,
        of_class=float(found.divergence[row]),
        given_class=sum(share * float(found.divergence[at]) for share, at in inner),
    )


def _maybe_row(found: Compared, number: int) -> int | None:
    """Return the row of a stream that has a baseline and events."""
    row = found.row_of.get(number)
    return row if row is not None and found.total[row] > 0 else None


def maybe_weights(streams: Streams, series: int) -> WeightsView | None:
    """Sum up the weights of a series, None where no sampler is known."""
    for number in streams.of_series(series):
        if streams.grid(number) == WEIGHTS:
            found = effective(streams.counts(number))
            return found and WeightsView(mean=found[0], effective_events=found[1])
    return None
