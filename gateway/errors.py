"""Every error that may cross a room, and the one table of how each is answered.

Law: whether a failure is permanent or retryable is decided here and nowhere else. A room maps
foreign exceptions to these types at its border; `receive` and `api` turn them into answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


class WeirError(Exception):
    """Base of all errors that cross a room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong in a file that a person wrote.

    Units: line and column count from 1; 0 means that the place is not known.
    """

    file: str
    line: int
    column: int
    rule: str
    message: str
    instead: str

    def __str__(self) -> str:
        advice = f" ({self.instead})" if self.instead else ""
        return f"{self.file}:{self.line}:{self.column}: {self.rule}: {self.message}{advice}"


class InvalidConfigError(WeirError):
    """A site file, contract or option was refused; carries all findings at once."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(str(finding) for finding in findings))
        self.findings = tuple(findings)


class StartError(WeirError):
    """The process cannot start: port in use, data directory not writable, second process."""


class RequestError(WeirError):
    """Base of everything that is answered to a client of the intake."""

    retry_after_s: float | None = None


class MalformedPayloadError(RequestError):
    """The body is not what its content type says. `offset` is in bytes, -1 if unknown."""

    def __init__(self, message: str, offset: int = -1) -> None:
        super().__init__(message if offset < 0 else f"{message} at byte {offset}")
        self.offset = offset


class PayloadTooLargeError(RequestError):
    """A body, message or item count is above its named limit."""


class UnsupportedMediaError(RequestError):
    """Content type or content encoding is not served here."""


class UnknownPathError(RequestError):
    """No such path, method or RPC."""


class MethodNotAllowedError(RequestError):
    """The path exists, the HTTP method does not."""


class UnauthenticatedError(RequestError):
    """No credential, or one that is not valid."""


class ForbiddenError(RequestError):
    """The credential is valid and does not allow this."""


class RetryableError(RequestError):
    """Base of what a client may send again. `retry_after_s` is a hint of at least one second."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = max(1.0, retry_after_s)


class OverloadedError(RetryableError):
    """The intake's byte budget is spent, or the process is draining."""


class QuotaExceededError(RetryableError):
    """One device is over its own quota."""


class JournalUnavailableError(RetryableError):
    """The journal cannot make data durable now: disk full, failed sync, byte limit reached."""


class NotFoundError(WeirError):
    """The thing that was named does not exist."""


class ConflictError(WeirError):
    """The thing exists in a state that forbids the request."""


class InvalidQueryError(WeirError):
    """An API request that cannot be understood; the message says what to write instead."""


class DeliveryError(WeirError):
    """A destination did not take a frame.

    Units: retry_after_s in seconds, None when the destination gave no hint.
    """

    def __init__(
        self, message: str, *, permanent: bool, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class CorruptDataError(WeirError):
    """Bytes of our own files fail their checksum or format."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How an error is told to a client. grpc_code is the number of `google.rpc.Code`."""

    grpc_code: int
    http_status: int


# Source: OTLP specification 1.x, "Failures" and "Retryable response codes".
ANSWERS: Final[dict[type[WeirError], Answer]] = {
    MalformedPayloadError: Answer(3, 400),
    PayloadTooLargeError: Answer(8, 413),
    UnsupportedMediaError: Answer(12, 415),
    UnknownPathError: Answer(12, 404),
    MethodNotAllowedError: Answer(12, 405),
    UnauthenticatedError: Answer(16, 401),
    ForbiddenError: Answer(7, 403),
    OverloadedError: Answer(14, 503),
    QuotaExceededError: Answer(8, 429),
    JournalUnavailableError: Answer(14, 503),
    NotFoundError: Answer(5, 404),
    ConflictError: Answer(9, 409),
    InvalidQueryError: Answer(3, 400),
}

# Whatever is not in the table happened before the commit and may be tried again: a 500 would make
# the client drop good data.
UNEXPECTED: Final = Answer(14, 503)


def answer_of(error: WeirError) -> Answer:
    """Look up how an error is answered; unknown types are retryable."""
    for kind in type(error).__mro__:
        if kind in ANSWERS:
            return ANSWERS[kind]
    return UNEXPECTED
