"""Make batches of journal records again, and never trip over one record for ever.

Law: every item of a record is in the batch that is made of it or in what was lost of it, whose
bytes are in the quarantine. A record at which the process ended ATTEMPTS_MAX times is set aside
unread at the next start, and stays so until a seal is past it: content costs at most that many
starts, whatever it does to the decoder.

Note of the record at work: a few bytes that are overwritten in place before each record and not
synced. They have to outlive the end of the process, which the page cache does; a power cut is not
the record's doing, so losing them to one is right. A sync for each record would take longer than
the replay.
"""

import logging
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import zstandard
from numpy.typing import NDArray

from gateway.batch import Batch, Payload, Signal
from gateway.errors import CorruptDataError, RequestError
from gateway.home import Home
from gateway.journal.checkpoint import Checkpoint
from gateway.journal.frame import checksum
from gateway.journal.log import Entry, GroupRecord
from gateway.ledger import Items
from gateway.otlp.count import count_items
from gateway.otlp.decode import OpenBatch

log = logging.getLogger(__name__)

# The first may have been an accident that has nothing to do with the record.
ATTEMPTS_MAX: Final = 2
# Why items of a record that ended the process are quarantined; the others' reason is their error.
FATAL: Final = "FatalRecord"

# sequence, attempts
_NOTE: Final = struct.Struct("<QI")
_CHECKSUM_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reread:
    """A record as a batch, and the items that are not in it, by reason.

    `done` is called once the batch was processed: what the disk does then is not its doing.
    """

    batch: Batch
    lost: Mapping[str, Items] = field(default_factory=dict)
    done: Callable[[], None] = field(default=lambda: None)


class Attempts:
    """The note of the record that is being replayed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = _read_note(path)
        self._handle = -1

    @property
    def fatal(self) -> int | None:
        """The sequence at which the process ended too often, None when there is none."""
        sequence, attempts = self._before
        return sequence if attempts >= ATTEMPTS_MAX else None

    def begin(self, sequence: int) -> None:
        """Say which record is next. A disk that does not take it costs the note only."""
        before, attempts = self._before
        note = _NOTE.pack(sequence, attempts + 1 if before == sequence else 1)
        with suppress(OSError):
            if self._handle < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
                self._handle = os.open(self._path, flags, 0o600)
            os.pwrite(self._handle, note + checksum(note).to_bytes(_CHECKSUM_BYTES, "little"), 0)

    def rest(self) -> None:
        """Say that the record at work went through, and the next has not begun."""
        with suppress(OSError):
            if self._handle >= 0:
                os.pwrite(self._handle, bytes(_NOTE.size + _CHECKSUM_BYTES), 0)

    def end(self) -> None:
        """Say that no record is being replayed."""
        if self._handle >= 0:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = -1
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _read_note(path: Path) -> tuple[int, int]:
    try:
        data = path.read_bytes()
    except OSError:
        return 0, 0
    note, check = data[: _NOTE.size], data[_NOTE.size :]
    if len(note) < _NOTE.size or check != checksum(note).to_bytes(_CHECKSUM_BYTES, "little"):
        return 0, 0
    sequence, attempts = _NOTE.unpack(note)
    return sequence, attempts


class Recovery:
    """Reads the records of one start."""

    def __init__(self, home: Home, checkpoint: Checkpoint, open_batch: OpenBatch) -> None:
        """Set the record aside at which earlier starts ended. Raises: JournalUnavailableError."""
        self._home = home
        self._open_batch = open_batch
        self._attempts = Attempts(home.root / "replaying")
        fatal = self._attempts.fatal
        if fatal is not None:
            with checkpoint.transaction() as connection:
                checkpoint.set_aside(connection, fatal)
        self._aside = checkpoint.aside()

    def batches(self, records: Iterable[GroupRecord]) -> Iterator[Reread]:
        """Make the batches; the note stays at a record until it is done."""
        for record in records:
            if record.sequence in self._aside:
                yield self._set_aside(record)
                continue
            self._attempts.begin(record.sequence)
            yield self._reread(record)
        self._attempts.end()

    def end(self) -> None:
        """Forget the record at work: the start ended for another reason."""
        self._attempts.end()

    def _reread(self, record: GroupRecord) -> Reread:
        lost: dict[str, Counter[tuple[Signal, str]]] = {}
        for index, (entry, body) in enumerate(_bodies(record)):
            payload = Payload(
                body=body,
                signal=entry.signal,
                transport=entry.transport,
                identity=entry.identity,
                arrival_ns=entry.arrival_ns,
                wire_bytes=entry.wire_bytes,
            )
            try:
                self._open_batch.add(payload)
            except RequestError as error:
                # It was scanned before it was written, so this is damage that the checksum missed
                # or a limit that was lowered since.
                log.error("journal entry not readable sequence=%d %s", record.sequence, error)
                name = f"{record.sequence:016d}-{index}.{entry.signal}.unreadable.zst"
                keep_aside(self._home, name, body)
                lost.setdefault(type(error).__name__, Counter()).update(_items(entry, body))
        return Reread(
            batch=self._open_batch.take(record.sequence), lost=lost, done=self._attempts.rest
        )

    def _set_aside(self, record: GroupRecord) -> Reread:
        log.error("journal record set aside, it ended the process sequence=%d", record.sequence)
        items: Counter[tuple[Signal, str]] = Counter()
        for entry, body in _bodies(record):
            items.update(_items(entry, body))
        keep_aside(self._home, f"{record.sequence:016d}.fatal.zst", bytes(record.body))
        return Reread(batch=self._open_batch.take(record.sequence), lost={FATAL: items})


def keep_aside(home: Home, name: str, body: bytes) -> None:
    """Keep a body in the quarantine; a disk that does not take it costs the copy only."""
    try:
        home.set_aside(name, zstandard.ZstdCompressor().compress(body))
    except OSError as failure:
        log.error("quarantined input not kept name=%s error=%s", name, failure.strerror)


def _bodies(record: GroupRecord) -> Iterator[tuple[Entry, bytes]]:
    offset = 0
    for entry in record.entries:
        yield entry, bytes(record.body[offset : offset + entry.length])
        offset += entry.length


def _items(entry: Entry, body: bytes) -> dict[tuple[Signal, str], int]:
    return {(entry.signal, entry.transport.name.lower()): count_items(entry.signal, body)}


def split_state(
    arrays: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Undo the prefixes of a seal. Raises: CorruptDataError for a name of another room."""
    rooms: dict[str, dict[str, NDArray[Any]]] = {"measure": {}, "decide": {}}
    for name, array in arrays.items():
        room, _, rest = name.partition("/")
        if room not in rooms:
            raise CorruptDataError(f"the checkpoint holds the state of an unknown room: {name}")
        rooms[room][rest] = array
    return rooms["measure"], rooms["decide"]
