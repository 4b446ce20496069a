"""Requests to the API of a gateway, and whatever goes wrong with them as one sentence.

Law: a request goes straight to the address that was named, through no proxy and no redirect, so
that nobody else sees the token. Nothing that a gateway answers can move a terminal's cursor.
Source: RFC 9457, "Problem Details for HTTP APIs".
"""

import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from gateway.batch import Json
from gateway.errors import Finding, InvalidConfigError, WeirError

DEFAULT_ADDRESS: Final = "http://127.0.0.1:9464"
JSON_TYPE: Final = "application/json"
PROBLEM_TYPE: Final = "application/problem+json"

# Longer than the API takes to merge the traces of the largest deep dive.
ANSWER_S: Final = 60.0
# The largest deep dive is 1 GiB of protobuf; as JSON it may be a little more.
ANSWER_BYTES_MAX: Final = 2 << 30
PART_BYTES: Final = 1 << 20
DETAIL_LENGTH_MAX: Final = 2_000
TOKEN_LENGTH_MAX: Final = 4_096

_ADDRESS_ADVICE: Final = "write an address such as 127.0.0.1:9464 or https://weir.example:9464"
_TOKEN: Final = re.compile(r"[!-~]+")
_UNAUTHORIZED: Final = 401


def printable(text: str) -> str:
    """Make one line of a text, without anything that a terminal would obey."""
    line = " ".join(text.split())
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a gateway's API is; `prefix` is the path in front of it, behind a reverse proxy."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * self.tls}://{host}:{self.port}{self.prefix}"


def read_address(text: str) -> Address:
    """Read a URL, or `host:port` as the ready line has it.

    Raises: ValueError with what to write instead.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as the resolver will, which has no clear word for what it refuses
    except ValueError as error:
        raise ValueError(_ADDRESS_ADVICE) from error
    unwanted = parts.query or parts.fragment or parts.username is not None
    if parts.scheme not in ("http", "https") or not host or unwanted or not text.isascii():
        raise ValueError(_ADDRESS_ADVICE)
    tls = parts.scheme == "https"
    return Address(
        host=host,
        port=port if port is not None else (443 if tls else 80),
        tls=tls,
        prefix=quote(parts.path.rstrip("/"), safe="/%"),
    )


def read_token(path: Path) -> str:
    """Read the token that a file consists of.

    Raises: InvalidConfigError; it never shows what the file holds.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(TOKEN_LENGTH_MAX + 2)
    except OSError as error:
        raise _bad_file(path, f"cannot be read: {error.strerror}") from error
    return check_token(raw.decode("ascii", "replace"), path)


def check_token(text: str, source: Path | str) -> str:
    """Return a token that may stand in a header.

    Raises: InvalidConfigError.
    """
    token = text.strip()
    if len(token) > TOKEN_LENGTH_MAX or not _TOKEN.fullmatch(token):
        raise _bad_file(source, "holds no bearer token")
    return token


def _bad_file(source: Path | str, message: str) -> InvalidConfigError:
    return InvalidConfigError(
        [
            Finding(
                file=str(source),
                line=0,
                column=0,
                rule="bearer-token",
                message=message,
                instead="it is one line of printable characters without spaces",
            )
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API said; header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Json:
        """Return the body as JSON.

        Raises: WeirError when it is not.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise WeirError("the answer is not JSON; is this the API of a gateway?") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One gateway and who asks it."""

    address: Address
    token: str | None = None

    def get(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON_TYPE,
        also: int | None = None,
    ) -> Answer:
        """Ask for something; the status `also` is as good as 200. Raises: WeirError."""
        return self.send("GET", path, query=query, accept=accept, also=also)

    def send(
        self,
        method: str,
        target: str,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        accept: str = JSON_TYPE,
        also: int | None = None,
    ) -> Answer:
        """Send one request and read its whole answer.

        Raises: WeirError with one sentence when there is none, or it is a refusal.
        """
        if query:
            target = f"{target}?{urlencode(query)}"
        headers = {"Accept": accept, "User-Agent": "weir"}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = JSON_TYPE
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            answer = self._exchange(method, self.address.prefix + target, content, headers)
        except http.client.HTTPException as error:
            raise WeirError(
                f"{self.address} broke off or does not speak HTTP; the address of the API is"
                " `api` in the line that `weir run` prints"
            ) from error
        except OSError as error:
            raise WeirError(_unreachable(self.address, error)) from error
        if not (200 <= answer.status < 300 or answer.status == also):
            raise WeirError(_refusal(self.address, answer))
        return answer

    def _exchange(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        connection = _connection(self.address)
        try:
            connection.request(method, target, body=content, headers=dict(headers))
            response = connection.getresponse()
            return Answer(
                status=response.status,
                body=_read(response),
                headers={name.lower(): value for name, value in response.getheaders()},
            )
        finally:
            connection.close()


def _connection(address: Address) -> http.client.HTTPConnection:
    if not address.tls:
        return http.client.HTTPConnection(address.host, address.port, timeout=ANSWER_S)
    return http.client.HTTPSConnection(
        address.host, address.port, timeout=ANSWER_S, context=ssl.create_default_context()
    )


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read a body whole. Raises: HTTPException when it was cut off, WeirError when too long."""
    parts, size = [], 0
    while part := response.read(PART_BYTES):
        parts.append(part)
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise WeirError(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
    # A read with a size gives what there is when the connection breaks; the rest is still owed.
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(parts)


def _unreachable(address: Address, error: OSError) -> str:
    """Say why there is no answer and what to do."""
    if isinstance(error, ConnectionRefusedError):
        return (
            f"nothing listens at {address}; start a gateway with `weir run`, or name another"
            " address with --api or WEIR_API"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {address} is not trusted: {error.verify_message};"
            " name the file of its authority in SSL_CERT_FILE"
        )
    if isinstance(error, ssl.SSLError):
        return f"{address} does not speak TLS; write http:// if the site runs without it"
    if isinstance(error, TimeoutError):
        return f"{address} gave no answer within {ANSWER_S:g} s"
    if isinstance(error, socket.gaierror):
        return f"the name {address.host} is not known: {error.strerror}"
    return f"{address} cannot be reached: {error.strerror or error}"


def _refusal(address: Address, answer: Answer) -> str:
    """Say what the API said against it."""
    phrase = http.client.responses.get(answer.status, "")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    problem = answer.json() if kind == PROBLEM_TYPE else None
    detail = problem.get("detail") if isinstance(problem, dict) else None
    if not isinstance(detail, str) or not detail.strip():
        said = f"{answer.status} {phrase}".strip()
        return f"{address} answered {said} and no reason; is it the API of a gateway?"
    text = f"{printable(detail[:DETAIL_LENGTH_MAX])} ({answer.status} {phrase})"
    wait = answer.headers.get("retry-after", "")
    if wait.isdecimal():
        text += f"; try again in {wait[:9]} s"
    if answer.status == _UNAUTHORIZED:
        text += "; give a token with --token-file or WEIR_TOKEN"
    return text
