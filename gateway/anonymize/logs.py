"""What leaves of one log record: times, severity, trace context, declared attributes.

Law: the body never leaves, and texts leave only from closed sets.
"""

from collections.abc import Mapping
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

from gateway.anonymize.declared import Declarations, select
from gateway.anonymize.policy import OTHER

# W3C trace flags; the other bits could carry anything.
FLAGS_KNOWN: Final = 0xFF
SEVERITY_MAX: Final = max(SeverityNumber.values())
TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8
# The short names of the data model and what common loggers write.
SEVERITY_TEXTS: Final = frozenset(
    f"{name}{number}"
    for name in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
    for number in ("", "2", "3", "4")
) | {"WARNING", "CRITICAL", "NOTICE"}


def clean_record(
    record: LogRecord, attributes: Mapping[str, AnyValue], declared: Declarations
) -> LogRecord:
    """Make the record that leaves."""
    made = LogRecord(
        time_unix_nano=record.time_unix_nano,
        observed_time_unix_nano=record.observed_time_unix_nano,
        flags=record.flags & FLAGS_KNOWN,
        attributes=select(declared.attributes, attributes),
    )
    if 0 <= record.severity_number <= SEVERITY_MAX:
        made.severity_number = record.severity_number
    if record.severity_text.upper() in SEVERITY_TEXTS:
        made.severity_text = record.severity_text.upper()
    if len(record.trace_id) == TRACE_ID_BYTES and any(record.trace_id):
        made.trace_id = record.trace_id
        if len(record.span_id) == SPAN_ID_BYTES and any(record.span_id):
            made.span_id = record.span_id
    if record.event_name:
        named = record.event_name in declared.event_names
        made.event_name = record.event_name if named else OTHER.decode()
    return made
