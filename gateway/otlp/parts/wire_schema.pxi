# The table that both walks follow, as C structs.

# Kinds are the numbers of FieldDescriptorProto.Type.
cdef enum Kind:
    DOUBLE = 1
    FLOAT = 2
    INT64 = 3
    UINT64 = 4
    INT32 = 5
    FIXED64 = 6
    FIXED32 = 7
    BOOL = 8
    TEXT = 9
    MESSAGE = 11
    BYTES = 12
    UINT32 = 13
    ENUM = 14
    SFIXED32 = 15
    SFIXED64 = 16
    SINT32 = 17
    SINT64 = 18


_WIRE = {DOUBLE: 1, FIXED64: 1, SFIXED64: 1, FIXED32: 5, SFIXED32: 5,
         TEXT: 2, MESSAGE: 2, BYTES: 2,
         INT64: 0, UINT64: 0, INT32: 0, BOOL: 0, UINT32: 0, ENUM: 0, SINT32: 0, SINT64: 0}

# Why an item was refused; those of ids follow, as the schema names them.
cdef enum Refusal:
    KEPT = 0
    BAD_TEXT
    BAD_TEXT_AROUND
    LONG_TEXT
    FOREIGN_DEVICE
    FIRST_ID

_REFUSALS = {
    KEPT: "",
    BAD_TEXT: "a text field is not valid UTF-8",
    BAD_TEXT_AROUND: "text of the resource, scope or metric is not valid UTF-8",
    LONG_TEXT: "a text or bytes value is above the limit",
    FOREIGN_DEVICE: "device.id is not the identity of the sender",
}

cdef struct FieldInfo:
    uint32_t number
    uint32_t bit             # 1 << number
    uint32_t others          # bits of the other members of its oneof
    uint16_t refusal         # of an id
    int16_t child            # row of the message
    uint8_t kind
    uint8_t wire
    bint repeated
    bint explicit
    bint refused
    bint hexadecimal
    uint32_t id_size         # 0 where any size is legal
    const uint8_t* name
    uint32_t name_length

cdef struct MessageInfo:
    uint8_t slot[32]         # by number: index of the field + 1, or 0
    FieldInfo* fields
    uint32_t count
    uint32_t required        # bits of ids that have to be there
    bint item
    bint carrier
    bint resource
    bint nesting


cdef inline const FieldInfo* find_field(const MessageInfo* m, uint32_t tag) noexcept nogil:
    """Find a field by its tag; NULL if it is unknown."""
    cdef uint8_t slot
    if tag >= 8 * 32:
        return NULL
    slot = m.slot[tag >> 3]
    return &m.fields[slot - 1] if slot else NULL


cdef class Schema:
    """The compiled table of one request; row 0 of `messages` is the request itself."""

    cdef MessageInfo* messages
    cdef Py_ssize_t count
    cdef list names
    cdef list refusals

    def __cinit__(self, messages):
        cdef Py_ssize_t row
        self.names = []
        self.refusals = [_REFUSALS[number] for number in range(FIRST_ID)]
        self.count = len(messages)
        self.messages = <MessageInfo*> calloc(self.count, sizeof(MessageInfo))
        if self.messages == NULL:
            raise MemoryError()
        for row in range(self.count):
            self._fill(&self.messages[row], messages[row])

    def __dealloc__(self):
        cdef Py_ssize_t row
        if self.messages == NULL:
            return
        for row in range(self.count):
            free(self.messages[row].fields)
        free(self.messages)

    cdef _fill(self, MessageInfo* m, message):
        cdef FieldInfo* f
        cdef uint32_t i
        m.count = len(message.fields)
        m.item = message.item
        m.carrier = message.carrier
        m.resource = message.resource
        m.nesting = message.nesting
        m.fields = <FieldInfo*> calloc(m.count + 1, sizeof(FieldInfo))
        if m.fields == NULL:
            raise MemoryError()
        for i in range(m.count):
            field = message.fields[i]
            if field.kind not in _WIRE or not 0 < field.number < 32:
                raise ValueError(f"{message.name}.{field.name}: no table for such a field")
            if field.child >= self.count:
                raise ValueError(f"{message.name}.{field.name}: no such message")
            name = field.name.encode()
            self.names.append(name)
            f = &m.fields[i]
            f.name = <const uint8_t*> PyBytes_AS_STRING(name)
            f.name_length = len(name)
            f.number = field.number
            f.bit = <uint32_t> 1 << f.number
            f.kind = field.kind
            f.wire = _WIRE[field.kind]
            f.child = field.child
            f.repeated = field.repeated
            f.explicit = field.explicit
            f.refused = field.refused
            f.hexadecimal = field.hexadecimal
            for number in field.others:
                f.others |= <uint32_t> 1 << <uint32_t> number
            if field.identifier is not None:
                f.id_size = field.identifier.size
                f.refusal = len(self.refusals)
                self.refusals.append(field.identifier.refusal)
                if field.identifier.required:
                    m.required |= f.bit
            m.slot[f.number] = <uint8_t> (i + 1)
