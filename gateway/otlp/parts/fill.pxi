# Pass two: fill the rows that pass one has counted and `reserve` has made room for.

cdef int32_t find_key(KeyTable* k, const uint8_t* p, uint32_t n, uint64_t seed) noexcept nogil:
    """Intern a key; -1 when the table is full."""
    cdef uint64_t slot = weir_hash(p, n, seed) & (k.slots - 1)
    cdef int32_t key
    while k.slot[slot]:
        key = k.slot[slot] - 1
        if k.length[key] == n and memcmp(k.text + k.offset[key], p, n) == 0:
            return key
        slot = (slot + 1) & (k.slots - 1)
    if k.count >= k.limit or k.text_used + n > k.text_capacity:
        return -1
    key = k.count
    memcpy(k.text + k.text_used, p, n)
    k.offset[key] = k.text_used
    k.length[key] = n
    k.text_used += n
    k.slot[slot] = key + 1
    k.successor[key + 1] = -1
    k.count += 1
    return key


cdef bint walk_value(State* s, Field* f, int depth) noexcept nogil:
    """Validate a nested AnyValue: depth, UTF-8, structure. Its bytes are kept as they are."""
    cdef Reader r = reader(f.data, f.length)
    cdef Reader inner
    cdef Reader pair
    cdef Field g
    cdef Field h
    cdef Field v
    cdef uint32_t offset, length
    if depth > s.limits.depth:
        return fail(s, TOO_DEEP, f.data)
    while next_field(&r, &g):
        if g.tag == 0x0A:
            text(s, &g, &offset, &length)
        elif g.tag == 0x2A:
            inner = reader(g.data, g.length)
            while next_field(&inner, &h):
                if h.tag == 0x0A and not walk_value(s, &h, depth + 1):
                    return False
            if not done(s, &inner):
                return False
        elif g.tag == 0x32:
            inner = reader(g.data, g.length)
            while next_field(&inner, &h):
                if h.tag != 0x0A:
                    continue
                pair = reader(h.data, h.length)
                while next_field(&pair, &v):
                    if v.tag == 0x0A:
                        text(s, &v, &offset, &length)
                    elif v.tag == 0x12:
                        if not walk_value(s, &v, depth + 1):
                            return False
                if not done(s, &pair):
                    return False
            if not done(s, &inner):
                return False
        elif g.tag == 0x40:
            return fail(s, STRING_INDEX, f.data)
    return done(s, &r)


cdef inline bint fill_value(State* s, Field* f, AttributeRow* row) noexcept nogil:
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    cdef bint nested = False
    while next_field(&r, &g):
        if g.tag == 0x0A:
            text(s, &g, &row.offset, &row.length)
            row.kind = 1
        elif g.tag == 0x21:
            row.number = g.number
            row.kind = 4
        elif g.tag == 0x18:
            row.number = g.number
            row.kind = 3
        elif g.tag == 0x10:
            row.number = g.number != 0
            row.kind = 2
        elif g.tag == 0x3A:
            if g.length > s.limits.text_bytes:
                s.flaw = TEXT_TOO_LONG
            row.offset = <uint32_t> (g.data - s.base)
            row.length = <uint32_t> g.length
            row.kind = 7
        elif g.tag == 0x2A or g.tag == 0x32:
            row.kind = 5 if g.tag == 0x2A else 6
            nested = True
        elif g.tag == 0x40:
            return fail(s, STRING_INDEX, f.data)
    if not done(s, &r):
        return False
    # A nested value that a later field replaced still has to be well formed.
    if nested and not walk_value(s, f, 1):
        return False
    if row.kind == 5 or row.kind == 6:
        row.offset = <uint32_t> (f.data - s.base)
        row.length = <uint32_t> f.length
        row.number = 0
    elif row.kind == 1 or row.kind == 7:
        row.number = 0
    else:
        row.offset = 0
        row.length = 0
    return True


cdef inline bint fill_attribute(
    State* s, Field* f, Rows* rows, int32_t owner, int32_t* previous
) noexcept nogil:
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    cdef AttributeRow* row = (<AttributeRow*> rows.data) + rows.count
    cdef KeyTable* keys = &s.keys
    cdef const uint8_t* key_data = s.base
    cdef uint64_t key_length = 0
    cdef bint has_value = False
    cdef int32_t key
    memset(row, 0, sizeof(AttributeRow))
    row.owner = owner
    row.raw_offset = <uint32_t> (f.data - s.base)
    row.raw_length = <uint32_t> f.length
    while next_field(&r, &g):
        if g.tag == 0x0A:
            # The last key wins, but one that it replaces has to be valid too.
            if key_length and not weir_utf8(key_data, key_length):
                s.flaw = NOT_UTF8
            key_data = g.data
            key_length = g.length
        elif g.tag == 0x12:
            if has_value:
                return fail(s, REPEATED, g.data)
            has_value = True
            if not fill_value(s, &g, row):
                return False
        elif g.tag == 0x18:
            return fail(s, STRING_INDEX, f.data)
    if not done(s, &r):
        return False
    # Keys come in the same order span after span, so the last successor is nearly always right,
    # and an interned key is known to be UTF-8.
    key = keys.successor[previous[0] + 1]
    if (
        key < 0
        or keys.length[key] != key_length
        or memcmp(keys.text + keys.offset[key], key_data, key_length) != 0
    ):
        if key_length > s.limits.text_bytes:
            s.flaw = TEXT_TOO_LONG
            key = -1
        elif not weir_utf8(key_data, key_length):
            s.flaw = NOT_UTF8
            key = -1
        else:
            key = find_key(keys, key_data, <uint32_t> key_length, s.seed)
            keys.successor[previous[0] + 1] = key
    row.key = key
    previous[0] = key
    rows.count += 1
    return True


cdef inline void take_trace_id(Field* f, uint64_t* hi, uint64_t* lo) noexcept nogil:
    if f.length == 16:
        hi[0] = weir_big64(f.data)
        lo[0] = weir_big64(f.data + 8)
    else:
        hi[0] = 0
        lo[0] = 0


cdef bint fill_event(State* s, Field* f, int32_t span) noexcept nogil:
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    cdef Rows* rows = &s.rows[T_EVENT]
    cdef Rows* attributes = &s.rows[T_EVENT_ATTRIBUTE]
    cdef EventRow* row = (<EventRow*> rows.data) + rows.count
    cdef int32_t previous = -1
    memset(row, 0, sizeof(EventRow))
    row.span = span
    row.raw_offset = <uint32_t> (f.data - s.base)
    row.raw_length = <uint32_t> f.length
    row.attribute_first = <int32_t> attributes.count
    while next_field(&r, &g):
        if g.tag == 0x09:
            row.time_ns = g.number
        elif g.tag == 0x12:
            text(s, &g, &row.name_offset, &row.name_length)
        elif g.tag == 0x1A:
            if not fill_attribute(s, &g, attributes, <int32_t> rows.count, &previous):
                return False
        elif g.tag == 0x20:
            row.dropped_attributes = <uint32_t> g.number
    row.attribute_count = <int32_t> attributes.count - row.attribute_first
    rows.count += 1
    return done(s, &r)


cdef bint fill_link(State* s, Field* f, int32_t span) noexcept nogil:
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    cdef Rows* rows = &s.rows[T_LINK]
    cdef Rows* attributes = &s.rows[T_LINK_ATTRIBUTE]
    cdef LinkRow* row = (<LinkRow*> rows.data) + rows.count
    cdef int32_t previous = -1
    memset(row, 0, sizeof(LinkRow))
    row.span = span
    row.raw_offset = <uint32_t> (f.data - s.base)
    row.raw_length = <uint32_t> f.length
    row.attribute_first = <int32_t> attributes.count
    while next_field(&r, &g):
        if g.tag == 0x0A:
            take_trace_id(&g, &row.trace_hi, &row.trace_lo)
        elif g.tag == 0x12:
            row.span_id = weir_big64(g.data) if g.length == 8 else 0
        elif g.tag == 0x1A:
            text(s, &g, &row.state_offset, &row.state_length)
        elif g.tag == 0x22:
            if not fill_attribute(s, &g, attributes, <int32_t> rows.count, &previous):
                return False
        elif g.tag == 0x28:
            row.dropped_attributes = <uint32_t> g.number
        elif g.tag == 0x35:
            row.flags = <uint32_t> g.number
    row.attribute_count = <int32_t> attributes.count - row.attribute_first
    rows.count += 1
    return done(s, &r)


cdef inline bint fill_status(State* s, Field* f, SpanRow* row) noexcept nogil:
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    while next_field(&r, &g):
        if g.tag == 0x12:
            text(s, &g, &row.message_offset, &row.message_length)
        elif g.tag == 0x18:
            row.status = <int32_t> g.number
    return done(s, &r)


cdef inline void reject(State* s, SpanRow* row, int32_t reason) noexcept nogil:
    """Take a span out again: its rows in the child tables are the newest ones."""
    s.rows[T_SPAN_ATTRIBUTE].count = row.attribute_first
    if s.rows[T_EVENT].count > row.event_first:
        s.rows[T_EVENT_ATTRIBUTE].count = (
            (<EventRow*> s.rows[T_EVENT].data)[row.event_first].attribute_first
        )
        s.rows[T_EVENT].count = row.event_first
    if s.rows[T_LINK].count > row.link_first:
        s.rows[T_LINK_ATTRIBUTE].count = (
            (<LinkRow*> s.rows[T_LINK].data)[row.link_first].attribute_first
        )
        s.rows[T_LINK].count = row.link_first
    s.rejected += 1
    s.mismatched += reason == OTHER_DEVICE
    if s.rejection == ACCEPTED:
        s.rejection = reason


cdef bint fill_span(State* s, Field* f, int32_t resource, int32_t scope) noexcept nogil:
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    cdef Rows* rows = &s.rows[T_SPAN]
    cdef Rows* attributes = &s.rows[T_SPAN_ATTRIBUTE]
    cdef int32_t span = <int32_t> rows.count
    cdef SpanRow* row = (<SpanRow*> rows.data) + span
    cdef int32_t previous = -1
    cdef int32_t reason = ACCEPTED
    cdef bint has_status = False
    s.flaw = ACCEPTED
    memset(row, 0, sizeof(SpanRow))
    row.resource = resource
    row.scope = scope
    row.request = s.request
    row.attribute_first = <int32_t> attributes.count
    row.event_first = <int32_t> s.rows[T_EVENT].count
    row.link_first = <int32_t> s.rows[T_LINK].count
    while next_field(&r, &g):
        if g.tag == 0x4A:
            if not fill_attribute(s, &g, attributes, span, &previous):
                return False
        elif g.tag == 0x0A:
            take_trace_id(&g, &row.trace_hi, &row.trace_lo)
        elif g.tag == 0x12:
            row.span_id = weir_big64(g.data) if g.length == 8 else 0
        elif g.tag == 0x22:
            row.parent_id = weir_big64(g.data) if g.length == 8 else 0
            reason = BAD_PARENT_ID if g.length != 8 and g.length != 0 else ACCEPTED
        elif g.tag == 0x2A:
            text(s, &g, &row.name_offset, &row.name_length)
        elif g.tag == 0x30:
            row.kind = <int32_t> g.number
        elif g.tag == 0x39:
            row.start_ns = g.number
        elif g.tag == 0x41:
            row.end_ns = g.number
        elif g.tag == 0x5A:
            if not fill_event(s, &g, span):
                return False
        elif g.tag == 0x6A:
            if not fill_link(s, &g, span):
                return False
        elif g.tag == 0x7A:
            if has_status:
                return fail(s, REPEATED, g.data)
            has_status = True
            if not fill_status(s, &g, row):
                return False
        elif g.tag == 0x1A:
            text(s, &g, &row.state_offset, &row.state_length)
        elif g.tag == 0x85:
            row.flags = <uint32_t> g.number
        elif g.tag == 0x50:
            row.dropped_attributes = <uint32_t> g.number
        elif g.tag == 0x60:
            row.dropped_events = <uint32_t> g.number
        elif g.tag == 0x70:
            row.dropped_links = <uint32_t> g.number
    if not done(s, &r):
        return False
    row.attribute_count = <int32_t> attributes.count - row.attribute_first
    row.event_count = <int32_t> s.rows[T_EVENT].count - row.event_first
    row.link_count = <int32_t> s.rows[T_LINK].count - row.link_first
    if s.flaw:
        reason = s.flaw
    if row.span_id == 0:
        reason = BAD_SPAN_ID
    if row.trace_hi == 0 and row.trace_lo == 0:
        reason = BAD_TRACE_ID
    if s.condemned:
        reason = s.condemned
    if reason:
        reject(s, row, reason)
    else:
        rows.count += 1
    return True


cdef inline Seen* seen(
    State* s, Seen* cache, Field* body, Field* schema
) noexcept nogil:
    """Find the cache slot of a resource or scope; `row` is 0 when it is not the same bytes."""
    cdef uint64_t h = weir_hash(body.data, body.length, s.seed) ^ (
        weir_hash(schema.data, schema.length, s.seed) * 31
    )
    cdef Seen* slot = &cache[h & (CACHE_SLOTS - 1)]
    if (
        slot.row
        and slot.hash == h
        and slot.length == body.length
        and slot.schema_length == schema.length
        and memcmp(s.base + slot.offset, body.data, body.length) == 0
        and memcmp(s.base + slot.schema_offset, schema.data, schema.length) == 0
    ):
        return slot
    slot.hash = h
    slot.row = 0
    slot.offset = <uint32_t> (body.data - s.base)
    slot.length = <uint32_t> body.length
    slot.schema_offset = <uint32_t> (schema.data - s.base)
    slot.schema_length = <uint32_t> schema.length
    return slot


cdef bint walk_entity(State* s, Field* f) noexcept nogil:
    """Validate an EntityRef; it is all text, and Weir keeps none of it."""
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    cdef uint32_t offset, length
    while next_field(&r, &g):
        if g.tag == 0x0A or g.tag == 0x12 or g.tag == 0x1A or g.tag == 0x22:
            text(s, &g, &offset, &length)
    return done(s, &r)


cdef inline int32_t device_flaw(State* s, ResourceRow* row) noexcept nogil:
    """Compare every `device.id` of a resource with the identity of the sender."""
    cdef AttributeRow* attribute = (
        (<AttributeRow*> s.rows[T_RESOURCE_ATTRIBUTE].data) + row.attribute_first
    )
    cdef int32_t i
    if s.device_length == 0:
        return ACCEPTED
    for i in range(row.attribute_count):
        if attribute[i].key == s.device_key and (
            attribute[i].kind != 1
            or attribute[i].length != s.device_length
            or memcmp(s.base + attribute[i].offset, s.device, s.device_length) != 0
        ):
            return OTHER_DEVICE
    return ACCEPTED


cdef int32_t fill_resource(State* s, Field* body, Field* schema) noexcept nogil:
    """Take a resource and its schema; -1 on a fault. A flawed one leaves no row behind."""
    cdef Seen* slot = seen(s, s.seen_resources, body, schema)
    cdef Reader r
    cdef Field g
    cdef Rows* rows = &s.rows[T_RESOURCE]
    cdef Rows* attributes = &s.rows[T_RESOURCE_ATTRIBUTE]
    cdef ResourceRow* row
    cdef int32_t previous = -1
    if slot.row:
        return slot.row - 1
    row = (<ResourceRow*> rows.data) + rows.count
    memset(row, 0, sizeof(ResourceRow))
    row.attribute_first = <int32_t> attributes.count
    text(s, schema, &row.schema_offset, &row.schema_length)
    r = reader(body.data, body.length)
    while next_field(&r, &g):
        if g.tag == 0x0A:
            if not fill_attribute(s, &g, attributes, <int32_t> rows.count, &previous):
                return -1
        elif g.tag == 0x10:
            row.dropped_attributes = <uint32_t> g.number
        elif g.tag == 0x1A:
            if not walk_entity(s, &g):
                return -1
    if not done(s, &r):
        return -1
    if s.flaw:
        attributes.count = row.attribute_first
        return 0  # of no row: every span that would point to it is refused
    row.attribute_count = <int32_t> attributes.count - row.attribute_first
    rows.count += 1
    slot.row = <int32_t> rows.count
    return slot.row - 1


cdef int32_t fill_scope(State* s, Field* body, Field* schema) noexcept nogil:
    """Take a scope and its schema; -1 on a fault. A flawed one leaves no row behind."""
    cdef Seen* slot = seen(s, s.seen_scopes, body, schema)
    cdef Reader r
    cdef Field g
    cdef Rows* rows = &s.rows[T_SCOPE]
    cdef Rows* attributes = &s.rows[T_SCOPE_ATTRIBUTE]
    cdef ScopeRow* row
    cdef int32_t previous = -1
    if slot.row:
        return slot.row - 1
    row = (<ScopeRow*> rows.data) + rows.count
    memset(row, 0, sizeof(ScopeRow))
    row.attribute_first = <int32_t> attributes.count
    text(s, schema, &row.schema_offset, &row.schema_length)
    r = reader(body.data, body.length)
    while next_field(&r, &g):
        if g.tag == 0x0A:
            text(s, &g, &row.name_offset, &row.name_length)
        elif g.tag == 0x12:
            text(s, &g, &row.version_offset, &row.version_length)
        elif g.tag == 0x1A:
            if not fill_attribute(s, &g, attributes, <int32_t> rows.count, &previous):
                return -1
        elif g.tag == 0x20:
            row.dropped_attributes = <uint32_t> g.number
    if not done(s, &r):
        return -1
    if s.flaw:
        attributes.count = row.attribute_first
        return 0  # of no row: every span that would point to it is refused
    row.attribute_count = <int32_t> attributes.count - row.attribute_first
    rows.count += 1
    slot.row = <int32_t> rows.count
    return slot.row - 1


cdef bint envelope(State* s, Field* f, Field* body, Field* schema) noexcept nogil:
    """Find the singular message (1) and the schema URL (3) of ResourceSpans or ScopeSpans."""
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    cdef bint has_body = False
    body.data = f.data
    body.length = 0
    schema.data = f.data
    schema.length = 0
    while next_field(&r, &g):
        if g.tag == 0x0A:
            if has_body:
                return fail(s, REPEATED, g.data)
            has_body = True
            body[0] = g
        elif g.tag == 0x1A:
            schema[0] = g
            # The last one wins, but each has to be valid.
            if not weir_utf8(g.data, g.length):
                s.flaw = NOT_UTF8
    return done(s, &r)


cdef bint fill_scope_spans(State* s, Field* f, int32_t resource) noexcept nogil:
    cdef Reader r
    cdef Field g
    cdef Field body
    cdef Field schema
    cdef int32_t scope
    cdef int32_t above = s.condemned
    s.flaw = ACCEPTED
    if not envelope(s, f, &body, &schema):
        return False
    scope = fill_scope(s, &body, &schema)
    if scope < 0:
        return False
    if not above:
        s.condemned = s.flaw
    r = reader(f.data, f.length)
    while next_field(&r, &g):
        if g.tag == 0x12 and not fill_span(s, &g, resource, scope):
            return False
    s.condemned = above
    return done(s, &r)


cdef bint fill_request(State* s, const uint8_t* data, uint64_t length) noexcept nogil:
    cdef Reader r = reader(data, length)
    cdef Reader inner
    cdef Field f
    cdef Field g
    cdef Field body
    cdef Field schema
    cdef int32_t resource
    while next_field(&r, &f):
        if f.tag != 0x0A:
            continue
        s.flaw = ACCEPTED
        if not envelope(s, &f, &body, &schema):
            return False
        resource = fill_resource(s, &body, &schema)
        if resource < 0:
            return False
        s.condemned = s.flaw
        if not s.condemned:
            s.condemned = device_flaw(s, (<ResourceRow*> s.rows[T_RESOURCE].data) + resource)
        inner = reader(f.data, f.length)
        while next_field(&inner, &g):
            if g.tag == 0x12 and not fill_scope_spans(s, &g, resource):
                return False
        if not done(s, &inner):
            return False
    return done(s, &r)
