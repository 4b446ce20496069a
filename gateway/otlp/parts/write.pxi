# Writing OTLP bytes from clean columns.

cdef inline uint64_t varint_size(uint64_t v) noexcept nogil:
    cdef uint64_t n = 1
    while v >= 0x80:
        v >>= 7
        n += 1
    return n


cdef inline uint8_t* put_varint(uint8_t* p, uint64_t v) noexcept nogil:
    while v >= 0x80:
        p[0] = <uint8_t> (v | 0x80)
        v >>= 7
        p += 1
    p[0] = <uint8_t> v
    return p + 1


cdef inline uint8_t* put_bytes(uint8_t* p, uint8_t tag, const uint8_t* data, uint64_t n) noexcept nogil:
    p[0] = tag
    p = put_varint(p + 1, n)
    memcpy(p, data, n)
    return p + n


cdef inline uint8_t* put_fixed64(uint8_t* p, uint8_t tag, uint64_t v) noexcept nogil:
    p[0] = tag
    memcpy(p + 1, &v, 8)
    return p + 9


cdef inline uint64_t count_size(uint32_t v) noexcept nogil:
    return 1 + varint_size(v) if v else 0


cdef inline uint8_t* put_count(uint8_t* p, uint8_t tag, uint32_t v) noexcept nogil:
    if v == 0:
        return p
    p[0] = tag
    return put_varint(p + 1, v)


cdef inline uint64_t signed_size(int32_t v) noexcept nogil:
    return varint_size(<uint64_t> <int64_t> v)


def pack_fields(const uint8_t[:] arena, const uint8_t[:] spans, const uint8_t[:] attributes,
                const uint8_t[:] events, const uint8_t[:] links, const uint8_t[::1] drop,
                const uint8_t[::1] drop_events, const uint8_t[::1] drop_links,
                const uint8_t[:] head):
    """Re-encode what `Clean` has no column for, leaving out dropped attributes.

    That is per span: trace state, attributes, events, links and the three dropped counts.

    Tables are viewed as bytes; drop (attributes,), drop_events (events,) and drop_links (links,)
    are 1 for what must not appear.
    `head` is copied in front. Returns (bytes, offsets (spans + 1,)): the fields of span i are
    [offsets[i], offsets[i + 1]).
    """
    cdef Py_ssize_t n = spans.shape[0] // <Py_ssize_t> sizeof(SpanRow)
    cdef const SpanRow* rows
    cdef const SpanRow* row
    cdef const AttributeRow* attribute
    cdef const EventRow* event
    cdef const LinkRow* link
    cdef uint64_t total = head.shape[0]
    cdef Py_ssize_t i, j
    cdef uint8_t* p
    offsets = np.full(n + 1, total, dtype=np.uint32)
    cdef uint32_t[::1] starts = offsets
    if (drop.shape[0] * <Py_ssize_t> sizeof(AttributeRow) != attributes.shape[0]
            or drop_events.shape[0] * <Py_ssize_t> sizeof(EventRow) != events.shape[0]
            or drop_links.shape[0] * <Py_ssize_t> sizeof(LinkRow) != links.shape[0]):
        raise ValueError("marks and tables differ in size")
    if n == 0:
        return np.array(head), offsets
    rows = <const SpanRow*> &spans[0]
    attribute = <const AttributeRow*> &attributes[0] if attributes.shape[0] else NULL
    event = <const EventRow*> &events[0] if events.shape[0] else NULL
    link = <const LinkRow*> &links[0] if links.shape[0] else NULL
    cdef const uint8_t* base = &arena[0] if arena.shape[0] else NULL
    with nogil:
        for i in range(n):
            row = &rows[i]
            if row.state_length:
                total += 1 + varint_size(row.state_length) + row.state_length
            for j in range(row.attribute_first, row.attribute_first + row.attribute_count):
                if not drop[j]:
                    total += 1 + varint_size(attribute[j].raw_length) + attribute[j].raw_length
            for j in range(row.event_first, row.event_first + row.event_count):
                if drop_events[j]:
                    continue
                total += 1 + varint_size(event[j].raw_length) + event[j].raw_length
            for j in range(row.link_first, row.link_first + row.link_count):
                if drop_links[j]:
                    continue
                total += 1 + varint_size(link[j].raw_length) + link[j].raw_length
            total += count_size(row.dropped_attributes) + count_size(row.dropped_events)
            total += count_size(row.dropped_links)
            starts[i + 1] = <uint32_t> total
    if total > 0xFFFFFFFFULL:
        raise ValueError("the fields do not fit into one arena")
    packed = np.empty(total, dtype=np.uint8)
    cdef uint8_t[::1] out = packed
    if total == 0:
        return packed, offsets
    with nogil:
        p = &out[0]
        if head.shape[0]:
            memcpy(p, &head[0], head.shape[0])
            p += head.shape[0]
        for i in range(n):
            row = &rows[i]
            if row.state_length:
                p = put_bytes(p, 0x1A, base + row.state_offset, row.state_length)
            for j in range(row.attribute_first, row.attribute_first + row.attribute_count):
                if not drop[j]:
                    p = put_bytes(p, 0x4A, base + attribute[j].raw_offset, attribute[j].raw_length)
            for j in range(row.event_first, row.event_first + row.event_count):
                if drop_events[j]:
                    continue
                p = put_bytes(p, 0x5A, base + event[j].raw_offset, event[j].raw_length)
            for j in range(row.link_first, row.link_first + row.link_count):
                if drop_links[j]:
                    continue
                p = put_bytes(p, 0x6A, base + link[j].raw_offset, link[j].raw_length)
            p = put_count(p, 0x50, row.dropped_attributes)
            p = put_count(p, 0x60, row.dropped_events)
            p = put_count(p, 0x70, row.dropped_links)
    return packed, offsets


cdef struct Columns:
    const uint8_t* text
    const Extent* keys
    const uint8_t* kinds
    const uint64_t* values
    const uint8_t* present
    Py_ssize_t columns
    Py_ssize_t rows


cdef inline uint64_t value_size(const Columns* c, Py_ssize_t column, uint64_t value) noexcept nogil:
    """Size of an encoded AnyValue."""
    cdef uint8_t kind = c.kinds[column]
    if kind == 1:
        return 1 + varint_size(value & 0xFFFFFFFFULL) + (value & 0xFFFFFFFFULL)
    if kind == 2:
        return 2
    if kind == 3:
        return 1 + varint_size(value)
    return 9


cdef inline uint64_t pair_size(const Columns* c, Py_ssize_t column, uint64_t value) noexcept nogil:
    """Size of an encoded KeyValue."""
    cdef uint64_t inner = value_size(c, column, value)
    cdef uint64_t key = c.keys[column].length
    return 1 + varint_size(key) + key + 1 + varint_size(inner) + inner


cdef inline int state_text(const CleanRow* row, uint8_t* out) noexcept nogil:
    """Write `ot=th:…;rv:…` (at most 40 bytes); returns its length, 0 when there is nothing to say."""
    cdef const char* digits = b"0123456789abcdef"
    cdef int n = 0
    cdef int i
    cdef int last = 0
    cdef bint has_threshold = row.threshold >> 56 == 0
    cdef bint has_randomness = row.randomness >> 56 == 0
    if not has_threshold and not has_randomness:
        return 0
    memcpy(out, <const char*> b"ot=", 3)
    n = 3
    if has_threshold:
        memcpy(out + n, <const char*> b"th:", 3)
        n += 3
        for i in range(14):
            out[n + i] = digits[(row.threshold >> (52 - 4 * i)) & 15]
            if out[n + i] != c'0':
                last = i
        n += last + 1
    if has_randomness:
        if has_threshold:
            out[n] = c';'
            n += 1
        memcpy(out + n, <const char*> b"rv:", 3)
        n += 3
        for i in range(14):
            out[n + i] = digits[(row.randomness >> (52 - 4 * i)) & 15]
        n += 14
    return n


cdef uint64_t span_size(const Columns* c, const CleanRow* row, Py_ssize_t at) noexcept nogil:
    cdef uint8_t state[64]
    cdef uint64_t total = 18 + 10 + 9 + 9
    cdef uint64_t inner = 0
    cdef Py_ssize_t i
    cdef int n = state_text(row, state)
    if n:
        total += 2 + n
    if row.parent_id:
        total += 10
    if row.name_length:
        total += 1 + varint_size(row.name_length) + row.name_length
    if row.kind:
        total += 1 + signed_size(row.kind)
    for i in range(c.columns):
        if c.present[i * c.rows + at]:
            inner = pair_size(c, i, c.values[i * c.rows + at])
            total += 1 + varint_size(inner) + inner
    total += row.fields_length
    inner = status_size(row)
    if inner:
        total += 1 + varint_size(inner) + inner
    if row.flags:
        total += 6
    return total


cdef inline uint64_t status_size(const CleanRow* row) noexcept nogil:
    cdef uint64_t n = 0
    if row.message_length:
        n += 1 + varint_size(row.message_length) + row.message_length
    if row.status:
        n += 1 + signed_size(row.status)
    return n


cdef uint8_t* put_span(uint8_t* p, const Columns* c, const CleanRow* row, Py_ssize_t at) noexcept nogil:
    cdef uint8_t state[64]
    cdef uint64_t inner
    cdef uint64_t value
    cdef Py_ssize_t i
    cdef int n = state_text(row, state)
    p[0] = 0x0A
    p[1] = 16
    weir_store_big64(p + 2, row.trace_hi)
    weir_store_big64(p + 10, row.trace_lo)
    p[18] = 0x12
    p[19] = 8
    weir_store_big64(p + 20, row.span_id)
    p += 28
    if n:
        p = put_bytes(p, 0x1A, state, n)
    if row.parent_id:
        p[0] = 0x22
        p[1] = 8
        weir_store_big64(p + 2, row.parent_id)
        p += 10
    if row.name_length:
        p = put_bytes(p, 0x2A, c.text + row.name_offset, row.name_length)
    if row.kind:
        p[0] = 0x30
        p = put_varint(p + 1, <uint64_t> <int64_t> row.kind)
    p = put_fixed64(p, 0x39, row.start_ns)
    p = put_fixed64(p, 0x41, row.end_ns)
    for i in range(c.columns):
        if not c.present[i * c.rows + at]:
            continue
        value = c.values[i * c.rows + at]
        p[0] = 0x4A
        p = put_varint(p + 1, pair_size(c, i, value))
        p = put_bytes(p, 0x0A, c.text + c.keys[i].offset, c.keys[i].length)
        p[0] = 0x12
        p = put_varint(p + 1, value_size(c, i, value))
        if c.kinds[i] == 1:
            p = put_bytes(p, 0x0A, c.text + (value >> 32), value & 0xFFFFFFFFULL)
        elif c.kinds[i] == 2:
            p[0] = 0x10
            p[1] = value != 0
            p += 2
        elif c.kinds[i] == 3:
            p[0] = 0x18
            p = put_varint(p + 1, value)
        else:
            p = put_fixed64(p, 0x21, value)
    memcpy(p, c.text + row.fields_offset, row.fields_length)
    p += row.fields_length
    inner = status_size(row)
    if inner:
        p[0] = 0x7A
        p = put_varint(p + 1, inner)
        if row.message_length:
            p = put_bytes(p, 0x12, c.text + row.message_offset, row.message_length)
        if row.status:
            p[0] = 0x18
            p = put_varint(p + 1, <uint64_t> <int64_t> row.status)
    if row.flags:
        p[0] = 0x85
        p[1] = 0x01
        memcpy(p + 2, &row.flags, 4)
        p += 6
    return p


def encode_spans(const uint8_t[:] text, const uint8_t[:] spans, const uint8_t[:] resources,
                 const uint8_t[:] scopes, const uint8_t[:] keys, const uint8_t[::1] kinds,
                 const uint64_t[:, ::1] values, const uint8_t[:, ::1] present,
                 const int32_t[::1] order):
    """Write an ExportTraceServiceRequest from clean columns.

    Tables are viewed as bytes. `order` lists the rows to write so that rows of one resource, and in
    it of one scope, stand together; each run becomes one ResourceSpans or ScopeSpans.
    """
    cdef Py_ssize_t n = order.shape[0]
    cdef Py_ssize_t rows = spans.shape[0] // <Py_ssize_t> sizeof(CleanRow)
    cdef Columns c
    cdef const CleanRow* row
    cdef const Extent* resource
    cdef const Extent* scope
    cdef uint64_t* span_sizes
    cdef uint64_t* scope_sizes      # body of the ScopeSpans that starts at row i
    cdef uint64_t* resource_sizes   # body of the ResourceSpans that starts at row i
    cdef uint64_t total = 0
    cdef Py_ssize_t i, j, k
    cdef uint8_t* p
    cdef uint64_t size
    if n == 0:
        return b""
    if kinds.shape[0] and (values.shape[1] != rows or present.shape[1] != rows):
        raise ValueError("columns and spans differ in size")
    c.text = &text[0] if text.shape[0] else <const uint8_t*> b""
    c.columns = kinds.shape[0]
    c.rows = rows
    c.keys = <const Extent*> &keys[0] if keys.shape[0] else NULL
    c.kinds = &kinds[0] if c.columns else NULL
    c.values = &values[0, 0] if c.columns else NULL
    c.present = &present[0, 0] if c.columns else NULL
    row = <const CleanRow*> &spans[0]
    resource = <const Extent*> &resources[0]
    scope = <const Extent*> &scopes[0]
    span_sizes = <uint64_t*> calloc(3 * n, 8)
    if span_sizes == NULL:
        raise MemoryError()
    scope_sizes = span_sizes + n
    resource_sizes = scope_sizes + n
    with nogil:
        i = 0
        while i < n:
            j = i
            size = 0
            while j < n and row[order[j]].resource == row[order[i]].resource:
                k = j
                while (k < n and row[order[k]].resource == row[order[i]].resource
                        and row[order[k]].scope == row[order[j]].scope):
                    span_sizes[k] = span_size(&c, &row[order[k]], order[k])
                    scope_sizes[j] += 1 + varint_size(span_sizes[k]) + span_sizes[k]
                    k += 1
                scope_sizes[j] += optional_size(&scope[row[order[j]].scope])
                size += 1 + varint_size(scope_sizes[j]) + scope_sizes[j]
                j = k
            size += optional_size(&resource[row[order[i]].resource])
            resource_sizes[i] = size
            total += 1 + varint_size(size) + size
            i = j
    try:
        result = PyBytes_FromStringAndSize(NULL, total)
    except MemoryError:
        free(span_sizes)
        raise
    p = <uint8_t*> PyBytes_AS_STRING(result)
    with nogil:
        i = 0
        while i < n:
            p[0] = 0x0A
            p = put_varint(p + 1, resource_sizes[i])
            p = put_optional(p, c.text, &resource[row[order[i]].resource])
            j = i
            while j < n and row[order[j]].resource == row[order[i]].resource:
                p[0] = 0x12
                p = put_varint(p + 1, scope_sizes[j])
                p = put_optional(p, c.text, &scope[row[order[j]].scope])
                k = j
                while (k < n and row[order[k]].resource == row[order[i]].resource
                        and row[order[k]].scope == row[order[j]].scope):
                    p[0] = 0x12
                    p = put_varint(p + 1, span_sizes[k])
                    p = put_span(p, &c, &row[order[k]], order[k])
                    k += 1
                j = k
            i = j
    free(span_sizes)
    assert p - <uint8_t*> PyBytes_AS_STRING(result) == <Py_ssize_t> total
    return result


cdef inline uint64_t optional_size(const Extent* e) noexcept nogil:
    return 1 + varint_size(e.length) + e.length if e.length else 0


cdef inline uint8_t* put_optional(uint8_t* p, const uint8_t* text, const Extent* e) noexcept nogil:
    if e.length:
        return put_bytes(p, 0x0A, text + e.offset, e.length)
    return p
