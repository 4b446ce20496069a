# Screening: one walk that counts, checks and decides; a second one only if something was refused.

# The reader's faults, in the words of these signals.
_FAULTS = {**FAULTS,
           STRING_INDEX: "dictionary indexes belong to profiles, not to this signal",
           TOO_MANY_SPANS: "the request holds more items than the limit",
           TOO_MANY_ITEMS: "the request holds more attributes and other repeated values than the "
                           "limit"}
_TWO_MEMBERS = "two members of one oneof are present"

cdef enum:
    TWO_MEMBERS = 50         # a fault beside those of the reader

cdef struct Screen:
    const MessageInfo* messages
    const uint8_t* device    # NULL when any device may be named
    uint64_t device_length
    int depth_max
    uint64_t text_max
    int64_t items_max
    int64_t entries_max
    int64_t items
    int64_t entries          # repeated values that are no items
    int64_t accepted
    int64_t rejected
    int64_t mismatched       # rejected for the name of another device
    int refusal              # of the item or carrier that is being walked
    int first                # of the first item that was refused
    bint condemned           # a carrier has to go, with or without items in it
    int fault
    const uint8_t* at


cdef bint halt(Screen* s, int fault, const uint8_t* at) noexcept nogil:
    s.fault = fault
    s.at = at
    return False


cdef inline bint count_entries(Screen* s, uint64_t n, const uint8_t* at) noexcept nogil:
    s.entries += n
    return s.entries <= s.entries_max or halt(s, TOO_MANY_ITEMS, at)


cdef bint count_packed(Screen* s, const FieldInfo* info, Field* f) noexcept nogil:
    """Count numbers that are written one after the other."""
    cdef Reader r
    cdef uint64_t number
    cdef uint64_t n = 0
    cdef uint64_t width = 8 if info.wire == 1 else 4
    if info.wire:
        if f.length % width:
            return halt(s, TRUNCATED, f.data + f.length)
        return count_entries(s, f.length // width, f.data)
    r = reader(f.data, f.length)
    while r.at < r.end:
        if not read_varint(&r, &number):
            return halt(s, r.fault, r.at)
        n += 1
    return count_entries(s, n, f.data)


cdef inline bint is_legal_id(const FieldInfo* info, Field* f, bint required) noexcept nogil:
    cdef uint64_t i
    if f.length != info.id_size:
        return f.length == 0 and not required
    if not required:
        return True
    for i in range(f.length):
        if f.data[i]:
            return True
    return False


cdef bint walk(Screen* s, const MessageInfo* m, const uint8_t* data, uint64_t length,
               int depth) noexcept nogil:
    """Walk a message; False at a fault of the request. `s.refusal` gathers what is refused in it.

    The recursion is as deep as the schema, and at most three levels for each of `depth_max`.
    """
    cdef Reader r = reader(data, length)
    cdef Field f
    cdef const FieldInfo* info
    cdef uint32_t seen = 0
    cdef uint32_t illegal = m.required       # ids: the last occurrence counts
    cdef uint32_t i
    if m.nesting:
        depth += 1
        if depth > s.depth_max:
            return halt(s, TOO_DEEP, data)
    while next_field(&r, &f):
        info = find_field(m, f.tag)
        if info == NULL:
            continue
        if (f.tag & 7) != info.wire:
            if info.repeated and (f.tag & 7) == 2 and not count_packed(s, info, &f):
                return False
            continue
        if info.refused:
            return halt(s, STRING_INDEX, data)
        if info.others & seen:
            return halt(s, TWO_MEMBERS, data)
        if info.repeated:
            if not (info.kind == MESSAGE and s.messages[info.child].item):
                if not count_entries(s, 1, data):
                    return False
        elif info.kind == MESSAGE and seen & info.bit:
            return halt(s, REPEATED, f.data)
        seen |= info.bit
        if info.wire != 2:
            continue
        if info.kind == MESSAGE:
            if not walk_child(s, &s.messages[info.child], &f, depth):
                return False
            continue
        if f.length > s.text_max:
            if s.refusal == KEPT:
                s.refusal = LONG_TEXT
        elif info.kind == TEXT:
            if s.refusal == KEPT and weir_utf8_end(f.data, f.length) != f.data + f.length:
                s.refusal = BAD_TEXT
        elif info.id_size:
            if is_legal_id(info, &f, (m.required & info.bit) != 0):
                illegal &= ~info.bit
            else:
                illegal |= info.bit
    if r.fault:
        return halt(s, r.fault, r.at)
    if illegal and s.refusal == KEPT:
        for i in range(m.count):
            if m.fields[i].bit & illegal:
                s.refusal = m.fields[i].refusal
                break
    return True


cdef inline bint walk_child(Screen* s, const MessageInfo* m, Field* f, int depth) noexcept nogil:
    """Walk what stands in a field, and decide about it if it is an item or a carrier."""
    cdef int outer = s.refusal
    cdef int64_t accepted = s.accepted
    cdef int64_t rejected = s.rejected
    if m.item:
        s.items += 1
        if s.items > s.items_max:
            return halt(s, TOO_MANY_SPANS, f.data)
        s.refusal = KEPT
        if not walk(s, m, f.data, f.length, depth):
            return False
        if s.refusal == KEPT:
            s.accepted += 1
        else:
            if s.rejected == 0:
                s.first = s.refusal
            s.rejected += 1
        s.refusal = outer
    elif m.carrier:
        s.refusal = KEPT
        if not walk(s, m, f.data, f.length, depth):
            return False
        if s.refusal != KEPT:
            # An item's reason is that of the outermost carrier that takes it away.
            s.condemned = True
            if rejected == 0 and s.accepted + s.rejected > accepted:
                s.first = BAD_TEXT_AROUND if s.refusal == BAD_TEXT else s.refusal
            if s.refusal == FOREIGN_DEVICE:
                s.mismatched += s.accepted - accepted
            s.rejected += s.accepted - accepted
            s.accepted = accepted
        s.refusal = outer
    else:
        if not walk(s, m, f.data, f.length, depth):
            return False
        if m.resource and s.device != NULL and names_another(s, m, f):
            s.refusal = FOREIGN_DEVICE
    return True


cdef bint names_another(Screen* s, const MessageInfo* m, Field* resource) noexcept nogil:
    """Tell whether a resource, known to be well formed, has a `device.id` that is not the sender's.

    A value that is no text is not the sender's either.
    """
    cdef Reader r = reader(resource.data, resource.length)
    cdef Reader pair
    cdef Reader value
    cdef Field f
    cdef Field g
    cdef Field h
    cdef Field key
    cdef Field text
    while next_field(&r, &f):
        if f.tag != 0x0A:                       # Resource.attributes
            continue
        key.length = 0
        text.data = NULL
        pair = reader(f.data, f.length)
        while next_field(&pair, &g):
            if g.tag == 0x0A:                   # KeyValue.key, the last one counts
                key = g
            elif g.tag == 0x12:                 # KeyValue.value
                value = reader(g.data, g.length)
                while next_field(&value, &h):
                    if h.tag == 0x0A:           # AnyValue.string_value
                        text = h
        if key.length != 9 or memcmp(key.data, b"device.id", 9):
            continue
        if (
            text.data == NULL
            or text.length != s.device_length
            or memcmp(text.data, s.device, text.length)
        ):
            return True
    return False


cdef bint is_kept(Screen* s, const MessageInfo* m, Field* f) noexcept nogil:
    """Decide once more about an item, or about a carrier by what stands around its items."""
    cdef Reader r
    cdef Field g
    cdef const FieldInfo* info
    s.refusal = KEPT
    if m.item:
        walk(s, m, f.data, f.length, 0)
        return s.refusal == KEPT
    r = reader(f.data, f.length)
    while next_field(&r, &g):
        info = find_field(m, g.tag)
        if info == NULL or (g.tag & 7) != info.wire:
            continue
        if info.kind == TEXT:
            if g.length > s.text_max or weir_utf8_end(g.data, g.length) != g.data + g.length:
                return False
        elif info.kind == MESSAGE:
            if not s.messages[info.child].item and not s.messages[info.child].carrier:
                walk_child(s, &s.messages[info.child], &g, 0)
                if s.refusal != KEPT:
                    return False
    return True


cdef uint8_t* splice(Screen* s, const MessageInfo* m, const uint8_t* data, uint64_t length,
                     uint8_t* out) noexcept nogil:
    """Copy a carrier without what was refused; never writes more than `length` bytes.

    A carrier that was condemned goes as a whole, because its text would spoil the body.
    """
    cdef Reader r = reader(data, length)
    cdef Field f
    cdef const FieldInfo* info
    cdef const MessageInfo* child
    cdef const uint8_t* start = r.at
    cdef uint8_t* content
    cdef uint64_t size
    while next_field(&r, &f):
        info = find_field(m, f.tag)
        child = NULL
        if info != NULL and info.kind == MESSAGE and (f.tag & 7) == 2:
            child = &s.messages[info.child]
        if child != NULL and (child.item or child.carrier) and not is_kept(s, child, &f):
            start = r.at
            continue
        if child == NULL or not child.carrier:
            memmove(out, start, r.at - start)
            out += r.at - start
            start = r.at
            continue
        start = r.at
        out = put_varint(out, f.tag)
        # The length can only shrink; it rarely needs fewer bytes, and then the content moves down.
        content = out + varint_size(f.length)
        size = splice(s, child, f.data, f.length, content) - content
        out = put_varint(out, size)
        if out != content:
            memmove(out, content, size)
        out += size
    return out


Screened = namedtuple(
    "Screened", ("body", "accepted", "rejected", "reason", "mismatched"), defaults=(0,))


cdef _raise_fault(Screen* s, const uint8_t* start):
    offset = <Py_ssize_t> (s.at - start)
    if s.fault == TWO_MEMBERS:
        raise MalformedPayloadError(_TWO_MEMBERS, offset)
    message = _FAULTS[s.fault]
    if s.fault == TOO_MANY_SPANS:
        raise PayloadTooLargeError(f"{message} ({s.items_max})")
    if s.fault == TOO_MANY_ITEMS:
        raise PayloadTooLargeError(f"{message} ({s.entries_max})")
    if s.fault in _TOO_LARGE:
        raise PayloadTooLargeError(f"{message} at byte {offset}")
    raise MalformedPayloadError(message, offset)


def screen(Schema schema not None, bytes body not None, *, limits, bytes device not None=b""):
    """Check a request and refuse items of it one by one.

    Returns the body to keep (`body` itself unless something had to go), the counts of accepted and
    rejected items, why the first of these was rejected, and how many were for the `device.id` of
    another sender. A carrier (resource, scope or metric)
    with bad text, or with the `device.id` of another sender, goes with all its items; one that has
    no items goes uncounted.
    Raises: MalformedPayloadError with the offset in the body, PayloadTooLargeError.
    """
    cdef Screen s
    cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(body)
    cdef uint64_t length = len(body)
    cdef const MessageInfo* root = &schema.messages[0]
    cdef uint8_t* out
    cdef bint fine
    cdef Py_ssize_t size
    memset(&s, 0, sizeof(Screen))
    s.messages = schema.messages
    if device:
        s.device = <const uint8_t*> PyBytes_AS_STRING(device)
        s.device_length = len(device)
    s.depth_max = limits.depth_max
    s.text_max = limits.text_bytes_max
    s.items_max = limits.spans_max
    s.entries_max = limits.items_max
    with nogil:
        fine = walk(&s, root, data, length, 0)
    if not fine:
        _raise_fault(&s, data)
    accepted, rejected, mismatched = s.accepted, s.rejected, s.mismatched
    reason = schema.refusals[s.first]
    if not rejected and not s.condemned:
        return Screened(body, accepted, 0, "", 0)
    out = <uint8_t*> malloc(length)
    if out == NULL:
        raise MemoryError()
    with nogil:
        # The second walk sees nothing that the first one has not counted.
        s.items = 0
        s.entries = 0
        size = splice(&s, root, data, length, out) - out
    try:
        kept = PyBytes_FromStringAndSize(<const char*> out, size)
    finally:
        free(out)
    return Screened(kept, accepted, rejected, reason, mismatched)
