"""The site file as types: every knob with its unit, range and default.

Law: attribute names are the YAML keys; after parsing, durations are float seconds and sizes are int
bytes. Laws between knobs are in `laws`, the kinds of knobs in `knobs`.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from gateway.config.knobs import (
    Address,
    DailyHours,
    Duration,
    FilePath,
    Identity,
    ModelName,
    Name,
    Rule,
    Section,
    Size,
    Url,
    one_or_more,
)
from gateway.config.units import DAY, GIB, HOUR, KIB, MIB, MINUTE, TIB

# One part in so many of `receive.queue_max` is for small bodies alone.
RESERVE_PARTS: Final = 16


class SiteSection(Section):
    """Who this gateway is; the names become labels of everything that it sends."""

    id: Name = Field(default="local", description="name of the site, unique in the fleet")
    cluster: Name = Field(default="local", description="group of sites that is rolled out together")
    region: Name = Field(default="local", description="region of the site")


class TlsSection(Section):
    """Certificate of a listener; all empty means plaintext."""

    cert: FilePath | None = Field(default=None, description="PEM file with the certificate chain")
    key: FilePath | None = Field(default=None, description="PEM file with the private key")
    client_ca: FilePath | None = Field(
        default=None,
        description="PEM file with the CA of the clients; turns on mTLS, identity = SAN",
    )


class GrpcSection(Section):
    """The OTLP/gRPC listener."""

    listen: Address = Field(
        default="127.0.0.1:4317", description="address; port 0 means any free port"
    )
    message_max: Size = Field(
        default=4 * MIB, ge=KIB, le=256 * MIB, description="largest message after decompression"
    )


class HttpSection(Section):
    """The OTLP/HTTP listener."""

    listen: Address = Field(
        default="127.0.0.1:4318", description="address; port 0 means any free port"
    )
    body_max: Size = Field(
        default=20 * MIB, ge=KIB, le=256 * MIB, description="largest body after decompression"
    )


class DeviceSection(Section):
    """What one device may take of the intake: an authenticated identity, else one address."""

    bytes_per_second: Size | None = Field(
        default=None,
        ge=1,
        le=TIB,
        description="bytes of bodies after decompression; past it 429; null is no limit",
    )
    requests_per_second: int | None = Field(
        default=None, ge=1, le=1_000_000, description="requests; past it 429; null is no limit"
    )
    burst: Duration = Field(
        default=10.0,
        ge=1.0,
        le=HOUR,
        description="how many seconds of both rates a device may send at once",
    )
    bodies_max: int = Field(
        default=256,
        ge=1,
        le=65_536,
        description="requests of one device under way at once; past it 429",
    )


class ReceiveSection(Section):
    """The intake."""

    grpc: GrpcSection = Field(default_factory=GrpcSection, description="OTLP/gRPC")
    http: HttpSection = Field(default_factory=HttpSection, description="OTLP/HTTP")
    tls: TlsSection = Field(default_factory=TlsSection, description="TLS of both listeners")
    tokens_file: FilePath | None = Field(
        default=None, description="device tokens: sha256 hashes, device id, expiry"
    )
    queue_max: Size = Field(
        default=64 * MIB,
        ge=KIB,
        le=16 * GIB,
        description="bytes accepted and not yet processed; past it clients are told to come back",
    )
    device: DeviceSection = Field(
        default_factory=DeviceSection, description="limits of each device"
    )
    deployers: tuple[Identity, ...] = Field(
        default=(),
        max_length=64,
        description="identities that may declare rollouts, batch jobs and acknowledgements",
    )
    insecure: bool = Field(
        default=False, description="allow a listener off loopback without TLS and identity"
    )


class EncryptionSection(Section):
    """Keys of the journal; all empty means that it is written plain.

    `key_file`, or what `key_command` says, comes before `key_files`: the first key encrypts what is
    written from now on, all of them decrypt.
    """

    key_file: FilePath | None = Field(
        default=None, description="file with 64 hexadecimal digits: the key of what is written"
    )
    key_command: tuple[str, ...] = Field(
        default=(), max_length=32, description="program and arguments that print the key instead"
    )
    key_files: tuple[FilePath, ...] = Field(
        default=(), max_length=16, description="further keys, of what was written before"
    )


class JournalSection(Section):
    """The journal, where an acknowledged payload is on disk."""

    group: Duration = Field(
        default=0.005, ge=0.0, le=1.0, description="how long requests are gathered into one commit"
    )
    fsync: bool = Field(default=True, description="sync to disk before the acknowledgement")
    bytes_max: Size = Field(
        default=2 * GIB, ge=MIB, le=64 * TIB, description="largest size of the journal on disk"
    )
    encryption: EncryptionSection = Field(
        default_factory=EncryptionSection, description="encryption at rest"
    )


class StoreSection(Section):
    """The trace store of the site."""

    bytes_max: Size = Field(
        default=10 * GIB, ge=MIB, le=1024 * TIB, description="largest size of the store on disk"
    )
    age_max: Duration = Field(
        default=DAY, ge=MINUTE, le=3650 * DAY, description="how long traces are kept on site"
    )
    segment_age: Duration = Field(
        default=MINUTE,
        ge=0.1,
        le=HOUR,
        description="age at which pending rows become a Parquet file",
    )
    segment_rows: int = Field(
        default=131_072,
        ge=1024,
        le=4_194_304,
        description="rows at which they become a Parquet file",
    )


class SamplingSection(Section):
    """Site-wide sampling; a contract may set its own."""

    keep: tuple[Rule, ...] = Field(
        default=("error",), max_length=64, description="rules of spans that are always kept"
    )
    rate: float = Field(
        default=1.0, ge=0.0, le=1.0, description="share of the other traces, 0 to 1"
    )
    bytes_per_second: Size | None = Field(
        default=None,
        ge=1,
        le=TIB,
        description="budget of exported bytes per second; null is no limit",
    )


class OtlpSection(Section):
    """An OTLP destination."""

    endpoint: Url = Field(description="base URL; /v1/traces is added for http/protobuf")
    protocol: Literal["http/protobuf", "grpc"] = Field(
        default="http/protobuf", description="OTLP transport"
    )
    compression: Literal["zstd", "gzip", "none"] = Field(
        default="zstd", description="compression of the body; grpc sends gzip for zstd"
    )
    headers: dict[str, str] = Field(
        default_factory=dict, max_length=32, description="headers added to every request"
    )
    timeout: Duration = Field(
        default=10.0, ge=0.05, le=10 * MINUTE, description="deadline of one request"
    )
    insecure: bool = Field(
        default=False, description="allow plaintext to a destination that is not on this machine"
    )


class ForwardSection(Section):
    """One destination of exported telemetry."""

    name: Name = Field(description="name of the destination, label of its counters")
    otlp: OtlpSection = Field(description="where and how it is sent")
    bytes_per_second: Size | None = Field(
        default=None, ge=1, le=TIB, description="largest send rate in bytes; null is no limit"
    )
    window: Annotated[tuple[DailyHours, ...], BeforeValidator(one_or_more)] = Field(
        default=(),
        max_length=8,
        description=(
            "daily hours in which backlog is sent, that is what has waited longer than live_age; in"
            " local time, with a Z at the end in UTC. Outside them only younger data is sent, at"
            " once; inside them it goes first and backlog gets at least half. Each of the two keeps"
            " its order. Hours that do not come for 24 h of running time, because the clock is"
            " wrong, are taken as come. Empty: everything at once and in one order;"
            " 00:00-24:00: at once, and young data does not wait behind backlog"
        ),
    )
    live_age: Duration = Field(
        default=15 * MINUTE,
        ge=0.0,
        le=30 * DAY,
        description="how long data waits before it is backlog; 0s: all of it is, always",
    )


class OutboxSection(Section):
    """What waits on disk for destinations."""

    bytes_max: Size = Field(
        default=4 * GIB,
        ge=MIB,
        le=64 * TIB,
        description=(
            "largest size on disk of what waits for all destinations, and of dead letters, which"
            " take a quarter of it or 256MiB at most; past it the oldest frames are given up"
        ),
    )


class RemoteWriteSection(Section):
    """A Prometheus remote-write receiver."""

    url: Url = Field(description="remote-write URL")


class RetrainSection(Section):
    """A webhook that starts a training: called at most once for each anomaly, and signed."""

    url: Url = Field(description="https URL that is called; http on loopback only")
    key_file: FilePath = Field(
        description="file with the signing key: whsec_ and base64 of 24 to 64 bytes"
    )
    models: tuple[ModelName, ...] = Field(
        default=(), max_length=1024, description="models for which it is called; empty: all"
    )
    kinds: tuple[Name, ...] = Field(
        default=("drift",),
        min_length=1,
        max_length=32,
        description="kinds of anomalies for which it is called",
    )
    severity: Literal["ticket", "page"] = Field(
        default="ticket", description="least severity for which it is called"
    )


class ApiSection(Section):
    """The API, /metrics and the console."""

    listen: Address = Field(
        default="127.0.0.1:9464", description="address; port 0 means any free port"
    )
    tokens_file: FilePath | None = Field(
        default=None, description="API tokens: sha256 hashes, role, expiry"
    )
    tls: TlsSection = Field(default_factory=TlsSection, description="TLS of the listener")
    insecure: bool = Field(
        default=False, description="allow a listener off loopback without TLS and identity"
    )


class MeasureSection(Section):
    """Limits and periods of the measurements."""

    drift_tick: Duration = Field(
        default=10.0, ge=0.1, le=HOUR, description="period of a drift decision"
    )
    baseline_events: int = Field(
        default=4000,
        ge=200,
        le=1_000_000,
        description="least events of which a baseline is learned; where the tolerance needs more,"
        " up to 16 times as many",
    )
    false_alarms: Literal["signal", "site"] = Field(
        default="signal",
        description="whether the rate of false alarms in a contract holds for each signal by itself"
        " or for all signals of the site together",
    )
    series_max: int = Field(
        default=1024,
        ge=1,
        le=65_536,
        description="most pairs of model and version; more count as other",
    )
    devices_max: int = Field(
        default=100_000, ge=1, le=10_000_000, description="most devices; more count as other"
    )
    labels_max: int = Field(
        default=262_144,
        ge=1_024,
        le=4_194_304,
        description="most traces whose predictions wait for a label; of more, a sample waits",
    )
    lateness: Duration = Field(
        default=30.0, ge=0.0, le=DAY, description="how far alert evaluation stays behind the clock"
    )
    clock_ahead_max: Duration = Field(
        default=2 * MINUTE,
        ge=0.0,
        le=DAY,
        description="how far in the future an event time may lie",
    )


class RetrieveSection(Section):
    """Budgets of deep dives."""

    dive_bytes_max: Size = Field(
        default=8 * MIB, ge=KIB, le=GIB, description="most bytes fetched for one dive"
    )
    dives_per_day: int = Field(
        default=24,
        ge=0,
        le=10_000,
        description="dives that anomalies may open by themselves in a day",
    )
    not_after: Duration = Field(
        default=15 * MINUTE, ge=1.0, le=7 * DAY, description="when an unfinished dive expires"
    )
    traces_max: int = Field(default=200, ge=1, le=10_000, description="most traces of one dive")
    poll_hold: Duration = Field(
        default=25.0, ge=0.0, le=5 * MINUTE, description="how long a device's poll is held open"
    )
    lease: Duration = Field(
        default=MINUTE, ge=0.1, le=HOUR, description="how long a device may work on a command"
    )


class SiteConfig(Section):
    """The whole site file."""

    site: SiteSection = Field(default_factory=SiteSection, description="who this gateway is")
    data_dir: FilePath = Field(default=Path("data"), description="folder of everything Weir writes")
    contracts: tuple[FilePath, ...] = Field(
        default=(), max_length=1024, description="contract files, or folders of them"
    )
    receive: ReceiveSection = Field(default_factory=ReceiveSection, description="the intake")
    journal: JournalSection = Field(default_factory=JournalSection, description="the journal")
    store: StoreSection = Field(default_factory=StoreSection, description="the trace store")
    sampling: SamplingSection = Field(
        default_factory=SamplingSection, description="site-wide sampling"
    )
    forward: tuple[ForwardSection, ...] = Field(
        default=(), max_length=16, description="destinations of exported telemetry"
    )
    outbox: OutboxSection = Field(
        default_factory=OutboxSection, description="what waits for destinations"
    )
    remote_write: tuple[RemoteWriteSection, ...] = Field(
        default=(), max_length=16, description="remote-write receivers; not available yet"
    )
    alertmanagers: tuple[Url, ...] = Field(
        default=(), max_length=16, description="base URLs; every one gets every alert"
    )
    retrain: tuple[RetrainSection, ...] = Field(
        default=(), max_length=8, description="webhooks that start a training"
    )
    api: ApiSection = Field(default_factory=ApiSection, description="API, metrics and console")
    measure: MeasureSection = Field(default_factory=MeasureSection, description="measurements")
    retrieve: RetrieveSection = Field(default_factory=RetrieveSection, description="deep dives")
