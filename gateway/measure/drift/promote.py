"""Replace the baseline of a stream because a person says so.

Law: what a promotion needs is a candidate, or a baseline that is still in the shadow. The one that
was in force goes into the shadow; both start without evidence. What was being collected is dropped:
it was for an alarm that the promotion answers, and the next alarm begins anew. A candidate that is
ready and was not meant goes on waiting.
"""

from gateway.measure.drift.baseline import baseline_id
from gateway.measure.drift.shadow import SHADOW_NS, Superseded
from gateway.measure.drift.streams import Streams


def maybe_promote(streams: Streams, wanted: str, at_ns: int) -> int | None:
    """Make the baseline of this id that of its stream, from the next event on.

    Returns the number of the stream, None when neither a candidate nor a shadow has this id.
    """
    for number, promoted in (*streams.candidates.items(), *streams.shadows.baselines()):
        if baseline_id(*streams.items[number].key, promoted.digest) != wanted:
            continue
        old = streams.baselines[number]
        streams.superseded[number] = Superseded(digest=old.digest, events=old.events, at_ns=at_ns)
        if streams.candidates.get(number) is promoted:
            del streams.candidates[number]
        streams.inherited.discard(number)
        streams.stop_collecting(number)
        streams.adopt(number, promoted)
        streams.shade(number, old, at_ns + SHADOW_NS)
        return number
    return None
