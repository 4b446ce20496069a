"""Open every room that keeps something, and bring the core to where the last run ended.

Law: nothing listens while this happens. Afterwards the state is that of an uninterrupted run: the
last seal, plus every journal record after it.
"""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gateway import anomalies, pipeline
from gateway.anomalies import AnomalyBook
from gateway.anonymize import Anonymizer
from gateway.batch import Batch, Parcel
from gateway.config import SiteConfig
from gateway.contract.plan import Plan
from gateway.core import Core, Hooks
from gateway.decide import Decide
from gateway.errors import CorruptDataError, StartError
from gateway.forward import calls
from gateway.forward.calls import CallBook
from gateway.forward.outbox import Outbox
from gateway.home import FREE_BYTES_MIN, Home, open_home, site_key
from gateway.journal.checkpoint import Checkpoint, Saved
from gateway.journal.keys import load_keys
from gateway.journal.log import Journal
from gateway.ledger import Items, Ledger
from gateway.measure import FalseAlarms, Measure, MeasureSettings
from gateway.otlp.decode import OpenBatch
from gateway.pipeline import Outcome, ParcelOutcome, Process, Stages, parcel_items, span_items
from gateway.recovery import Recovery, keep_aside
from gateway.store.store import Store, limit_threads
from gateway.tally import Tally

log = logging.getLogger(__name__)

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Everything that is open while the gateway runs. `storage` is the storage thread."""

    config: SiteConfig
    home: Home
    checkpoint: Checkpoint
    journal: Journal
    store: Store
    outbox: Outbox
    ledger: Ledger
    tally: Tally
    stages: Stages
    core: Core
    book: AnomalyBook
    calls: CallBook
    open_batch: OpenBatch
    storage: ThreadPoolExecutor
    stages_of: Callable[[Plan], Stages]  # fresh ones, without counts

    @property
    def plan(self) -> Plan:
        """The plan under which the core works now."""
        return self.stages.measure.plan

    def close(self) -> None:
        """Give files and locks back; the core has ended."""
        self.storage.shutdown(wait=True)
        self.journal.close()
        self.checkpoint.close()


@dataclass(frozen=True, slots=True)
class _Base:
    """What is opened first and closed last."""

    home: Home
    key: bytes
    checkpoint: Checkpoint
    journal: Journal


class Guard(Protocol):
    """Run work; hand whatever it raises to `set_aside`, and give None then."""

    def __call__(
        self, work: Callable[[], Made], set_aside: Callable[[Exception], None], /
    ) -> Made | None: ...


def open_rooms(config: SiteConfig, plan: Plan, hooks: Hooks, guard: Guard) -> Rooms:
    """Open the data directory and recover.

    `guard` runs its first argument and hands any exception to the second; `app` gives it.
    Raises: StartError, CorruptDataError.
    """
    limit_threads()
    home = open_home(config.data_dir)
    key = site_key(home)
    with ExitStack() as opened:
        checkpoint = Checkpoint.open(home.database)
        opened.callback(checkpoint.close)
        saved = checkpoint.load()
        journal = _open_journal(config, home, saved)
        opened.callback(journal.close)
        try:
            rooms = _join(config, plan, hooks, guard, _Base(home, key, checkpoint, journal))
            opened.callback(rooms.storage.shutdown)
            _recover(rooms, saved)
        except sqlite3.DatabaseError as error:
            # Nothing else than damage makes a statement fail that worked in the last run.
            raise CorruptDataError(f"the database cannot be used: {error}") from error
        opened.pop_all()
    return rooms


def _join(
    config: SiteConfig,
    plan: Plan,
    hooks: Hooks,
    guard: Guard,
    base: _Base,
) -> Rooms:
    """Make everything that stands on the base."""
    home, checkpoint, journal = base.home, base.checkpoint, base.journal
    store = Store.open(
        home.store,
        bytes_max=config.store.bytes_max,
        age_max_s=config.store.age_max,
        contracts=[contract.model for contract in plan.contracts],
    )
    outbox = Outbox([section.name for section in config.forward], bytes_max=config.outbox.bytes_max)
    with checkpoint.transaction() as connection:
        store.prepare(connection)
        outbox.prepare(connection)
        anomalies.prepare(connection)
        calls.prepare(connection)
        recovered = store.recover(connection)
        deliveries = outbox.deliveries(connection)
        kept = outbox.kept(connection)
        book = anomalies.load(connection)
        called = calls.load(connection)
    for path in recovered.missing:
        log.error("stored segment is missing path=%s", path)
    ledger, tally = Ledger(deliveries, gone=kept), Tally()

    def stages_of(plan: Plan) -> Stages:
        return Stages(
            measure=Measure(plan, measure_settings(config)),
            decide=Decide(plan),
            anonymize=Anonymizer(plan, config.site.id, base.key),
        )

    stages = stages_of(plan)
    storage = ThreadPoolExecutor(1, "storage")
    core = Core(
        stages=stages,
        process=_guarded(stages, ledger, home, guard),
        store=store,
        checkpoint=checkpoint,
        outbox=outbox,
        journal=journal,
        ledger=ledger,
        tally=tally,
        storage=storage,
        hooks=hooks,
        segment_rows=config.store.segment_rows,
        segment_age_s=config.store.segment_age,
    )
    return Rooms(
        config=config,
        home=home,
        checkpoint=checkpoint,
        journal=journal,
        store=store,
        outbox=outbox,
        ledger=ledger,
        tally=tally,
        stages=stages,
        core=core,
        book=book,
        calls=called,
        open_batch=OpenBatch(plan.slot_keys),
        storage=storage,
        stages_of=stages_of,
    )


def _open_journal(config: SiteConfig, home: Home, saved: Saved | None) -> Journal:
    section = config.journal
    encryption = section.encryption
    return Journal.open(
        home.journal,
        bytes_max=section.bytes_max,
        fsync=section.fsync,
        after=max(saved.cursor, saved.outbox_cursor) if saved else 0,
        free_bytes_min=FREE_BYTES_MIN,
        keys=load_keys(encryption.key_file, encryption.key_command, encryption.key_files),
    )


def _recover(rooms: Rooms, saved: Saved | None) -> None:
    """Load the last seal and replay what came after it."""
    rooms.core.restore(saved)
    started = time.monotonic()
    recovery = Recovery(rooms.home, rooms.checkpoint, rooms.open_batch)
    records = rooms.journal.replay(after=saved.cursor if saved else 0)
    try:
        count = rooms.core.replay(recovery.batches(records))
    except StartError:
        recovery.end()
        raise
    log.info("journal replayed batches=%d seconds=%.2f", count, time.monotonic() - started)


def _guarded(stages: Stages, ledger: Ledger, home: Home, guard: Guard) -> Process:
    """Make the steps that the core runs: the pipeline, or quarantine, never onward."""

    def set_aside(error: Exception, sequence: int, name: str, body: bytes, items: Items) -> None:
        # The text of the exception may quote the data; its type and place are enough.
        kind = type(error).__name__
        log.error("input quarantined sequence=%d error=%s at=%s", sequence, kind, innermost(error))
        keep_aside(home, name, body)
        ledger.quarantined(items, kind)

    def spans(batch: Batch) -> Outcome | None:
        def aside(error: Exception) -> None:
            name = f"{batch.sequence:016d}.otlp.zst"
            set_aside(error, batch.sequence, name, batch.arena.tobytes(), span_items(batch))

        return guard(lambda: pipeline.run(batch, stages), aside)

    def parcel(each: Parcel, sequence: int) -> ParcelOutcome | None:
        def aside(error: Exception) -> None:
            digest = hashlib.sha256(each.body).hexdigest()[:16]
            name = f"{sequence:016d}-{digest}.{each.signal}.otlp.zst"
            set_aside(error, sequence, name, each.body, parcel_items(each))

        return guard(lambda: pipeline.run_parcel(each, stages), aside)

    return Process(spans=spans, parcel=parcel)


def innermost(error: BaseException) -> str:
    """Name the place that raised, without any value."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return "unknown"
    return f"{place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}"


def measure_settings(config: SiteConfig) -> MeasureSettings:
    """Take the knobs of the measurements from the site file."""
    section = config.measure
    return MeasureSettings(
        drift_tick_s=section.drift_tick,
        baseline_events=section.baseline_events,
        false_alarms=FalseAlarms(section.false_alarms),
        series_max=section.series_max,
        devices_max=section.devices_max,
        labels_max=section.labels_max,
        lateness_s=section.lateness,
        clock_ahead_s=section.clock_ahead_max,
        deployers=frozenset(config.receive.deployers),
    )
