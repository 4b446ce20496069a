"""A destination that answers as destinations do, and remembers what it has taken.

Law: an item is taken twice only where the first answer was lost, or the process ended before it
could mark the frame. A frame is overtaken by the rest of one wave at most, one of metrics by none.
"""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.batch import Signal
from gateway.errors import DeliveryError
from gateway.forward.answers import FrameTooLargeError, Sent
from gateway.forward.sender import IN_FLIGHT_MAX
from tests.simulation.life import Life, VirtualLoop
from tests.simulation.traffic import numbers_of_frame

HINTS_S: Final = (None, 1.0, 30.0, 600.0)


Key = tuple[int, ...]


@dataclass(slots=True)
class Taking:
    """One time that a frame was taken, and whether the sender heard of it."""

    life: Life
    heard: bool


@dataclass(slots=True)
class Destination:
    """Units: down_until_s steady seconds; `trouble` is the share of answers that are no success."""

    loop: VirtualLoop
    rng: random.Random
    trouble: float = 0.0
    final: float = 0.0  # of these, the share that is for good
    down_until_s: float = 0.0
    taken: dict[Signal, Counter[int]] = field(
        default_factory=lambda: {signal: Counter() for signal in Signal}
    )
    refused: dict[Signal, set[int]] = field(
        default_factory=lambda: {signal: set() for signal in Signal}
    )
    order: dict[Signal, list[tuple[int, frozenset[int]]]] = field(
        default_factory=lambda: {signal: [] for signal in Signal}
    )
    # By id and what is in the frame: ids of parts that are gone may be used again.
    takings: dict[Key, list[Taking]] = field(default_factory=dict)
    settled: set[Key] = field(default_factory=set)
    _newest: dict[int, Key] = field(default_factory=dict)

    async def answer(self, life: Life, frame: Any) -> Sent:
        """Answer one frame. Raises: DeliveryError."""
        life.step("send")
        await self.loop.pause(self.rng.uniform(0.001, 0.05))
        life.step("sent")
        if self.loop.time() < self.down_until_s:
            raise DeliveryError("connection refused", permanent=False)
        numbers = numbers_of_frame(frame.signal, frame.body)
        assert len(numbers) == frame.items, "a frame holds what it says"
        self._newest[frame.id] = (frame.id, *numbers)
        if self.rng.random() >= self.trouble:
            self._take(life, frame, numbers, heard=True)
            return Sent(rejected=0, message="")
        if self.rng.random() < self.final:
            return self._refuse(life, frame, numbers)
        if self.rng.random() < 0.5:
            self._take(life, frame, numbers, heard=False)
            raise DeliveryError("connection reset", permanent=False)
        raise DeliveryError("HTTP 503", permanent=False, retry_after_s=self.rng.choice(HINTS_S))

    def settle(self, ids: Iterable[int]) -> None:
        """Note that frames are marked."""
        self.settled.update(self._newest[each] for each in ids)

    def _refuse(self, life: Life, frame: Any, numbers: list[int]) -> Sent:
        kind = self.rng.randrange(3)
        if kind == 0 and len(numbers) > 1:
            raise FrameTooLargeError("HTTP 413", permanent=True)
        if kind == 1:
            rejected = self.rng.randint(1, len(numbers))
            self.refused[frame.signal].update(numbers[:rejected])
            self._take(life, frame, numbers[rejected:], heard=True)
            return Sent(rejected=rejected, message="some are bad")
        self.refused[frame.signal].update(numbers)
        raise DeliveryError("HTTP 400", permanent=True)

    def _take(self, life: Life, frame: Any, numbers: list[int], *, heard: bool) -> None:
        signal, frame_id = frame.signal, frame.id
        key = self._newest[frame_id]
        assert key not in self.settled, "a frame that was marked is sent again"
        before = self.takings.setdefault(key, [])
        for each in before:
            assert not each.heard or each.life is not life, "an answer was heard and not marked"
        if not before:
            # A part comes after its whole, if that was taken and the answer was lost.
            newer = sum(
                other > frame_id and not whole.issuperset(numbers)
                for other, whole in self.order[signal]
            )
            limit = 0 if signal is Signal.METRICS else IN_FLIGHT_MAX - 1
            assert newer <= limit, f"{signal}: {newer} newer frames came first"
            self.order[signal].append((frame_id, frozenset(numbers)))
        before.append(Taking(life, heard))
        self.taken[signal].update(numbers)


@dataclass(slots=True)
class Line:
    """The sender of one process to the destination."""

    destination: Destination
    life: Life

    async def send(self, frame: Any) -> Sent:
        return await self.destination.answer(self.life, frame)

    async def close(self) -> None:
        """Nothing to close."""
