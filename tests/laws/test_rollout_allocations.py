"""What rollouts hold of an error budget never passes what is left of it.

Law: whatever is declared, ended and burnt, in any order, a rollout that begins gets at most what
is left less what running ones hold; it never holds a negative part, and all of it is free again
once they have ended.
"""

from typing import Any, Final

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.measure.rollouts import state as rolloutstate
from gateway.measure.rollouts.rollouts import Rollouts
from tests.conftest import FUZZ
from tests.unit.measure.rollouts.rolling import MINUTE_NS, Site

TOLERANCE: Final = 1e-9


class Allocations(RuleBasedStateMachine):
    """One site, whose rollouts come and go while its budget is spent."""

    def __init__(self) -> None:
        super().__init__()
        self.site = Site()
        self.names = 0

    @property
    def running(self) -> list[str]:
        """Ids of rollouts that have not ended."""
        return [name for name, each in self.site.rollouts.table.items() if not each.has_ended]

    @rule(asked=st.none() | st.floats(0.001, 1), version=st.sampled_from(["v2", "v3"]))
    def start(self, asked: float | None, version: str) -> None:
        """Begin a rollout."""
        rollouts = self.site.rollouts
        free = [rollouts.remaining(each) - rollouts.reserved(each) for each in range(3)]
        before = len(self.running)
        self.names += 1
        name = f"r-{self.names}"
        self.site.start(name, version, allocation=asked)
        if before == len(self.running):
            return
        for place, share in enumerate(rollouts.table[name].allocations):
            assert 0 <= share <= max(0.0, free[place])
            assert (
                rollouts.reserved(place)
                <= max(rollouts.remaining(place), rollouts.reserved(place) - share) + TOLERANCE
            )

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: Any) -> None:
        """End a rollout."""
        name = data.draw(st.sampled_from(self.running))
        share = self.site.rollouts.table[name].allocations[0]
        before = self.site.rollouts.reserved(0)
        self.site.end(name)
        assert abs(self.site.rollouts.reserved(0) - (before - share)) < TOLERANCE

    @rule(bad=st.integers(0, 30), kind=st.integers(0, 2), minutes=st.integers(1, 30))
    def burn(self, bad: int, kind: int, minutes: int) -> None:
        """Let a version run."""
        self.site.run(minutes * MINUTE_NS, {kind: (bad, 60)})

    @rule()
    def restart(self) -> None:
        """Save and load."""
        site = self.site
        fresh = Rollouts(site.plan, site.objectives, site.series)
        rolloutstate.load(fresh, rolloutstate.save(site.rollouts))
        site.rollouts = fresh

    @invariant()
    def nothing_is_held_by_nobody(self) -> None:
        """What is reserved is the sum over those that run."""
        for place in range(3):
            held = [self.site.rollouts.table[name].allocations[place] for name in self.running]
            assert all(share >= 0 for share in held)
            assert np.isclose(self.site.rollouts.reserved(place), sum(held))

    def teardown(self) -> None:
        """All is free at last."""
        for name in self.running:
            self.site.end(name)
        assert self.site.rollouts.reserved(0) == 0


TestAllocations = Allocations.TestCase
TestAllocations.settings = settings(max_examples=300 if FUZZ else 15, stateful_step_count=15)
