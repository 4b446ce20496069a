"""Who a peer is: the name in its client certificate, else the device of its bearer token.

Law: a peer is anonymous only where neither certificates nor tokens are asked for (the site file
allows that on loopback or when `insecure` is written out). A credential that is expired, unknown
or for another site is refused, never ignored. Token values are never kept, logged or counted.

The tokens file is a list, in YAML or JSON; it holds only hashes of the tokens:

    - sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      device: dock-7-camera-3
      expires: 2027-01-31T00:00:00Z

`sha256` is the SHA-256 of the token's UTF-8 bytes as 64 hex digits, `device` the identity that is
written into the journal, `expires` an ISO 8601 time (UTC unless it says otherwise). All three are
required. A device may have several tokens, so that one can be replaced without a gap.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography import x509

from gateway.batch import API_IDENTITY
from gateway.config import ReceiveSection
from gateway.errors import Finding, ForbiddenError, InvalidConfigError, UnauthenticatedError

TOKENS_MAX: Final = 100_000
TOKENS_FILE_BYTES_MAX: Final = 32 * 1024 * 1024
CERTIFICATES_MAX: Final = 4_096  # certificates whose names are remembered

_DEVICE: Final = re.compile(r"[!-~]{1,128}")
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_SPIFFE_DEVICE: Final = re.compile(r"spiffe://([^/]+)/device/([!-.0-~]{1,128})")
_KEYS: Final = frozenset({"sha256", "device", "expires"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One token or certificate that was checked. Units: expires_ns Unix nanoseconds."""

    digest: bytes
    device: str
    expires_ns: int


class Gate:
    """Name the peer of a request, or refuse it.

    With `certificates` the listener demands a client certificate, so that each connection has one.
    With `site` the name in a certificate counts only if its trust domain is that site.
    """

    def __init__(
        self,
        *,
        now_ns: Callable[[], int],
        tokens: Mapping[bytes, Credential] | None = None,
        certificates: bool = False,
        site: str = "",
    ) -> None:
        self._now_ns = now_ns
        self._tokens = tokens
        self._site = site
        self._names: dict[bytes, Credential] = {}
        self.certificates = certificates

    @property
    def open(self) -> bool:
        """Whether peers are anonymous."""
        return self._tokens is None and not self.certificates

    @property
    def tokens_only(self) -> bool:
        """Whether the token alone decides, so that a peer can be refused by its headers."""
        return self._tokens is not None and not self.certificates

    def replace_tokens(self, tokens: Mapping[bytes, Credential] | None) -> None:
        """Use another token file from the next request on."""
        self._tokens = tokens

    def identify(self, authorization: str | None, certificate: bytes | None) -> str:
        """Return the peer's identity; empty when peers are anonymous.

        Shape: authorization is the header as received; certificate is DER or PEM.
        Raises: UnauthenticatedError, ForbiddenError.
        """
        if self.certificates and certificate is not None:
            device = self._by_certificate(certificate)
            if device:
                return device
        if self._tokens is not None:
            return self._by_token(self._tokens, authorization)
        if self.certificates:
            raise UnauthenticatedError("the client certificate names no device")
        return ""

    def _by_token(self, tokens: Mapping[bytes, Credential], authorization: str | None) -> str:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("a bearer token is required")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        # The table is looked up by the hash, which a client cannot steer; what decides is the
        # comparison in constant time.
        credential = tokens.get(digest)
        if credential is None or not hmac.compare_digest(credential.digest, digest):
            raise UnauthenticatedError("the bearer token is not known")
        if credential.expires_ns <= self._now_ns():
            raise UnauthenticatedError("the bearer token has expired")
        return credential.device

    def _by_certificate(self, certificate: bytes) -> str:
        credential = self._names.get(certificate)
        if credential is None:
            credential = _read_certificate(certificate, self._site)
            if len(self._names) >= CERTIFICATES_MAX:
                del self._names[next(iter(self._names))]
            self._names[certificate] = credential
        # A connection may outlive the certificate that opened it.
        if credential.expires_ns <= self._now_ns():
            raise UnauthenticatedError("the client certificate has expired")
        return credential.device


def gate_of(section: ReceiveSection, *, site: str, now_ns: Callable[[], int]) -> Gate:
    """Make the gate that a site file describes; site is its id.

    Raises: InvalidConfigError when the tokens file cannot be used.
    """
    tokens = None if section.tokens_file is None else load_tokens(section.tokens_file)
    return Gate(
        now_ns=now_ns, tokens=tokens, certificates=section.tls.client_ca is not None, site=site
    )


def _read_certificate(certificate: bytes, site: str) -> Credential:
    try:
        if certificate.startswith(b"-----"):
            parsed = x509.load_pem_x509_certificate(certificate)
        else:
            parsed = x509.load_der_x509_certificate(certificate)
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        device = ""
    except ValueError as error:
        raise UnauthenticatedError("the client certificate cannot be read") from error
    else:
        device = _device_of(names, site)
    if device == API_IDENTITY:
        raise ForbiddenError(f"the name {API_IDENTITY} is the gateway's own")
    expires_ns = int(parsed.not_valid_after_utc.timestamp()) * 1_000_000_000
    return Credential(digest=b"", device=device, expires_ns=expires_ns)


def _device_of(names: x509.SubjectAlternativeName, site: str) -> str:
    """Take the first SPIFFE device id, else the first DNS name, else nothing."""
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        match = _SPIFFE_DEVICE.fullmatch(uri)
        if match is None:
            continue
        if site and match[1] != site:
            raise ForbiddenError("the client certificate is for another site")
        return match[2]
    hosts = names.get_values_for_type(x509.DNSName)
    return hosts[0] if hosts else ""


def load_tokens(path: Path) -> dict[bytes, Credential]:
    """Read a tokens file; the result is keyed by the SHA-256 of the token.

    Raises: InvalidConfigError with all findings at once.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(TOKENS_FILE_BYTES_MAX + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise InvalidConfigError([_finding(path, 0, message, "")]) from error
    if len(raw) > TOKENS_FILE_BYTES_MAX:
        message = f"is larger than {TOKENS_FILE_BYTES_MAX} bytes"
        raise InvalidConfigError([_finding(path, 0, message, "")])
    entries = _entries(path, raw)
    if len(entries) > TOKENS_MAX:
        message = f"has {len(entries)} tokens, the limit is {TOKENS_MAX}"
        raise InvalidConfigError([_finding(path, 0, message, "remove expired tokens")])
    tokens: dict[bytes, Credential] = {}
    findings = []
    for line, entry in entries:
        try:
            credential = _credential(entry)
            if credential.digest in tokens:
                raise ValueError("the same sha256 occurs twice")
        except ValueError as error:
            findings.append(
                _finding(path, line, str(error), "write sha256, device and expires for each token")
            )
        else:
            tokens[credential.digest] = credential
    if findings:
        raise InvalidConfigError(findings)
    return tokens


def _entries(path: Path, raw: bytes) -> list[tuple[int, Any]]:
    """Parse the file into (line, entry); a JSON file has no lines, so its line is 0."""
    instead = "write a list of {sha256, device, expires}"
    if raw.lstrip().startswith(b"["):
        # A YAML file may begin with a flow list that is no JSON.
        with suppress(ValueError, RecursionError):
            return [(0, entry) for entry in json.loads(raw)]
    try:
        loader = yaml.SafeLoader(raw)
        root = loader.get_single_node()
        if root is None:
            return []
        if not isinstance(root, yaml.SequenceNode):
            raise InvalidConfigError([_finding(path, 1, "is not a list", instead)])
        return [
            (node.start_mark.line + 1, loader.construct_object(node, deep=True))
            for node in root.value
        ]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 0
        raise InvalidConfigError([_finding(path, line, "is not valid YAML", instead)]) from error


def _credential(entry: Any) -> Credential:
    if not isinstance(entry, dict):
        raise ValueError("the entry is not a mapping")
    if set(entry) != _KEYS:
        raise ValueError(f"the entry has the keys {sorted(map(str, entry))}")
    sha256, device = entry["sha256"], entry["device"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError("sha256 is not 64 hex digits in quotes or beginning with a letter")
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise ValueError("device is not a name of 1 to 128 printable characters without spaces")
    if device == API_IDENTITY:
        raise ValueError(f"the device name {API_IDENTITY} is the gateway's own")
    return Credential(
        digest=bytes.fromhex(sha256), device=device, expires_ns=_time_ns(entry["expires"])
    )


def _time_ns(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError("expires is not an ISO 8601 time") from error
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise ValueError("expires is not an ISO 8601 time")
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return int(value.timestamp()) * 1_000_000_000


def _finding(path: Path, line: int, message: str, instead: str) -> Finding:
    return Finding(
        file=str(path), line=line, column=0, rule="tokens-file", message=message, instead=instead
    )
