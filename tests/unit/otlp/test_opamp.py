"""OpAMP framing against field numbers written by hand from the specification."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedPayloadError, PayloadTooLargeError
from gateway.otlp import opamp
from gateway.otlp.opamp import (
    AgentToServer,
    CustomMessage,
    ErrorType,
    ServerError,
    ServerToAgent,
)

UID = bytes(range(16))
MESSAGE = CustomMessage(capability="io.weir.retrieval/v1", type="manifest", data=b"\x00{}")


def field(number: int, data: bytes) -> bytes:
    """Write a length-delimited field; all lengths here are below 128."""
    key = number << 3 | 2
    assert len(data) < 128
    return (
        (bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7]))
        + bytes([len(data)])
        + data
    )


def number(field_number: int, value: int) -> bytes:
    assert value < 128
    return bytes([field_number << 3, value])


CUSTOM = field(1, b"io.weir.retrieval/v1") + field(2, b"manifest") + field(3, b"\x00{}")
CAPABILITIES = field(1, b"io.weir.retrieval/v1")


def test_agent_message_has_the_field_numbers_of_the_specification() -> None:
    wire = opamp.encode_agent(
        AgentToServer(
            instance_uid=UID,
            sequence_num=7,
            description={"device.id": "cam"},
            disconnect=True,
            flags=1,
            custom_capabilities=("io.weir.retrieval/v1",),
            custom_message=MESSAGE,
        )
    )
    attribute = field(1, b"device.id") + field(2, field(1, b"cam"))
    assert wire == (
        field(1, UID)
        + number(2, 7)
        + field(3, field(1, attribute))
        + number(4, 1)
        + field(9, b"")
        + number(10, 1)
        + field(12, CAPABILITIES)
        + field(13, CUSTOM)
    )


def test_server_message_has_the_field_numbers_of_the_specification() -> None:
    wire = opamp.encode_server(
        ServerToAgent(
            instance_uid=UID,
            flags=1,
            capabilities=1,
            custom_capabilities=("io.weir.retrieval/v1",),
            custom_message=MESSAGE,
        )
    )
    assert wire == (
        field(1, UID) + number(6, 1) + number(7, 1) + field(10, CAPABILITIES) + field(11, CUSTOM)
    )


def test_an_error_response_excludes_everything_else() -> None:
    error = ServerError(type=ErrorType.UNAVAILABLE, message="busy", retry_after_ns=100)
    wire = opamp.encode_server(
        ServerToAgent(instance_uid=UID, error=error, flags=1, custom_message=MESSAGE)
    )
    body = number(1, 2) + field(2, b"busy") + field(3, number(1, 100))
    assert wire == field(1, UID) + field(2, body)
    assert opamp.parse_server(wire).error == error


def test_unknown_fields_are_skipped() -> None:
    wire = field(1, UID) + field(5, b"health") + number(4, 1) + field(15, b"later")
    assert opamp.parse_agent(wire) == AgentToServer(instance_uid=UID)


def test_not_sent_is_not_the_same_as_empty() -> None:
    absent = opamp.parse_agent(field(1, UID))
    empty = opamp.parse_agent(field(1, UID) + field(3, b"") + field(12, b""))
    assert (absent.description, absent.custom_capabilities) == (None, None)
    assert (empty.description, empty.custom_capabilities) == ({}, ())


def test_an_unknown_error_type_is_unknown() -> None:
    wire = field(1, UID) + field(2, number(1, 99))
    error = opamp.parse_server(wire).error
    assert error is not None
    assert error.type is ErrorType.UNKNOWN


@pytest.mark.parametrize("body", [b"\xff", field(1, UID)[:-1], b"", field(1, b"short")])
def test_malformed_bytes_are_one_clear_error(body: bytes) -> None:
    with pytest.raises(MalformedPayloadError):
        opamp.parse_agent(body)


def test_limits_are_enforced() -> None:
    with pytest.raises(PayloadTooLargeError):
        opamp.parse_agent(bytes(opamp.MESSAGE_BYTES_MAX + 1))
    many = b"".join([field(1, b"c")] * (opamp.CAPABILITIES_MAX + 1))
    wire = field(1, UID) + bytes([12 << 3 | 2, len(many) & 127 | 128, len(many) >> 7]) + many
    with pytest.raises(PayloadTooLargeError):
        opamp.parse_agent(wire)


texts = st.text(max_size=20)
messages = st.builds(CustomMessage, capability=texts, type=texts, data=st.binary(max_size=50))


@given(
    st.builds(
        AgentToServer,
        instance_uid=st.binary(min_size=16, max_size=16),
        sequence_num=st.integers(0, (1 << 64) - 1),
        description=st.none() | st.dictionaries(texts, texts, max_size=4),
        capabilities=st.integers(0, (1 << 64) - 1),
        disconnect=st.booleans(),
        flags=st.integers(0, 3),
        custom_capabilities=st.none() | st.lists(texts, max_size=3).map(tuple),
        custom_message=st.none() | messages,
    )
)
def test_agent_messages_survive_the_wire(message: AgentToServer) -> None:
    assert opamp.parse_agent(opamp.encode_agent(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for parse in (opamp.parse_agent, opamp.parse_server):
        try:
            parse(body)
        except (MalformedPayloadError, PayloadTooLargeError):
            continue
