# The one reader: every bound is checked in `next_field`, and every fault has a number.

cdef enum Fault:
    FINE = 0
    TRUNCATED
    BAD_VARINT
    BAD_TAG
    GROUP
    TOO_DEEP
    REPEATED
    STRING_INDEX
    TOO_MANY_SPANS
    TOO_MANY_ITEMS
    ARENA_FULL

FAULTS = {
    TRUNCATED: "a field reaches past the end of its message",
    BAD_VARINT: "a varint is longer than 10 bytes",
    BAD_TAG: "a tag has field number 0 or an unknown wire type",
    GROUP: "groups are not part of OTLP",
    TOO_DEEP: "attribute values are nested too deeply",
    REPEATED: "a message that may occur once is repeated",
    STRING_INDEX: "dictionary indexes belong to profiles, not to traces",
    TOO_MANY_SPANS: "the request holds more spans than the limit",
    TOO_MANY_ITEMS: "the request holds more attributes, events and links than the limit",
    ARENA_FULL: "the open batch has no room for the request",
}
_TOO_LARGE = frozenset((TOO_MANY_SPANS, TOO_MANY_ITEMS, ARENA_FULL))

# Why a single span was refused. `otlp.decode` turns the number into a sentence.
cdef enum Rejection:
    ACCEPTED = 0
    BAD_TRACE_ID
    BAD_SPAN_ID
    BAD_PARENT_ID
    NOT_UTF8
    TEXT_TOO_LONG
    OTHER_DEVICE

REJECTIONS = (
    "",
    "trace_id is not 16 bytes or all zero",
    "span_id is not 8 bytes or all zero",
    "parent_span_id is neither empty nor 8 bytes",
    "a text field is not valid UTF-8",
    "a text or bytes value is above the limit",
    "device.id is not the identity of the sender",
)
assert len(REJECTIONS) == OTHER_DEVICE + 1


cdef struct Reader:
    const uint8_t* at
    const uint8_t* end
    Fault fault

cdef struct Field:
    uint32_t tag             # field number << 3 | wire type
    uint64_t number          # VARINT, I64, I32
    const uint8_t* data      # LEN
    uint64_t length


cdef inline bint read_varint(Reader* r, uint64_t* out) noexcept nogil:
    cdef const uint8_t* p = r.at
    cdef uint64_t value, byte
    cdef int shift
    if p < r.end and p[0] < 0x80:
        out[0] = p[0]
        r.at = p + 1
        return True
    value = 0
    shift = 0
    while p < r.end:
        byte = p[0]
        p += 1
        # Bits above the 64th are dropped, as every protobuf decoder does; an 11th byte is a fault.
        if shift == 63 and byte >= 0x80:
            r.fault = BAD_VARINT
            return False
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            out[0] = value
            r.at = p
            return True
        shift += 7
    r.fault = TRUNCATED
    return False


cdef inline bint next_field(Reader* r, Field* f) noexcept nogil:
    """Read one field. False at the end of the message or at a fault (`r.fault` says which)."""
    cdef uint64_t tag, length
    cdef uint32_t wire
    if r.at >= r.end:
        return False
    if not read_varint(r, &tag):
        return False
    if tag < 8 or tag > 0xFFFFFFFFULL:
        r.fault = BAD_TAG
        return False
    f.tag = <uint32_t> tag
    wire = f.tag & 7
    if wire == 2:
        if not read_varint(r, &length):
            return False
        if length > <uint64_t> (r.end - r.at):
            r.fault = TRUNCATED
            return False
        f.data = r.at
        f.length = length
        r.at += length
        return True
    if wire == 0:
        return read_varint(r, &f.number)
    if wire == 1:
        if r.end - r.at < 8:
            r.fault = TRUNCATED
            return False
        f.number = weir_load64(r.at)
        r.at += 8
        return True
    if wire == 5:
        if r.end - r.at < 4:
            r.fault = TRUNCATED
            return False
        f.number = weir_load32(r.at)
        r.at += 4
        return True
    r.fault = GROUP if wire == 3 or wire == 4 else BAD_TAG
    return False


cdef inline Reader reader(const uint8_t* data, uint64_t length) noexcept nogil:
    cdef Reader r
    r.at = data
    r.end = data + length
    r.fault = FINE
    return r
