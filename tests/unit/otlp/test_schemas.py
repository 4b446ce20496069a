"""The tables hold what the official descriptors say, and what is added names real fields."""

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from gateway.batch import Signal
from gateway.otlp.schemas import (
    HEX_FIELDS,
    IDENTIFIERS,
    ITEMS,
    NESTING,
    PROFILES_ONLY,
    REQUESTS,
    RESOURCE,
    schema_of,
    tabulate,
)
from gateway.otlp.wire import Schema
from tests.signals import CARRIERS
from tests.signals import ITEMS as ITEM_NAMES


def descriptors(signal: Signal) -> dict[str, Any]:
    """Find every message of a request by walking the official descriptors."""
    found: dict[str, Any] = {}

    def visit(descriptor: Any) -> None:
        name = descriptor.full_name.removeprefix("opentelemetry.proto.")
        if name in found:
            return
        found[name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None:
                visit(field.message_type)

    visit(REQUESTS[signal].DESCRIPTOR)
    return found


@pytest.mark.parametrize("signal", Signal)
def test_every_message_and_field_is_in_the_table(signal: Signal) -> None:
    official = descriptors(signal)
    table = tabulate(REQUESTS[signal].DESCRIPTOR)
    assert table[0].name == REQUESTS[signal].DESCRIPTOR.full_name[20:]
    assert {message.name for message in table} == set(official)
    for message in table:
        fields = official[message.name].fields
        assert [(f.number, f.name, f.kind) for f in message.fields] == [
            (f.number, f.json_name, f.type) for f in fields
        ]
        for ours, theirs in zip(message.fields, fields, strict=True):
            child = theirs.message_type
            assert (ours.child < 0) == (child is None)
            assert child is None or table[ours.child].name == child.full_name[20:]
            assert (ours.repeated, ours.explicit) == (theirs.is_repeated, theirs.has_presence)


@pytest.mark.parametrize("signal", Signal)
def test_items_and_carriers_are_those_of_the_signal(signal: Signal) -> None:
    for message in tabulate(REQUESTS[signal].DESCRIPTOR):
        short = message.name.rpartition(".")[2]
        assert message.item == (short in ITEM_NAMES)
        assert message.carrier == (short in CARRIERS or short.startswith("Export"))
        assert message.resource == (message.name == RESOURCE)
        assert message.nesting == (message.name == NESTING)


def test_what_is_added_to_the_descriptors_names_real_fields() -> None:
    messages = {name: found for signal in Signal for name, found in descriptors(signal).items()}
    assert set(messages) >= ITEMS | {RESOURCE, NESTING}
    for name, field in IDENTIFIERS:
        assert messages[name].fields_by_name[field].type == FieldDescriptor.TYPE_BYTES
    fields = [field for message in messages.values() for field in message.fields]
    assert {field.name for field in fields} >= HEX_FIELDS | PROFILES_ONLY
    # A new id or a new index in a later release of the protocol has to be decided on.
    assert {f.name for f in fields if f.name.endswith("_id")} == HEX_FIELDS
    assert {f.name for f in fields if f.name.endswith("_strindex")} == PROFILES_ONLY


def test_table_is_compiled_once() -> None:
    assert schema_of(Signal.LOGS) is schema_of(Signal.LOGS)


@pytest.mark.parametrize(
    "change", [{"number": 32}, {"number": 0}, {"kind": FieldDescriptor.TYPE_GROUP}, {"child": 99}]
)
def test_field_that_no_table_can_hold_is_refused(change: dict[str, Any]) -> None:
    first, *rest = tabulate(REQUESTS[Signal.LOGS].DESCRIPTOR)
    (field,) = first.fields
    with pytest.raises(ValueError, match="resourceLogs"):
        Schema((replace(first, fields=(replace(field, **change),)), *rest))
