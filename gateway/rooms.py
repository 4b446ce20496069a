"""Open every room that keeps something, and bring the core to where the last run ended.

Law: nothing listens while this happens. Afterwards the state is that of an uninterrupted run: the
last seal, plus every journal record after it.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import zstandard

from gateway import anomalies, pipeline
from gateway.anomalies import AnomalyBook
from gateway.anonymize import Anonymizer
from gateway.batch import Batch
from gateway.config import SiteConfig
from gateway.contract.plan import Plan
from gateway.core import Core, Hooks, read_deliveries
from gateway.decide import Decide
from gateway.forward.outbox import Outbox
from gateway.home import Home, open_home, site_key
from gateway.journal.checkpoint import Checkpoint
from gateway.journal.log import Journal
from gateway.ledger import Ledger
from gateway.measure import Measure, MeasureSettings
from gateway.otlp.decode import OpenBatch
from gateway.pipeline import Outcome, Stages, by_transport
from gateway.store.store import Store, limit_threads
from gateway.tally import Tally

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Everything that is open while the gateway runs. `storage` is the storage thread."""

    config: SiteConfig
    plan: Plan
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
    open_batch: OpenBatch
    storage: ThreadPoolExecutor

    def close(self) -> None:
        """Give files and locks back; the core has ended."""
        self.storage.shutdown(wait=True)
        self.journal.close()
        self.checkpoint.close()


Guard = Callable[[Callable[[], Outcome], Callable[[Exception], None]], Outcome | None]


def open_rooms(config: SiteConfig, plan: Plan, hooks: Hooks, guard: Guard) -> Rooms:
    """Open the data directory and recover.

    `guard` runs its first argument and hands any exception to the second; `app` gives it.
    Raises: StartError, CorruptDataError.
    """
    limit_threads()
    home = open_home(config.data_dir)
    key = site_key(home)
    checkpoint = Checkpoint.open(home.database)
    saved = checkpoint.load()
    journal = Journal.open(
        home.journal,
        bytes_max=config.journal.bytes_max,
        fsync=config.journal.fsync,
        after=max(saved.cursor, saved.outbox_cursor) if saved else 0,
    )
    store = Store.open(
        home.store,
        bytes_max=config.store.bytes_max,
        age_max_s=config.store.age_max,
        contracts=[contract.model for contract in plan.contracts],
    )
    outbox = Outbox([section.name for section in config.forward])
    with checkpoint.transaction() as connection:
        store.prepare(connection)
        outbox.prepare(connection)
        anomalies.prepare(connection)
        recovered = store.recover(connection)
        deliveries = read_deliveries(outbox, connection)
        kept = outbox.kept(connection)
        book = anomalies.load(connection)
    for path in recovered.missing:
        log.error("stored segment is missing path=%s", path)
    ledger, tally = Ledger(deliveries, gone=kept), Tally()
    stages = Stages(
        measure=Measure(plan, _measure_settings(config)),
        decide=Decide(plan),
        anonymize=Anonymizer(plan, config.site.id, key),
    )
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
    open_batch = OpenBatch(plan.slot_keys)
    core.restore(saved)
    started = time.monotonic()
    count = core.replay(journal.replay(after=saved.cursor if saved else 0), open_batch)
    log.info("journal replayed batches=%d seconds=%.2f", count, time.monotonic() - started)
    return Rooms(
        config=config,
        plan=plan,
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
        open_batch=open_batch,
        storage=storage,
    )


def _guarded(
    stages: Stages, ledger: Ledger, home: Home, guard: Guard
) -> Callable[[Batch], Outcome | None]:
    """Make the step that the core runs: the pipeline, or quarantine, never onward."""

    def process(batch: Batch) -> Outcome | None:
        def set_aside(error: Exception) -> None:
            # The text of the exception may quote the data; its type and place are enough.
            kind = type(error).__name__
            place = innermost(error)
            log.error("batch quarantined sequence=%d error=%s at=%s", batch.sequence, kind, place)
            name = f"{batch.sequence:016d}.otlp.zst"
            try:
                home.set_aside(name, zstandard.ZstdCompressor().compress(batch.arena.tobytes()))
            except OSError as failure:
                log.error("quarantined batch not kept name=%s error=%s", name, failure.strerror)
            ledger.quarantined(by_transport(batch), kind)

        return guard(lambda: pipeline.run(batch, stages), set_aside)

    return process


def innermost(error: BaseException) -> str:
    """Name the place that raised, without any value."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return "unknown"
    return f"{place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}"


def _measure_settings(config: SiteConfig) -> MeasureSettings:
    section = config.measure
    return MeasureSettings(
        drift_tick_s=section.drift_tick,
        baseline_events=section.baseline_events,
        series_max=section.series_max,
        devices_max=section.devices_max,
        lateness_s=section.lateness,
        clock_ahead_s=section.clock_ahead_max,
    )
