# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled schema walker: screens requests without columns, and turns OTLP/JSON into protobuf.

The sections stand in `parts/`: the reader that the kernel has too, then schema, screen, and for
JSON output, text, numbers and objects. `schemas.py` makes the tables that both walks follow.

Law: every read of hostile protobuf goes through `next_field`, the one place that checks bounds. A
body is taken whole, taken without the items that were refused, or not at all; a body that is taken
parses in any protobuf reader. No Python object is made per item or value, the GIL is released, and
memory is bounded by the limits and a small multiple of the input: screening allocates nothing but
the rewritten body.

Stricter than protobuf on purpose, because ambiguity between two readers is a way around a policy:
see `kernel.pyx`; here two members of one oneof are refused too. JSON: a known key that occurs twice,
a lone surrogate and anything after the object are refused; unknown keys are skipped and counted.

Source: protobuf encoding guide and JSON mapping; OTLP specification; RFC 8259; opentelemetry-proto.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport INFINITY, NAN
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from collections import namedtuple

from gateway.errors import MalformedPayloadError, PayloadTooLargeError

cdef extern from *:
    """
    #include <float.h>
    #include <locale.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #ifdef __APPLE__
    #include <xlocale.h>
    #endif

    #ifndef WEIR_WIRE_DIGEST
    #define WEIR_WIRE_DIGEST "unstamped"
    #endif
    /* The fuzz build has buffers of exact size, so that a sanitizer sees the first byte too many. */
    #ifndef WEIR_EXACT_BUFFERS
    #define WEIR_EXACT_BUFFERS 0
    #endif
    /* Where doubles are computed with more bits, the short way of reading them is not exact. */
    #define WEIR_EXACT_DOUBLES (FLT_EVAL_METHOD == 0)

    static inline uint64_t weir_load64(const uint8_t *p) {
        uint64_t v; memcpy(&v, p, 8); return v;
    }
    static inline uint32_t weir_load32(const uint8_t *p) {
        uint32_t v; memcpy(&v, p, 4); return v;
    }
    /* Returns where UTF-8 (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF) ends;
       that is p + n when all of it is valid. */
    static inline const uint8_t *weir_utf8_end(const uint8_t *p, uint64_t n) {
        const uint8_t *end = p + n;
        while (p < end) {
            uint8_t a = *p;
            if (a < 0x80) {
                while (end - p >= 8 && !(weir_load64(p) & 0x8080808080808080ULL)) p += 8;
                while (p < end && *p < 0x80) p++;
                continue;
            }
            if (a >= 0xC2 && a <= 0xDF) {
                if (end - p < 2 || (p[1] & 0xC0) != 0x80) return p;
                p += 2;
            } else if (a >= 0xE0 && a <= 0xEF) {
                if (end - p < 3 || (p[1] & 0xC0) != 0x80 || (p[2] & 0xC0) != 0x80) return p;
                if (a == 0xE0 && p[1] < 0xA0) return p;
                if (a == 0xED && p[1] > 0x9F) return p;
                p += 3;
            } else if (a >= 0xF0 && a <= 0xF4) {
                if (end - p < 4 || (p[1] & 0xC0) != 0x80 || (p[2] & 0xC0) != 0x80
                    || (p[3] & 0xC0) != 0x80) return p;
                if (a == 0xF0 && p[1] < 0x90) return p;
                if (a == 0xF4 && p[1] > 0x8F) return p;
                p += 4;
            } else return p;
        }
        return p;
    }
    /* Skips what stands for itself in a JSON string: up to a quote, backslash or control. */
    static inline const uint8_t *weir_plain_end(const uint8_t *p, const uint8_t *end) {
        const uint64_t ones = 0x0101010101010101ULL, high = ones << 7;
        while (end - p >= 8) {
            uint64_t v = weir_load64(p), quote = v ^ (ones * '"'), slash = v ^ (ones * 92);
            uint64_t hit = ((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote)
                         | ((slash - ones) & ~slash);
            if (hit & high) break;
            p += 8;
        }
        while (p < end && *p >= 0x20 && *p != '"' && *p != 92) p++;
        return p;
    }
    /* strtod follows the locale of the process, which may write a comma. */
    static locale_t weir_c_locale = (locale_t)0;
    static int weir_open_locale(void) {
        if (!weir_c_locale) weir_c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        return weir_c_locale != (locale_t)0;
    }
    static inline double weir_strtod(const uint8_t *p) {
        return strtod_l((const char *)p, NULL, weir_c_locale);
    }
    """
    const char* WEIR_WIRE_DIGEST
    const bint WEIR_EXACT_BUFFERS
    const bint WEIR_EXACT_DOUBLES
    uint64_t weir_load64(const uint8_t*) nogil
    uint32_t weir_load32(const uint8_t*) nogil
    const uint8_t* weir_utf8_end(const uint8_t*, uint64_t) nogil
    const uint8_t* weir_plain_end(const uint8_t*, const uint8_t*) nogil
    bint weir_open_locale()
    double weir_strtod(const uint8_t*) nogil

SOURCE_DIGEST = (<bytes> WEIR_WIRE_DIGEST).decode("ascii")

if not weir_open_locale():
    raise MemoryError()


include "parts/reader.pxi"
include "parts/wire_schema.pxi"
include "parts/wire_output.pxi"
include "parts/wire_screen.pxi"
include "parts/wire_text.pxi"
include "parts/wire_number.pxi"
include "parts/wire_json.pxi"
