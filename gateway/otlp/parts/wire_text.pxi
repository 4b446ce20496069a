# JSON text: strings with their escapes, and the two ways in which bytes are written in strings.

_JSON_FAULTS = {
    NOT_OBJECT: "the body is not a JSON object",
    SYNTAX: "the body is not valid JSON",
    TRAILING: "bytes follow the JSON object",
    JSON_UTF8: "the body is not valid UTF-8",
    CONTROL: "a string holds a control character",
    ESCAPE: "a string holds an invalid escape",
    SURROGATE: "a string holds half of a surrogate pair",
    DUPLICATE: "a key occurs twice in one object",
    JSON_TOO_DEEP: "JSON is nested too deeply",
    NULL_ELEMENT: "null stands in an array",
    WANT_OBJECT: "an object is expected",
    WANT_ARRAY: "an array is expected",
    WANT_STRING: "a string is expected",
    WANT_BOOL: "true or false is expected",
    WANT_NUMBER: "a number is expected",
    WANT_INTEGER: "an integer is expected",
    ENUM_NAME: "an enum is written as its integer, not as its name",
    OUT_OF_RANGE: "a number is out of range",
    LONG_NUMBER: "a number has too many digits",
    HEX: "an id is not hexadecimal",
    BASE64: "bytes are not base64",
    OUTPUT_FULL: "the request is too large",
    TWO_MEMBERS: _TWO_MEMBERS,
}

cdef enum:
    NOT_OBJECT = 51
    SYNTAX
    TRAILING
    JSON_UTF8
    CONTROL
    ESCAPE
    SURROGATE
    DUPLICATE
    JSON_TOO_DEEP
    NULL_ELEMENT
    WANT_OBJECT
    WANT_ARRAY
    WANT_STRING
    WANT_BOOL
    WANT_NUMBER
    WANT_INTEGER
    ENUM_NAME
    OUT_OF_RANGE
    LONG_NUMBER
    HEX
    BASE64
    OUTPUT_FULL

cdef enum:
    JSON_LEVELS = 64         # objects and arrays inside one another
    SHORT = 192              # bytes; longer names with escapes cannot be names of fields

LEVELS_MAX = JSON_LEVELS

cdef struct Step:
    const FieldInfo* field
    int64_t index            # in an array; -1 outside

cdef struct Json:
    const MessageInfo* messages
    const uint8_t* start
    const uint8_t* at
    const uint8_t* end
    Output out
    int level
    int depth_max
    int64_t items_max
    int64_t entries_max
    int64_t items
    int64_t entries
    int64_t ignored
    int fault
    const uint8_t* fault_at
    int steps                # of the path to the value that is being read
    Step path[JSON_LEVELS + 1]
    uint8_t scratch[SHORT + 1]

cdef struct Slice:
    const uint8_t* data
    uint64_t length
    bint escaped


cdef bint spoil(Json* j, int fault, const uint8_t* at) noexcept nogil:
    """Note a fault; the path stays as it is, since it names the place."""
    if j.fault == 0:
        j.fault = fault
        j.fault_at = at
    return False


cdef inline void skip_space(Json* j) noexcept nogil:
    while j.at < j.end and (j.at[0] == c' ' or j.at[0] == c'\n' or j.at[0] == c'\r'
                            or j.at[0] == c'\t'):
        j.at += 1


cdef inline uint8_t peek(Json* j) noexcept nogil:
    """Return the next byte that is no space; 0 at the end of the text."""
    skip_space(j)
    return j.at[0] if j.at < j.end else 0


cdef bint read_string(Json* j, Slice* s) noexcept nogil:
    """Find the end of a string that starts here; its escapes are not checked yet."""
    cdef const uint8_t* p = j.at + 1
    s.data = p
    s.escaped = False
    while True:
        p = weir_plain_end(p, j.end)
        if p >= j.end:
            return spoil(j, SYNTAX, j.end)
        if p[0] == c'"':
            break
        if p[0] != c'\\':
            return spoil(j, CONTROL, p)
        if j.end - p < 2:
            return spoil(j, SYNTAX, j.end)
        s.escaped = True
        p += 2
    s.length = p - s.data
    j.at = p + 1
    return True


cdef inline int hex_digit(uint8_t c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    return -1


cdef int64_t read_unit(const uint8_t* p, const uint8_t* end) noexcept nogil:
    r"""Read the four digits of \uXXXX; -1 if they are none."""
    cdef int64_t unit = 0
    cdef int i, digit
    if end - p < 4:
        return -1
    for i in range(4):
        digit = hex_digit(p[i])
        if digit < 0:
            return -1
        unit = unit << 4 | digit
    return unit


cdef inline uint64_t put_utf8(uint8_t* out, int64_t c) noexcept nogil:
    if c < 0x80:
        out[0] = <uint8_t> c
        return 1
    if c < 0x800:
        out[0] = <uint8_t> (0xC0 | c >> 6)
        out[1] = <uint8_t> (0x80 | (c & 0x3F))
        return 2
    if c < 0x10000:
        out[0] = <uint8_t> (0xE0 | c >> 12)
        out[1] = <uint8_t> (0x80 | (c >> 6 & 0x3F))
        out[2] = <uint8_t> (0x80 | (c & 0x3F))
        return 3
    out[0] = <uint8_t> (0xF0 | c >> 18)
    out[1] = <uint8_t> (0x80 | (c >> 12 & 0x3F))
    out[2] = <uint8_t> (0x80 | (c >> 6 & 0x3F))
    out[3] = <uint8_t> (0x80 | (c & 0x3F))
    return 4


cdef inline uint8_t unescaped(uint8_t c) noexcept nogil:
    """Return what a one-letter escape stands for; 0 if there is no such escape."""
    if c == c'"' or c == c'\\' or c == c'/':
        return c
    if c == c'n':
        return 10
    if c == c't':
        return 9
    if c == c'r':
        return 13
    if c == c'b':
        return 8
    if c == c'f':
        return 12
    return 0


cdef bint unescape(Json* j, const Slice* s, uint8_t* out, uint64_t* size) noexcept nogil:
    """Write a string without its escapes; the result is never longer than the text.

    `out` NULL only checks the string.
    """
    cdef const uint8_t* p = s.data
    cdef const uint8_t* end = p + s.length
    cdef const uint8_t* plain
    cdef uint8_t units[4]
    cdef int64_t unit, second
    cdef uint64_t n = 0
    cdef uint64_t width
    while p < end:
        plain = <const uint8_t*> weir_plain_end(p, end)
        if out != NULL:
            memcpy(out + n, p, plain - p)
        n += plain - p
        p = plain
        if p == end:
            break
        if p[1] != c'u':
            units[0] = unescaped(p[1])
            if units[0] == 0:
                return spoil(j, ESCAPE, p)
            width = 1
            p += 2
        else:
            unit = read_unit(p + 2, end)
            if unit < 0:
                return spoil(j, ESCAPE, p)
            if 0xDC00 <= unit <= 0xDFFF:
                return spoil(j, SURROGATE, p)
            if 0xD800 <= unit <= 0xDBFF:
                if end - p < 12 or p[6] != c'\\' or p[7] != c'u':
                    return spoil(j, SURROGATE, p)
                second = read_unit(p + 8, end)
                if not 0xDC00 <= second <= 0xDFFF:
                    return spoil(j, SURROGATE, p)
                unit = 0x10000 + ((unit - 0xD800) << 10) + (second - 0xDC00)
                p += 6
            p += 6
            width = put_utf8(units, unit)
        if out != NULL:
            memcpy(out + n, units, width)
        n += width
    size[0] = n
    return True


cdef bint read_short(Json* j, Slice* s) noexcept nogil:
    """Read a string of which only a short content can mean anything; a long one stays escaped."""
    cdef uint64_t size = 0
    if not read_string(j, s):
        return False
    if not s.escaped:
        return True
    if s.length > SHORT:
        return unescape(j, s, NULL, &size)
    if not unescape(j, s, j.scratch, &size):
        return False
    j.scratch[size] = 0
    s.data = j.scratch
    s.length = size
    return True


cdef bint decode_hex(uint8_t* p, uint64_t* size) noexcept nogil:
    cdef uint64_t n = size[0] // 2
    cdef uint64_t i
    cdef int high, low
    if size[0] % 2:
        return False
    for i in range(n):
        high = hex_digit(p[2 * i])
        low = hex_digit(p[2 * i + 1])
        if high < 0 or low < 0:
            return False
        p[i] = <uint8_t> (high << 4 | low)
    size[0] = n
    return True


cdef inline int base64_digit(uint8_t c) noexcept nogil:
    if c'A' <= c <= c'Z':
        return c - c'A'
    if c'a' <= c <= c'z':
        return c - c'a' + 26
    if c'0' <= c <= c'9':
        return c - c'0' + 52
    if c == c'+' or c == c'-':
        return 62
    if c == c'/' or c == c'_':
        return 63
    return -1


cdef bint decode_base64(uint8_t* p, uint64_t* size) noexcept nogil:
    """Decode in place, standard or url-safe; padding is whole or absent."""
    cdef uint64_t length = size[0]
    cdef uint64_t n = 0
    cdef uint64_t i
    cdef uint32_t bits = 0
    cdef int digit
    if length % 4 == 0 and length and p[length - 1] == c'=':
        length -= 1
        if p[length - 1] == c'=':
            length -= 1
    if length % 4 == 1:
        return False
    for i in range(length):
        digit = base64_digit(p[i])
        if digit < 0:
            return False
        bits = bits << 6 | <uint32_t> digit
        if i % 4 == 1:
            p[n] = <uint8_t> (bits >> 4)
            n += 1
        elif i % 4 == 2:
            p[n] = <uint8_t> (bits >> 2)
            n += 1
        elif i % 4 == 3:
            p[n] = <uint8_t> bits
            n += 1
    size[0] = n
    return True


cdef bint read_text(Json* j, const FieldInfo* f, bint explicit) noexcept nogil:
    """Read a string into a text or bytes field, tag included."""
    cdef Output* o = &j.out
    cdef uint64_t before = o.size
    cdef const uint8_t* start
    cdef uint8_t* content
    cdef uint64_t size, room
    cdef Slice s
    if peek(j) != c'"':
        return spoil(j, WANT_STRING, j.at)
    start = j.at
    if not read_string(j, &s):
        return False
    room = varint_size(s.length)
    if not grow(o, 5 + room + s.length) or not put_tag(o, f.number, 2):
        return spoil(j, OUTPUT_FULL, start)
    content = o.data + o.size + room
    size = s.length
    if s.escaped:
        if not unescape(j, &s, content, &size):
            return False
    else:
        memcpy(content, s.data, size)
    if f.kind == BYTES:
        if f.hexadecimal:
            if not decode_hex(content, &size):
                return spoil(j, HEX, start)
        elif not decode_base64(content, &size):
            return spoil(j, BASE64, start)
    if size == 0 and not explicit:
        o.size = before
        return True
    content = put_varint(o.data + o.size, size)
    if content != o.data + o.size + room:
        memmove(content, o.data + o.size + room, size)
    o.size = content + size - o.data
    return True
