# JSON numbers: exact integers, and doubles that are rounded as IEEE 754 asks.

cdef extern from *:
    """
    typedef unsigned __int128 weir_wide;
    """
    ctypedef unsigned long long weir_wide

cdef enum:
    NUMBER_BYTES = 4096      # the longest exact double has 1,076 bytes; a sender writes 24
    EXPONENT_CAP = 1000000
    # Ten to the 20th is above 2**64, so that more digits are no integer of ours.
    INTEGER_DIGITS = 20

# Clinger's exact case: both numbers are doubles without rounding, so that one operation rounds once.
cdef double* TENS = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13,
                     1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22]

cdef struct Number:
    const uint8_t* start
    bint negative
    bint long_digits         # more significant digits than `digits` holds
    weir_wide digits         # without leading and trailing zeros
    int64_t count
    int64_t exponent         # the value is digits * 10 ** exponent


cdef const uint8_t* scan_number(const uint8_t* p, const uint8_t* end, Number* n) noexcept nogil:
    """Read a number by JSON's grammar; returns where it ends, NULL if it is none."""
    cdef int64_t zeros = 0                   # that no other digit has followed yet
    cdef int64_t point = 0                   # digits after the point
    cdef int64_t exponent = 0
    cdef bint fraction = False
    cdef bint minus
    cdef uint8_t c
    n.start = p
    n.negative = False
    n.long_digits = False
    n.digits = 0
    n.count = 0
    if p < end and p[0] == c'-':
        n.negative = True
        p += 1
    if p >= end or not c'0' <= p[0] <= c'9':
        return NULL
    if p[0] == c'0' and end - p > 1 and c'0' <= p[1] <= c'9':
        return NULL
    while p < end:
        c = p[0]
        if c == c'.' and not fraction:
            fraction = True
            if end - p < 2 or not c'0' <= p[1] <= c'9':
                return NULL
        elif c'0' <= c <= c'9':
            point += fraction
            if c == c'0':
                zeros += 1
            else:
                if n.count:
                    n.count += zeros
                    while zeros and not n.long_digits and n.count < INTEGER_DIGITS:
                        n.digits *= 10
                        zeros -= 1
                zeros = 0
                n.count += 1
                if n.count > INTEGER_DIGITS:
                    n.long_digits = True
                else:
                    n.digits = n.digits * 10 + (c - c'0')
        else:
            break
        p += 1
    if p < end and (p[0] == c'e' or p[0] == c'E'):
        p += 1
        minus = p < end and p[0] == c'-'
        if p < end and (p[0] == c'-' or p[0] == c'+'):
            p += 1
        if p >= end or not c'0' <= p[0] <= c'9':
            return NULL
        while p < end and c'0' <= p[0] <= c'9':
            if exponent < EXPONENT_CAP:
                exponent = exponent * 10 + (p[0] - c'0')
            p += 1
        if minus:
            exponent = -exponent
    # Zeros that nothing followed are a power of ten.
    n.exponent = exponent - point + zeros
    return p


cdef bint take_number(Json* j, Number* n) noexcept nogil:
    """Read the number that stands here."""
    cdef const uint8_t* end = scan_number(j.at, j.end, n)
    if end == NULL:
        return spoil(j, SYNTAX, j.at)
    if end - j.at > NUMBER_BYTES:
        return spoil(j, LONG_NUMBER, j.at)
    j.at = end
    return True


cdef bint take_quoted(Json* j, Number* n, int fault, Slice* s) noexcept nogil:
    """Read a number that is written as a string; `s` is its text."""
    cdef const uint8_t* start = j.at
    if not read_short(j, s):
        return False
    if scan_number(s.data, s.data + s.length, n) != s.data + s.length or s.length == 0:
        return spoil(j, fault, start)
    if s.length > NUMBER_BYTES:
        return spoil(j, LONG_NUMBER, start)
    return True


cdef bint read_integer(Json* j, const FieldInfo* f, uint64_t* out) noexcept nogil:
    """Read an integer of the field's width; `out` is its two's complement in 64 bits."""
    cdef const uint8_t* start
    cdef weir_wide value, limit
    cdef bint is_signed
    cdef Number n
    cdef Slice s
    cdef int64_t i
    cdef uint8_t c = peek(j)
    start = j.at
    if c == c'"':
        if f.kind == ENUM:
            return spoil(j, ENUM_NAME, start)
        if not take_quoted(j, &n, WANT_INTEGER, &s):
            return False
    elif c == c'-' or c'0' <= c <= c'9':
        if not take_number(j, &n):
            return False
    else:
        return spoil(j, WANT_INTEGER, start)
    if n.count == 0:
        out[0] = 0
        return True
    if n.exponent < 0:
        return spoil(j, WANT_INTEGER, start)
    if n.long_digits or n.count + n.exponent > INTEGER_DIGITS:
        return spoil(j, OUT_OF_RANGE, start)
    value = n.digits
    for i in range(n.exponent):
        value *= 10
    is_signed = f.kind in (INT64, SFIXED64, SINT64, INT32, ENUM, SFIXED32, SINT32)
    limit = 1
    limit <<= 64 if f.kind in (INT64, UINT64, FIXED64, SFIXED64, SINT64) else 32
    if is_signed:
        limit >>= 1
        if value > limit or (value == limit and not n.negative):
            return spoil(j, OUT_OF_RANGE, start)
    elif n.negative or value >= limit:
        return spoil(j, OUT_OF_RANGE, start)
    out[0] = -<uint64_t> value if n.negative else <uint64_t> value
    return True


cdef bint to_double(Json* j, const Number* n, double* out, const uint8_t* at) noexcept nogil:
    cdef double value
    if n.count == 0:
        value = 0.0
    elif (WEIR_EXACT_DOUBLES and not n.long_digits and n.digits <= <uint64_t> 1 << 53
            and -22 <= n.exponent <= 22):
        value = <double> <uint64_t> n.digits
        if n.exponent < 0:
            value /= TENS[-n.exponent]
        else:
            value *= TENS[n.exponent]
    else:
        # The byte after a number is never part of one, and bytes objects end with a zero.
        out[0] = weir_strtod(n.start)
        if out[0] - out[0] != 0.0:
            return spoil(j, OUT_OF_RANGE, at)
        return True
    out[0] = -value if n.negative else value
    return True


cdef bint read_double(Json* j, double* out) noexcept nogil:
    """Read a double: a number, a number in a string, or one of the three names."""
    cdef const uint8_t* start
    cdef Number n
    cdef Slice s
    cdef uint8_t c = peek(j)
    start = j.at
    if c == c'"':
        s.length = 0
        if take_quoted(j, &n, WANT_NUMBER, &s):
            return to_double(j, &n, out, start)
        if j.fault != WANT_NUMBER:
            return False
        if s.length == 3 and memcmp(s.data, b"NaN", 3) == 0:
            out[0] = NAN
        elif s.length == 8 and memcmp(s.data, b"Infinity", 8) == 0:
            out[0] = INFINITY
        elif s.length == 9 and memcmp(s.data, b"-Infinity", 9) == 0:
            out[0] = -INFINITY
        else:
            return False
        j.fault = 0
        return True
    if c == c'-' or c'0' <= c <= c'9':
        return take_number(j, &n) and to_double(j, &n, out, start)
    return spoil(j, WANT_NUMBER, start)
