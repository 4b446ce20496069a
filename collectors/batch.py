"""Tell the gateway what a batch job was: `python -m collectors.batch --help`, or from Python

    with batch.job(client, id="nightly-7", model="damage-net", cost_per_hour=1.2) as job:
        job.enriched(trace_id)

Law: a job ends as one span `batch` with links to the traces it enriched and one `edgeai.batch.job`
log event with what it cost; both are sent when it ends, however it ends. The span names no model,
so that it is no inference. Nothing here changes how the job itself ends.

A span carries at most `LINKS_MAX` links; the others are in child spans `batch.links`.
"""

import logging
import math
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collectors.client import Client
from collectors.messages import (
    SPAN_ID_BYTES,
    TRACE_ID_BYTES,
    Value,
    event,
    key_value,
    logs_request,
    maybe_id,
    resource_of,
    scope_of,
)
from collectors.options import (
    BUFFER_DEFAULT,
    DRAIN_DEFAULT,
    BufferBytesOption,
    BufferOption,
    CaOption,
    CertOption,
    DrainOption,
    EndpointOption,
    HeaderOption,
    InsecureOption,
    KeyOption,
    ProtocolOption,
    TokenOption,
    access_of,
    log_to_stderr,
    refusing,
)
from collectors.transport import WireProtocol
from gateway.errors import StartError

logger = logging.getLogger(__name__)

SERVICE: Final = "weir-batch"
SCOPE: Final = "collectors.batch"
EVENT: Final = "edgeai.batch.job"
# About 30 bytes each: a span of 30 KB, which fits every buffer and every server's limit.
LINKS_MAX: Final = 1_000
# All links of a job are 3 MB, which leaves room in the smallest usual buffer.
TRACES_MAX: Final = 100_000
COST_MAX: Final = 1e12
INFERENCES_MAX: Final = 1 << 48
TEXT_BYTES_MAX: Final = 256
NS_PER_S: Final = 1_000_000_000
S_PER_HOUR: Final = 3_600.0
NOT_STARTED: Final = 127  # as a shell reports a command that is not there
LOOK_S: Final = 1.0
SIGNALLED: Final = 128  # and one that a signal ended

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")

Clock = Callable[[], int]


class Job:
    """One run of a batch job. Units: cost in `currency`, cost_per_hour of the job's duration."""

    def __init__(
        self,
        *,
        id: str,
        model: str,
        cost_per_hour: float,
        version: str = "",
        currency: str = "USD",
        device: str = "",
        clock: Clock = time.time_ns,
    ) -> None:
        """Begin now. Raises: StartError that says what to write instead."""
        _check(id, model, version, currency, cost_per_hour)
        self.id = id
        self._model = model
        self._version = version
        self._currency = currency
        self._cost_per_hour = cost_per_hour
        self._device = device
        self._clock = clock
        self._cost = 0.0
        self._inferences: int | None = None
        self._links: list[tuple[bytes, bytes]] = []
        self._dropped_links = 0
        self._begin_ns = clock()
        self._begin_s = time.monotonic()
        self._duration_s: float | None = None
        self._trace_id = secrets.token_bytes(TRACE_ID_BYTES)
        self._span_id = secrets.token_bytes(SPAN_ID_BYTES)

    def enriched(self, trace_id: str | bytes, span_id: str | bytes = b"") -> None:
        """Link a trace that this job enriched, or one span of it; ids as hex or as bytes.

        Raises: ValueError when it is no id.
        """
        link = (
            _id_of(trace_id, TRACE_ID_BYTES),
            _id_of(span_id, SPAN_ID_BYTES) if span_id else b"",
        )
        if len(self._links) < TRACES_MAX:
            self._links.append(link)
        else:
            self._dropped_links += 1

    def cost(self, amount: float) -> None:
        """Add a cost to that of the time. Raises: ValueError when it is none."""
        if not (math.isfinite(amount) and 0 <= amount <= COST_MAX):
            raise ValueError(f"a cost is a number from 0 to {COST_MAX:g}")
        self._cost += amount

    def inferences(self, count: int) -> None:
        """Add inferences; a job that tells none has made one for each trace it enriched.

        Raises: ValueError when it is no count.
        """
        if not 0 <= count <= INFERENCES_MAX:
            raise ValueError(f"inferences are a count from 0 to {INFERENCES_MAX}")
        self._inferences = (self._inferences or 0) + count

    def end(self) -> None:
        """Stop the time, once; numbers may still be added."""
        if self._duration_s is None:
            # A clock that is set while the job runs does not change how long it took.
            self._duration_s = time.monotonic() - self._begin_s

    def finish(self, client: Client, error: str = "", exit_code: int | None = None) -> None:
        """Send the spans and the event; `error` is the class of what went wrong, if it did."""
        self.end()
        duration_s = self._duration_s or 0.0
        end_ns = self._begin_ns + int(duration_s * NS_PER_S)
        if self._dropped_links:
            logger.warning("a job enriched more traces than are linked; job=%s", self.id)
        resource = resource_of({"service.name": SERVICE, "device.id": self._device})
        for span in self._spans(end_ns, error, exit_code):
            client.send(_trace_request(resource, span))
        attributes: dict[str, Value] = {
            "edgeai.batch.job.id": self.id,
            "edgeai.model.name": self._model,
            **({"edgeai.model.version": self._version} if self._version else {}),
            "edgeai.batch.cost": self._cost + self._cost_per_hour * duration_s / S_PER_HOUR,
            "edgeai.batch.currency": self._currency,
            "edgeai.batch.inferences": len(self._links) + self._dropped_links
            if self._inferences is None
            else self._inferences,
            "edgeai.batch.duration_s": duration_s,
        }
        record = event(EVENT, attributes, time_ns=end_ns, now_ns=self._clock())
        record.trace_id, record.span_id = self._trace_id, self._span_id
        client.send(logs_request(resource, SCOPE, [record]))

    def _spans(self, end_ns: int, error: str, exit_code: int | None) -> Iterator[Span]:
        code = Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_OK
        attributes = [key_value("edgeai.batch.job.id", self.id)]
        if error:
            attributes.append(key_value("error.type", error))
        if exit_code is not None:
            attributes.append(key_value("process.exit.code", exit_code))
        for at in range(0, max(1, len(self._links)), LINKS_MAX):
            span = Span(
                trace_id=self._trace_id,
                span_id=self._span_id if at == 0 else secrets.token_bytes(SPAN_ID_BYTES),
                parent_span_id=b"" if at == 0 else self._span_id,
                name="batch" if at == 0 else "batch.links",
                kind=Span.SPAN_KIND_INTERNAL,
                start_time_unix_nano=self._begin_ns,
                end_time_unix_nano=end_ns,
                links=[
                    Span.Link(trace_id=trace_id, span_id=span_id)
                    for trace_id, span_id in self._links[at : at + LINKS_MAX]
                ],
            )
            if at == 0:
                span.attributes.extend(attributes)
                span.status.code = code
                span.dropped_links_count = self._dropped_links
            yield span


@contextmanager
def job(
    client: Client,
    *,
    id: str,
    model: str,
    cost_per_hour: float,
    version: str = "",
    currency: str = "USD",
    device: str = "",
) -> Iterator[Job]:
    """Run a block as one job; what it raises is told in the span and raised on.

    Raises: StartError when the job cannot be named so.
    """
    running = Job(
        id=id,
        model=model,
        cost_per_hour=cost_per_hour,
        version=version,
        currency=currency,
        device=device,
    )
    error = ""
    try:
        yield running
    except BaseException as caught:
        error = type(caught).__qualname__
        raise
    finally:
        try:
            running.finish(client, error)
        except StartError as unsent:
            logger.error("a job is not told; job=%s why=%s", id, unsent)


def read_traces(path: Path, running: Job) -> int:
    """Link the traces that a file names, one in a line, `trace id` or `trace id-span id`.

    Returns the number of lines that are none; each of the first is logged.
    Raises: StartError when the file cannot be read.
    """
    bad = 0
    try:
        with path.open("r", encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                trace_id, _, span_id = line.strip().partition("-")
                if not trace_id:
                    continue
                try:
                    running.enriched(trace_id, span_id)
                except ValueError as error:
                    bad += 1
                    if bad == 1:
                        logger.warning("%s:%d: %s", path, number, error)
    except OSError as error:
        raise StartError(f"traces file {path} cannot be read: {error.strerror}") from error
    return bad


def _check(id: str, model: str, version: str, currency: str, cost_per_hour: float) -> None:
    if _ID.fullmatch(id) is None:
        raise StartError("a job's id has up to 128 letters, digits and ._:/+- : write nightly-7")
    if not model.isprintable() or not 0 < len(model.encode()) <= TEXT_BYTES_MAX:
        raise StartError("a job has a model: write its name as its contract does")
    if version and _VERSION.fullmatch(version) is None:
        raise StartError("a version has up to 64 letters, digits and ._+- : write 1.4.0")
    if _CURRENCY.fullmatch(currency) is None:
        raise StartError("a currency has three capital letters: write USD")
    if not (math.isfinite(cost_per_hour) and 0 <= cost_per_hour <= COST_MAX):
        raise StartError("a cost per hour is a number from 0: write 1.20")


def _id_of(given: str | bytes, size: int) -> bytes:
    found = maybe_id(given, size) if isinstance(given, str) else given
    if found is None or len(found) != size or not any(found):
        raise ValueError(f"an id must be {2 * size} hexadecimal digits, not all zero")
    return found


def _trace_request(resource: Resource, span: Span) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add(resource=resource)
    spans.scope_spans.add(scope=scope_of(SCOPE), spans=[span])
    return request


def run(command: list[str]) -> int:
    """Run a command to its end and pass signals on; the exit code is as a shell says it."""
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    # Before the command starts: a signal that comes while it does is for the command.
    before = {each: signal.signal(each, pass_on) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        process = subprocess.Popen(command)  # noqa: S603 - the command is what a person wrote
        for number in early:
            process.send_signal(number)
        code = _ended(process)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return NOT_STARTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else SIGNALLED - code


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a command; return its code.

    A wait without an end would lose a signal that comes just before it begins: its handler runs
    when the wait is over, and the command waits for the signal.
    """
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(LOOK_S)


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command(context_settings={"ignore_unknown_options": False})
def main(
    command: Annotated[list[str], typer.Argument(help="The command, behind --.")],
    job_id: Annotated[str, typer.Option("--job", help="Id of this run of the job.")],
    model: Annotated[str, typer.Option("--model", help="The model whose traces it enriches.")],
    cost_per_hour: Annotated[
        float, typer.Option("--cost-per-hour", min=0, help="What an hour of it costs; 0: nothing.")
    ],
    endpoint: EndpointOption = None,
    version: Annotated[str, typer.Option("--model-version", help="The model's version.")] = "",
    currency: Annotated[str, typer.Option("--currency", help="Of the cost.")] = "USD",
    cost: Annotated[
        float, typer.Option("--cost", min=0, help="A cost besides that of the time.")
    ] = 0.0,
    traces: Annotated[
        Path | None,
        typer.Option("--traces", help="File with a trace id in each line, read at the end."),
    ] = None,
    inferences: Annotated[
        int | None, typer.Option("--inferences", min=0, help="Else one for each trace.")
    ] = None,
    device_id: Annotated[str, typer.Option("--device-id", help="The device that runs it.")] = "",
    protocol: ProtocolOption = WireProtocol.HTTP,
    header: HeaderOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
    buffer: BufferOption = None,
    buffer_size: BufferBytesOption = BUFFER_DEFAULT,  # type: ignore[assignment]  # parsed
    drain: DrainOption = DRAIN_DEFAULT,  # type: ignore[assignment]  # parsed
) -> None:
    """Run a command and tell the gateway how long it took, what it cost and what it enriched.

    Exit code: that of the command; 2 for options that cannot be used, before it is run. A gateway
    that cannot be reached is told on standard error and changes nothing.
    """
    log_to_stderr()
    with refusing():
        access = access_of(
            endpoint,
            protocol=protocol,
            header=header,
            token_file=token_file,
            ca=ca,
            cert=cert,
            key=key,
            insecure=insecure,
        )
        running = Job(
            id=job_id,
            model=model,
            version=version,
            currency=currency,
            cost_per_hour=cost_per_hour,
            device=device_id,
        )
        client = Client(access, buffer_bytes_max=buffer_size, buffer_dir=buffer)
    code = run(command)
    running.end()
    try:
        if traces is not None:
            bad = read_traces(traces, running)
            if bad:
                logger.warning("lines of the traces file are no ids; lines=%d", bad)
        running.cost(cost)
        if inferences is not None:
            running.inferences(inferences)
    except (StartError, ValueError) as error:
        logger.warning("the job is told without all of its numbers; why=%s", error)
    running.finish(client, "" if code == 0 else f"exit_{code}", code)
    client.close(drain)
    raise typer.Exit(code)


if __name__ == "__main__":
    cli()
