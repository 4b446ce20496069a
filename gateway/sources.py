"""What the API may ask of a running gateway, answered from its rooms.

Law: nothing here changes the state of the core. A snapshot of the measurements is taken under the
core's lock, by one thread at a time beside the event loop; whatever reads files runs in another
thread, too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil

from gateway import __version__, anomalies
from gateway.api import sources as api
from gateway.api.declared import Declarations
from gateway.api.outbox import DeadLetters
from gateway.batch import AnomalyId, AnomalyKind, DiveId
from gateway.deliveries import accounting, destinations, waiting
from gateway.forward.sender import ForwardStatus
from gateway.home import FREE_BYTES_MIN
from gateway.measured import measured
from gateway.otlp.declared import Acknowledgement
from gateway.otlp.events import write as write_events
from gateway.otlp.kernel import SOURCE_DIGEST
from gateway.receive.admission import Counters
from gateway.retrain import retrain_calls, retrain_samples
from gateway.rooms import Rooms
from gateway.store.otlp import to_otlp
from gateway.store.query import Query, TraceRows
from gateway.tally import Distribution

# While no batch comes, a scrape and the console share one snapshot, which takes 0.1 s to make for
# each 1,000 signals; only what time alone changes is as old as this.
SNAPSHOT_AGE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What only the network side knows."""

    counters: Counters
    blocked: Callable[[], str]
    journal_error: Callable[[], str]
    in_storage: Callable[[Callable[[], Any]], Awaitable[Any]]
    dives: api.Dives
    letters: DeadLetters
    declarations: Declarations
    forward_status: Callable[[], Sequence[ForwardStatus]]
    dive_counts: Callable[[], Mapping[Any, int]]


class _Reader:
    """The answers."""

    def __init__(self, rooms: Rooms, live: Live) -> None:
        self._rooms = rooms
        self._live = live
        self._started_ns = time.time_ns()
        self._process = psutil.Process()
        self._shown: api.MeasureSnapshot | None = None
        self._shown_s = 0.0  # when it was ready
        self._shown_of = 0  # sequence of the newest batch that is surely in it
        self._one_at_a_time = asyncio.Lock()

    # --- state ------------------------------------------------------------------------------

    def status(self) -> api.StatusSnapshot:
        """Tell what the process is and what it has counted."""
        rooms, site = self._rooms, self._rooms.config.site
        return api.StatusSnapshot(
            site=site.id,
            cluster=site.cluster,
            region=site.region,
            version=__version__,
            kernel=SOURCE_DIGEST[:12],
            policy=rooms.stages.anonymize.digest,
            started_ns=self._started_ns,
            uptime_s=(time.time_ns() - self._started_ns) / 1e9,
            ready=all(check.ok for check in self.readiness()),
            accounting=tuple(
                api.Accounting(
                    signal=each.signal,
                    destination=each.destination,
                    received=each.received,
                    forwarded=each.forwarded,
                    sampled_out=each.sampled_out,
                    dropped=each.dropped,
                    quarantined=each.quarantined,
                    pending=each.pending,
                    balanced=each.residue == 0,
                )
                for each in rooms.ledger.snapshot().balances()
            ),
            contracts=tuple(
                api.ContractStatus(
                    model=each.model,
                    owner=each.owner,
                    digest=each.digest,
                    expires=each.expires.isoformat(),
                )
                for each in rooms.plan.contracts
            ),
            journal_bytes=rooms.journal.bytes_used,
            store_bytes=rooms.store.bytes_used,
            store_segments=len(rooms.store.segments),
            store_pending_rows=rooms.store.pending_rows,
            destinations=tuple(destinations(rooms, self._live.forward_status())),
        )

    def readiness(self) -> Sequence[api.Check]:
        """Tell what a device needs: a journal that writes, contracts, room on the disk."""
        free = self._rooms.home.free_bytes()
        journal = self._live.journal_error()
        storage = self._rooms.core.storage_error
        blocked = self._live.blocked()
        return (
            api.Check(check="journal", ok=not journal, detail=journal),
            api.Check(check="storage", ok=not storage, detail=storage),
            api.Check(
                check="contracts", ok=True, detail=f"{len(self._rooms.plan.contracts)} loaded"
            ),
            api.Check(check="disk", ok=free >= FREE_BYTES_MIN, detail=f"{free} bytes free"),
            api.Check(check="intake", ok=not blocked, detail=blocked),
        )

    def samples(self) -> Sequence[api.Sample]:
        """Give every metric that does not come from the measurements."""
        rooms = self._rooms
        return [
            *accounting(rooms.ledger.snapshot()),
            *self._refused(),
            *waiting(destinations(rooms, self._live.forward_status())),
            *(
                api.Sample(name="weir_bytes_total", labels={"stage": stage}, value=count)
                for stage, count in rooms.tally.bytes.items()
            ),
            api.Sample(name="weir_ack_seconds", value=_histogram(rooms.tally.ack_s)),
            api.Sample(name="weir_batch_spans", value=_histogram(rooms.tally.group_spans)),
            api.Sample(
                name="weir_info",
                labels={"version": __version__, "kernel": SOURCE_DIGEST[:12]},
                value=1,
            ),
            api.Sample(name="weir_resident_memory_bytes", value=self._process.memory_info().rss),
            api.Sample(name="weir_cpu_seconds_total", value=sum(self._process.cpu_times()[:2])),
            api.Sample(name="weir_journal_bytes", value=rooms.journal.bytes_used),
            api.Sample(name="weir_store_bytes", value=rooms.store.bytes_used),
            api.Sample(name="weir_store_retired_items_total", value=rooms.store.retired.rows),
            *retrain_samples(rooms.calls),
            *(
                api.Sample(name="weir_dives", labels={"state": str(state)}, value=count)
                for state, count in self._live.dive_counts().items()
            ),
        ]

    def _refused(self) -> Iterator[api.Sample]:
        counters = self._live.counters
        for (signal, reason), count in counters.refused.items():
            yield api.Sample(
                name="weir_refused_items_total",
                labels={"signal": signal, "reason": reason},
                value=count,
            )
        for signal, count in counters.ignored_fields.items():
            yield api.Sample(
                name="weir_json_ignored_fields_total", labels={"signal": signal}, value=count
            )

    # --- measurements -----------------------------------------------------------------------

    async def measure(self) -> api.MeasureSnapshot:
        """Show the measurements of every batch that the accounts show as processed.

        The accounts of a page are read first: measurements that were older would contradict them.
        """
        newest = self._rooms.core.processed
        async with self._one_at_a_time:
            shown = self._shown
            # Who waited here for another's snapshot may take it, if it has every batch of theirs.
            is_old = time.monotonic() - self._shown_s > SNAPSHOT_AGE_S
            if shown is None or self._shown_of < newest or is_old:
                newest = self._rooms.core.processed
                shown = await asyncio.to_thread(self._measured)
                # After the snapshot: one that takes longer than its age would never be shared.
                self._shown, self._shown_s, self._shown_of = shown, time.monotonic(), newest
            return shown

    def _measured(self) -> api.MeasureSnapshot:
        rooms = self._rooms
        with rooms.stages.lock:
            found = rooms.stages.measure.snapshot()
        return measured(
            found,
            now_ns=time.time_ns(),
            contracts=rooms.plan.contracts,
            token=rooms.stages.anonymize.device_token,
        )

    # --- traces -----------------------------------------------------------------------------

    async def maybe_trace(self, trace_id: str) -> api.TraceAnswer | None:
        """Find one trace in the store."""
        found = await asyncio.to_thread(self._rooms.store.find_trace, trace_id)
        return _answer(found) if len(found) or found.problems else None

    async def search(self, query: api.SearchQuery) -> Sequence[api.TraceAnswer]:
        """Find the newest traces that match."""
        wanted = Query(
            model=query.model,
            version=query.version,
            device=query.device,
            service=query.service,
            name=query.name,
            duration_ns_min=query.duration_ns_min,
            duration_ns_max=query.duration_ns_max,
            from_ns=query.from_ns,
            to_ns=query.to_ns,
            limit=query.limit,
        )

        def work() -> list[api.TraceAnswer]:
            hits = self._rooms.store.search(wanted).hits
            traces = self._rooms.store.find_traces([hit.trace_id for hit in hits])
            return [_answer(traces[hit.trace_id]) for hit in hits if len(traces[hit.trace_id])]

        return await asyncio.to_thread(work)

    async def operations(self) -> Sequence[api.Operation]:
        """List services and span names."""
        found = await asyncio.to_thread(self._rooms.store.operations)
        return [
            api.Operation(service=each.service, name=each.name, kind=each.kind) for each in found
        ]


class _Anomalies:
    """The book of anomalies as the API sees it."""

    def __init__(self, rooms: Rooms, live: Live) -> None:
        self._rooms = rooms
        self._live = live

    async def list(self, state: str | None) -> Sequence[api.AnomalyView]:
        """List anomalies, newest first."""
        return [self._view(entry) for entry in self._rooms.book.newest(state)]

    async def maybe_get(self, anomaly_id: AnomalyId) -> api.AnomalyView | None:
        """Find one."""
        entry = self._rooms.book.entries.get(anomaly_id)
        return self._view(entry) if entry is not None else None

    async def acknowledge(self, anomaly_id: AnomalyId, principal: str) -> api.AnomalyView:
        """Note who looks after it, durably; a violation of integrity ends with that.

        Raises: NotFoundError, ConflictError, OverloadedError, JournalUnavailableError.
        """
        now_ns = time.time_ns()
        found = self._rooms.book.get(anomaly_id)
        if found.anomaly.kind is AnomalyKind.INTEGRITY and found.state == "firing":
            await self._live.declarations.declare(
                write_events([Acknowledgement(at_ns=now_ns, anomaly=anomaly_id)])
            )
        entry = self._rooms.book.acknowledge(anomaly_id, principal, now_ns)

        def work() -> None:
            with self._rooms.checkpoint.transaction() as connection:
                anomalies.write(connection, [entry])

        await self._live.in_storage(work)
        return self._view(entry)

    def _view(self, entry: anomalies.Entry) -> api.AnomalyView:
        return api.AnomalyView(
            anomaly=entry.anomaly,
            state=entry.state,
            acknowledged_by=entry.acknowledged_by,
            acknowledged_ns=entry.acknowledged_ns,
            dives=tuple(DiveId(each) for each in entry.dives),
            retrain=retrain_calls(self._rooms.calls, entry.anomaly.id),
        )


def make_sources(rooms: Rooms, live: Live) -> api.Sources:
    """Connect the API to the rooms."""
    reader = _Reader(rooms, live)
    return api.Sources(
        status=reader.status,
        measure=reader.measure,
        samples=reader.samples,
        readiness=reader.readiness,
        maybe_trace=reader.maybe_trace,
        search=reader.search,
        operations=reader.operations,
        anomalies=_Anomalies(rooms, live),
        dives=live.dives,
        dead_letters=live.letters,
        declarations=live.declarations,
    )


def _answer(found: TraceRows) -> api.TraceAnswer:
    return api.TraceAnswer(parts=(to_otlp([found]),), problems=found.problems)


def _histogram(found: Distribution) -> api.Histogram:
    return api.Histogram(edges=found.edges, counts=tuple(found.counts), sum=found.sum)
