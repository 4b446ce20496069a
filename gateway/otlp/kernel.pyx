# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled kernel: OTLP protobuf wire bytes to columns, and columns to wire bytes.

The sections stand in `parts/`, in the order of the data: rows, reader, tables, count, fill, scanner,
columns, write.

Law: every read of hostile bytes goes through `next_field`, the one place that checks bounds. A scan
first counts (one linear pass, no allocation), then reserves, then fills; a fault in either pass
leaves the open batch as it was. No Python object is made per span, and the GIL is released.

Stricter than protobuf on purpose, because ambiguity between two readers is a way around a policy:
groups, field number 0, a repeated singular message and dictionary indexes of profiles are refused.
Unknown fields and known fields of another wire type are skipped. Where protobuf refuses a whole
request for a text that is not UTF-8, only the spans are refused that it belongs to.

Source: protobuf encoding guide; opentelemetry-proto trace/v1, common/v1, resource/v1.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

import os

import numpy as np

from gateway import tables as nouns
from gateway.errors import MalformedPayloadError, PayloadTooLargeError

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #ifndef WEIR_KERNEL_DIGEST
    #define WEIR_KERNEL_DIGEST "unstamped"
    #endif
    /* The fuzz build has buffers of exact size, so that a sanitizer sees the first byte too many. */
    #ifndef WEIR_EXACT_BUFFERS
    #define WEIR_EXACT_BUFFERS 0
    #endif

    static inline uint64_t weir_load64(const uint8_t *p) {
        uint64_t v; memcpy(&v, p, 8); return v;
    }
    static inline uint32_t weir_load32(const uint8_t *p) {
        uint32_t v; memcpy(&v, p, 4); return v;
    }
    static inline uint64_t weir_big64(const uint8_t *p) {
        return __builtin_bswap64(weir_load64(p));
    }
    static inline void weir_store_big64(uint8_t *p, uint64_t v) {
        v = __builtin_bswap64(v); memcpy(p, &v, 8);
    }
    static inline uint64_t weir_fold(uint64_t a, uint64_t b) {
        __uint128_t m = (__uint128_t)a * b;
        return (uint64_t)m ^ (uint64_t)(m >> 64);
    }
    /* Keyed folded-multiply hash. It only places rows in tables of bounded size; equality is always
       decided by comparing bytes, so a collision costs time and never correctness. */
    static inline uint64_t weir_hash(const uint8_t *p, uint64_t n, uint64_t seed) {
        uint64_t h = seed ^ (n * 0x9E3779B97F4A7C15ULL);
        while (n >= 8) {
            h = weir_fold(h ^ weir_load64(p), 0xD6E8FEB86659FD93ULL ^ seed);
            p += 8; n -= 8;
        }
        if (n) {
            uint64_t tail = 0; memcpy(&tail, p, n);
            h = weir_fold(h ^ tail, 0xA0761D6478BD642FULL ^ seed);
        }
        return weir_fold(h, 0xE7037ED1A0B428DBULL);
    }
    /* UTF-8 as RFC 3629 has it: no overlong form, no surrogate, nothing above U+10FFFF. */
    static inline int weir_utf8(const uint8_t *p, uint64_t n) {
        const uint8_t *end = p + n;
        while (end - p >= 8) {
            if (weir_load64(p) & 0x8080808080808080ULL) goto slow;
            p += 8;
        }
        while (p < end) { if (*p & 0x80) goto slow; p++; }
        return 1;
    slow:
        while (p < end) {
            uint8_t a = *p;
            if (a < 0x80) { p++; continue; }
            if (a >= 0xC2 && a <= 0xDF) {
                if (end - p < 2 || (p[1] & 0xC0) != 0x80) return 0;
                p += 2;
            } else if (a >= 0xE0 && a <= 0xEF) {
                if (end - p < 3 || (p[1] & 0xC0) != 0x80 || (p[2] & 0xC0) != 0x80) return 0;
                if (a == 0xE0 && p[1] < 0xA0) return 0;
                if (a == 0xED && p[1] > 0x9F) return 0;
                p += 3;
            } else if (a >= 0xF0 && a <= 0xF4) {
                if (end - p < 4 || (p[1] & 0xC0) != 0x80 || (p[2] & 0xC0) != 0x80
                    || (p[3] & 0xC0) != 0x80) return 0;
                if (a == 0xF0 && p[1] < 0x90) return 0;
                if (a == 0xF4 && p[1] > 0x8F) return 0;
                p += 4;
            } else return 0;
        }
        return 1;
    }
    """
    const char* WEIR_KERNEL_DIGEST
    const bint WEIR_EXACT_BUFFERS
    uint64_t weir_load64(const uint8_t*) nogil
    uint32_t weir_load32(const uint8_t*) nogil
    uint64_t weir_big64(const uint8_t*) nogil
    void weir_store_big64(uint8_t*, uint64_t) nogil
    uint64_t weir_hash(const uint8_t*, uint64_t, uint64_t) nogil
    int weir_utf8(const uint8_t*, uint64_t) nogil

SOURCE_DIGEST = (<bytes> WEIR_KERNEL_DIGEST).decode("ascii")


include "parts/rows.pxi"
include "parts/reader.pxi"
include "parts/tables.pxi"
include "parts/count.pxi"
include "parts/fill.pxi"
include "parts/scanner.pxi"
include "parts/columns.pxi"
include "parts/write.pxi"
