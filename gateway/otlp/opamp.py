"""OpAMP framing: the few messages that carry a retrieval, as real protobuf.

Law: only fields listed in `MESSAGES` are read or written; unknown fields are skipped, malformed
bytes are one clear error. The messages live in their own descriptor pool, so that a full OpAMP
library in the same process does not collide with this subset. CustomMessage is of status
"Development" in the specification, hence one module knows it and nothing else does.

Source: OpAMP specification v0.18, opamp.proto and anyvalue.proto (field numbers below).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from gateway.errors import MalformedPayloadError, PayloadTooLargeError

CAPABILITY: Final = "io.weir.retrieval/v1"
CONTENT_TYPE: Final = "application/x-protobuf"
PATH: Final = "/v1/opamp"

INSTANCE_UID_BYTES: Final = 16
# The specification recommends 64 MiB; a manifest of 200 traces is about 40 KiB.
MESSAGE_BYTES_MAX: Final = 1 << 20
CAPABILITIES_MAX: Final = 64
ATTRIBUTES_MAX: Final = 128

REPORTS_STATUS: Final = 0x1  # AgentCapabilities; the specification wants it always set
ACCEPTS_STATUS: Final = 0x1  # ServerCapabilities
REPORT_FULL_STATE: Final = 0x1  # ServerToAgentFlags


class MessageType(StrEnum):
    """`CustomMessage.type` of the retrieval capability."""

    RETRIEVE = "retrieve"  # gateway: fetch these traces
    ACK = "ack"  # either side: seen and durable
    MANIFEST = "manifest"  # device: what is pinned
    REFUSE = "refuse"  # device: local policy says no
    DONE = "done"  # device: nothing more will come
    RELEASE = "release"  # gateway: unpin, the request is final


class ErrorType(IntEnum):
    """`ServerErrorResponseType`."""

    UNKNOWN = 0
    BAD_REQUEST = 1
    UNAVAILABLE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomMessage:
    """One opaque message of one capability; at most one per frame."""

    capability: str
    type: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentToServer:
    """A poll or report. None means that the field was not sent, which is not the same as empty."""

    instance_uid: bytes
    sequence_num: int = 0
    description: Mapping[str, str] | None = None  # identifying attributes that are text
    capabilities: int = REPORTS_STATUS
    disconnect: bool = False
    flags: int = 0
    custom_capabilities: tuple[str, ...] | None = None
    custom_message: CustomMessage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerError:
    """Why a message was not processed. retry_after_ns is None when there is no hint."""

    type: ErrorType
    message: str
    retry_after_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerToAgent:
    """The answer to one AgentToServer. With `error` every other field is ignored."""

    instance_uid: bytes
    error: ServerError | None = None
    flags: int = 0
    capabilities: int = 0
    custom_capabilities: tuple[str, ...] | None = None
    custom_message: CustomMessage | None = None


_BYTES: Final = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
_STRING: Final = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_UINT64: Final = descriptor_pb2.FieldDescriptorProto.TYPE_UINT64
_INT32: Final = descriptor_pb2.FieldDescriptorProto.TYPE_INT32
_MESSAGE: Final = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    number: int
    type: Any
    message: str = ""
    repeated: bool = False


# An enum and an int32 are the same on the wire, so the error type is read as a number. The error
# details are a oneof in the original; one optional message reads and writes the same bytes.
MESSAGES: Final[dict[str, tuple[_Field, ...]]] = {
    "AnyValue": (_Field("string_value", 1, _STRING),),
    "KeyValue": (_Field("key", 1, _STRING), _Field("value", 2, _MESSAGE, "AnyValue")),
    "AgentDescription": (
        _Field("identifying_attributes", 1, _MESSAGE, "KeyValue", True),
        _Field("non_identifying_attributes", 2, _MESSAGE, "KeyValue", True),
    ),
    "AgentDisconnect": (),
    "CustomCapabilities": (_Field("capabilities", 1, _STRING, "", True),),
    "CustomMessage": (
        _Field("capability", 1, _STRING),
        _Field("type", 2, _STRING),
        _Field("data", 3, _BYTES),
    ),
    "RetryInfo": (_Field("retry_after_nanoseconds", 1, _UINT64),),
    "ServerErrorResponse": (
        _Field("type", 1, _INT32),
        _Field("error_message", 2, _STRING),
        _Field("retry_info", 3, _MESSAGE, "RetryInfo"),
    ),
    "AgentToServer": (
        _Field("instance_uid", 1, _BYTES),
        _Field("sequence_num", 2, _UINT64),
        _Field("agent_description", 3, _MESSAGE, "AgentDescription"),
        _Field("capabilities", 4, _UINT64),
        _Field("agent_disconnect", 9, _MESSAGE, "AgentDisconnect"),
        _Field("flags", 10, _UINT64),
        _Field("custom_capabilities", 12, _MESSAGE, "CustomCapabilities"),
        _Field("custom_message", 13, _MESSAGE, "CustomMessage"),
    ),
    "ServerToAgent": (
        _Field("instance_uid", 1, _BYTES),
        _Field("error_response", 2, _MESSAGE, "ServerErrorResponse"),
        _Field("flags", 6, _UINT64),
        _Field("capabilities", 7, _UINT64),
        _Field("custom_capabilities", 10, _MESSAGE, "CustomCapabilities"),
        _Field("custom_message", 11, _MESSAGE, "CustomMessage"),
    ),
}

_PACKAGE: Final = "weir.opamp"


@cache
def _classes() -> Mapping[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="weir/opamp.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for entry in fields:
            column = message.field.add(
                name=entry.name,
                number=entry.number,
                type=entry.type,
                label=(
                    descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
                    if entry.repeated
                    else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
                ),
            )
            if entry.message:
                column.type_name = f".{_PACKAGE}.{entry.message}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in MESSAGES
    }


def _fill_common(
    wire: Any, capabilities: tuple[str, ...] | None, message: CustomMessage | None
) -> None:
    if capabilities is not None:
        wire.custom_capabilities.SetInParent()
        wire.custom_capabilities.capabilities.extend(capabilities)
    if message is not None:
        wire.custom_message.capability = message.capability
        wire.custom_message.type = message.type
        wire.custom_message.data = message.data


def _read_common(wire: Any) -> tuple[tuple[str, ...] | None, CustomMessage | None]:
    capabilities = None
    if wire.HasField("custom_capabilities"):
        names = wire.custom_capabilities.capabilities
        if len(names) > CAPABILITIES_MAX:
            raise PayloadTooLargeError(f"more than {CAPABILITIES_MAX} custom capabilities")
        capabilities = tuple(names)
    message = None
    if wire.HasField("custom_message"):
        message = CustomMessage(
            capability=wire.custom_message.capability,
            type=wire.custom_message.type,
            data=wire.custom_message.data,
        )
    return capabilities, message


def _parse(name: str, body: bytes) -> Any:
    if len(body) > MESSAGE_BYTES_MAX:
        raise PayloadTooLargeError(f"OpAMP message is over {MESSAGE_BYTES_MAX} bytes")
    try:
        return _classes()[name].FromString(body)
    except DecodeError as error:
        raise MalformedPayloadError(f"body is not an OpAMP {name} message") from error


def _read_uid(wire: Any) -> bytes:
    uid: bytes = wire.instance_uid
    if len(uid) != INSTANCE_UID_BYTES:
        raise MalformedPayloadError(f"instance_uid is not {INSTANCE_UID_BYTES} bytes long")
    return uid


def encode_agent(message: AgentToServer) -> bytes:
    """Write an AgentToServer message."""
    wire = _classes()["AgentToServer"](
        instance_uid=message.instance_uid,
        sequence_num=message.sequence_num,
        capabilities=message.capabilities,
        flags=message.flags,
    )
    if message.description is not None:
        wire.agent_description.SetInParent()
        for key, text in message.description.items():
            attribute = wire.agent_description.identifying_attributes.add(key=key)
            attribute.value.string_value = text
    if message.disconnect:
        wire.agent_disconnect.SetInParent()
    _fill_common(wire, message.custom_capabilities, message.custom_message)
    return bytes(wire.SerializeToString())


def parse_agent(body: bytes) -> AgentToServer:
    """Read an AgentToServer message.

    Raises MalformedPayloadError or PayloadTooLargeError.
    """
    wire = _parse("AgentToServer", body)
    description = None
    if wire.HasField("agent_description"):
        attributes = wire.agent_description.identifying_attributes
        if len(attributes) > ATTRIBUTES_MAX:
            raise PayloadTooLargeError(f"more than {ATTRIBUTES_MAX} identifying attributes")
        description = {entry.key: entry.value.string_value for entry in attributes}
    capabilities, message = _read_common(wire)
    return AgentToServer(
        instance_uid=_read_uid(wire),
        sequence_num=wire.sequence_num,
        description=description,
        capabilities=wire.capabilities,
        disconnect=wire.HasField("agent_disconnect"),
        flags=wire.flags,
        custom_capabilities=capabilities,
        custom_message=message,
    )


def encode_server(message: ServerToAgent) -> bytes:
    """Write a ServerToAgent message."""
    wire = _classes()["ServerToAgent"](instance_uid=message.instance_uid)
    if message.error is not None:
        wire.error_response.SetInParent()
        wire.error_response.type = int(message.error.type)
        wire.error_response.error_message = message.error.message
        if message.error.retry_after_ns is not None:
            wire.error_response.retry_info.retry_after_nanoseconds = message.error.retry_after_ns
        return bytes(wire.SerializeToString())
    wire.flags = message.flags
    wire.capabilities = message.capabilities
    _fill_common(wire, message.custom_capabilities, message.custom_message)
    return bytes(wire.SerializeToString())


def parse_server(body: bytes) -> ServerToAgent:
    """Read a ServerToAgent message.

    Raises MalformedPayloadError or PayloadTooLargeError.
    """
    wire = _parse("ServerToAgent", body)
    if wire.HasField("error_response"):
        response = wire.error_response
        known = response.type in set(ErrorType)
        hint = response.retry_info.retry_after_nanoseconds
        return ServerToAgent(
            instance_uid=wire.instance_uid,
            error=ServerError(
                type=ErrorType(response.type) if known else ErrorType.UNKNOWN,
                message=response.error_message,
                retry_after_ns=hint if response.HasField("retry_info") else None,
            ),
        )
    capabilities, message = _read_common(wire)
    return ServerToAgent(
        instance_uid=_read_uid(wire),
        flags=wire.flags,
        capabilities=wire.capabilities,
        custom_capabilities=capabilities,
        custom_message=message,
    )
