# JSON objects and arrays along the schema, and the function that Python sees.

cdef bint enter(Json* j) noexcept nogil:
    """Step over the bracket of an object or array."""
    if j.level >= JSON_LEVELS:
        return spoil(j, JSON_TOO_DEEP, j.at)
    j.level += 1
    j.at += 1
    return True


cdef bint is_over(Json* j, uint8_t bracket, bint first, bint* over) noexcept nogil:
    """Step over what stands before the next member, or over the closing bracket."""
    cdef uint8_t c = peek(j)
    over[0] = False
    if c == bracket:
        j.at += 1
        j.level -= 1
        over[0] = True
        return True
    if first:
        return True
    if c != c',':
        return spoil(j, SYNTAX, j.at)
    # A bracket after the comma is no member; whoever reads the member says so.
    j.at += 1
    return True


cdef bint read_key(Json* j, Slice* key) noexcept nogil:
    """Read a key and the colon after it."""
    if peek(j) != c'"':
        return spoil(j, SYNTAX, j.at)
    if not read_short(j, key):
        return False
    if peek(j) != c':':
        return spoil(j, SYNTAX, j.at)
    j.at += 1
    return True


cdef bint take_word(Json* j, const char* word, int64_t length) noexcept nogil:
    if j.end - j.at < length or memcmp(j.at, word, length):
        return spoil(j, SYNTAX, j.at)
    j.at += length
    return True


cdef bint skip_value(Json* j) noexcept nogil:
    """Step over the value of an unknown key; it has to be valid JSON all the same."""
    cdef Slice s
    cdef Number n
    cdef uint64_t size
    cdef bint over = False
    cdef bint first = True
    cdef uint8_t c = peek(j)
    if c == c'{' or c == c'[':
        if not enter(j):
            return False
        while True:
            if not is_over(j, c'}' if c == c'{' else c']', first, &over):
                return False
            if over:
                return True
            first = False
            if c == c'{' and not read_key(j, &s):
                return False
            if not skip_value(j):
                return False
    if c == c'"':
        return read_string(j, &s) and (not s.escaped or unescape(j, &s, NULL, &size))
    if c == c't':
        return take_word(j, b"true", 4)
    if c == c'f':
        return take_word(j, b"false", 5)
    if c == c'n':
        return take_word(j, b"null", 4)
    return take_number(j, &n)


cdef bint read_scalar(Json* j, const FieldInfo* f, bint tagged, bint explicit) noexcept nogil:
    """Read a number or bool; it is written with its tag unless it is part of a packed field."""
    cdef Output* o = &j.out
    cdef uint64_t bits = 0
    cdef double number
    cdef uint8_t c = peek(j)
    if f.kind == BOOL:
        if c != c't' and c != c'f':
            return spoil(j, WANT_BOOL, j.at)
        bits = c == c't'
        if not (take_word(j, b"true", 4) if bits else take_word(j, b"false", 5)):
            return False
    elif f.kind == DOUBLE:
        if not read_double(j, &number):
            return False
        memcpy(&bits, &number, 8)
    elif not read_integer(j, f, &bits):
        return False
    if bits == 0 and not explicit:
        return True
    if not grow(o, 16):
        return spoil(j, OUTPUT_FULL, j.at)
    if tagged:
        o.size = put_varint(o.data + o.size, f.number << 3 | f.wire) - o.data
    if f.wire == 1:
        memcpy(o.data + o.size, &bits, 8)
        o.size += 8
    elif f.wire == 5:
        memcpy(o.data + o.size, &bits, 4)
        o.size += 4
    else:
        if f.kind == SINT32 or f.kind == SINT64:
            bits = bits << 1 ^ (0 - (bits >> 63))
        o.size = put_varint(o.data + o.size, bits) - o.data
    return True


cdef bint read_message(Json* j, const FieldInfo* f, int depth) noexcept nogil:
    """Read an object into a message field, tag and length included."""
    cdef Opened opened
    if peek(j) != c'{':
        return spoil(j, WANT_OBJECT, j.at)
    if not put_tag(&j.out, f.number, 2) or not open_hole(&j.out, &opened):
        return spoil(j, OUTPUT_FULL, j.at)
    if not read_object(j, &j.messages[f.child], depth):
        return False
    close_hole(&j.out, &opened)
    return True


cdef inline bint count_element(Json* j, const FieldInfo* f) noexcept nogil:
    if f.kind == MESSAGE and j.messages[f.child].item:
        j.items += 1
        return j.items <= j.items_max or spoil(j, TOO_MANY_SPANS, j.at)
    j.entries += 1
    return j.entries <= j.entries_max or spoil(j, TOO_MANY_ITEMS, j.at)


cdef bint read_array(Json* j, const FieldInfo* f, int depth) noexcept nogil:
    """Read an array into a repeated field; numbers are packed."""
    cdef Step* step = &j.path[j.steps - 1]
    cdef bint packed = f.wire != 2
    cdef bint over = False
    cdef bint fine
    cdef Opened opened
    if peek(j) != c'[':
        return spoil(j, WANT_ARRAY, j.at)
    if not enter(j):
        return False
    while True:
        if not is_over(j, c']', step.index < 0, &over):
            return False
        if over:
            break
        step.index += 1
        if packed and step.index == 0:
            if not put_tag(&j.out, f.number, 2) or not open_hole(&j.out, &opened):
                return spoil(j, OUTPUT_FULL, j.at)
        if not count_element(j, f):
            return False
        if peek(j) == c'n':
            return spoil(j, NULL_ELEMENT, j.at)
        if f.kind == MESSAGE:
            fine = read_message(j, f, depth)
        elif packed:
            fine = read_scalar(j, f, False, True)
        else:
            fine = read_text(j, f, True)
        if not fine:
            return False
    if packed and step.index >= 0:
        close_hole(&j.out, &opened)
    return True


cdef inline const FieldInfo* find_name(
    const MessageInfo* m, const Slice* key, uint32_t* hint
) noexcept nogil:
    """Find a field by its JSON name, first where it stood behind the one before; NULL if unknown."""
    cdef uint32_t i, at
    cdef const FieldInfo* f
    for i in range(m.count):
        at = hint[0] + i
        if at >= m.count:
            at -= m.count
        f = &m.fields[at]
        if f.name_length == key.length and memcmp(f.name, key.data, key.length) == 0:
            hint[0] = at + 1 if at + 1 < m.count else 0
            return f
    return NULL


cdef bint read_object(Json* j, const MessageInfo* m, int depth) noexcept nogil:
    """Read the members of an object into the fields of a message."""
    cdef uint32_t named = 0
    cdef uint32_t given = 0
    cdef uint32_t hint = 0
    cdef bint over = False
    cdef bint first = True
    cdef const FieldInfo* f
    cdef Slice key
    if m.nesting:
        depth += 1
        if depth > j.depth_max:
            return spoil(j, TOO_DEEP, j.at)
    if not enter(j):
        return False
    while True:
        if not is_over(j, c'}', first, &over):
            return False
        if over:
            return True
        first = False
        if not read_key(j, &key):
            return False
        f = find_name(m, &key, &hint)
        if f == NULL:
            j.ignored += 1
            if not skip_value(j):
                return False
            continue
        j.path[j.steps].field = f
        j.path[j.steps].index = -1
        j.steps += 1
        if named & f.bit:
            return spoil(j, DUPLICATE, j.at)
        named |= f.bit
        if peek(j) == c'n':
            if not take_word(j, b"null", 4):
                return False
        else:
            if f.refused:
                return spoil(j, STRING_INDEX, j.at)
            if f.others & given:
                return spoil(j, TWO_MEMBERS, j.at)
            given |= f.bit
            if not read_field(j, f, depth):
                return False
        j.steps -= 1


cdef inline bint read_field(Json* j, const FieldInfo* f, int depth) noexcept nogil:
    if f.repeated:
        return read_array(j, f, depth)
    if f.kind == MESSAGE:
        return read_message(j, f, depth)
    if f.wire == 2:
        return read_text(j, f, f.explicit)
    return read_scalar(j, f, True, f.explicit)


cdef bint read_body(Json* j) noexcept nogil:
    cdef const uint8_t* valid = <const uint8_t*> weir_utf8_end(j.start, j.end - j.start)
    if valid != j.end:
        return spoil(j, JSON_UTF8, valid)
    if peek(j) != c'{':
        return spoil(j, NOT_OBJECT, j.at)
    if not read_object(j, &j.messages[0], 0):
        return False
    if peek(j) or j.at != j.end:
        return spoil(j, TRAILING, j.at)
    return True


cdef _spell_path(const Json* j):
    """Spell the path to a fault; it holds names of the schema only, nothing from the body."""
    parts = []
    cdef int i
    for i in range(j.steps):
        name = (<const char*> j.path[i].field.name)[:j.path[i].field.name_length].decode()
        index = j.path[i].index
        parts.append(name if index < 0 else f"{name}[{index}]")
    return ".".join(parts)


cdef _raise_json(Json* j):
    path = _spell_path(j)
    where = f"{path}: " if path else ""
    if j.fault in _JSON_FAULTS:
        message = _JSON_FAULTS[j.fault]
    else:
        message = _FAULTS[j.fault]
    offset = <Py_ssize_t> (j.fault_at - j.start)
    if j.fault == TOO_MANY_SPANS:
        raise PayloadTooLargeError(f"{message} ({j.items_max})")
    if j.fault == TOO_MANY_ITEMS:
        raise PayloadTooLargeError(f"{message} ({j.entries_max})")
    if j.fault in _TOO_LARGE or j.fault == OUTPUT_FULL:
        raise PayloadTooLargeError(f"{where}{message} at byte {offset}")
    raise MalformedPayloadError(f"{where}{message}", offset)


def transcode(Schema schema not None, bytes text not None, *, limits):
    """Turn an OTLP/JSON request into protobuf; returns the bytes and the count of unknown keys.

    An unknown key counts once, with all that its value holds. An id of the wrong size or a text
    over its limit is passed on, so that `screen` or the scanner refuses its item and no other.
    Raises: MalformedPayloadError with the path of the field, PayloadTooLargeError.
    """
    cdef Json j
    cdef bint fine
    cdef uint8_t* data
    memset(&j, 0, sizeof(Json))
    j.messages = schema.messages
    j.start = j.at = <const uint8_t*> PyBytes_AS_STRING(text)
    j.end = j.start + len(text)
    j.depth_max = limits.depth_max
    j.items_max = limits.spans_max
    j.entries_max = limits.items_max
    try:
        with nogil:
            fine = read_body(&j)
        if not fine:
            _raise_json(&j)
        body = PyBytes_FromStringAndSize(NULL, j.out.size - j.out.spare)
        data = <uint8_t*> PyBytes_AS_STRING(body)
        if j.out.size:
            with nogil:
                squeeze(&j.out, data)
        return body, j.ignored
    finally:
        free(j.out.data)
        free(j.out.holes)
