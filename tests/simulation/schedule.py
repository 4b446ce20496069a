"""A schedule: from one number a list of actions, run on a world of its own.

Law: the same number gives the same schedule, and the same actions under the same number give the
same run. So a schedule that fails can be told, repeated, and made shorter.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.laws.journal_disk import CrashError
from tests.simulation.doubles import installed
from tests.simulation.life import VirtualLoop
from tests.simulation.machine import CODES
from tests.simulation.prepared import Prepared
from tests.simulation.world import World

ACTIONS_MAX: Final = 14
SHRINK_RUNS_MAX: Final = 60
PAUSES_S: Final = (0.001, 0.02, 0.3, 3.0)
OUTAGES_S: Final = (5.0, 5.0, 60.0, 60.0, 600.0, 2 * 3600.0)
JUMPS_S: Final = (-600.0, -90.0, -1.0, 1.0, 90.0, 600.0)
ILL_S: Final = (0.5, 5.0, 60.0)
RATES: Final = (0.02, 0.2, 1.0)
# Steps on both sides of what makes something durable, or known to others.
POINTS: Final = (
    *("append", "write", "fdatasync", "rename", "fsync_directory", "appended", "hand over"),
    *("before segment", "after segment", "before commit", "after commit", "unlink", "sent"),
)
CALLS: Final = 6  # a call that is to fail is one of so many
GATHER_S: Final = 10.0
STEPS: Final = 60  # a process that is to die does so within so many

# What may happen, and how often: of all kinds, mostly to the storage, mostly on the network.
MIXED: Final = {
    "send": 10,
    "pass": 4,
    "core": 6,
    "seal": 2,
    "leave": 1,  # clients go before their answer
    "ill": 2,
    "full": 1,
    "fault": 1,  # of one call of the disk
    "unsynced": 1,  # the next sync of the journal fails
    "trouble": 2,  # of the destination
    "down": 1,
    "backlog": 1,  # frames gather while the destination is down
    "clock": 2,
    "die": 4,  # within some steps
    "point": 2,  # at a step of some name
    "kill": 2,
    "cut": 2,
    "stop": 1,
}
STORAGE: Final = {
    "send": 8,
    "fault": 2,
    "unsynced": 2,
    "ill": 2,
    "core": 5,
    "seal": 2,
    "die": 4,
    "point": 4,
    "cut": 4,
}
NETWORK: Final = {"backlog": 4, "trouble": 5, "pass": 3, "send": 2, "core": 2, "die": 1}
KINDS: Final = (MIXED, MIXED, STORAGE, NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that happens. `values` are what was drawn for it."""

    name: str
    values: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}{self.values}" if self.values else self.name


@dataclass(slots=True)
class Outcome:
    """How a schedule ended, and what it met."""

    seed: int
    actions: Sequence[Action]
    error: BaseException | None = None
    at: int = 0  # how many actions had begun
    counts: Counter[str] = field(default_factory=Counter)
    steps: int = 0  # of all processes

    def told(self) -> str:
        """Say what a person needs to repeat it."""
        lines = [f"seed {self.seed}"]
        lines += [f"  {number}. {each}" for number, each in enumerate(self.actions, 1)]
        lines.append(f"after {self.at} of {len(self.actions)} actions: {self.error!r}")
        return "\n".join(lines)


def draw(seed: int) -> tuple[Action, ...]:
    """Draw the actions of a schedule."""
    rng = random.Random(f"actions {seed}")
    kind, count = rng.choice(KINDS), rng.randint(2, ACTIONS_MAX)
    names = rng.choices(tuple(kind), weights=tuple(kind.values()), k=count)
    return tuple(Action(name=name, values=_values(name, rng)) for name in names)


def _values(name: str, rng: random.Random) -> tuple[Any, ...]:
    if name in ("send", "leave"):
        return (rng.randint(1, 3), rng.choice(PAUSES_S))
    if name == "pass":
        return (rng.choice(PAUSES_S),)
    if name == "core":
        return (rng.randint(1, 3), rng.randint(0, 8), rng.choice(PAUSES_S))
    if name == "ill":
        return (rng.choice(ILL_S), rng.choice(RATES))
    if name == "fault":
        return (rng.randint(0, CALLS), rng.choice(CODES))
    if name == "full":
        return (rng.choice(ILL_S),)
    if name == "trouble":
        return (rng.choice(RATES), rng.choice((0.0, 0.0, 0.3)))
    if name == "down":
        return (rng.choice(OUTAGES_S),)
    if name == "backlog":
        return (rng.randint(3, 8),)
    if name == "clock":
        return (rng.choice(JUMPS_S),)
    bombs = tuple(rng.randint(1, STEPS) for _ in range(rng.choice((0, 0, 0, 1, 2))))
    if name == "die":
        return (rng.randint(1, STEPS), rng.random() < 0.5, bombs)
    if name == "point":
        return (rng.choice(POINTS), rng.random() < 0.5, bombs)
    if name in ("kill", "cut"):
        return (bombs,)
    return ()


def simulate(seed: int, actions: Sequence[Action], folder: Path, site: Prepared) -> Outcome:
    """Run a schedule."""
    outcome = Outcome(seed=seed, actions=actions)
    loop = VirtualLoop()
    world = World(seed, folder, site, loop)

    def note(_loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, CrashError):
            world.failures.append(error or AssertionError(context["message"]))

    loop.set_exception_handler(note)
    logger = logging.getLogger("gateway")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with installed(world):
            task = loop.create_task(_run(world, outcome))
            loop.run_until_complete(asyncio.wait({task}))
            outcome.error = task.exception()
    except AssertionError as error:  # the loop itself found that nothing goes on
        outcome.error = error
    finally:
        logger.setLevel(before)
        loop.close()
    outcome.counts, outcome.steps = Counter(world.counts), world.steps
    return outcome


async def _run(world: World, outcome: Outcome) -> None:
    await world.start()
    for action in outcome.actions:
        outcome.at += 1
        await _act(world, action)
    outcome.at += 1
    if not world.life.alive:
        await world.crash(power=False)
        await world.start()
    world.life.bomb, world.life.fatal = 0, ""
    await world.finish()
    if world.failures:
        raise world.failures[0]


async def _act(world: World, action: Action) -> None:
    """Do one thing; if the process died of it, start the next."""
    try:
        await _do(world, action)
        if world.life.alive:
            world.check()
    except CrashError:
        assert not world.life.alive
    if not world.life.alive:
        power, bombs = world.dies_with
        await world.crash(power=power)
        await world.start(bombs, power=power)
        world.dies_with = (False, ())


async def _do(world: World, action: Action) -> None:
    values, loop, clock = action.values, world.loop, world.loop.clock
    if action.name == "send":
        world.send(values[0])
        await loop.pause(values[1])
    elif action.name == "leave":
        tasks = world.send(values[0])
        await loop.pause(values[1])
        for task in tasks:
            task.cancel()
        await loop.pause(values[1])
    elif action.name == "pass":
        await loop.pause(values[0])
    elif action.name == "core":
        world.turn(batches=values[0], idles=values[1])
        await loop.pause(values[2])
    elif action.name == "seal":
        world.site_now.rooms.core.between_batches(lambda: None)
        world.turn(batches=100, idles=0)
    elif action.name == "ill":
        world.health.ill_until_s = clock.now_s + values[0]
        world.health.fault_rate = values[1]
    elif action.name == "fault":
        disk = world.disk
        disk.faults[len(disk.calls) + values[0]] = OSError(values[1], "one call")
    elif action.name == "unsynced":
        world.disk.next_sync_fails = True
    elif action.name == "full":
        world.health.full_until_s = clock.now_s + values[0]
    elif action.name == "trouble":
        world.destination.trouble, world.destination.final = values
    elif action.name == "down":
        world.destination.down_until_s = clock.now_s + values[0]
        await loop.pause(values[0])
    elif action.name == "backlog":
        await _gather(world, values[0])
    elif action.name == "clock":
        clock.offset_s += values[0]
    elif action.name == "die":
        world.life.bomb = world.life.steps + values[0]
        world.dies_with = (values[1], values[2])
    elif action.name == "point":
        world.life.fatal = values[0]
        world.dies_with = (values[1], values[2])
    elif action.name in ("kill", "cut"):
        await world.crash(power=action.name == "cut")
        await world.start(values[0], power=action.name == "cut")
    else:
        await world.stop()
        await world.start()


async def _gather(world: World, frames: int) -> None:
    """Flush one group after the other while the destination is down."""
    loop = world.loop
    world.destination.down_until_s = loop.time() + GATHER_S
    for _ in range(frames):
        world.send(1)
        await loop.pause(0.05)
        world.turn(batches=10, idles=2)
    await loop.pause(GATHER_S)


def shrink(failed: Outcome, folder: Path, site: Prepared) -> Outcome:
    """Leave actions out as long as the schedule still fails, within a few runs."""
    best, runs = failed, 0
    actions = list(failed.actions[: failed.at])
    at = len(actions)
    while at > 0 and runs < SHRINK_RUNS_MAX:
        at -= 1
        fewer = [*actions[:at], *actions[at + 1 :]]
        found = simulate(failed.seed, fewer, folder, site)
        runs += 1
        if found.error is not None:
            best, actions = found, fewer[: found.at]
            at = min(at, len(actions))
    return best
