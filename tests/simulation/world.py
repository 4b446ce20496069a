"""The simulated site: the real rooms, core, commit, intake and forwarder on a simulated machine.

Law: only what touches the machine is a double: disk, database file, Parquet writer, threads, clock,
destination. What joins the rooms is `app.Gateway`, whose listeners are never opened.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gateway.app import Gateway
from gateway.batch import Batch, Signal, Transport
from gateway.contract.plan import Plan
from gateway.core import Hooks
from gateway.errors import CorruptDataError, RetryableError, WeirError
from gateway.forward.records import Cause
from gateway.forward.sender import Forwarder
from gateway.home import Home
from gateway.journal.cipher import Keys
from gateway.journal.commit import GroupCommit
from gateway.journal.log import GroupRecord
from gateway.ledger import Balance
from gateway.pipeline import Stages
from gateway.receive.admission import Admission
from gateway.receive.intake import Intake
from gateway.recovery import ATTEMPTS_MAX
from gateway.rooms import open_rooms
from tests.laws.journal_disk import CrashError
from tests.simulation.life import (
    Life,
    Thread,
    VirtualLoop,
    YieldError,
)
from tests.simulation.machine import Database, Disk, Health, numbers_in
from tests.simulation.model import Model
from tests.simulation.network import Destination, Line
from tests.simulation.prepared import NAME, STARTED_NS, Prepared, draw_config
from tests.simulation.traffic import Request, Traffic

JOURNAL_KEY: Final = bytes(range(32, 64))
# Below this many starts the disk may refuse them; after that it is healed.
STARTS_MAX: Final = 4
DRAIN_TURNS_MAX: Final = 2_000
LEFT_OVERS_MAX: Final = 3
DRAIN_TURN_S: Final = 5.0
# Below this the arrivals of a schedule count requests, so that each is there once.
STAMP_NS: Final = 1_000_000

# How a task may end when its process does.
_ENDINGS: Final = (CrashError, asyncio.CancelledError)


class Site(Gateway):
    """One process: `app.Gateway` without listeners, alerts and dives."""

    def __init__(self, world: "World") -> None:
        self._loop = world.loop
        self._forwarders = []
        self._early = []
        self._journal_error = ""
        self.life = world.life
        self.measured_ns = 0
        hooks = Hooks(
            anomalies=lambda _: None, flushed=self._on_flushed, released=self._on_released
        )
        # A step of the pipeline that raises is a finding, not a quarantine.
        self._rooms = self.rooms = open_rooms(
            world.config, world.plan, hooks, lambda work, _: work()
        )
        rooms = self.rooms
        world.stages_of = rooms.stages_of
        self._journal_thread: Any = Thread(world.loop, world.life, world.delay_s)
        clock = world.loop.clock
        self._admission = self.admission = Admission(
            bytes_max=world.config.receive.queue_max, rng=world.rng, clock=clock.monotonic
        )
        self.commit = GroupCommit(
            open_batch=rooms.open_batch,
            append=self._append,
            hand_over=self._hand_over,
            next_sequence=rooms.journal.next_sequence,
            delay_s=world.config.journal.group,
            observe=self._observe_group,
            forsake=self._admission.forsake,
            is_behind=rooms.core.is_behind,
            queued_rows=lambda: rooms.core.queued_rows,
            journal_bytes_max=world.config.journal.bytes_max,
            clock=clock.monotonic,
        )
        rooms.core.follow(lambda: self.commit.oldest_ns)
        gate: Any = None  # of identities, which this way in does not ask
        self.intake = Intake(
            submit=self.commit.submit, now_ns=world.stamp_ns, admission=self._admission, gate=gate
        )
        self.forwarder = Forwarder(
            NAME,
            Line(world.destination, world.life),
            fetch=self._fetch,
            mark=self._mark_known,
            rng=world.rng,
            clock=clock.monotonic,
            now_ns=clock.time_ns,
        )
        self._forwarders.append(self.forwarder)
        self._world = world
        self.writer = world.loop.create_task(self.commit.run())
        self.sender = world.loop.create_task(self.forwarder.run())

    def _hand_over(self, batch: Any) -> None:
        self.life.step("hand over")
        self._world.handed(batch)
        self.rooms.core.hand_over(batch)

    async def _mark_known(self, destination: str, settlement: Any) -> None:
        await self._mark(destination, settlement)
        others = (body_id for body_id, _ in (*settlement.dead, *settlement.split))
        self._world.destination.settle((*settlement.delivered, *others))


class World:
    """A machine, a destination, clients, and the process of now."""

    def __init__(self, seed: int, folder: Path, site: Prepared, loop: VirtualLoop) -> None:
        self.rng = random.Random(f"world {seed}")
        self.prepared, self.plan = site, site.plan
        self.loop = loop
        self.health = Health(loop.clock, self.rng)
        self.disk = Disk(self.health, self.rng)
        self.database = Database(self.health, self.rng, site.image)
        self.destination = Destination(loop, self.rng)
        self.traffic = Traffic(self.rng)
        self.folder = folder
        self.config = draw_config(self.rng, folder / "data")
        self.keys = Keys([JOURNAL_KEY] if self.rng.random() < 0.2 else [])
        self.home = Home(folder / "data")
        for each in (self.home.root, self.home.store, self.home.quarantine):
            each.mkdir(exist_ok=True)
        self.life = Life()
        self.steps = 0  # of the processes before
        self.site: Site | None = None
        self.core_queue: Any = None
        self.replayed: dict[int, GroupRecord] = {}
        self.clients: set[asyncio.Task[None]] = set()
        self.failures: list[BaseException] = []
        self.stamps = 0
        self.entering: Request | None = None  # the request whose arrival is stamped next
        self.arrival_of: dict[int, int] = {}  # by the first number of a request
        self.newest_ns = STARTED_NS  # arrival of the newest record
        self.told_ns = STARTED_NS  # newest time that the measurements have seen
        self.is_steady = True  # whether no record is older than what an idle core was told
        self.deaths_in_start = 0
        # Whether the power goes when the process dies, and when the starts after that die.
        self.dies_with: tuple[bool, Sequence[int]] = (False, ())
        self.stages_of: Callable[[Plan], Stages] | None = None
        self.model = Model(self._stages, self.plan.slot_keys)
        self.counts: dict[str, int] = {}

    def _stages(self) -> Stages:
        assert self.stages_of is not None
        stages = self.stages_of(self.plan)
        stages.measure.restore(self.prepared.measure)
        stages.decide.restore(self.prepared.decide)
        return stages

    def delay_s(self) -> float:
        """Draw how long a thread takes to begin a job."""
        return self.rng.choice((0.0, 0.001, 0.02, 0.4))

    def stamp_ns(self) -> int:
        """Tell the wall time as the intake asks it, never twice the same."""
        self.stamps += 1
        now_ns = self.loop.clock.time_ns()
        arrival_ns = now_ns - now_ns % STAMP_NS + self.stamps
        assert self.stamps < STAMP_NS
        assert self.entering is not None
        self.model.by_arrival[arrival_ns] = self.entering
        self.arrival_of[self.entering.numbers[0]] = arrival_ns
        return arrival_ns

    def handed(self, batch: Batch) -> None:
        """Note a batch, and whether it is older than what an idle core was told."""
        self.told_ns = max(self.told_ns, self.site_now.rooms.stages.measure.now_ns)
        self._arrived(batch.arrival_ns)
        self.model.acknowledge(batch.sequence)

    def _arrived(self, arrival_ns: int) -> None:
        if self.told_ns > max(self.newest_ns, arrival_ns):
            self.is_steady = False
        self.newest_ns = max(self.newest_ns, arrival_ns)

    def _met(self) -> None:
        """Note the records that a start has read, of which some were never handed over."""
        for arrival_ns in self.model.met(self.replayed):
            self._arrived(arrival_ns)

    @property
    def site_now(self) -> Site:
        """The process of now."""
        assert self.site is not None
        return self.site

    # --- what clients do ------------------------------------------------------------------

    def send(self, requests: int) -> list[asyncio.Task[None]]:
        """Let clients send requests side by side."""
        tasks = [
            self.loop.create_task(self._client(self.traffic.draw(self.loop.clock.time_ns())))
            for _ in range(requests)
        ]
        for task in tasks:
            self.clients.add(task)
            task.add_done_callback(self._client_done)
        return tasks

    def _client_done(self, task: asyncio.Task[None]) -> None:
        self.clients.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, CrashError):
            self.failures.append(error)

    async def _client(self, request: Request) -> None:
        site, size = self.site_now, len(request.body)
        transport = self.rng.choice(tuple(Transport))
        try:
            with site.admission.enter("client", size) as hold:
                hold.grow(size)
                self.entering = request
                receipt = await site.intake.accept(
                    request.signal, request.body, transport, "", size, hold
                )
        except RetryableError:
            self.count("refused")
            return
        if not site.life.alive:
            return  # the answer never left
        self.count("acknowledged")
        self.model.answered.add(self.arrival_of[request.numbers[0]])
        assert (receipt.accepted, receipt.rejected) == (len(request.numbers), request.refused)

    # --- life and death -------------------------------------------------------------------

    def count(self, what: str) -> None:
        """Count what a schedule has met."""
        self.counts[what] = self.counts.get(what, 0) + 1

    async def start(self, bombs: Sequence[int] = (), *, power: bool = False) -> None:
        """Start until it holds; the first starts die at the given steps, 0 for none."""
        for attempt in range(len(bombs) + 2 * STARTS_MAX):
            if attempt >= len(bombs) + STARTS_MAX:
                self.health.heal()
            self.steps += self.life.steps
            self.life = Life(bomb=bombs[attempt] if attempt < len(bombs) else 0)
            self.disk.begin(self.life)
            self.database.begin(self.life)
            self.replayed = {}
            try:
                self.site = Site(self)
            except CrashError:
                self.count("died in a start")
                self.deaths_in_start += 1
                self._met()
                self.leave(power=power)
                continue
            except CorruptDataError:
                raise
            except WeirError:
                assert self.health.is_ill, "a start fails on a disk that is well"
                self.count("start refused")
                self._met()
                self.disk.reboot()
                await self.loop.pause(1.0)
                continue
            break
        else:
            raise AssertionError("it does not start")
        self.count("started")
        saved = self.database.saved
        if self.database.asides:
            assert self.deaths_in_start >= ATTEMPTS_MAX, "a record is set aside without a reason"
            self.count("set aside")
        self.model.set_aside(self.database.asides)
        self._met()
        self.model.found(
            saved.cursor if saved else 0, saved.outbox_cursor if saved else 0, self.replayed
        )
        self.check(settled=True)

    def leave(self, *, power: bool) -> None:
        """Leave the machine as the end of a process or of the power leaves it."""
        self.life.alive = False
        if power:
            self.count("power cut")
            self.disk.lose_power()
            if self.rng.random() < 0.5:
                (self.home.root / "replaying").unlink(missing_ok=True)
        else:
            self.count("kill")
            self.disk.reboot()

    async def crash(self, *, power: bool) -> None:
        """End the process; whatever was under way is gone."""
        site = self.site_now
        self.told_ns = max(self.told_ns, site.rooms.stages.measure.now_ns)
        self.life.alive = False
        tasks = [*self.clients, site.writer, site.sender]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, _ENDINGS):
                raise result
        self.leave(power=power)

    async def stop(self) -> None:
        """End the process in the ordinary way. Raises: CrashError when it dies before."""
        site = self.site_now
        site.admission.drain()
        site.commit.close()
        await self._ended(site.writer)
        site.rooms.core.stop()
        self.turn(batches=1_000, idles=0)
        site.forwarder.stop(1.0)
        await self._ended(site.sender)
        for client in tuple(self.clients):
            await self._ended(client)
        site.rooms.close()
        self.life.alive = False
        self.disk.reboot()
        self.count("stop")

    async def _ended(self, task: asyncio.Task[None]) -> None:
        """Wait for a task as long as the process lives."""
        while not task.done():
            await self.loop.pause(0.01)
            if not self.life.alive:
                raise CrashError
        task.result()

    def turn(self, *, batches: int, idles: int) -> None:
        """Let the core work; it dies with the process."""
        self.core_queue.batches_left, self.core_queue.idles_left = batches, idles
        with suppress(YieldError):
            self.site_now.rooms.core.run()

    # --- what is checked ------------------------------------------------------------------

    def check(self, *, settled: bool = False) -> None:
        """Compare with the model what holds at any instant, and when the core is not behind."""
        if self.failures:
            raise self.failures[0]
        site = self.site_now
        for task in (site.writer, site.sender):
            if task.done() and not task.cancelled():
                error = task.exception()
                if error is not None and not isinstance(error, CrashError):
                    raise error
        rooms = site.rooms
        now_ns = rooms.stages.measure.now_ns
        assert now_ns >= site.measured_ns, "the time of the measurements goes backwards"
        site.measured_ns = now_ns
        self.told_ns = max(self.told_ns, now_ns)
        self.model.check_answers()
        self.model.check_ledger(rooms.ledger.snapshot())
        if settled:
            sealed = numbers_in(self.home.store, rooms.store.segments)
            assert len(sealed) == len(set(sealed)), "a span is stored twice"
            self.model.check_measure(rooms.stages)
            self.model.check_state(rooms.stages, steady=self.is_steady)

    async def finish(self) -> None:
        """Heal everything, drain, stop, start again, and compare all with the model."""
        self.health.heal()
        destination = self.destination
        destination.trouble = destination.down_until_s = 0.0
        for _ in range(LEFT_OVERS_MAX):
            await self._drain()
            await self.stop()
            await self.start()
            again = self.replayed.keys() & self.model.acknowledged
            assert not again, "an ordinary stop leaves nothing acknowledged to replay"
            if not self.replayed:
                break
            # Bytes of a record that was refused and could not be taken back.
            self.count("came back")
        assert not self.replayed
        rooms = self.site_now.rooms
        total = sum(
            len(each.numbers)
            for each in self.model.requests(aside=False)
            if each.signal is Signal.TRACES
        )
        assert len(numbers_in(self.home.store, rooms.store.segments)) == total
        self._check_deliveries(rooms.ledger.snapshot().balances())
        await self.crash(power=False)

    async def _drain(self) -> None:
        """Let everything leave that waits."""
        for _ in range(DRAIN_TURNS_MAX):
            self.turn(batches=1_000, idles=2)
            await self.loop.pause(DRAIN_TURN_S)
            self.check()
            if not any(each.pending for each in self.site_now.rooms.ledger.snapshot().balances()):
                break
        else:
            raise AssertionError("what waits does not leave although all is well")
        assert not self.clients, "a client waits for ever"
        assert self.site_now.admission.held_bytes == 0, "bodies are held that are processed"

    def _check_deliveries(self, balances: Sequence[Balance]) -> None:
        for balance in balances:
            signal = balance.signal
            kept = self.model.run().kept[signal]
            taken = set(self.destination.taken[signal])
            missing = kept - taken - self.destination.refused[signal]
            given_up = balance.dropped_by.get(Cause.OUTBOX_FULL, 0)
            if given_up:
                self.count("given up")
            if self.model.aside:
                continue  # what was sent of a record before it was set aside is not known here
            assert taken <= kept, "what was sampled out or never acknowledged has left"
            assert balance.forwarded + balance.dropped == len(kept), (balance, len(kept))
            assert balance.sampled_out == balance.received - len(kept)
            assert len(missing) <= given_up, f"{signal}: {len(missing)} are missing"
