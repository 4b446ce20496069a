"""Reload under load: contracts change between two batches, and no request is refused for it.

Law: after any number of reloads every acknowledged span is counted once and stored once, the
accounting identity balanced at every scrape, and what left the site left under one of the two
contracts. A configuration that does not validate changes nothing.
"""

import http.client
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.flow.load import Load
from tests.flow.site import DAMAGE_NET, scrape, settled, site_file, stored, watched
from tests.ledger_check import Scrape
from tests.process import Json
from tests.servers import Gateway, gateway, wait_until
from tests.sink import PROTOBUF, TRACES_PATH, otlp_sink

pytestmark = pytest.mark.flow

RELOADS: Final = 20
INVALID_EVERY: Final = 5
WORD_S: Final = 60.0
BETWEEN_SPANS: Final = 200
CONFIDENCE: Final = "edgeai.inference.confidence"
RELOADED: Final = b" reloaded plan="
REFUSED: Final = b"reload refused, nothing changed"


def contract(*, confidence_leaves: bool) -> Json:
    """The example contract that keeps every span, with or without one attribute."""
    made = yaml.safe_load(DAMAGE_NET.read_text())
    made["sampling"] = {"rate": 1.0}
    made["signals"]["confidence"]["export"] = "pass" if confidence_leaves else "drop"
    if confidence_leaves:
        # Another set of attribute keys, so that slots move, and another edge of the histogram.
        made["match"] = {"edgeai.model.name": "damage-net", "service.name": "dock-camera"}
        made["slos"][1]["threshold"] = "70ms"
    return made


def replace_file(path: Path, text: str) -> None:
    """Replace a file at once, so that nobody reads half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


class Reloader:
    """Changes files and waits for the gateway's word."""

    def __init__(self, target: Gateway) -> None:
        self._target = target

    def count(self, word: bytes) -> int:
        return self._target.server.log_path.read_bytes().count(word)

    def reload(self, word: bytes) -> str:
        """Ask for a reload; return the line that answers."""
        before = self.count(word)
        self._target.server.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: self.count(word) > before,
            timeout_s=WORD_S,
            what=lambda: f"word of the reload\n{self._target.server.log()}",
        )
        lines = self._target.server.log_path.read_bytes().splitlines()
        return [line for line in lines if word in line][-1].decode()


def counted(found: Scrape) -> tuple[float, float, float]:
    """Add up inferences by outcome, by duration and by the success SLO; all must be the same."""
    inferences = durations = slo = 0.0
    for (name, labels), value in found.samples.items():
        fields = dict(labels)
        if name == "weir_inference_total":
            inferences += value
        elif name == "weir_inference_duration_seconds_count":
            durations += value
        elif name == "weir_slo_window_events" and fields["slo"].endswith("success"):
            slo = max(slo, 0.0) + (value if fields["window"] == "30d" else 0.0)
    return inferences, durations, slo


def policies(target: Gateway) -> str:
    digest: str = target.get_json("/api/v1/status")["policy"]
    return digest


def test_twenty_reloads_under_load_refuse_nothing_and_count_everything_once(
    tmp_path: Path, seed: int
) -> None:
    load = Load(seed)
    own = tmp_path / "contract.yaml"
    texts = [yaml.safe_dump(contract(confidence_leaves=leaves)) for leaves in (False, True)]
    own.write_text(texts[0])
    seen: list[str] = []
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url, contracts=(own,))
        with gateway(tmp_path, config=config) as target:
            reloader = Reloader(target)
            with watched(target), load.running(target):
                load.wait_for(BETWEEN_SPANS)
                seen.append(policies(target))
                for number in range(1, RELOADS + 1):
                    if number % INVALID_EVERY == 0:
                        replace_file(own, "contract: 1\nmodel: damage-net\n")
                        line = reloader.reload(REFUSED)
                        assert "contract.yaml" in line
                        assert policies(target) == seen[-1]
                    replace_file(own, texts[number % 2])
                    reloader.reload(RELOADED)
                    seen.append(policies(target))
                    load.wait_for(len(load.acknowledged) + BETWEEN_SPANS)
            assert load.refused == set()
            assert load.unknown == set()
            sent = len(load.acknowledged)
            account = settled(target, sent)
            assert (account.received, account.forwarded) == (sent, sent)
            assert counted(scrape(target)) == (sent, sent, sent)
        assert seen[0::2] == [seen[0]] * (RELOADS // 2 + 1)
        assert seen[1::2] == [seen[1]] * (RELOADS // 2)
        assert seen[0] != seen[1]
        load.check_stored(stored(target.data_dir).column("span_id").to_pylist())
        left = [CONFIDENCE in {each.key for each in span.attributes} for span in sink.spans()]
        assert len(left) == sent
        assert min(sum(left), sent - sum(left)) >= sent // 10
        assert b"quarantined" not in target.server.log_path.read_bytes()


def test_a_crash_after_a_reload_counts_everything_once(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    own = tmp_path / "contract.yaml"
    own.write_text(yaml.safe_dump(contract(confidence_leaves=False)))
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url, contracts=(own,))
        with gateway(tmp_path, config=config) as target, load.running(target):
            load.wait_for(BETWEEN_SPANS)
            replace_file(own, yaml.safe_dump(contract(confidence_leaves=True)))
            Reloader(target).reload(RELOADED)
            load.wait_for(len(load.acknowledged) + BETWEEN_SPANS)
            target.kill()
        with gateway(tmp_path, config=config) as again:
            account = settled(again, len(load.acknowledged))
            assert len(load.acknowledged) <= account.received
            assert account.received <= len(load.acknowledged) + len(load.unknown)
            assert counted(scrape(again)) == (account.received,) * 3
        load.check_stored(stored(again.data_dir).column("span_id").to_pylist())


def test_limits_change_and_what_needs_a_restart_is_named(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    own = tmp_path / "contract.yaml"
    own.write_text(yaml.safe_dump(contract(confidence_leaves=False)))
    device: dict[str, Json] = {"requests_per_second": 1, "burst": "1s"}

    def write(**sections: Json) -> Path:
        return site_file(tmp_path, None, contracts=(own,), **sections)

    with gateway(tmp_path, config=write()) as target:
        reloader = Reloader(target)
        send = sender(target, load)
        assert {send() for _ in range(5)} == {200}
        write(receive={"device": device}, store={"age_max": "48h"}, journal={"group": "6ms"})
        line = reloader.reload(RELOADED)
        assert "waiting for a restart: journal.group, store.age_max" in line
        assert 429 in [send() for _ in range(5)]
        write(receive={"http": {"body_max": "1KiB"}})
        reloader.reload(RELOADED)
        assert {send() for _ in range(5)} == {413}
        # The account would be smaller than a gRPC message, whose limit needs a restart.
        small = {"message_max": "1MiB"}, {"body_max": "1MiB"}
        write(receive={"queue_max": "3MiB", "grpc": small[0], "http": small[1]})
        line = reloader.reload(REFUSED)
        assert "receive.grpc.message_max" in line
        assert {send() for _ in range(5)} == {413}
        write(unknown_section={})
        assert "unknown_section" in reloader.reload(REFUSED)
        write()
        assert "waiting for a restart: nothing" in reloader.reload(RELOADED)
        assert {send() for _ in range(5)} == {200}


def sender(target: Gateway, load: Load) -> Callable[[], int]:
    """Make a function that sends one request over HTTP and returns the status."""
    rng = random.Random(load.seed)

    def send() -> int:
        connection = http.client.HTTPConnection(target.otlp_http, timeout=WORD_S)
        try:
            body = b""
            while len(body) < 2048:
                _, body = load.make(rng)
            connection.request("POST", TRACES_PATH, body, {"Content-Type": PROTOBUF})
            return connection.getresponse().status
        finally:
            connection.close()

    return send
