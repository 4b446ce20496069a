"""One run over a file of labels: read, send, wait for the answer, move the mark.

Law: each line that is a label is delivered at least once, each other line is told with its number
and counted. The mark moves only behind lines that the gateway has acknowledged: a restart misses
none, and repeats at most the one batch whose acknowledgement was lost.

The file itself is the buffer: one batch is under way at a time, and reading waits for it.
"""

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collectors.client import Client, Counts
from collectors.labelfile import LINE_BYTES_MAX, Bad, BadLineError, Label, Reader
from collectors.messages import Value, event, logs_request, resource_of
from collectors.tail import POLL_S, Line, Lines, Mark, Place, is_replaced
from gateway.errors import StartError, WeirError

logger = logging.getLogger(__name__)

SERVICE: Final = "weir-labels"
SCOPE: Final = "collectors.labels"
EVENT: Final = "edgeai.label"
BATCH: Final = 500
# A growing file's labels wait no longer than this for a batch to fill.
LINGER_S: Final = 1.0
# How long a stop waits for the batch that is under way.
STOP_S: Final = 10.0
TOLD_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with the file. Units: rate in labels per second, 0 means no limit."""

    batch: int = BATCH
    rate: float = 0.0
    follow: bool = False
    strict: bool = False
    give_up_s: float | None = None
    device: str = ""


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of the lines; `stopped` says why the end was not reached."""

    lines: int = 0
    labels: int = 0
    bad: Counter[Bad] = field(default_factory=Counter)
    rejected: int = 0
    stopped: str = ""

    @property
    def fine(self) -> bool:
        """Tell whether every line was a label that the gateway took."""
        return not (self.bad.total() or self.rejected or self.stopped)


class StoppedError(WeirError):
    """The run ends before the file does; the text says why."""


class Labels:
    """One run over one input."""

    def __init__(
        self, client: Client, file: Path | None, mark: Mark | None, plan: Plan, stop: Event
    ) -> None:
        self._client = client
        self._file = file
        self._mark = mark
        self._plan = plan
        self._stop = stop
        self._handle = -1
        self._pending: list[Label] = []
        self._done = Place()
        self._read = Place()
        self._since_s = time.monotonic()
        self.report = Report()
        # Called with the bytes that are done.
        self.on_done: Callable[[int], None] = lambda _: None

    def run(self, reader: Reader) -> Report:
        """Send everything; ends at the end of the input, or at a stop when it is followed.

        Raises: StartError when the input cannot be used.
        """
        again, first = True, True
        try:
            while again:
                self._handle = self._open()
                try:
                    lines = self._begin(reader, first=first)
                    again, first = self._run_file(lines, reader), False
                finally:
                    if self._file is not None:
                        os.close(self._handle)
        except StoppedError as error:
            self.report.stopped = str(error)
        return self.report

    def _open(self) -> int:
        if self._file is None:
            return sys.stdin.fileno()
        try:
            return os.open(self._file, os.O_RDONLY)
        except OSError as error:
            raise StartError(f"{self._file} cannot be read: {error.strerror}") from error

    def _begin(self, reader: Reader, *, first: bool) -> Lines:
        """Find the place to go on from; a file that came later is read from its beginning."""
        place = Place()
        if not first:
            logger.info("the file was replaced; the new one is read from its beginning")
            reader.forget_header()
        elif self._mark is not None:
            place, strange = self._mark.load(self._handle)
            if strange:
                logger.warning("the checkpoint is not of this file; all of it is sent")
        if place.offset and reader.wants_header:
            line = Lines(self._handle, Place(), LINE_BYTES_MAX).maybe_next()
            reader.take_header(line.data if line is not None else b"")
        if self._mark is not None:
            # A mark that cannot be written is found out before anything is sent.
            self._mark.save(self._handle, place)
        self._done = self._read = place
        return Lines(self._handle, place, LINE_BYTES_MAX)

    def _run_file(self, lines: Lines, reader: Reader) -> bool:
        """Send one file; True when another one stands in its place."""
        while not self._stop.is_set():
            line = lines.maybe_next()
            if line is not None:
                self._take(reader, line)
                continue
            replaced = (
                self._plan.follow
                and self._file is not None
                and is_replaced(self._file, self._handle, lines.seen_bytes())
            )
            if lines.at_end and (replaced or not self._plan.follow):
                rest = lines.maybe_rest()
                if rest is not None:
                    self._take(reader, rest)
                self._flush()
                if not replaced:
                    self._check_header(reader)
                return replaced
            if time.monotonic() - self._since_s >= LINGER_S:
                self._flush()
            self._stop.wait(POLL_S)
        self._flush()
        if not self._plan.follow:
            raise StoppedError(f"stopped by a signal behind line {self._done.line}")
        return False

    def _check_header(self, reader: Reader) -> None:
        if reader.wants_header:
            raise StartError("the file is empty: its first line must be trace_id,value")

    def _take(self, reader: Reader, line: Line) -> None:
        """Read one line, and send when enough were read."""
        if reader.wants_header:
            reader.take_header(line.data)
        elif line.data.strip():
            self.report.lines += 1
            try:
                self._pending.append(reader.read(line.data))
            except BadLineError as error:
                self._tell_bad(line, error)
        self._read = Place(offset=line.end, line=line.number)
        if self._read.line - self._done.line >= self._batch():
            self._flush()

    def _batch(self) -> int:
        """Say how many lines make a batch; a slow rate makes small ones."""
        rate = self._plan.rate
        return max(1, min(self._plan.batch, int(rate))) if rate else self._plan.batch

    def _tell_bad(self, line: Line, error: BadLineError) -> None:
        self.report.bad[error.reason] += 1
        told = self.report.bad.total()
        if told <= TOLD_MAX:
            sys.stderr.write(f"{self._file or 'stdin'}:{line.number}: {error}\n")
        if told == TOLD_MAX:
            sys.stderr.write("more bad lines are counted, not shown\n")
        if self._plan.strict:
            self._flush()
            raise StoppedError(f"line {line.number} is bad and --strict is written")

    def _flush(self) -> None:
        """Send what was read, wait for the answer, and move the mark behind it."""
        begin_s = self._since_s = time.monotonic()
        if self._pending:
            before = self._client.counts
            self._client.send(self._request(self._pending))
            self._wait(begin_s)
            self._book(before, self._client.counts)
            if self._plan.rate:
                spent_s = time.monotonic() - begin_s
                self._stop.wait(max(0.0, len(self._pending) / self._plan.rate - spent_s))
        if self._mark is not None and self._read != self._done:
            self._mark.save(self._handle, self._read)
        self._done = self._read
        self._pending = []
        self.on_done(self._done.offset)

    def _wait(self, begin_s: float) -> None:
        """Wait for the answer to the batch that is under way."""
        limit_s = self._plan.give_up_s
        while not self._client.flush(POLL_S):
            waited_s = time.monotonic() - begin_s
            if self._stop.is_set() and not self._client.flush(STOP_S):
                raise StoppedError(
                    f"stopped by a signal behind line {self._done.line}; {self._client.trouble}"
                )
            if limit_s is not None and waited_s > limit_s:
                raise StoppedError(
                    f"given up behind line {self._done.line}: {self._client.trouble}"
                )

    def _book(self, before: Counts, after: Counts) -> None:
        self.report.labels += after.delivered - before.delivered
        self.report.rejected += after.rejected - before.rejected
        if after.delivered + after.rejected < before.delivered + before.rejected + len(
            self._pending
        ):
            raise StoppedError(
                f"lines {self._done.line + 1} to {self._read.line} were not taken:"
                f" {after.refusal or 'the batch is larger than the buffer'}"
            )

    def _request(self, labels: list[Label]) -> ExportLogsServiceRequest:
        now_ns = time.time_ns()
        records = []
        for label in labels:
            attributes: dict[str, Value] = {"edgeai.label.value": label.value}
            if label.model:
                attributes["edgeai.model.name"] = label.model
            record = event(EVENT, attributes, time_ns=label.time_ns, now_ns=now_ns)
            record.trace_id = label.trace_id
            records.append(record)
        resource = resource_of({"service.name": SERVICE, "device.id": self._plan.device})
        return logs_request(resource, SCOPE, records)
