"""The process: build every room, connect them with callables, run, and stop in order.

Law: rooms do not know each other; what one needs of another is a callable that is passed here. A
stop drains from the front: no new request, the open group durable, the core empty and sealed, the
outbox sent as far as the destinations allow.

Threads: the event loop (network), the core thread, one journal thread, one storage thread.
"""

import asyncio
import functools
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

from gateway import __version__, anomalies, process
from gateway.api import access
from gateway.api.application import CONTEXT, make_application
from gateway.api.serve import listen
from gateway.batch import Anomaly
from gateway.config import SiteConfig
from gateway.config.units import is_loopback, split_address
from gateway.contract.plan import Plan
from gateway.core import Hooks
from gateway.declarations import Declarations
from gateway.deliveries import Letters
from gateway.dives import Dives, cleaner
from gateway.errors import JournalUnavailableError, WeirError
from gateway.forward import calls
from gateway.forward.build import make_alerts, make_forwarder
from gateway.forward.calls import Call
from gateway.forward.records import Pending, Settlement, Want
from gateway.home import FREE_BYTES_MIN
from gateway.journal.commit import GroupCommit
from gateway.journal.log import GroupRecord
from gateway.receive.admission import Admission
from gateway.receive.grpc_server import GrpcServer
from gateway.receive.http_server import HttpServer, identity_of
from gateway.receive.identity import gate_of
from gateway.receive.intake import Intake
from gateway.reload import Reload, Reloads
from gateway.retrain import make_retrain
from gateway.retrieve.dive import Dive
from gateway.retrieve.retriever import Retriever
from gateway.retrieve.routes import DeviceRoutes
from gateway.rooms import Made, innermost, open_rooms
from gateway.sources import Live, make_sources

log = logging.getLogger(__name__)

# How long a stop waits: for requests under way, for the core, for destinations.
REQUEST_GRACE_S: Final = 2.0
CORE_GRACE_S: Final = 30.0
FORWARD_GRACE_S: Final = 5.0
# How often the disk and the leases of dives are looked at.
HEALTH_S: Final = 1.0
LEASES_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the gateway listens, as told on standard output."""

    otlp_grpc: str
    otlp_http: str
    api: str


class Gateway:
    """One gateway process, from its configuration."""

    def __init__(
        self, config: SiteConfig, plan: Plan, load: Callable[[], tuple[SiteConfig, Plan]]
    ) -> None:
        """`load` reads the configuration again for a reload."""
        self._config = config
        self._load = load
        self._loop: asyncio.AbstractEventLoop | None = None
        self._early: list[Anomaly] = []  # raised by the replay, before there is a loop
        self._journal_error = ""
        self._core_failure = ""
        self._journal_thread = ThreadPoolExecutor(1, "journal")
        hooks = Hooks(
            anomalies=self._on_anomalies, flushed=self._on_flushed, released=self._on_released
        )
        self._rooms = open_rooms(config, plan, hooks, _guard)

    # --- hooks, called from the core and storage threads --------------------------------------

    def _on_anomalies(self, raised: Sequence[Anomaly]) -> None:
        if self._loop is None:
            self._early.extend(raised)
        else:
            self._loop.call_soon_threadsafe(self._take_anomalies, tuple(raised))

    def _on_flushed(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake_forwarders)

    def _on_released(self, size: int) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._admission.release, size)

    # --- life ---------------------------------------------------------------------------------

    async def run(self, on_ready: Callable[[Addresses], None], stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain.

        Raises: StartError when an address cannot be used, WeirError when the core failed.
        """
        self._loop = asyncio.get_running_loop()
        self._stop = stop
        self._build_network()
        # A crash may have come between the seal of an episode and its entry in the book.
        still_open = self._rooms.stages.measure.snapshot().open_anomalies
        self._early.extend(still_open)
        core = threading.Thread(target=self._core_main, name="core")
        core.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._take_anomalies(tuple(self._early))
                known = {anomaly.id for anomaly in still_open}
                self._take_anomalies(self._rooms.book.reconcile(known, time.time_ns()))
                commit = tasks.create_task(self._commit.run())
                health = tasks.create_task(self._watch_health())
                leases = tasks.create_task(self._watch_leases())
                reloads = tasks.create_task(self._reloads.run())
                watchers = [health, leases, reloads]
                senders = [tasks.create_task(each.run()) for each in self._forwarders]
                senders.append(tasks.create_task(self._alerts.run()))
                senders.append(tasks.create_task(self._retrain.run()))
                try:
                    await self._declarations.announce(time.time_ns())
                    self._rooms.core.follow(lambda: self._commit.oldest_ns)
                    async with AsyncExitStack() as listening:
                        addresses = await self._listen(listening)
                        incidents = self._intake.incidents
                        watchers.append(tasks.create_task(incidents.run(self._api.audit.note)))
                        process.settle()
                        on_ready(addresses)
                        await stop.wait()
                        log.info("stopping")
                        self._admission.drain()
                finally:
                    for task in watchers:
                        task.cancel()
                    self._commit.close()
                    # Waited for, not awaited: if it failed, the rest of the stop must still happen.
                    await asyncio.wait([commit])
                    self._rooms.core.stop()
                    await self._join(core)
                    for forwarder in self._forwarders:
                        forwarder.stop(FORWARD_GRACE_S)
                    self._alerts.stop()
                    self._retrain.stop()
                    await asyncio.gather(*senders, return_exceptions=True)
        finally:
            self._end(core)
            self._devices.close()
            self._retriever.close()
            self._journal_thread.shutdown(wait=True)
            self._rooms.close()
        if self._core_failure:
            raise WeirError(f"the core stopped: {self._core_failure}")

    def _build_network(self) -> None:
        config, rooms = self._config, self._rooms
        rng = random.Random()  # noqa: S311  jitter, not a secret
        self._admission = Admission(
            bytes_max=config.receive.queue_max, rng=rng, device=config.receive.device
        )
        self._gate = gate_of(config.receive, site=config.site.id, now_ns=time.time_ns)
        self._commit = GroupCommit(
            open_batch=rooms.open_batch,
            append=self._append,
            hand_over=rooms.core.hand_over,
            next_sequence=rooms.journal.next_sequence,
            delay_s=config.journal.group,
            observe=self._observe_group,
            forsake=self._admission.forsake,
            is_behind=rooms.core.is_behind,
            queued_rows=lambda: rooms.core.queued_rows,
            journal_bytes_max=config.journal.bytes_max,
        )
        self._intake = intake = Intake(
            submit=self._commit.submit,
            now_ns=time.time_ns,
            admission=self._admission,
            gate=self._gate,
        )
        self._declarations = Declarations(rooms, intake)
        self._reloads = Reloads(
            rooms,
            config,
            self._load,
            guard=_guard,
            apply=self._apply,
            exchange=self._commit.exchange,
        )
        self._grpc = GrpcServer(config.receive, intake)
        self._retriever = Retriever(
            rooms.home.root,
            config.retrieve,
            clean=cleaner(rooms),
            on_change=self._on_dive,
        )
        self._devices = DeviceRoutes(
            self._retriever,
            config.retrieve,
            identity_of=identity_of,
            read_body=lambda request, limit: self._http.read_body(request, limit),
        )
        self._http = HttpServer(config.receive, intake, self._devices.routes())
        self._forwarders = [
            make_forwarder(section, fetch=self._fetch, mark=self._mark, rng=rng)
            for section in config.forward
        ]
        self._alerts = make_alerts(config, rng)
        self._alerts.submit(rooms.book.unresolved())
        self._retrain = make_retrain(config, rooms, self._in_storage, rng)

    async def _listen(self, stack: AsyncExitStack) -> Addresses:
        """Open the listeners; the stack closes them in reverse order."""
        section = self._config.api
        host, _ = split_address(section.listen)
        application = make_application(
            sources=make_sources(
                self._rooms,
                Live(
                    counters=self._admission.counters,
                    blocked=lambda: self._admission.blocked,
                    journal_error=lambda: self._journal_error,
                    in_storage=self._in_storage,
                    letters=Letters(self._rooms, self._in_storage, self._wake_forwarders),
                    forward_status=lambda: [each.status for each in self._forwarders],
                    declarations=self._declarations,
                    dives=Dives(self._rooms, self._retriever),
                    dive_counts=self._retriever.counts,
                ),
            ),
            audit=self._rooms.home.audit,
            now_ns=time.time_ns,
            version=__version__,
            tokens=access.load_tokens(section.tokens_file) if section.tokens_file else None,
            loopback=is_loopback(host),
        )
        # Its audit log is the only one: two writers would break the chain.
        self._api = application[CONTEXT]
        api = await listen(application, section)
        stack.push_async_callback(api.close)
        http = await self._http.start()
        stack.push_async_callback(self._http.stop, REQUEST_GRACE_S)
        stack.callback(self._devices.drain)
        grpc = await self._grpc.start()
        stack.push_async_callback(self._grpc.stop, REQUEST_GRACE_S)
        return Addresses(otlp_grpc=grpc, otlp_http=http, api=api.address)

    def _core_main(self) -> None:
        """Run the core; without it nothing may be acknowledged, so its end ends the process."""
        try:
            self._rooms.core.run()
        except Exception as error:
            self._core_failure = f"{type(error).__name__} at {innermost(error)}"
            log.critical("core stopped error=%s", self._core_failure)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _join(self, core: threading.Thread) -> None:
        await asyncio.to_thread(core.join, CORE_GRACE_S)
        if core.is_alive():
            log.error("core does not end, the journal keeps what is not sealed")
            self._rooms.core.abandon()
            await asyncio.to_thread(core.join, CORE_GRACE_S)

    def _end(self, core: threading.Thread) -> None:
        """End the core when a failed task cut the stop short: its thread would keep the process."""
        if core.is_alive():
            self._rooms.core.stop()
            core.join(CORE_GRACE_S)
            self._rooms.core.abandon()

    # --- reload -------------------------------------------------------------------------------

    def reload(self) -> None:
        """Ask for the configuration to be read again."""
        self._reloads.ask()

    def _apply(self, new: Reload) -> None:
        """Take everything of a reload but its plan into use."""
        receive = new.config.receive
        self._gate.replace_tokens(new.tokens)
        if new.material is not None:
            self._http.use_tls(new.material)
            self._grpc.use_tls(new.material)
        self._admission.use(bytes_max=receive.queue_max, device=receive.device)
        self._http.use(receive)
        if new.api_tokens is not None:
            self._api.access.replace_tokens(new.api_tokens)

    # --- between the intake and the journal ---------------------------------------------------

    async def _append(self, record: GroupRecord) -> None:
        assert self._loop is not None
        try:
            written = await self._loop.run_in_executor(
                self._journal_thread, self._rooms.journal.append, record
            )
        except JournalUnavailableError as error:
            if not self._journal_error:
                log.error("journal refuses, devices are told to retry error=%s", error)
            self._journal_error = str(error)
            raise
        if self._journal_error:
            log.info("journal writes again")
            self._journal_error = ""
        self._rooms.tally.bytes["journal"] += written

    def _observe_group(self, waits_s: Sequence[float], spans: int) -> None:
        for wait_s in waits_s:
            self._rooms.tally.ack_s.add(wait_s)
        self._rooms.tally.group_spans.add(spans)

    async def _watch_health(self) -> None:
        """Stop admitting while the disk is nearly full, and notice when an ill one is well."""
        home = self._rooms.home
        while True:
            await asyncio.sleep(HEALTH_S)
            free = home.free_bytes()
            if free < FREE_BYTES_MIN:
                self._admission.pause(f"only {free} bytes are free for the data directory")
                continue
            if self._journal_error:
                try:
                    await self._in_storage(home.probe)
                except JournalUnavailableError:
                    continue
                self._journal_error = ""
            self._admission.resume()

    # --- anomalies and dives ------------------------------------------------------------------

    async def _watch_leases(self) -> None:
        """End dives that are past their time."""
        while True:
            await asyncio.sleep(LEASES_S)
            try:
                await asyncio.to_thread(self._retriever.tick, time.time_ns())
            except WeirError as error:
                log.error("dives not looked at, tried again error=%s", error)

    def _on_dive(self, dive: Dive) -> None:
        log.info("dive changed id=%s state=%s", dive.id, dive.state)

    async def _open_dive(self, anomaly: Anomaly) -> None:
        """Ask the devices that hold the evidence of an anomaly, within the day's budget."""
        dive = await asyncio.to_thread(self._retriever.open_for_anomaly, anomaly)
        entry = self._rooms.book.link(anomaly.id, dive.id)
        if entry is not None:
            await self._in_storage(functools.partial(self._write_book, [entry]))

    def _take_anomalies(self, raised: Sequence[Anomaly]) -> None:
        """Enter anomalies in the book, tell the Alertmanagers, open dives for new ones."""
        changed, new = self._rooms.book.take(raised)
        for entry in new:
            found = entry.anomaly
            log.warning("anomaly id=%s kind=%s model=%s", found.id, found.kind, found.model)
            if found.resolved_ns is None:
                self._background(self._open_dive(found))
        if changed:
            told = [entry.anomaly for entry in changed]
            made = self._retrain.take(told)
            self._background(self._in_storage(functools.partial(self._write_book, changed, made)))
            self._alerts.submit(told)

    def _write_book(self, entries: Sequence[anomalies.Entry], made: Sequence[Call] = ()) -> None:
        with self._rooms.checkpoint.transaction() as connection:
            anomalies.write(connection, entries)
            calls.write(connection, made)

    # --- the outbox, in the storage thread ----------------------------------------------------

    def _background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run work that nobody waits for; a failing disk is logged, the next change tries again."""

        async def guarded() -> None:
            try:
                await work
            except WeirError as error:
                log.error("background work failed error=%s", error)

        self._tasks.create_task(guarded())

    async def _in_storage(self, work: Callable[[], Any]) -> Any:
        """Run work in the storage thread."""
        assert self._loop is not None
        return await self._loop.run_in_executor(self._rooms.storage, work)

    def _wake_forwarders(self) -> None:
        for forwarder in self._forwarders:
            forwarder.wake()

    async def _fetch(self, destination: str, want: Want) -> Sequence[Pending]:
        rooms = self._rooms

        def work() -> Sequence[Pending]:
            # In a transaction, because that maps the errors of a failing disk.
            with rooms.checkpoint.transaction() as connection:
                return rooms.outbox.next(connection, destination, want)

        found: Sequence[Pending] = await self._in_storage(work)
        return found

    async def _mark(self, destination: str, settlement: Settlement) -> None:
        await self._in_storage(lambda: self._settle(destination, settlement))

    def _settle(self, destination: str, settlement: Settlement) -> None:
        rooms = self._rooms
        with rooms.checkpoint.transaction() as connection:
            sent = rooms.outbox.body_bytes(connection, settlement.delivered)
            rooms.outbox.settle(connection, destination, settlement)
            deliveries = rooms.outbox.deliveries(connection)
        rooms.ledger.flushed({}, deliveries)
        rooms.tally.bytes["forward"] += sent
        try:
            rooms.outbox.vacuum(rooms.checkpoint.connection)
        except WeirError as error:
            log.warning("space not given back, tried again later error=%s", error)


def _guard(work: Callable[[], Made], set_aside: Callable[[Exception], None]) -> Made | None:
    """Run one step; whatever it raises sets its input aside, and the process goes on."""
    try:
        return work()
    except Exception as error:
        set_aside(error)
        return None
