"""What is counted besides items: bytes by stage, acknowledgement times, group sizes.

Law: each counter is written by one thread only; readers take copies. The counters are part of the
checkpoint, so that they continue over a restart, exact up to the last seal.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from gateway.batch import Json
from gateway.vitals import STAGES

# From a fast disk's sync to the patience of a stock exporter, which is 10 s.
ACK_EDGES_S: Final = tuple(
    ms / 1000 for ms in (1, 2.5, 5, 7.5, 10, 15, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
)
GROUP_EDGES: Final = (1.0, 8.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)


class Distribution:
    """A histogram. Shape: counts (edges + 1,), not cumulative; the last place is open."""

    __slots__ = ("counts", "edges", "sum")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = tuple(edges)
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value; a value on an edge belongs below it."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.sum += value

    def state(self) -> Json:
        """Return what a checkpoint keeps."""
        return {"edges": list(self.edges), "counts": list(self.counts), "sum": self.sum}

    def restore(self, state: Json) -> None:
        """Continue, unless the edges have changed since."""
        if tuple(state["edges"]) == self.edges:
            self.counts = [int(count) for count in state["counts"]]
            self.sum = float(state["sum"])


class Tally:
    """The counters of the process."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = dict.fromkeys(STAGES, 0)
        self.ack_s = Distribution(ACK_EDGES_S)
        self.group_spans = Distribution(GROUP_EDGES)

    def state(self) -> Json:
        """Return what a checkpoint keeps."""
        return {
            "bytes": dict(self.bytes),
            "ack_s": self.ack_s.state(),
            "group_spans": self.group_spans.state(),
        }

    def restore(self, state: Json) -> None:
        """Continue from a checkpoint."""
        self.bytes.update({stage: int(count) for stage, count in state["bytes"].items()})
        self.ack_s.restore(state["ack_s"])
        self.group_spans.restore(state["group_spans"])
