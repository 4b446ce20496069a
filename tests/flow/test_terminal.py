"""The command line against a real gateway, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.flow.load import Load
from tests.flow.site import settled, site_file
from tests.process import ROOT
from tests.servers import gateway

pytestmark = pytest.mark.flow

SPANS: Final = 200
COMMAND_S: Final = 60.0
UNKNOWN_TRACE: Final = "f" * 32


def weir(api: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, standard output and standard error."""
    # Whoever runs the tests may have a narrow terminal.
    inherited = {key: text for key, text in os.environ.items() if key != "COLUMNS"}
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        cwd=ROOT,
        env={**inherited, "WEIR_API": api},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_S,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_a_person_asks_a_running_gateway(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    # The load fails more often than its objective allows; nothing is judged this early.
    config = site_file(tmp_path, None, measure={"lateness": "2h"})
    with gateway(tmp_path, config=config) as target:
        with load.running(target):
            load.wait_for(SPANS)
        account = settled(target, len(load.acknowledged))

        code, out, errors = weir(target.api, "status", "--json")
        assert (code, errors) == (0, "")
        found = json.loads(out)
        assert found["site"] == "dock-7"
        assert found["ready"] is True
        assert found["accounting"][0]["received"] == account.received
        code, out, errors = weir(target.api, "status")
        assert (code, errors) == (0, "")
        assert f"{account.received:,}" in out

        assert weir(target.api, "anomalies") == (0, "no anomalies\n", "")
        for table in ("slo", "drift"):
            code, out, errors = weir(target.api, table)
            assert (code, errors) == (0, "")
            assert "damage-net" in out

        code, out, errors = weir(target.api, "dive", "start", "--trace", UNKNOWN_TRACE, "--wait")
        assert (code, out) == (1, "")
        assert errors.startswith("weir: no device is known to hold such traces")
        assert errors.endswith("(400 Bad Request)\n")
        assert weir(target.api, "dive", "list") == (0, "no deep dives\n", "")
        code, out, errors = weir(target.api, "dive", "fetch", "gone")
        assert (code, out) == (1, "")
        assert "(404 Not Found)" in errors

    code, out, errors = weir(target.api, "status")
    assert (code, out) == (1, "")
    assert target.api in errors
    assert "`weir run`" in errors
