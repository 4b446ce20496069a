"""The client loses nothing that it can keep, and says what became of the rest."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from collectors.buffer import BUFFER_BYTES_MIN, Drop
from collectors.client import Access, Client, Counts
from collectors.messages import event, logs_request, resource_of
from collectors.transport import WireProtocol, open_transport
from gateway.errors import StartError
from gateway.otlp.answers import GRPC_RETRYABLE, HTTP_RETRYABLE
from tests.process import free_port, wait_until
from tests.sink import Refusal, Sink, otlp_sink
from tests.unit.collectors.flaky import HANG, HANG_UP, flaky

WAIT_S: Final = 20.0
FAST: Final[dict[str, Any]] = {"backoff_s_min": 0.005, "backoff_s_max": 0.02}
PROTOCOLS: Final = tuple(WireProtocol)


def access(sink: Sink, protocol: WireProtocol = WireProtocol.HTTP, **more: Any) -> Access:
    """Point at a sink."""
    address = sink.http_url if protocol is WireProtocol.HTTP else sink.grpc_address
    return Access(endpoint=address, protocol=protocol, **more)


def request(number: int, items: int = 1, padding: int = 0) -> Any:
    """Make a request of log records that know their number."""
    records = [
        event("test", {"number": number, "padding": "x" * padding}, time_ns=0, now_ns=1)
        for _ in range(items)
    ]
    return logs_request(resource_of({"service.name": "test"}), "test", records)


def numbers(sink: Sink) -> list[int]:
    """List what arrived, in order."""
    return [record.attributes[0].value.int_value for record in sink.log_records()]


def check(counts: Counts) -> None:
    """Every item is somewhere."""
    assert counts.offered + counts.found == counts.delivered + counts.lost + counts.waiting


@contextmanager
def client_of(where: Access, **more: Any) -> Iterator[Client]:
    """Run a client whose books must balance at the end."""
    with Client(where, **{**FAST, **more}) as client:
        yield client
    check(client.counts)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_everything_arrives_once_and_in_order(protocol: WireProtocol) -> None:
    with otlp_sink() as sink, client_of(access(sink, protocol)) as client:
        for number in range(20):
            assert client.send(request(number, items=3, padding=1_000))
        assert client.flush(WAIT_S)
        assert (client.counts.delivered, client.counts.waiting) == (60, 0)
        assert numbers(sink) == [number for number in range(20) for _ in range(3)]
        assert {each.transport for each in sink.requests} == {
            "grpc" if protocol is WireProtocol.GRPC else "http"
        }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(http_status=503, grpc_code=14),
        Refusal(http_status=429, grpc_code=8, retry_after_s=0),
        Refusal(http_status=502, grpc_code=4),
        Refusal(http_status=504, grpc_code=10),
    ],
    ids=["unavailable", "quota", "deadline", "aborted"],
)
def test_what_may_be_retried_is_retried_until_it_is_taken(
    protocol: WireProtocol, refusal: Refusal
) -> None:
    with otlp_sink() as sink, client_of(access(sink, protocol)) as client:
        sink.refuse(refusal, count=4)
        client.send(request(1))
        client.send(request(2))
        assert client.flush(WAIT_S)
        assert numbers(sink) == [1, 2]
        assert (client.counts.retries, client.counts.lost) == (4, 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(http_status=400, grpc_code=3, message="field 7\nis bent"),
        Refusal(http_status=401, grpc_code=16, message="field 7\nis bent"),
        Refusal(http_status=413, grpc_code=8, message="field 7\nis bent"),
        Refusal(http_status=500, grpc_code=13, message="field 7\nis bent"),
    ],
    ids=["bad", "unknown", "too-large", "internal"],
)
def test_what_is_refused_for_good_is_told_in_the_servers_words_and_not_repeated(
    protocol: WireProtocol, refusal: Refusal, caplog: pytest.LogCaptureFixture
) -> None:
    with otlp_sink() as sink, client_of(access(sink, protocol)) as client:
        sink.refuse(refusal, count=1)
        client.send(request(1, items=5))
        client.send(request(2))
        assert client.flush(WAIT_S)
        assert (numbers(sink), sink.refused) == ([2], 1)
        assert (client.counts.refused, client.counts.delivered) == (5, 1)
        assert "field 7 is bent" in client.counts.refusal
    assert "field 7 is bent" in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_partial_success_is_told_and_counted(
    protocol: WireProtocol, caplog: pytest.LogCaptureFixture
) -> None:
    with otlp_sink() as sink, client_of(access(sink, protocol)) as client:
        sink.accept(rejected_items=2)
        client.send(request(1, items=5))
        assert client.flush(WAIT_S)
        assert (client.counts.delivered, client.counts.rejected) == (3, 2)
    assert "rejected by the test" in caplog.text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_servers_wish_to_wait_is_honoured(protocol: WireProtocol) -> None:
    with otlp_sink() as sink, client_of(access(sink, protocol)) as client:
        sink.refuse(Refusal(grpc_code=8, http_status=429, retry_after_s=1), count=1)
        begin_s = time.monotonic()
        client.send(request(1))
        assert client.flush(WAIT_S)
        assert time.monotonic() - begin_s >= 1.0
        assert client.counts.retries == 1


@pytest.mark.parametrize("status", [HANG, HANG_UP, 302, 503])
def test_a_server_that_hangs_hangs_up_or_sends_away_gets_it_again(status: int) -> None:
    how = {"headers": {"Location": "http://127.0.0.1:1/"}} if status == 302 else {}
    with (
        flaky(status, status, **how) as server,
        client_of(Access(endpoint=server.url, timeout_s=0.3)) as client,
    ):
        client.send(request(1))
        assert client.flush(WAIT_S)
        assert (client.counts.delivered, client.counts.retries) == (1, 2)
        assert server.requests == 3


def test_a_page_of_a_portal_is_no_success() -> None:
    with (
        flaky(200, body=b"<html>log in</html>", headers={"X-Portal": "1"}) as server,
        client_of(Access(endpoint=server.url)) as client,
    ):
        client.send(request(1))
        wait_until(lambda: client.counts.retries > 1, timeout_s=WAIT_S, what="attempts")
        assert client.counts.delivered == 0
        assert "not OTLP" in client.trouble
        server.headers.clear()
        assert client.flush(WAIT_S)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_there_at_first(protocol: WireProtocol) -> None:
    port = free_port()
    where = Access(endpoint=f"http://127.0.0.1:{port}", protocol=protocol)
    with client_of(where) as client:
        for number in range(5):
            client.send(request(number))
        wait_until(lambda: client.counts.retries > 2, timeout_s=WAIT_S, what="attempts")
        assert client.trouble
        ports = {"http_port" if protocol is WireProtocol.HTTP else "grpc_port": port}
        with otlp_sink(**ports) as sink:
            assert client.flush(WAIT_S)
            assert numbers(sink) == list(range(5))
            assert client.trouble == ""


def test_send_returns_while_the_server_hangs_and_close_keeps_its_deadline() -> None:
    with flaky(*[HANG] * 9) as server:
        client = Client(Access(endpoint=server.url, timeout_s=60.0), **FAST)
        for number in range(50):
            assert client.send(request(number))
        assert not client.flush(0.01)
        counts = client.close(0.05)
        assert counts.dropped == {Drop.STOPPED: 50}
        check(counts)


def test_grpc_call_that_hangs_ends_with_the_client() -> None:
    with _deaf_server() as address:
        where = Access(endpoint=address, protocol=WireProtocol.GRPC, timeout_s=60.0)
        client = Client(where, **FAST)
        client.send(request(1))
        counts = client.close(0.05)
        assert counts.dropped == {Drop.STOPPED: 1}
        assert not [each for each in threading.enumerate() if each.name == "otlp-client"]


@contextmanager
def _deaf_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_the_oldest_go_first_when_the_buffer_is_full() -> None:
    with otlp_sink() as sink, client_of(access(sink), buffer_bytes_max=BUFFER_BYTES_MIN) as client:
        sink.refuse(Refusal())
        for number in range(100):
            client.send(request(number, padding=10_000))
        counts = client.counts
        assert counts.dropped[Drop.BUFFER_FULL] + counts.waiting == 100
        sink.accept()
        assert client.flush(WAIT_S)
        arrived = numbers(sink)
        assert arrived == sorted(arrived)
        # The newest are all there; besides, the one that was under way meanwhile.
        assert arrived[1:] == list(range(100 - len(arrived) + 1, 100))
        assert client.counts.delivered == len(arrived) >= BUFFER_BYTES_MIN // 10_100


def test_a_request_larger_than_the_buffer_is_dropped_and_counted() -> None:
    with otlp_sink() as sink, client_of(access(sink), buffer_bytes_max=BUFFER_BYTES_MIN) as client:
        assert not client.send(request(1, padding=BUFFER_BYTES_MIN))
        assert client.send(request(2))
        assert client.flush(WAIT_S)
        assert client.counts.dropped == {Drop.TOO_LARGE: 1}
        assert numbers(sink) == [2]


def test_what_was_not_delivered_is_sent_by_the_next_process(tmp_path: Path) -> None:
    where = Access(endpoint=f"http://127.0.0.1:{free_port()}")
    first = Client(where, buffer_dir=tmp_path, **FAST)
    for number in range(10):
        first.send(request(number, items=2))
    counts = first.close(0.02)
    assert (counts.waiting, counts.lost) == (20, 0)
    check(counts)
    with otlp_sink() as sink:
        with client_of(access(sink), buffer_dir=tmp_path) as second:
            assert second.counts.found == 20
            second.send(request(10))
            assert second.flush(WAIT_S)
            assert numbers(sink) == [n for n in range(10) for _ in range(2)] + [10]
        with client_of(access(sink), buffer_dir=tmp_path) as third:
            assert third.counts.found == 0
        assert len(numbers(sink)) == 21


def test_two_processes_cannot_share_a_buffer(tmp_path: Path) -> None:
    with (
        otlp_sink() as sink,
        client_of(access(sink), buffer_dir=tmp_path),
        pytest.raises(StartError, match="cannot be opened"),
    ):
        Client(access(sink), buffer_dir=tmp_path)


def test_a_stop_sends_what_waits_although_a_pause_was_long() -> None:
    with otlp_sink() as sink:
        sink.refuse(Refusal(), count=1)
        client = Client(access(sink), backoff_s_min=600.0, backoff_s_max=600.0)
        client.send(request(1))
        sink.wait_for_refusals(1)
        counts = client.close(WAIT_S)
        assert (counts.delivered, numbers(sink)) == (1, [1])


def test_a_closed_client_takes_nothing_and_closes_twice() -> None:
    with otlp_sink() as sink:
        client = Client(access(sink))
        assert client.close() == client.close()
        with pytest.raises(StartError, match="closed"):
            client.send(request(1))


def test_an_empty_request_is_refused() -> None:
    with (
        otlp_sink() as sink,
        client_of(access(sink)) as client,
        pytest.raises(ValueError, match="nothing to send"),
    ):
        client.send(request(1, items=0))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_and_an_exchanged_token_are_sent_and_never_logged(
    protocol: WireProtocol, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text("swordfish-1\n")
    token.chmod(0o644)
    with otlp_sink() as sink:
        where = access(sink, protocol, token_file=token, headers={"x-site": "dock-7"})
        with client_of(where) as client:
            client.send(request(1))
            assert client.flush(WAIT_S)
            token.write_text("swordfish-2")
            client.send(request(2))
            assert client.flush(WAIT_S)
        shown = [each.headers["authorization"] for each in sink.requests]
        assert shown == ["Bearer swordfish-1", "Bearer swordfish-2"]
        assert {each.headers["x-site"] for each in sink.requests} == {"dock-7"}
    assert "readable for everyone" in caplog.text
    assert "swordfish" not in caplog.text


def test_a_token_that_is_away_for_a_moment_stops_nothing(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    with otlp_sink() as sink, client_of(access(sink, token_file=token)) as client:
        token.unlink()
        client.send(request(1))
        wait_until(lambda: client.counts.retries, timeout_s=WAIT_S, what="an attempt")
        assert "token file" in client.trouble
        token.write_text("two")
        assert client.flush(WAIT_S)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"endpoint": "http://gateway.example:4318"}, "write https://, or --insecure"),
        ({"endpoint": "gateway.example:4318"}, "write https://, or --insecure"),
        ({"endpoint": "http://10.0.0.7:4317", "protocol": WireProtocol.GRPC}, "--insecure"),
        ({"endpoint": "ftp://127.0.0.1"}, "not understood"),
        ({"endpoint": "http://127.0.0.1:99999"}, "not understood"),
        ({"endpoint": "http://"}, "not understood"),
        ({"endpoint": "http://me:secret@127.0.0.1"}, "--token-file"),
        ({"endpoint": "http://127.0.0.1/x", "protocol": WireProtocol.GRPC}, "has no path"),
        ({"endpoint": "http://127.0.0.1", "ca": Path("/nowhere")}, "https"),
        ({"endpoint": "https://127.0.0.1", "ca": Path("/nowhere")}, "cannot be used"),
        ({"endpoint": "https://127.0.0.1", "cert": Path("/nowhere")}, "needs both"),
        ({"endpoint": "http://127.0.0.1", "token_file": Path("/nowhere")}, "cannot be read"),
        ({"endpoint": "http://127.0.0.1", "headers": {"a b": "c"}}, "name=value"),
        ({"endpoint": "http://127.0.0.1", "headers": {"a": "c\r\nd: e"}}, "name=value"),
    ],
)
def test_an_access_that_cannot_be_used_says_what_to_write(where: Any, said: str) -> None:
    with pytest.raises(StartError, match=said) as caught:
        open_transport(Access(**where))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1", "127.0.0.1:1", "http://localhost:4318/", "http://[::1]:4318",
     "https://gateway.example", "https://gateway.example/otlp"],
)  # fmt: skip
def test_loopback_and_tls_need_no_leave(endpoint: str) -> None:
    open_transport(Access(endpoint=endpoint))
    open_transport(Access(endpoint="http://gateway.example", insecure=True))


def test_a_buffer_that_is_too_small_is_refused() -> None:
    with pytest.raises(StartError, match="too small"):
        Client(Access(endpoint="http://127.0.0.1"), buffer_bytes_max=1)


def test_grpc_codes_are_those_of_the_specification() -> None:
    retryable = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE"}
    assert {code.name for code in GRPC_RETRYABLE} == retryable | {"DATA_LOSS"}
    assert grpc.StatusCode.RESOURCE_EXHAUSTED not in GRPC_RETRYABLE
    assert sorted(HTTP_RETRYABLE) == [429, 502, 503, 504]
