"""Retrieval: from a question to commands, from commands to traces.

Law: a dive ends. Every command has a time after which it is final, leases return what a device
left lying, and what was not fetched is named. Budgets are checked where a dive is opened, and a
refusal is as durable as an acceptance.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.batch import Anomaly, DiveId, Evidence
from gateway.config import RetrieveSection
from gateway.errors import InvalidQueryError, NotFoundError, OverloadedError
from gateway.retrieve import chunks
from gateway.retrieve.dive import MANUAL, Command, Dive, DiveRequest, Missing, Selector
from gateway.retrieve.exchange import Cleaner, Exchange
from gateway.retrieve.manifest import KeysOf, no_keys
from gateway.retrieve.messages import INTEGER_MAX
from gateway.retrieve.room import Change, OnChange, Room, ignore
from gateway.retrieve.states import FINAL, State

NS_PER_S: Final = 1_000_000_000
DAY_NS: Final = 86_400 * NS_PER_S
COMMAND_TRACES_MAX: Final = 2_000  # so that a manifest fits into one message
LIST_MAX: Final = 1_000
DIVES_MAX: Final = 1_000  # kept; the oldest final ones go first
STORED_BYTES_MAX: Final = 2 << 30  # of OTLP before compression
OPEN_COMMANDS_MAX: Final = 20_000
MANUAL_OPEN_MAX: Final = 100  # dives that people may have open at once
GATEWAY: Final = "gateway"

_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{32}")

NewId = Callable[[int], str]


def new_uuid(now_ns: int) -> str:
    """Draw a UUID whose order is that of time.

    Source: RFC 9562, section 5.7, version 7.
    """
    millis = now_ns // 1_000_000 & ((1 << 48) - 1)
    noise = int.from_bytes(os.urandom(10), "big")
    value = (
        millis << 80 | 0x7 << 76 | (noise >> 64 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    )
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Retriever:
    """All dives of a site; methods block for a commit at most and may come from any thread.

    `clean` turns an uploaded chunk into what the site may keep and may raise; it is called again
    when a device sends the chunk again. `on_change` hears of every committed change of a dive.
    """

    def __init__(
        self,
        data_dir: Path,
        section: RetrieveSection,
        *,
        clean: Cleaner,
        on_change: OnChange = ignore,
        keys_of: KeysOf = no_keys,
        clock: Callable[[], int] = time.time_ns,
        new_id: NewId = new_uuid,
    ) -> None:
        """Open the table.

        Raises StartError.
        """
        self._section = section
        self._room = Room(data_dir, on_change)
        self._room.sweep()
        self._exchange = Exchange(self._room, section, clean, keys_of)
        self._new_id = new_id
        self.clock = clock
        self.on_poll = self._exchange.poll
        self.on_message = self._exchange.message
        self.on_chunk = self._exchange.chunk

    def ring_with(self, ring: Callable[[str], None]) -> None:
        """Call this with a device's name whenever there is a command for it."""
        self._room.ring = ring

    def close(self) -> None:
        """Close the table."""
        with self._room.hold():
            self._room.table.close()

    # Opening

    def open_for_anomaly(self, anomaly: Anomaly) -> Dive:
        """Open the dive that explains an anomaly; the same anomaly gets the same dive."""
        with self._room.hold():
            known = self._room.table.maybe_dive_of(anomaly.id)
            if known is not None:
                return known
            request = DiveRequest(
                reason=anomaly.summary,
                kind=f"{anomaly.kind}:{anomaly.model}",
                requested_by=GATEWAY,
                anomaly_id=anomaly.id,
                trace_ids=tuple(dict.fromkeys(one.trace_id for one in anomaly.evidence)),
            )
            return self.open_dive(request, anomaly.evidence)

    def open_dive(self, request: DiveRequest, evidence: Sequence[Evidence] = ()) -> Dive:
        """Make one command per device that holds evidence, durably, and ring the bells.

        Raises InvalidQueryError, OverloadedError.
        """
        now_ns = self.clock()
        with self._room.hold():
            self._check_room(request)
            dive, commands = self._plan(request, evidence, now_ns)
            with self._room.change(now_ns, request.requested_by or MANUAL) as change:
                self._room.table.insert_dive(dive)
                self._room.table.insert_opened(request.kind, now_ns)
                self._room.table.insert_history(
                    now_ns, dive.id, "", dive.state, dive.refusal, change.who
                )
                for command in commands:
                    self._place(change, dive, command)
                change.dives[dive.id] = None
            self._trim()
            return self.get(dive.id)

    def _check_room(self, request: DiveRequest) -> None:
        if request.kind != MANUAL:
            return
        waiting = self._room.table.open_commands()
        manual = {command.home for command in waiting if command.kind == MANUAL}
        if len(waiting) >= OPEN_COMMANDS_MAX or len(manual) >= MANUAL_OPEN_MAX:
            raise OverloadedError("too many dives are open; wait for one to end or delete one")

    def _plan(
        self, request: DiveRequest, evidence: Sequence[Evidence], now_ns: int
    ) -> tuple[Dive, list[Command]]:
        section = self._section
        selectors, unplaced = _group(request, evidence, section.traces_max)
        refusal = ""
        if request.kind != MANUAL:
            opened = self._room.table.count_opened(request.kind, now_ns - DAY_NS)
            refusal = "daily_cap" if opened >= section.dives_per_day else ""
            if len(self._room.table.open_commands()) >= OPEN_COMMANDS_MAX:
                refusal = "open_commands_cap"
        if not selectors:
            refusal = refusal or "no_evidence"
        max_bytes = min(request.max_bytes or section.dive_bytes_max, section.dive_bytes_max)
        wait_s = min(request.not_after_s or section.not_after, section.not_after)
        dive = Dive(
            id=DiveId(self._new_id(now_ns)),
            kind=request.kind,
            reason=request.reason,
            requested_by=request.requested_by,
            anomaly_id=request.anomaly_id,
            created_ns=now_ns,
            changed_ns=now_ns,
            not_after_ns=now_ns + int(wait_s * NS_PER_S),
            max_bytes=max_bytes,
            refusal=refusal,
            unplaced=unplaced,
            commands=(),
        )
        if refusal:
            return dive, []
        trigger = request.anomaly_id or next(iter(request.trace_ids), dive.id)
        return dive, [
            Command(
                request_id=self._new_id(now_ns),
                home=dive.id,
                device=device,
                kind=request.kind,
                selector=selector,
                priority=_priority(trigger),
                # An equal share each, so that the sum cannot go over the dive's cap.
                max_bytes=max_bytes // len(selectors),
                not_after_ns=dive.not_after_ns,
                created_ns=now_ns,
                changed_ns=now_ns,
            )
            for device, selector in selectors.items()
        ]

    def _place(self, change: Change, dive: Dive, command: Command) -> None:
        """Insert a command, or join the open one that asks for the same."""
        table = self._room.table
        equal = table.maybe_equal(command.device, command.kind, command.selector)
        if equal is None:
            table.insert_command(command)
            table.insert_history(
                change.now_ns, command.request_id, "", command.state, "", change.who
            )
        table.join(dive.id, (equal or command).request_id)
        change.devices[command.device] = None

    # Reading

    def list(self, limit: int = LIST_MAX) -> Sequence[Dive]:
        """List dives, newest first."""
        with self._room.hold():
            return self._room.table.dives(min(limit, LIST_MAX))

    def counts(self) -> Mapping[State, int]:
        """Count dives by state, for the vitals."""
        with self._room.hold():
            states = self._room.table.states()
        return {state: states.count(state) for state in State}

    def get(self, dive_id: str) -> Dive:
        """Read one dive.

        Raises NotFoundError.
        """
        with self._room.hold():
            dive = self._room.table.maybe_dive(dive_id)
        if dive is None:
            raise NotFoundError("there is no dive of this id")
        return dive

    def traces(self, dive_id: str) -> Sequence[Path]:
        """List the stored chunks of a dive; `chunks.load` reads one.

        Raises NotFoundError.
        """
        return self._room.paths(self.get(dive_id).id)

    def history(self, subject: str) -> Sequence[tuple[int, str, str, str, str]]:
        """Read the audit records of a dive or command: (at_ns, before, after, reason, who)."""
        with self._room.hold():
            return self._room.table.history(subject)

    # Ending

    def delete(self, dive_id: str, requested_by: str = "") -> None:
        """Delete a dive and its chunks; commands that serve another dive go on.

        Raises NotFoundError.
        """
        now_ns = self.clock()
        with self._room.hold():
            dive = self.get(dive_id)
            paths = {
                command.request_id: [
                    self._room.path(command, chunk.seq)
                    for chunk in self._room.table.chunks(command.request_id)
                ]
                for command in dive.commands
            }
            with self._room.change(now_ns, requested_by or MANUAL) as change:
                self._room.table.insert_history(
                    now_ns, dive.id, dive.state, "deleted", "", change.who
                )
                gone = self._room.table.delete_dive(dive.id)
            chunks.remove([path for command in gone for path in paths[command.request_id]])

    def tick(self, now_ns: int) -> None:
        """End what is past its time and return what a device left lying."""
        with self._room.hold():
            due = [
                command
                for command in self._room.table.open_commands()
                if now_ns >= command.not_after_ns
                or (
                    now_ns >= command.lease_until_ns
                    and command.state in (State.DELIVERED, State.STREAMING)
                )
            ]
            if not due:
                return
            with self._room.change(now_ns, GATEWAY) as change:
                for command in due:
                    self._end_or_return(change, command)

    def _end_or_return(self, change: Change, command: Command) -> None:
        move = self._room.move
        over = change.now_ns >= command.not_after_ns
        if command.state is State.DELIVERED:
            command = move(change, command, State.QUEUED, "no_manifest")
            change.devices[command.device] = None
        elif command.state is State.STREAMING and not over:
            move(change, command, State.PINNED, "upload_stopped")
            change.devices[command.device] = None
        if not over:
            return
        if command.state is State.QUEUED:
            asked = command.reason or ("not_confirmed" if command.attempts else "device_silent")
            move(change, command, State.EXPIRED, asked)
        else:
            move(change, command, State.PARTIAL, "device_gone")

    def _trim(self) -> None:
        table = self._room.table
        for dive_id in table.oldest_dives(DIVES_MAX):
            if self.get(dive_id).state in FINAL:
                self.delete(dive_id, GATEWAY)
        for dive_id in table.oldest_dives(1):
            if table.stored_bytes() <= STORED_BYTES_MAX:
                break
            if self.get(dive_id).state in FINAL:
                self.delete(dive_id, GATEWAY)


def _group(
    request: DiveRequest, evidence: Iterable[Evidence], traces_max: int
) -> tuple[dict[str, Selector], tuple[Missing, ...]]:
    """Group traces by the device that holds them; list what no device can be asked for.

    Raises InvalidQueryError.
    """
    _check(request)
    wanted = list(dict.fromkeys(text.lower() for text in request.trace_ids))
    named = [one for one in evidence if one.device]
    pairs = list(dict.fromkeys((one.device, one.trace_id.lower()) for one in named))
    by_device: dict[str, list[str]] = {}
    traces_max = min(traces_max, COMMAND_TRACES_MAX)
    for device, trace_id in pairs[:traces_max]:
        by_device.setdefault(device, []).append(trace_id)
    placed = {trace_id for _, trace_id in pairs}
    unplaced = [
        Missing(device="", trace_id=trace_id, reason="no_device_known")
        for trace_id in wanted
        if trace_id not in placed
    ] + [
        Missing(device=device, trace_id=trace_id, reason="traces_max")
        for device, trace_id in pairs[traces_max:]
    ]
    selectors = {
        device: Selector(trace_ids=tuple(ids), from_ns=request.from_ns, to_ns=request.to_ns)
        for device, ids in by_device.items()
    }
    if not pairs and not wanted and request.device is not None and request.from_ns is not None:
        selectors[request.device] = Selector(from_ns=request.from_ns, to_ns=request.to_ns)
    return selectors, tuple(unplaced)


def _check(request: DiveRequest) -> None:
    """Refuse what no device could be asked.

    Raises InvalidQueryError.
    """
    if not all(_TRACE_ID.fullmatch(text) for text in request.trace_ids):
        raise InvalidQueryError("write a trace id as 32 hex digits")
    if (request.from_ns is None) != (request.to_ns is None):
        raise InvalidQueryError("write both ends of the time window, or neither")
    if request.from_ns is None or request.to_ns is None:
        return
    if not 0 <= request.from_ns <= request.to_ns <= INTEGER_MAX:
        raise InvalidQueryError("write a time window that does not end before it begins")


def _priority(trigger: str) -> int:
    """Hash a trigger to 56 bits; the same on every gateway, smaller goes first."""
    return int.from_bytes(hashlib.sha256(trigger.encode()).digest()[:7], "big")
