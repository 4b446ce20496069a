"""Deep dives as the API sees them, and the copy of a chunk that the site may keep.

Law: what a device uploads goes through the same kernel and the same site policy as what it exports;
only the clean copy is written. Dives are evidence: they change no count and carry no sampling
weight.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from gateway.api import sources as api
from gateway.batch import DiveId, Evidence, Payload, Signal, Transport
from gateway.errors import InvalidQueryError, NotFoundError
from gateway.otlp.decode import decode
from gateway.otlp.encode import encode
from gateway.retrieve import chunks
from gateway.retrieve.dive import Command, Dive, DiveRequest, manifest_json
from gateway.retrieve.retriever import Retriever
from gateway.rooms import Rooms
from gateway.store.query import Query

log = logging.getLogger(__name__)

# A query without ids selects at most this many traces that the store knows.
QUERY_TRACES_MAX: Final = 200


def cleaner(rooms: Rooms) -> Callable[[bytes], bytes]:
    """Make the function that turns an uploaded body into what the site may keep."""
    stages = rooms.stages

    def clean(body: bytes) -> bytes:
        payload = Payload(
            body=body,
            signal=Signal.TRACES,
            transport=Transport.HTTP,
            identity="",
            arrival_ns=time.time_ns(),
            wire_bytes=len(body),
        )
        # Both of one plan: a reload may exchange them meanwhile.
        with stages.lock:
            measure, anonymize = stages.measure, stages.anonymize
        batch = decode([payload], measure.plan.slot_keys)
        kept = anonymize.site(batch, measure.contracts(batch))
        return b"".join(chunk.body for chunk in encode(kept))

    return clean


class Dives:
    """The API's view of the retriever; whatever touches the disk runs in another thread."""

    def __init__(self, rooms: Rooms, retriever: Retriever) -> None:
        self._rooms = rooms
        self._retriever = retriever

    async def create(self, wish: api.DiveWish) -> api.DiveState:
        """Open a dive.

        Raises: NotFoundError for an unknown anomaly, InvalidQueryError when nothing is selected.
        """
        return await asyncio.to_thread(self._create, wish)

    def _create(self, wish: api.DiveWish) -> api.DiveState:
        evidence: list[Evidence] = []
        trace_ids = list(wish.trace_ids)
        if wish.anomaly_id is not None:
            evidence += self._rooms.book.get(wish.anomaly_id).anomaly.evidence
            trace_ids += [each.trace_id for each in evidence]
        if wish.query is not None:
            evidence += self._select(wish.query)
        if wish.trace_ids:
            evidence += self._holders(wish.trace_ids)
        if not evidence:
            raise InvalidQueryError(
                "no device is known to hold such traces; give trace ids or a query that the "
                "store knows, or the id of an anomaly"
            )
        now_ns = time.time_ns()
        request = DiveRequest(
            reason=wish.reason,
            requested_by=wish.requested_by,
            anomaly_id=wish.anomaly_id,
            trace_ids=tuple(dict.fromkeys([*trace_ids, *(e.trace_id for e in evidence)])),
            max_bytes=wish.bytes_max,
            not_after_s=(
                None if wish.not_after_ns is None else max(1.0, (wish.not_after_ns - now_ns) / 1e9)
            ),
        )
        return _state(self._retriever.open_dive(request, evidence))

    def _select(self, query: api.DiveQuery) -> list[Evidence]:
        if query.where is not None:
            raise InvalidQueryError("`where` is not available yet; select by model, device or time")
        found = self._rooms.store.search(
            Query(
                model=query.model,
                version=query.version,
                device=query.device,
                from_ns=query.from_ns,
                to_ns=query.to_ns,
                limit=QUERY_TRACES_MAX,
            )
        )
        return [
            Evidence(trace_id=hit.trace_id, device=hit.device, reason="query") for hit in found.hits
        ]

    def _holders(self, trace_ids: Sequence[str]) -> list[Evidence]:
        """Find the devices that sent these traces."""
        traces = self._rooms.store.find_traces(trace_ids)
        return [
            Evidence(trace_id=trace_id, device=device, reason="asked for")
            for trace_id, rows in traces.items()
            for device in dict.fromkeys(rows.table.column("device").to_pylist())
            if device
        ]

    async def list(self, state: str | None) -> Sequence[api.DiveState]:
        """List dives, newest first."""
        dives = await asyncio.to_thread(self._retriever.list)
        return [_state(dive) for dive in dives if state is None or dive.state == state]

    async def maybe_get(self, dive_id: DiveId) -> api.DiveState | None:
        """Find one dive."""
        try:
            return _state(await asyncio.to_thread(self._retriever.get, dive_id))
        except NotFoundError:
            return None

    async def delete(self, dive_id: DiveId) -> None:
        """Cancel a dive and delete what it brought; commands that serve another dive go on.

        Raises: NotFoundError.
        """
        await asyncio.to_thread(self._retriever.delete, dive_id)

    async def traces(self, dive_id: DiveId) -> api.TraceAnswer:
        """Read what has arrived so far."""
        return await asyncio.to_thread(self._traces, dive_id)

    def _traces(self, dive_id: DiveId) -> api.TraceAnswer:
        parts = tuple(chunks.load(path) for path in self._retriever.traces(dive_id))
        missing = self._retriever.get(dive_id).missing
        return api.TraceAnswer(
            parts=parts,
            problems=tuple(f"{m.device} {m.trace_id or 'all'}: {m.reason}" for m in missing),
        )


def _state(dive: Dive) -> api.DiveState:
    return api.DiveState(
        id=dive.id,
        state=str(dive.state),
        anomaly_id=dive.anomaly_id,
        reason=dive.reason,
        requested_by=dive.requested_by,
        created_ns=dive.created_ns,
        updated_ns=dive.changed_ns,
        not_after_ns=dive.not_after_ns,
        bytes_max=dive.max_bytes,
        bytes=sum(command.received_bytes for command in dive.commands),
        traces_wanted=sum(len(command.selector.trace_ids) for command in dive.commands),
        traces_received=sum(command.next_trace for command in dive.commands),
        missing="; ".join(
            [dive.refusal] * bool(dive.refusal)
            + [f"{m.device} {m.trace_id or 'all'}: {m.reason}" for m in dive.missing]
        ),
        devices=tuple(_device(command) for command in dive.commands),
    )


def _device(command: Command) -> api.DiveDevice:
    manifest = command.manifest
    return api.DiveDevice(
        device=command.device,
        state=str(command.state),
        traces=command.next_trace,
        bytes=command.received_bytes,
        detail=command.reason,
        manifest=None if manifest is None else manifest_json(manifest),
    )
