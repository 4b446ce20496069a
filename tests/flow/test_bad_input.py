"""Bad input, from the wire and from people: a clear answer, nothing stored, nothing lost.

Law: a refusal is one sentence that says what is wrong; there is no traceback, and what was
acknowledged before it is still there after it.
"""

import gzip
import http.client
import json
import random
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.flow.load import Load, fill_inference, new_resource, send_once
from tests.flow.site import account, scrape, site_file, stored, stored_rows, watched
from tests.process import ROOT
from tests.servers import LOOPBACK, Gateway, gateway, wait_until
from tests.sink import EXPORT_METHOD, PROTOBUF, TRACES_PATH, otlp_sink

pytestmark = pytest.mark.flow

ANSWER_S: Final = 10.0
EXIT_S: Final = 30.0
BODY_MAX_BYTES: Final = 64 << 10
SPANS: Final = 8
EXIT_REFUSED: Final = 1
EXIT_UNUSABLE: Final = 2

# Above what the gateway keeps free for its checkpoints, below what a test may take of the memory.
DISK_BYTES: Final = 96 << 20
READY_S: Final = 15.0
LOAD_SPANS: Final = 1_000
REFUSED_FIRST: Final = 1 << 40  # far above the ids of a load
CAP_SYS_ADMIN: Final = 21


def body_of(first: int, count: int = SPANS) -> bytes:
    """Build a good request."""
    request = ExportTraceServiceRequest()
    scope = new_resource(request, "cam-1").scope_spans.add()
    rng = random.Random(first)
    for number in range(first, first + count):
        fill_inference(scope.spans.add(), rng, number)
    return request.SerializeToString()


def post(target: Gateway, body: bytes, **headers: str) -> tuple[int, Status, str | None]:
    """Send over HTTP and read the answer as `google.rpc.Status`."""
    connection = http.client.HTTPConnection(target.otlp_http, timeout=ANSWER_S)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", TRACES_PATH, body, {"Content-Type": PROTOBUF, **named})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.getheader("Content-Type") == PROTOBUF
        return answer.status, Status.FromString(content), answer.getheader("Retry-After")
    finally:
        connection.close()


def call(target: Gateway, body: bytes) -> grpc.RpcError:
    """Send over gRPC, which must refuse."""
    with grpc.insecure_channel(target.otlp_grpc) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(EXPORT_METHOD)(body, timeout=ANSWER_S)
        return caught.value


def status_of(error: grpc.RpcError) -> Status:
    """Read the rich status of a refusal."""
    trailers = dict(error.trailing_metadata())
    return Status.FromString(trailers["grpc-status-details-bin"])


def hint_s(status: Status) -> int:
    """Read the delay of a RetryInfo; the status must have exactly one."""
    (detail,) = status.details
    info = RetryInfo()
    assert detail.Unpack(info)
    return int(info.retry_delay.seconds)


# --- on the wire ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("gateway")
    overrides = (
        f"receive.http.body_max={BODY_MAX_BYTES}",
        f"receive.grpc.message_max={BODY_MAX_BYTES}",
        "store.segment_age=100ms",
    )
    config = site_file(directory, None)
    with gateway(directory, config=config, overrides=overrides) as running:
        yield running
    # The only spans that any test here had accepted; see `test_good_data_passes_after_bad`.
    assert stored_rows(running.data_dir) == 2 * SPANS
    assert b"Traceback" not in running.server.log_path.read_bytes()


def test_truncated_protobuf_is_400_with_a_status(target: Gateway) -> None:
    body = body_of(1)
    for length in (1, len(body) // 2, len(body) - 1):
        code, status, retry_after = post(target, body[:length])
        assert (code, status.code) == (400, grpc.StatusCode.INVALID_ARGUMENT.value[0])
        assert "at byte" in status.message
        assert retry_after is None
    assert stored_rows(target.data_dir) == 0
    assert account(target).received == 0


def test_truncated_protobuf_is_invalid_argument_with_a_status(target: Gateway) -> None:
    body = body_of(1)
    for length in (1, len(body) // 2, len(body) - 1):
        error = call(target, body[:length])
        status = status_of(error)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert status.message == error.details()
        assert "at byte" in status.message
    assert stored_rows(target.data_dir) == 0
    assert account(target).received == 0


def test_body_over_the_limit_is_413(target: Gateway) -> None:
    body = body_of(1, 2_000)
    assert len(body) > BODY_MAX_BYTES
    bomb = gzip.compress(bytes(100 * BODY_MAX_BYTES))
    assert len(bomb) < BODY_MAX_BYTES
    for code, status, retry_after in (
        post(target, body),
        post(target, gzip.compress(body, 1), Content_Encoding="gzip"),
        post(target, bomb, Content_Encoding="gzip"),
    ):
        assert (code, status.code) == (413, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        assert str(BODY_MAX_BYTES) in status.message
        assert retry_after is None
    assert account(target).received == 0


def test_message_over_the_limit_is_resource_exhausted(target: Gateway) -> None:
    error = call(target, body_of(1, 2_000))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(BODY_MAX_BYTES) in error.details()
    assert account(target).received == 0


def test_good_data_passes_after_bad(target: Gateway) -> None:
    assert send_once(target, body_of(1), "grpc")
    assert send_once(target, body_of(1 + SPANS), "http")
    page = scrape(target)
    assert page.total("weir_received_items_total") == 2 * SPANS
    assert page.total("weir_refused_items_total", reason="malformed") >= 6
    assert page.total("weir_refused_items_total", reason="too_large") >= 3


# --- at the start --------------------------------------------------------------------------------


def refused(arguments: Sequence[str], code: int) -> str:
    """Run a gateway that must not start; returns what it said, which is no traceback."""
    command = [sys.executable, "-m", "gateway", "run", *arguments]
    for override in LOOPBACK:
        command += ["--set", override]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=EXIT_S, check=False
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.stderr


def sentence(told: str) -> str:
    """Return the one line that is not of the log."""
    (line,) = [each for each in told.splitlines() if each.startswith("weir: ")]
    return line


def test_unknown_key_is_refused_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text("site: {id: dock-7}\njournal:\n  group: 5ms\n  fsink: true\n")
    told = refused(["--config", str(config), "--data-dir", str(tmp_path / "data")], EXIT_UNUSABLE)
    (line,) = told.splitlines()
    assert line.startswith(f"{config}:4:3: ")
    assert "'fsink'" in line
    assert "fsync" in line
    assert not (tmp_path / "data").exists()


def test_unknown_option_key_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    told = refused(
        ["--data-dir", str(tmp_path / "data"), "--set", "jurnal.group=5ms"], EXIT_UNUSABLE
    )
    (line,) = told.splitlines()
    assert "'jurnal'" in line
    assert "journal" in line.partition("'jurnal'")[2]


@pytest.mark.parametrize("knob", ["receive.grpc.listen", "receive.http.listen", "api.listen"])
def test_port_in_use_is_one_sentence(tmp_path: Path, target: Gateway, knob: str) -> None:
    used = {
        "receive.grpc.listen": target.otlp_grpc,
        "receive.http.listen": target.otlp_http,
        "api.listen": target.api,
    }[knob]
    command = [sys.executable, "-m", "gateway", "run", "--data-dir", str(tmp_path / "data")]
    for override in (*LOOPBACK, f"{knob}={used}"):
        command += ["--set", override]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=EXIT_S, check=False
    )
    assert ended.returncode == EXIT_REFUSED, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    line = sentence(ended.stderr)
    assert used in line
    assert "in use" in line


def test_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("")
    told = refused(["--data-dir", str(path)], EXIT_UNUSABLE)
    (line,) = told.splitlines()
    assert str(path) in line


def test_data_directory_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "data"
    line = sentence(refused(["--data-dir", str(path)], EXIT_REFUSED))
    assert str(path) in line
    assert "--data-dir" in line


def test_second_gateway_on_one_data_directory_is_refused(tmp_path: Path, target: Gateway) -> None:
    line = sentence(refused(["--data-dir", str(target.data_dir)], EXIT_REFUSED))
    assert str(target.data_dir) in line
    assert "another process" in line
    assert target.get("/readyz")[0] == 200


# --- the disk ------------------------------------------------------------------------------------


def _may_mount() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    (effective,) = [line.split()[1] for line in lines if line.startswith("CapEff:")]
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


needs_mount = pytest.mark.skipif(not _may_mount(), reason="mounting is not permitted here")


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """Mount a small file system in memory."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(folder: Path) -> Path:
    """Take all the space that is left, while others may take it too."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as handle:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    handle.write(bytes(size))
    return path


def checks_off(target: Gateway) -> set[str]:
    """Name the readiness checks that do not pass."""
    status, body = target.get("/readyz")
    answer = json.loads(body)
    off = {each["check"] for each in answer["checks"] if not each["ok"]}
    assert answer["ready"] == (status == 200) == (not off)
    return off


@needs_mount
def test_read_only_data_directory_is_one_sentence(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro,size=1m") as disk:
        line = sentence(refused(["--data-dir", str(disk / "data")], EXIT_REFUSED))
        assert str(disk) in line
        assert "Read-only" in line


@needs_mount
def test_full_disk_refuses_with_a_hint_and_heals(tmp_path: Path, seed: int) -> None:
    load = Load(seed)
    with mounted(tmp_path / "disk", f"size={DISK_BYTES}") as disk:
        data_dir = disk / "data"
        with (
            gateway(
                tmp_path,
                config=site_file(tmp_path, None),
                overrides=("store.segment_age=100ms",),
                data_dir=data_dir,
            ) as target,
            load.running(target),
        ):
            load.wait_for(LOAD_SPANS)
            ballast = fill(disk)
            load.wait_for_refusal()
            wait_until(
                lambda: {"disk", "intake"} <= checks_off(target),
                timeout_s=READY_S,
                what="readiness off",
            )
            check_refusals(target)

            ballast.unlink()
            wait_until(lambda: not checks_off(target), timeout_s=READY_S, what="readiness again")
            load.wait_for(len(load.acknowledged) + LOAD_SPANS)
        load.check_stored(stored(data_dir).column("span_id").to_pylist())


def check_refusals(target: Gateway) -> None:
    """Check that both transports refuse with a hint, and that the page still balances."""
    code, status, retry_after = post(target, body_of(REFUSED_FIRST))
    assert (code, status.code) == (503, grpc.StatusCode.UNAVAILABLE.value[0])
    assert retry_after is not None
    assert int(retry_after) >= 1
    assert hint_s(status) >= 1
    error = call(target, body_of(REFUSED_FIRST))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert hint_s(status_of(error)) >= 1
    assert account(target).received > 0


def test_failing_writes_refuse_with_a_hint_and_heal(tmp_path: Path, seed: int) -> None:
    """Let every write fail, as a broken disk does, by a limit on the size of files."""
    load = Load(seed)
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url)
        overrides = ("store.segment_age=100ms",)
        with (
            gateway(tmp_path, config=config, overrides=overrides) as target,
            load.running(target),
            watched(target),
        ):
            load.wait_for(LOAD_SPANS)
            before = resource.prlimit(
                target.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)
            )
            load.wait_for_refusal()
            wait_until(
                lambda: "journal" in checks_off(target), timeout_s=READY_S, what="readiness off"
            )
            check_refusals(target)

            resource.prlimit(target.pid, resource.RLIMIT_FSIZE, before)
            wait_until(lambda: not checks_off(target), timeout_s=READY_S, what="readiness again")
            load.wait_for(len(load.acknowledged) + LOAD_SPANS)
        table = stored(target.data_dir)
        load.check_stored(table.column("span_id").to_pylist())
        kept = table.filter(table.column("kept")).column("span_id").to_pylist()
        assert sorted(kept) == sorted(span.span_id for span in sink.spans())


@needs_mount
def test_kill_on_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", f"size={DISK_BYTES}") as disk:
        config = site_file(tmp_path, None)
        data_dir = disk / "data"
        with gateway(tmp_path, config=config, data_dir=data_dir) as target:
            assert send_once(target, body_of(1), "grpc")
            ballast = fill(disk)
            target.kill()
        told = refused(["--data-dir", str(data_dir)], EXIT_REFUSED)
        assert str(disk) in sentence(told)
        ballast.unlink()
        with gateway(tmp_path, config=config, data_dir=data_dir) as healed:
            assert account(healed).received == SPANS
        assert stored_rows(data_dir) == SPANS
