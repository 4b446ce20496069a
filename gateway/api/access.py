"""Who may call the API: bearer tokens with a role.

Law: without a tokens file everybody who reaches the listener is an operator; the site file allows
that on loopback, or when `api.insecure` is written out. With one, a request needs a token that is
in the file, has not expired, and has at least the role of its route. Only hashes are kept.

The tokens file is a YAML list:

    - sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      role: viewer
      name: grafana
      expires: 2027-01-31T00:00:00Z

`sha256` is the SHA-256 of the token's UTF-8 bytes in hex, `role` is viewer, operator or auditor,
`name` is what the audit log shows. Each role may do what the ones before it may.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.errors import Finding, ForbiddenError, InvalidConfigError, UnauthenticatedError

TOKENS_MAX: Final = 1_000
TOKENS_FILE_BYTES_MAX: Final = 1 << 20
TOKEN_LENGTH_MAX: Final = 4_096

_NAME: Final = re.compile(r"[!-~]{1,128}")
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_KEYS: Final = frozenset({"sha256", "role", "name", "expires"})


class Role(IntEnum):
    """What a caller may do; a higher one includes the lower ones."""

    NOBODY = 0  # paths that need no token
    VIEWER = 1
    OPERATOR = 2
    AUDITOR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One line of the tokens file. Units: expires_ns Unix nanoseconds."""

    digest: bytes
    principal: Principal
    expires_ns: int


LOCAL_OPERATOR: Final = Principal(name="local", role=Role.OPERATOR)
ANYBODY: Final = Principal(name="", role=Role.NOBODY)


class Access:
    """Name the caller of a request, or refuse it."""

    def __init__(
        self, *, now_ns: Callable[[], int], tokens: Mapping[bytes, Token] | None = None
    ) -> None:
        self._now_ns = now_ns
        self._tokens = tokens

    def replace_tokens(self, tokens: Mapping[bytes, Token] | None) -> None:
        """Use another tokens file from the next request on."""
        self._tokens = tokens

    def admit(self, authorization: str | None, needed: Role) -> Principal:
        """Return who calls when that is allowed.

        Raises: UnauthenticatedError, ForbiddenError.
        """
        if needed is Role.NOBODY:
            return ANYBODY
        principal = (
            LOCAL_OPERATOR if self._tokens is None else self._known(self._tokens, authorization)
        )
        if principal.role < needed:
            raise ForbiddenError(f"this needs the role {needed.name.lower()}")
        return principal

    def _known(self, tokens: Mapping[bytes, Token], authorization: str | None) -> Principal:
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or len(text) > TOKEN_LENGTH_MAX:
            raise UnauthenticatedError("a bearer token is required")
        digest = hashlib.sha256(text.strip().encode("utf-8", "surrogateescape")).digest()
        found: Token | None = None
        for token in tokens.values():  # all of them, so that the time tells nothing
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None:
            raise UnauthenticatedError("the bearer token is not known")
        if found.expires_ns <= self._now_ns():
            raise UnauthenticatedError("the bearer token has expired")
        return found.principal


def load_tokens(path: Path) -> dict[bytes, Token]:
    """Read a tokens file; the result is keyed by the SHA-256 of the token.

    Raises: InvalidConfigError with all findings at once.
    """
    tokens: dict[bytes, Token] = {}
    findings: list[Finding] = []
    entries = _entries(path)
    if len(entries) > TOKENS_MAX:
        raise InvalidConfigError([_finding(path, 0, f"has more than {TOKENS_MAX} tokens")])
    for line, entry in entries:
        try:
            token = _token(entry)
            if token.digest in tokens:
                raise ValueError("the same sha256 occurs twice")
        except ValueError as error:
            findings.append(_finding(path, line, str(error)))
        else:
            tokens[token.digest] = token
    if findings:
        raise InvalidConfigError(findings)
    return tokens


def _entries(path: Path) -> list[tuple[int, Any]]:
    """Parse the file into (line, entry)."""
    try:
        with path.open("rb") as file:
            raw = file.read(TOKENS_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidConfigError(
            [_finding(path, 0, f"cannot be read: {error.strerror}")]
        ) from error
    if len(raw) > TOKENS_FILE_BYTES_MAX:
        raise InvalidConfigError(
            [_finding(path, 0, f"is larger than {TOKENS_FILE_BYTES_MAX} bytes")]
        )
    try:
        loader = yaml.SafeLoader(raw)
        root = loader.get_single_node()
        if root is None:
            return []
        if not isinstance(root, yaml.SequenceNode):
            raise InvalidConfigError([_finding(path, 1, "is not a list")])
        return [
            (node.start_mark.line + 1, loader.construct_object(node, deep=True))
            for node in root.value
        ]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 0
        raise InvalidConfigError([_finding(path, line, "is not valid YAML")]) from error


def _token(entry: Any) -> Token:
    if not isinstance(entry, dict):
        raise ValueError("the entry is not a mapping")
    if set(entry) != _KEYS:
        raise ValueError(f"the entry has the keys {sorted(map(str, entry))}")
    sha256, role, name = entry["sha256"], entry["role"], entry["name"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError("sha256 is not 64 hex digits (quote it when it has no letter)")
    if role not in ("viewer", "operator", "auditor"):
        raise ValueError("role is not viewer, operator or auditor")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("name is not 1 to 128 printable characters without spaces")
    return Token(
        digest=bytes.fromhex(sha256),
        principal=Principal(name=name, role=Role[role.upper()]),
        expires_ns=_time_ns(entry["expires"]),
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


def _finding(path: Path, line: int, message: str) -> Finding:
    return Finding(
        file=str(path),
        line=line,
        column=0,
        rule="api-tokens-file",
        message=message,
        instead="write a list of {sha256, role, name, expires}",
    )
