"""Run an emulated fleet from a terminal: `python -m collectors.fleet --help`."""

import argparse
import json
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from collectors.fleet.fleet import Fleet
from gateway.errors import StartError


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m collectors.fleet",
        description="Emulate a fleet of devices that send OTLP traces and answer retrievals.",
    )
    parser.add_argument("--grpc", default="127.0.0.1:4317", help="OTLP/gRPC, host:port")
    parser.add_argument("--http", default="http://127.0.0.1:4318", help="OTLP/HTTP, base URL")
    parser.add_argument("--devices", type=int, default=20)
    parser.add_argument("--rate", type=float, default=10.0, help="inferences per second and device")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=None, help="how long; without: until ^C")
    parser.add_argument(
        "--drift-after", type=float, default=None, help="seconds until the trouble starts"
    )
    parser.add_argument("--drift-share", type=float, default=0.4, help="share that drifts")
    parser.add_argument("--bad-share", type=float, default=0.2, help="share with the bad release")
    parser.add_argument("--ring-dir", type=Path, default=None, help="where rings are kept")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until the time is over or a signal comes; print the counts as one line of JSON."""
    options = _options(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="weir-fleet-") as temporary:
        try:
            fleet = Fleet(
                options.grpc,
                options.http,
                options.devices,
                options.seed,
                options.rate,
                options.ring_dir or Path(temporary),
                drift_share=options.drift_share,
                bad_share=options.bad_share,
            )
        except (StartError, ValueError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
        fleet.start()
        left_s = options.seconds
        if options.drift_after is not None:
            wait_s = options.drift_after if left_s is None else min(options.drift_after, left_s)
            if not stop.wait(wait_s):
                fleet.phase("drift")
            left_s = None if left_s is None else left_s - wait_s
        stop.wait(left_s)
        sys.stdout.write(json.dumps(asdict(fleet.stop())) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
