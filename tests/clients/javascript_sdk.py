"""Run the JavaScript client, whose program is `otlp.js`."""

import json
import os
import subprocess

from tests.clients.told import Told
from tests.process import ROOT, require_javascript

RUN_S = 60.0


def export(protocol: str, endpoint: str, rounds: int) -> Told:
    """Export over grpc, proto or json and return what the client says; skips without Node.js."""
    node, packages = require_javascript()
    command = [node, "tests/clients/otlp.js", protocol, endpoint, str(rounds)]
    # Settings of the exporters in this environment would change what is tested.
    own = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**own, "NODE_PATH": str(packages)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return Told(**json.loads(ended.stdout))
