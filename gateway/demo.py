"""`weir demo`: the whole story in about a minute, on real processes and real connections.

Law: the demo claims nothing that it has not read back from the gateway or from the sink, and it
succeeds only when every part of the story happened.
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console
from rich.table import Table

from collectors.fleet.fleet import Fleet
from collectors.fleet.scenario import OPERATORS
from collectors.fleet.sink import Sink
from gateway.batch import Json
from gateway.errors import StartError, WeirError

# Eight inferences a second on 24 devices teach a baseline of 2,000 in about ten seconds.
RATE_PER_DEVICE: Final = 8.0
BASELINE_EVENTS: Final = 1_500
# The tolerance of the example, 0.1, needs a baseline of 15,000 events, and so minutes; this one
# about 1,700. What the demo lets happen is far larger than either.
TOLERANCE: Final = 0.3
START_S: Final = 30.0
ANOMALY_S: Final = 60.0
POLL_S: Final = 0.25
STOP_S: Final = 40.0


@dataclass(slots=True)
class Story:
    """What happened. Units: seconds since the trouble began."""

    api: str = ""
    sink_spans: int = 0
    received: int = 0
    drift_after_s: float | None = None
    slo_after_s: float | None = None
    anomalies: list[str] = field(default_factory=list)
    dive: str = ""
    dive_state: str = ""
    dive_traces: int = 0
    dive_spans: int = 0
    residue: int = 0
    leaked: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether everything that the demo is about has happened."""
        return (
            self.drift_after_s is not None
            and self.slo_after_s is not None
            and self.dive_state == "complete"
            and self.dive_spans > self.dive_traces > 0
            and self.sink_spans > 0
            and self.residue == 0
            and not self.leaked
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the command line."""

    seconds: float
    devices: int
    seed: int
    keep: bool
    as_json: bool
    overrides: Sequence[str] = ()


def _get(address: str, path: str) -> Json:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10.0) as answer:
        return json.load(answer)


def _site_file(folder: Path, sink: Sink) -> Path:
    """Write the site file of the demo."""
    example = files("gateway.contract").joinpath("examples", "damage-net.yaml")
    contract = yaml.safe_load(example.read_text(encoding="utf-8"))
    contract["drift"]["tolerance"] = TOLERANCE
    # Dates stay texts, and keys stay in order.
    path = folder / "damage-net.yaml"
    path.write_text(yaml.safe_dump(contract, sort_keys=False))
    site = {
        "site": {"id": "dock-7", "cluster": "dock", "region": "eu-west"},
        "data_dir": str(folder / "data"),
        "contracts": [str(path)],
        "receive": {"grpc": {"listen": "127.0.0.1:0"}, "http": {"listen": "127.0.0.1:0"}},
        "api": {"listen": "127.0.0.1:0"},
        "store": {"segment_age": "5s"},
        # A site decides every ten seconds and judges half a minute late; here a minute is all.
        "measure": {"drift_tick": "1s", "baseline_events": BASELINE_EVENTS, "lateness": "2s"},
        "retrieve": {"poll_hold": "10s"},
        "forward": [{"name": "cloud", "otlp": {"endpoint": sink.endpoint}}],
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site))
    return path


@contextlib.contextmanager
def _gateway(site: Path, overrides: Sequence[str], log: Path) -> Iterator[dict[str, str]]:
    """Run the gateway as its own process and stop it again.

    Raises: StartError with what it said.
    """
    command = [sys.executable, "-m", "gateway", "run", "--config", str(site)]
    for each in overrides:
        command += ["--set", each]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)  # noqa: S603
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise StartError(f"the gateway did not start: {log.read_text().strip()}")
            yield json.loads(line)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class _Teller:
    """Tell the story as it happens, on standard error when the result is JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.console = Console(stderr=as_json, highlight=False)

    def say(self, text: str) -> None:
        """Print a line with the time."""
        self.console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {text}")

    def wait(self, what: str, seconds: float, happened: Callable[[], bool]) -> bool:
        """Wait until something happens, with a spinner when there is a terminal."""
        end = time.monotonic() + seconds
        with self.console.status(what):
            while not happened():
                if time.monotonic() > end:
                    return False
                time.sleep(POLL_S)
        return True


def run(options: Options) -> int:
    """Run the demo; 0 when the whole story happened, else 1."""
    story, teller = Story(), _Teller(as_json=options.as_json)
    # Ends the gateway and removes the folder, as ^C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="weir-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sink = Sink()
        stack.callback(sink.close)
        site = _site_file(folder, sink)
        addresses = stack.enter_context(_gateway(site, options.overrides, folder / "gateway.log"))
        story.api = addresses["api"]
        teller.say(
            f"gateway ready: OTLP gRPC {addresses['otlp_grpc']}, HTTP"
            f" {addresses['otlp_http']}, console http://{story.api}/"
        )
        fleet = Fleet(
            addresses["otlp_grpc"],
            f"http://{addresses['otlp_http']}",
            options.devices,
            options.seed,
            RATE_PER_DEVICE,
            folder / "rings",
        )
        stack.callback(fleet.stop)
        fleet.start()
        teller.say(f"{options.devices} devices send healthy traffic, seed {options.seed}")
        try:
            _tell(story, teller, fleet, sink, options)
        except (OSError, WeirError) as error:
            teller.say(f"[red]the gateway does not answer: {error}[/red]")
            teller.say((folder / "gateway.log").read_text()[-2000:])
        _summary(story, teller, options)
        if options.keep:
            teller.say(
                f"still running: http://{story.api}/ and http://{story.api}/metrics; ^C ends it"
            )
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(1.0)
    return 0 if story.whole else 1


def _tell(story: Story, teller: _Teller, fleet: Fleet, sink: Sink, options: Options) -> None:
    api = story.api

    def learned() -> bool:
        states = [b["state"] for b in _get(api, "/api/v1/baselines")["items"]]
        return bool(states) and all(state == "frozen" for state in states)

    if not teller.wait("learning the baseline", START_S + options.seconds, learned):
        teller.say("[red]the baseline was not learned in time[/red]")
        return
    teller.say(
        "baselines learned and frozen; now the light fails at some gates and a bad "
        "release reaches others"
    )
    for device, what in sorted(fleet.troubled().items()):
        teller.say(f"  {device}: {what}")
    fleet.phase("drift")
    began = time.monotonic()
    seen: set[str] = set()

    def raised() -> bool:
        for view in _get(api, "/api/v1/anomalies")["items"]:
            anomaly = view["anomaly"]
            if anomaly["id"] in seen:
                continue
            seen.add(anomaly["id"])
            after = time.monotonic() - began
            if anomaly["kind"] == "drift" and story.drift_after_s is None:
                story.drift_after_s = after
            if anomaly["kind"] == "slo_burn" and story.slo_after_s is None:
                story.slo_after_s = after
            story.anomalies.append(anomaly["summary"])
            teller.say(
                f"[yellow]{anomaly['severity']}[/yellow] after {after:.1f} s: {anomaly['summary']}"
            )
        return story.drift_after_s is not None and story.slo_after_s is not None

    if not teller.wait("waiting for anomalies", ANOMALY_S, raised):
        teller.say("[red]not every anomaly was raised within a minute[/red]")

    def dived() -> bool:
        dives = _get(api, "/api/v1/dives")["items"]
        best = max(
            dives, key=lambda d: (d["state"] == "complete", d["traces_received"]), default=None
        )
        if best is not None:
            story.dive, story.dive_state = best["id"], best["state"]
        return story.dive_state == "complete"

    teller.wait("fetching full traces from the devices", ANOMALY_S, dived)
    if story.dive_state == "complete":
        _read_dive(story, teller)
    fleet.pause()
    _settle(story, teller, sink)


def _read_dive(story: Story, teller: _Teller) -> None:
    """Read the full traces back, as a person would."""
    data = _get(story.api, f"/api/v1/dives/{story.dive}/traces")
    spans = [
        span
        for resource in data["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    story.dive_spans = len(spans)
    story.dive_traces = len({span["traceId"] for span in spans})
    teller.say(
        f"[green]deep dive {story.dive} complete[/green]: {story.dive_traces} full traces,"
        f" {story.dive_spans} spans; the gateway never opened a connection to a device"
    )


def _settle(story: Story, teller: _Teller, sink: Sink) -> None:
    """Wait until nothing is on its way, then compare the books with the sink."""

    def quiet() -> bool:
        row = _get(story.api, "/api/v1/status")["accounting"][0]
        story.received, story.sink_spans = row["received"], sink.counts.spans
        settled = row["forwarded"] + row["sampled_out"] + row["dropped"] + row["quarantined"]
        story.residue = abs(row["received"] - settled - row["pending"])
        return bool(row["pending"] == 0 and row["forwarded"] == sink.counts.spans)

    if not teller.wait("waiting until everything kept is forwarded", ANOMALY_S, quiet):
        story.residue = max(1, story.residue)
    names = [f"operator-{number:02d}" for number in range(OPERATORS)]
    story.leaked = [name for name in names if sink.holds(name.encode())]


def _summary(story: Story, teller: _Teller, options: Options) -> None:
    if options.as_json:
        print(json.dumps({**asdict(story), "whole": story.whole}))
        return
    table = Table(title="What happened", show_header=False)
    for name, value in (
        ("spans received and measured", f"{story.received:,}"),
        ("spans at the sink, anonymized", f"{story.sink_spans:,}"),
        ("drift found after", _seconds(story.drift_after_s)),
        ("SLO burn found after", _seconds(story.slo_after_s)),
        ("deep dive", f"{story.dive_state or 'none'}, {story.dive_traces} traces"),
        ("not accounted for", f"{story.residue}"),
        ("operator names that leaked", ", ".join(story.leaked) or "none"),
    ):
        table.add_row(name, value)
    teller.console.print(table)
    teller.say(
        "[green]the whole story happened[/green]"
        if story.whole
        else "[red]the story is not whole[/red]"
    )


def _seconds(value: float | None) -> str:
    return "not found" if value is None else f"{value:.1f} s"
