# Output: varints, and the growing buffer that a JSON body is turned into.

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


cdef enum:
    HOLE = 5                 # bytes kept free for the length of a message

cdef struct Output:
    uint8_t* data
    uint64_t size
    uint64_t capacity
    uint32_t* holes          # where the lengths stand, in the order of the bytes
    uint64_t hole_count
    uint64_t hole_capacity
    uint64_t spare           # bytes of the closed holes that their lengths do not need
    bint full

cdef struct Opened:
    uint64_t at
    uint64_t spare


cdef bint grow(Output* o, uint64_t more) noexcept nogil:
    """Make room for `more` bytes."""
    cdef uint64_t wanted = o.size + more
    cdef uint8_t* data
    if wanted <= o.capacity:
        return True
    # Holes are found again by 32 bits.
    if wanted > 0xFFFFFFFFULL:
        o.full = True
        return False
    if wanted < o.capacity + (o.capacity >> 1) and not WEIR_EXACT_BUFFERS:
        wanted = o.capacity + (o.capacity >> 1)
    data = <uint8_t*> realloc(o.data, wanted)
    if data == NULL:
        o.full = True
        return False
    o.data = data
    o.capacity = wanted
    return True


cdef inline bint put_tag(Output* o, uint32_t number, uint32_t wire) noexcept nogil:
    if not grow(o, 5):
        return False
    o.size = put_varint(o.data + o.size, number << 3 | wire) - o.data
    return True


cdef bint open_hole(Output* o, Opened* opened) noexcept nogil:
    """Keep room for a length that is not known yet."""
    cdef uint32_t* holes
    cdef uint64_t capacity
    if o.hole_count == o.hole_capacity:
        capacity = o.hole_count + 1 if WEIR_EXACT_BUFFERS else 2 * o.hole_capacity + 64
        holes = <uint32_t*> realloc(o.holes, capacity * sizeof(uint32_t))
        if holes == NULL:
            o.full = True
            return False
        o.holes = holes
        o.hole_capacity = capacity
    if not grow(o, HOLE):
        return False
    o.holes[o.hole_count] = <uint32_t> o.size
    o.hole_count += 1
    o.size += HOLE
    opened.at = o.size
    opened.spare = o.spare
    return True


cdef inline void close_hole(Output* o, const Opened* opened) noexcept nogil:
    """Note the length of what was written since: without the spare bytes of the holes in it."""
    cdef uint32_t size = <uint32_t> (o.size - opened.at - (o.spare - opened.spare))
    memcpy(o.data + opened.at - HOLE, &size, 4)
    o.spare += HOLE - varint_size(size)


cdef void squeeze(const Output* o, uint8_t* out) noexcept nogil:
    """Copy the output with lengths of minimal size in place of the holes."""
    cdef uint64_t start = 0
    cdef uint64_t i, hole
    for i in range(o.hole_count):
        hole = o.holes[i]
        memcpy(out, o.data + start, hole - start)
        out = put_varint(out + (hole - start), weir_load32(o.data + hole))
        start = hole + HOLE
    memcpy(out, o.data + start, o.size - start)
