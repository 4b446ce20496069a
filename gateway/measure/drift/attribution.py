"""Where a change of a series lies: in its classes, in their confidence, or in how it is sampled.

Law: by the chain rule KL(class, confidence) = KL(class) + sum of q_c KL(confidence | c), so the two
parts add up to what changed of both. Reads only. Source: drift.md section 2.
"""

import numpy as np

from gateway.measure.drift.baseline import UNUSUAL
from gateway.measure.drift.inclusion import WEIGHTS, effective
from gateway.measure.drift.indices import jeffreys, kl
from gateway.measure.drift.streams import Streams
from gateway.measure.snapshot import AttributionView, WeightsView
from gateway.tables import Float64


def maybe_attribution(streams: Streams, series: int) -> AttributionView | None:
    """Split the change of the recent window, None while a part has no baseline or no events."""
    items = {number: streams.items[number] for number in streams.of_series(series)}
    of_place = {item.place: number for number, item in items.items() if item.given is None}
    parts = [(number, item.given) for number, item in items.items() if item.given is not None]
    if not parts:
        return None
    classes = of_place[parts[0][1][0]]
    judged = _maybe_divergence(streams, classes)
    if judged is None:
        return None
    of_class, shares = judged
    group = streams.baselines[classes].group
    inner = [
        (float(shares[group[code]]), found[0])
        for number, (_, code) in parts
        if group[code] != UNUSUAL and (found := _maybe_divergence(streams, number)) is not None
    ]
    if not inner:
        return None
    return AttributionView(
        signal=items[parts[0][0]].part_of,
        of_class=of_class,
        given_class=sum(share * nats for share, nats in inner),
    )


def _maybe_divergence(streams: Streams, number: int) -> tuple[float, Float64] | None:
    """Return KL of the recent window less its mean without a change, and the window's shares.

    With a season both are in terms of the hour of the newest tick.
    """
    baseline = streams.baselines.get(number)
    if baseline is None:
        return None
    window, size = streams.bank.window(np.array([number]))
    counts = window[0, : baseline.bins]
    if not counts.any():
        return None
    q = jeffreys(counts)
    # Twice KL is chi-squared of B - 1 degrees times k where nothing changes.
    against = streams.against(number)
    k = 1 / against.events + 1 / max(float(size[0]), 1.0)
    return float(kl(q, against.shares)) - (baseline.bins - 1) * k / 2, q


def maybe_weights(streams: Streams, series: int) -> WeightsView | None:
    """Sum up the weights of a series, None where no sampler is known."""
    for number in streams.of_series(series):
        if streams.grid(number) == WEIGHTS:
            found = effective(streams.counts(number))
            return found and WeightsView(mean=found[0], effective_events=found[1])
    return None
