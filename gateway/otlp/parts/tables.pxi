# Growable tables, the table of attribute keys, and what a scan carries along.

cdef struct Rows:
    uint8_t* data
    Py_ssize_t count
    Py_ssize_t capacity
    Py_ssize_t width


cdef int reserve(Rows* rows, Py_ssize_t more) except -1:
    cdef Py_ssize_t wanted = rows.count + more
    cdef Py_ssize_t capacity
    cdef uint8_t* data
    if wanted <= rows.capacity and not WEIR_EXACT_BUFFERS:
        return 0
    capacity = max(wanted, 1) if WEIR_EXACT_BUFFERS else max(wanted, rows.capacity * 2, 64)
    data = <uint8_t*> realloc(rows.data, capacity * rows.width)
    if data == NULL:
        raise MemoryError()
    rows.data = data
    rows.capacity = capacity
    return 0


cdef object copy_out(Rows* rows, object dtype):
    """Copy a table into a numpy array of its exact size; the buffer stays warm for the next batch."""
    table = np.empty(rows.count, dtype=dtype)
    cdef uint8_t[::1] view
    if rows.count:
        view = table.view(np.uint8)
        memcpy(&view[0], rows.data, rows.count * rows.width)
    return table


cdef enum:
    T_ARENA = 0
    T_REQUEST
    T_RESOURCE
    T_SCOPE
    T_SPAN
    T_EVENT
    T_LINK
    T_SPAN_ATTRIBUTE
    T_RESOURCE_ATTRIBUTE
    T_SCOPE_ATTRIBUTE
    T_EVENT_ATTRIBUTE
    T_LINK_ATTRIBUTE
    TABLES

# Requests of one batch mostly repeat the same few resources and scopes; a direct-mapped cache finds
# them again. A miss costs a second row, never a wrong one.
cdef enum:
    CACHE_SLOTS = 1024
    KEY_SLOTS_PER_KEY = 4

cdef struct Seen:
    uint64_t hash
    uint32_t offset
    uint32_t length
    uint32_t schema_offset
    uint32_t schema_length
    int32_t row           # row + 1; 0 is an empty slot

cdef struct KeyTable:
    uint8_t* text
    uint32_t* offset
    uint32_t* length
    int32_t* slot         # open addressing: key + 1, 0 is empty
    int32_t* successor    # the key that followed key k last time, at k + 1; [0] follows "none"
    uint64_t slots
    int32_t count
    int32_t limit
    uint32_t text_used
    uint32_t text_capacity

cdef struct Limits:
    int depth
    Py_ssize_t spans
    Py_ssize_t items
    uint64_t text_bytes

cdef struct State:
    Rows rows[TABLES]
    KeyTable keys
    Limits limits
    uint64_t seed
    const uint8_t* base     # start of the arena while a body is filled
    Seen* seen_resources
    Seen* seen_scopes
    Fault fault
    const uint8_t* fault_at
    int32_t flaw            # Rejection of the texts that were taken since it was last reset
    int32_t condemned       # Rejection of every span of the resource or scope at hand
    int32_t rejection       # that of the first refused span
    Py_ssize_t rejected
    Py_ssize_t mismatched   # spans refused as OTHER_DEVICE
    int32_t request
    int32_t device_key      # interned `device.id`
    const uint8_t* device   # identity of the sender; none is checked when it is empty
    uint64_t device_length


cdef inline bint fail(State* s, Fault fault, const uint8_t* at) noexcept nogil:
    if s.fault == FINE:
        s.fault = fault
        s.fault_at = at
    return False


cdef inline bint done(State* s, Reader* r) noexcept nogil:
    """End a walk: True when it ended cleanly."""
    if r.fault != FINE:
        return fail(s, r.fault, r.at)
    return True


cdef inline void text(State* s, Field* f, uint32_t* offset, uint32_t* length) noexcept nogil:
    """Take a string field: limit, UTF-8, position.

    A bad text is a flaw of its span and no fault of the request: one bad span must not cost a
    device its whole batch, since a refused request is not sent again.
    """
    if f.length > s.limits.text_bytes:
        s.flaw = TEXT_TOO_LONG
    elif not weir_utf8(f.data, f.length):
        s.flaw = NOT_UTF8
    offset[0] = <uint32_t> (f.data - s.base)
    length[0] = <uint32_t> f.length
