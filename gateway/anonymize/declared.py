"""What one contract lets out of metrics and logs, compiled from its declarations.

Law: the same declaration gives the same value here as in a span: a token joins a log record with
the spans of its device, a value of the wrong type or out of range is left out, and a key that
occurs twice is absent.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from gateway.anonymize.policy import OTHER, PASSED_TEXT_BYTES_MAX
from gateway.anonymize.tokens import Tokens
from gateway.batch import Audience
from gateway.contract.schema import Action, Contract, MetricRule, Signal, SignalType

_OTHER = OTHER.decode()
_WORD_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One attribute that leaves. A resource attribute has no signal and is a text."""

    key: str
    signal: Signal | None
    tokens: Tokens | None

    def maybe_pair(self, value: AnyValue) -> KeyValue | None:
        """Make the attribute that leaves; None when the value does not fit its declaration."""
        made = self._maybe_value(value)
        return None if made is None else KeyValue(key=self.key, value=made)

    def is_told_apart(self, value: AnyValue) -> bool:
        """Say whether what leaves of a fitting value is not also what leaves of another one."""
        signal = self.signal
        if signal is None or self.tokens is not None:
            return True
        if signal.type is SignalType.ENUM:
            return value.string_value in signal.values
        return signal.type is not SignalType.DOUBLE or value.WhichOneof("value") == "double_value"

    def _maybe_value(self, value: AnyValue) -> AnyValue | None:
        kind = value.WhichOneof("value")
        signal = self.signal
        if signal is None and not _is_label(kind, value):
            return None  # of a resource not even as a token, as with spans
        if self.tokens is not None:
            return _token(self.tokens, kind, value)
        if signal is not None and signal.type is SignalType.BOOL:
            return AnyValue(bool_value=value.bool_value) if kind == "bool_value" else None
        if signal is not None and signal.type in (SignalType.INT, SignalType.DOUBLE):
            return _number(signal, kind, value)
        if signal is not None and signal.type is SignalType.ENUM:
            if kind != "string_value":
                return None
            listed = value.string_value in signal.values
            return AnyValue(string_value=value.string_value if listed else _OTHER)
        return AnyValue(string_value=value.string_value) if _is_label(kind, value) else None


def _is_label(kind: Any, value: AnyValue) -> bool:
    """Say whether a value is a text that is short enough not to be content."""
    return kind == "string_value" and len(value.string_value.encode()) <= PASSED_TEXT_BYTES_MAX


def _token(tokens: Tokens, kind: Any, value: AnyValue) -> AnyValue | None:
    if kind == "string_value":
        raw = value.string_value.encode()
    elif kind == "int_value":
        raw = b"int:" + (value.int_value & _WORD_MASK).to_bytes(8, "big")
    else:
        return None
    return AnyValue(string_value=tokens.token(raw).decode())


def _number(signal: Signal, kind: Any, value: AnyValue) -> AnyValue | None:
    if kind == "int_value":
        # As a double, as in a span: above 2**53 an int is compared with a range as rounded.
        number = float(value.int_value)
    elif kind == "double_value" and signal.type is SignalType.DOUBLE:
        # Adding zero makes -0.0 plain; the sign of a zero could carry a message.
        number = value.double_value + 0.0
    else:
        return None
    low, high = signal.range or (-math.inf, math.inf)
    if not math.isfinite(number) or not low <= number <= high:
        return None
    if signal.type is SignalType.INT:
        return AnyValue(int_value=value.int_value)
    return AnyValue(double_value=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
    """Everything that one contract lets out."""

    match: Mapping[str, str]
    resource: Mapping[str, Declared]
    attributes: Mapping[str, Declared]
    event_names: frozenset[str]
    metrics: Mapping[str, MetricRule]


# Of items that no contract matches: structure leaves, content does not.
NOTHING_DECLARED = Declarations(
    match={}, resource={}, attributes={}, event_names=frozenset(), metrics={}
)


def declarations_of(contract: Contract, site: str, site_key: bytes) -> Declarations:
    """Compile one contract."""

    def declared(key: str, action: Action, signal: Signal | None) -> Declared:
        tokens = None
        if action is Action.TOKEN:
            tokens = Tokens(site_key, site, Audience.EXPORT, key)
        return Declared(key=key, signal=signal, tokens=tokens)

    return Declarations(
        match=contract.match,
        resource={
            key: declared(key, rule.export, None)
            for key, rule in contract.resource.items()
            if rule.export is not Action.DROP
        },
        attributes={
            signal.attribute: declared(signal.attribute, signal.export, signal)
            for signal in contract.signals.values()
            if signal.export is not Action.DROP
        },
        event_names=frozenset(contract.event_names),
        metrics=contract.metrics,
    )


def unique(attributes: Iterable[KeyValue]) -> dict[str, AnyValue]:
    """Index attributes by key, without the keys that occur more than once."""
    found: dict[str, AnyValue] = {}
    twice: set[str] = set()
    for each in attributes:
        if each.key in found:
            twice.add(each.key)
        found[each.key] = each.value
    for key in twice:
        del found[key]
    return found


def select(
    declared: Mapping[str, Declared], attributes: Mapping[str, AnyValue]
) -> Iterator[KeyValue]:
    """Make the attributes that leave, in the order of their declarations."""
    for key, each in declared.items():
        if key in attributes:
            pair = each.maybe_pair(attributes[key])
            if pair is not None:
                yield pair
