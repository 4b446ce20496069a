# Pass one: count what a request holds, without allocating anything.

cdef bint count_repeated(State* s, Field* f, uint32_t tag, Py_ssize_t* found) noexcept nogil:
    """Count the fields with `tag` in a submessage."""
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    while next_field(&r, &g):
        if g.tag == tag:
            found[0] += 1
    return done(s, &r)


cdef bint count_span(State* s, Field* f, Py_ssize_t* n) noexcept nogil:
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    n[T_SPAN] += 1
    while next_field(&r, &g):
        if g.tag == 0x4A:
            n[T_SPAN_ATTRIBUTE] += 1
        elif g.tag == 0x5A:
            n[T_EVENT] += 1
            if not count_repeated(s, &g, 0x1A, &n[T_EVENT_ATTRIBUTE]):
                return False
        elif g.tag == 0x6A:
            n[T_LINK] += 1
            if not count_repeated(s, &g, 0x22, &n[T_LINK_ATTRIBUTE]):
                return False
    return done(s, &r)


cdef bint count_scope_spans(State* s, Field* f, Py_ssize_t* n) noexcept nogil:
    cdef Reader r = reader(f.data, f.length)
    cdef Field g
    n[T_SCOPE] += 1
    while next_field(&r, &g):
        if g.tag == 0x12:
            if not count_span(s, &g, n):
                return False
        elif g.tag == 0x0A:
            if not count_repeated(s, &g, 0x1A, &n[T_SCOPE_ATTRIBUTE]):
                return False
    return done(s, &r)


cdef bint count_request(State* s, const uint8_t* data, uint64_t length, Py_ssize_t* n) noexcept nogil:
    cdef Reader r = reader(data, length)
    cdef Reader inner
    cdef Field f
    cdef Field g
    while next_field(&r, &f):
        if f.tag != 0x0A:
            continue
        n[T_RESOURCE] += 1
        inner = reader(f.data, f.length)
        while next_field(&inner, &g):
            if g.tag == 0x12:
                if not count_scope_spans(s, &g, n):
                    return False
            elif g.tag == 0x0A:
                if not count_repeated(s, &g, 0x0A, &n[T_RESOURCE_ATTRIBUTE]):
                    return False
        if not done(s, &inner):
            return False
    return done(s, &r)
