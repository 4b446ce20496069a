"""What may pass to which audience, compiled from the contracts.

Law: default deny for export, default pass for the site; a field that no rule names has no way into
an export, because output is built from these rules and not from the input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.anonymize.tokens import Tokens
from gateway.batch import Audience
from gateway.contract.plan import Plan
from gateway.contract.schema import Action, Contract, Signal, SignalType
from gateway.otlp.kernel import Literals
from gateway.tables import Bool, UInt32, ValueKind

# What a name or an enum value becomes that its contract does not list.
OTHER: Final = b"other"
# A declared string above this length is content, not a label, and is left out.
PASSED_TEXT_BYTES_MAX: Final = 256

_KINDS: Final = {
    SignalType.DOUBLE: ValueKind.DOUBLE,
    SignalType.INT: ValueKind.INT,
    SignalType.BOOL: ValueKind.BOOL,
    SignalType.ENUM: ValueKind.STRING,
    SignalType.STRING: ValueKind.STRING,
}


class StaticText:
    """The texts known before any data: keys, span names, enum values. Offsets never move."""

    def __init__(self) -> None:
        self._offsets: dict[bytes, int] = {}
        self._size = 0

    def add(self, text: bytes) -> int:
        """Return the offset of a text, adding it once."""
        offset = self._offsets.get(text)
        if offset is None:
            offset = self._size
            self._offsets[text] = offset
            self._size += len(text)
        return offset

    def bytes(self) -> bytes:
        """Return all texts end to end."""
        return b"".join(self._offsets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A closed set of texts with `other` for the rest. Shape: offset, length (texts + 1,)."""

    literals: Literals
    offset: UInt32
    length: UInt32


def _choice(static: StaticText, texts: Sequence[bytes]) -> Choice:
    # `Literals.codes` answers -1 for the rest, which picks the last place.
    listed = [*texts, OTHER]
    return Choice(
        literals=Literals(texts),
        offset=np.array([static.add(text) for text in listed], dtype=np.uint32),
        length=np.array([len(text) for text in listed], dtype=np.uint32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One declared span attribute that leaves."""

    slot: int
    column: int
    signal: Signal
    choice: Choice | None
    tokens: Tokens | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceField:
    """One declared resource attribute that leaves."""

    slot: int
    key: bytes
    tokens: Tokens | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What one contract lets out, and what the site may not keep."""

    names: Choice
    fields: tuple[Field, ...]
    resource: tuple[ResourceField, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The compiled policy.

    Shape: `columns` are the (key, kind) pairs that can leave at all. site_dropped
    (contracts + 1, slots + 1) says which keys the site may not keep; its last row, for spans
    without a contract, holds what any contract forbids, and its last place stands for no slot.
    """

    digest: str
    static: bytes
    columns: tuple[tuple[bytes, int], ...]
    rules: tuple[Rules, ...]  # by contract index; the last one is the built-in default
    other: Choice
    site_dropped: Bool


def compile_policy(plan: Plan, site: str, site_key: bytes) -> Policy:
    """Compile the plan's contracts.

    Raises: ValueError when the site key is too short.
    """
    static = StaticText()
    columns: dict[tuple[bytes, int], int] = {}
    rules = [_rules(contract, plan, static, columns, site, site_key) for contract in plan.contracts]
    default = Rules(
        names=_choice(static, ()),
        fields=(),
        resource=(),
    )
    return Policy(
        digest=plan.digest,
        static=static.bytes(),
        columns=tuple(columns),
        rules=(*rules, default),
        other=default.names,
        site_dropped=_site_dropped(plan),
    )


def _site_dropped(plan: Plan) -> Bool:
    """Mark the slots that each contract forbids the site to keep, on whatever level they stand."""
    dropped = np.zeros((len(plan.contracts) + 1, len(plan.slot_keys) + 1), dtype=np.bool_)
    for index, contract in enumerate(plan.contracts):
        for signal in contract.signals.values():
            dropped[index, plan.slot_of[signal.attribute]] |= signal.site is not Action.PASS
        for key, rule in contract.resource.items():
            dropped[index, plan.slot_of[key]] |= rule.site is not Action.PASS
    dropped[-1] = dropped.any(axis=0)
    return dropped


def _rules(
    contract: Contract,
    plan: Plan,
    static: StaticText,
    columns: dict[tuple[bytes, int], int],
    site: str,
    site_key: bytes,
) -> Rules:
    def tokens(field: str, action: Action) -> Tokens | None:
        if action is not Action.TOKEN:
            return None
        return Tokens(site_key, site, Audience.EXPORT, field)

    fields = []
    for signal in contract.signals.values():
        if signal.export is Action.DROP:
            continue
        key = signal.attribute.encode()
        static.add(key)
        tokenised = signal.export is Action.TOKEN
        kind = ValueKind.STRING if tokenised else _KINDS[signal.type]
        column = columns.setdefault((key, int(kind)), len(columns))
        texts = [value.encode() for value in signal.values]
        fields.append(
            Field(
                slot=plan.slot_of[signal.attribute],
                column=column,
                signal=signal,
                choice=_choice(static, texts) if signal.type is SignalType.ENUM else None,
                tokens=tokens(signal.attribute, signal.export),
            )
        )
    resource = tuple(
        ResourceField(slot=plan.slot_of[key], key=key.encode(), tokens=tokens(key, rule.export))
        for key, rule in contract.resource.items()
        if rule.export is not Action.DROP
    )
    return Rules(
        names=_choice(static, [name.encode() for name in contract.span_names]),
        fields=tuple(fields),
        resource=resource,
    )
