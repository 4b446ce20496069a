"""Who a peer is; what a tokens file may hold."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.errors import ForbiddenError, InvalidConfigError, UnauthenticatedError
from gateway.receive.identity import CERTIFICATES_MAX, Credential, Gate, gate_of, load_tokens
from tests.unit.receive.support import NOW_NS, YEAR_NS, Authority, section, token_table

SECRET_HASH = hashlib.sha256(b"secret").hexdigest()


def tokens_gate(*tokens: str, expires_ns: int = NOW_NS + 1) -> Gate:
    return Gate(now_ns=lambda: NOW_NS, tokens=token_table(*tokens, expires_ns=expires_ns))


def certificates_gate(now_ns: int = 0, site: str = "dock-7") -> Gate:
    return Gate(now_ns=lambda: now_ns, certificates=True, site=site)


def test_without_certificates_and_tokens_a_peer_is_anonymous() -> None:
    gate = Gate(now_ns=lambda: NOW_NS)
    assert gate.open
    assert gate.identify("Bearer whatever", None) == ""


@pytest.mark.parametrize("header", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_a_known_token_names_its_device(header: str) -> None:
    assert tokens_gate("other", "secret").identify(header, None) == "device-secret"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "required"),
        ("", "required"),
        ("Basic secret", "required"),
        ("secret", "required"),
        ("Bearer", "not known"),
        ("Bearer wrong", "not known"),
        ("Bearer secret extra", "not known"),
        ("Bearer \udcff", "not known"),
    ],
)
def test_any_other_header_is_refused_without_repeating_it(header: str | None, message: str) -> None:
    with pytest.raises(UnauthenticatedError, match=message) as caught:
        tokens_gate("secret").identify(header, None)
    assert "secret" not in str(caught.value)


def test_a_token_ends_at_its_expiry() -> None:
    assert tokens_gate("secret", expires_ns=NOW_NS + 1).identify("Bearer secret", None)
    with pytest.raises(UnauthenticatedError, match="expired"):
        tokens_gate("secret", expires_ns=NOW_NS).identify("Bearer secret", None)


def test_replaced_tokens_count_from_the_next_request_on() -> None:
    gate = tokens_gate("old")
    gate.replace_tokens(token_table("new"))
    assert gate.identify("Bearer new", None) == "device-new"
    with pytest.raises(UnauthenticatedError):
        gate.identify("Bearer old", None)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


@pytest.mark.parametrize(
    ("names", "device"),
    [
        ([uri("spiffe://dock-7/device/camera-3")], "camera-3"),
        ([x509.DNSName("camera.local"), uri("spiffe://dock-7/device/camera-3")], "camera-3"),
        ([uri("https://example.com/"), x509.DNSName("camera.local")], "camera.local"),
    ],
)
def test_a_certificate_names_its_device(
    tmp_path: Path, names: list[x509.GeneralName], device: str
) -> None:
    cert, _ = Authority(tmp_path).issue("client", *names)
    pem = cert.read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    gate = certificates_gate()
    assert gate.identify(None, pem) == gate.identify(None, der) == device


@pytest.mark.parametrize(
    "names", [[uri("spiffe://dock-7/device/~api")], [x509.DNSName("~api")]], ids=["spiffe", "dns"]
)
def test_no_certificate_may_bear_the_gateways_own_name(
    tmp_path: Path, names: list[x509.GeneralName]
) -> None:
    cert, _ = Authority(tmp_path).issue("client", *names)
    with pytest.raises(ForbiddenError, match="own"):
        certificates_gate().identify(None, cert.read_bytes())


def test_a_certificate_of_another_site_is_forbidden(tmp_path: Path) -> None:
    cert, _ = Authority(tmp_path).issue("client", uri("spiffe://dock-8/device/camera-3"))
    with pytest.raises(ForbiddenError):
        certificates_gate().identify(None, cert.read_bytes())


@pytest.mark.parametrize(
    "names",
    [[], [uri("spiffe://dock-7/gateway/1")], [uri("spiffe://dock-7/device/a/b")]],
)
def test_a_certificate_without_a_device_is_refused(
    tmp_path: Path, names: list[x509.GeneralName]
) -> None:
    cert, _ = Authority(tmp_path).issue("client", *names)
    with pytest.raises(UnauthenticatedError, match="names no device"):
        certificates_gate().identify(None, cert.read_bytes())


def test_a_token_may_name_the_device_that_the_certificate_does_not(tmp_path: Path) -> None:
    cert, _ = Authority(tmp_path).issue("client")
    gate = Gate(now_ns=lambda: 0, tokens=token_table("secret"), certificates=True)
    assert gate.identify("Bearer secret", cert.read_bytes()) == "device-secret"
    with pytest.raises(UnauthenticatedError):
        gate.identify(None, cert.read_bytes())


def test_a_connection_does_not_outlive_its_certificate(tmp_path: Path) -> None:
    cert, _ = Authority(tmp_path).issue("client", uri("spiffe://dock-7/device/camera-3"))
    moment_ns = [0]
    gate = Gate(now_ns=lambda: moment_ns[0], certificates=True)
    assert gate.identify(None, cert.read_bytes()) == "camera-3"
    moment_ns[0] = NOW_NS + 100 * YEAR_NS
    with pytest.raises(UnauthenticatedError, match="expired"):
        gate.identify(None, cert.read_bytes())


def test_damaged_certificates_are_refused_and_remembered_names_are_bounded(
    tmp_path: Path,
) -> None:
    gate = certificates_gate()
    with pytest.raises(UnauthenticatedError, match="cannot be read"):
        gate.identify(None, b"-----BEGIN nothing")
    cert, _ = Authority(tmp_path).issue("client", x509.DNSName("camera.local"))
    pem = cert.read_bytes()
    for i in range(3):
        gate.identify(None, pem + b"\n" * i)
    assert len(gate._names) == 3 <= CERTIFICATES_MAX


YAML = f"""
- sha256: {SECRET_HASH}
  device: camera-3
  expires: 2030-01-01T00:00:00Z
- {{sha256: "{"0" * 64}", device: camera-4, expires: 2030-01-01}}
"""


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "tokens.yaml").write_text(YAML)
    (tmp_path / "tokens.json").write_text(
        json.dumps(
            [
                {"sha256": SECRET_HASH, "device": "camera-3", "expires": "2030-01-01T01:00+01:00"},
                {"sha256": "0" * 64, "device": "camera-4", "expires": "2030-01-01T00:00:00"},
            ]
        )
    )
    tokens = load_tokens(tmp_path / "tokens.yaml")
    assert tokens == load_tokens(tmp_path / "tokens.json")
    digest = bytes.fromhex(SECRET_HASH)
    assert tokens[digest] == Credential(
        digest=digest, device="camera-3", expires_ns=1_893_456_000_000_000_000
    )


def test_an_empty_file_knows_no_token(tmp_path: Path) -> None:
    (tmp_path / "tokens.yaml").write_text("# none yet\n")
    assert load_tokens(tmp_path / "tokens.yaml") == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("just text", "not a mapping"),
        ("{sha256: abc, device: d, expires: 2030-01-01}", "64 hex digits"),
        (f"{{sha256: {SECRET_HASH}, device: d}}", "the keys"),
        (f"{{sha256: {SECRET_HASH}, device: d, expires: 2030-01-01, role: x}}", "the keys"),
        (f"{{sha256: {SECRET_HASH}, device: 'a b', expires: 2030-01-01}}", "device"),
        (f"{{sha256: {SECRET_HASH}, device: '~api', expires: 2030-01-01}}", "own"),
        (f"{{sha256: {SECRET_HASH}, device: d, expires: soon}}", "ISO 8601"),
        (f"{{sha256: {SECRET_HASH}, device: d, expires: 12}}", "ISO 8601"),
        (f"{{sha256: '{'0' * 64}', device: d, expires: 2030-01-01}}", "twice"),
    ],
)
def test_a_bad_entry_is_named_with_its_line(tmp_path: Path, entry: str, message: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(f"- {{sha256: '{'0' * 64}', device: d, expires: 2030-01-01}}\n- {entry}\n")
    with pytest.raises(InvalidConfigError, match=message) as caught:
        load_tokens(path)
    assert [finding.line for finding in caught.value.findings] == [2]


@pytest.mark.parametrize("text", ["a: 1", "- [", "\x00", "[1, 2", "- !!python/object:os.x {}"])
def test_what_is_no_list_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(text)
    with pytest.raises(InvalidConfigError):
        load_tokens(path)


def test_the_site_file_says_what_is_asked_of_peers(tmp_path: Path) -> None:
    (tmp_path / "tokens.yaml").write_text(YAML)

    def gate(**changes: Any) -> Gate:
        return gate_of(section(**changes), site="dock-7", now_ns=lambda: NOW_NS)

    assert gate().open
    asked = gate(tokens_file=tmp_path / "tokens.yaml")
    assert asked.tokens_only
    assert asked.identify("Bearer secret", None) == "camera-3"
    assert gate(tls=Authority(tmp_path).tls(clients=True)).certificates


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match=r"nowhere\.yaml"):
        load_tokens(tmp_path / "nowhere.yaml")
