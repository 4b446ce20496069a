# Columns out of tables and arenas: pivot, literals, distinct values, compact copies.

def pivot(const uint8_t[:] attributes, const int32_t[::1] slot_of_key, Py_ssize_t slots,
          Py_ssize_t owners):
    """Spread an attribute table over (slot, owner): the attribute's row, -1 missing, -2 duplicate.

    `attributes` is the table viewed as bytes; slot_of_key[k] is the slot of interned key k or -1.
    """
    grid = np.full((slots, owners), -1, dtype=np.int32)
    cdef int32_t[:, ::1] out = grid
    cdef Py_ssize_t count = attributes.shape[0] // <Py_ssize_t> sizeof(AttributeRow)
    cdef const AttributeRow* rows
    cdef Py_ssize_t i
    cdef int32_t key, slot
    cdef Py_ssize_t known = slot_of_key.shape[0]
    if count == 0 or slots == 0:
        return grid
    rows = <const AttributeRow*> &attributes[0]
    with nogil:
        for i in range(count):
            key = rows[i].key
            if key < 0 or key >= known:
                continue
            slot = slot_of_key[key]
            if slot < 0:
                continue
            out[slot, rows[i].owner] = <int32_t> i if out[slot, rows[i].owner] == -1 else -2
    return grid


cdef class Literals:
    """A closed set of byte strings, for asking of many values at once which one each is."""

    cdef bytes text
    cdef list extents
    cdef uint32_t* offset
    cdef uint32_t* length
    cdef int32_t* slot
    cdef uint64_t slots
    cdef uint64_t seed
    cdef int32_t count

    def __cinit__(self, texts):
        cdef int32_t i
        cdef uint64_t at
        self.text = b"".join(texts)
        self.count = <int32_t> len(texts)
        self.slots = 4
        while self.slots < <uint64_t> self.count * 2:
            self.slots *= 2
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.offset = <uint32_t*> calloc(max(1, self.count), 4)
        self.length = <uint32_t*> calloc(max(1, self.count), 4)
        self.slot = <int32_t*> calloc(self.slots, 4)
        if self.offset == NULL or self.length == NULL or self.slot == NULL:
            raise MemoryError()
        position = 0
        for i in range(self.count):
            self.offset[i] = position
            self.length[i] = len(texts[i])
            position += len(texts[i])
            at = weir_hash(<const uint8_t*> PyBytes_AS_STRING(texts[i]), len(texts[i]), self.seed)
            at &= self.slots - 1
            while self.slot[at]:
                at = (at + 1) & (self.slots - 1)
            self.slot[at] = i + 1

    def __dealloc__(self):
        free(self.offset)
        free(self.length)
        free(self.slot)

    def codes(self, const uint8_t[:] arena, const uint32_t[:] offset, const uint32_t[:] length):
        """Return for each text of the arena the index of the equal literal, or -1."""
        cdef Py_ssize_t n = offset.shape[0]
        result = np.empty(n, dtype=np.int32)
        cdef int32_t[::1] out = result
        cdef const uint8_t* texts = <const uint8_t*> PyBytes_AS_STRING(self.text)
        cdef const uint8_t* base = NULL
        cdef const uint8_t* p
        cdef uint64_t at
        cdef uint32_t size
        cdef int32_t guess = 0
        cdef int32_t code
        cdef Py_ssize_t i
        check_extents(arena.shape[0], offset, length)
        if arena.shape[0]:
            base = &arena[0]
        with nogil:
            for i in range(n):
                p = base + offset[i]
                size = length[i]
                if (guess < self.count and self.length[guess] == size
                        and memcmp(texts + self.offset[guess], p, size) == 0):
                    out[i] = guess
                    continue
                code = -1
                at = weir_hash(p, size, self.seed) & (self.slots - 1)
                while self.slot[at]:
                    guess = self.slot[at] - 1
                    if (self.length[guess] == size
                            and memcmp(texts + self.offset[guess], p, size) == 0):
                        code = guess
                        break
                    at = (at + 1) & (self.slots - 1)
                out[i] = code
        return result


cdef int check_extents(Py_ssize_t size, const uint32_t[:] offset, const uint32_t[:] length) except -1:
    """Refuse (offset, length) pairs that leave the arena; a caller's bug, never input."""
    cdef Py_ssize_t i
    cdef uint64_t worst = 0
    cdef uint64_t end
    if offset.shape[0] != length.shape[0]:
        raise ValueError("offset and length differ in size")
    for i in range(offset.shape[0]):
        end = <uint64_t> offset[i] + length[i]
        worst = end if end > worst else worst
    if worst > <uint64_t> size:
        raise ValueError("a text reaches past the arena")
    return 0


cdef uint64_t table_slots(Py_ssize_t n):
    cdef uint64_t slots = 16
    while slots < <uint64_t> n * 2:
        slots *= 2
    return slots


def factorize(const uint8_t[:] arena, const uint32_t[:] offset, const uint32_t[:] length):
    """Number the distinct texts in order of first occurrence.

    Returns codes (n,) and first (distinct,), the row in which each text occurs first.
    """
    cdef Py_ssize_t n = offset.shape[0]
    cdef uint64_t slots = table_slots(n)
    cdef int32_t* slot
    cdef uint64_t seed = int.from_bytes(os.urandom(8), "little")
    codes = np.empty(n, dtype=np.int32)
    first = np.empty(n, dtype=np.int32)
    cdef int32_t[::1] out = codes
    cdef int32_t[::1] heads = first
    cdef const uint8_t* base = NULL
    cdef const uint8_t* p
    cdef uint64_t at
    cdef uint32_t size
    cdef int32_t code, head
    cdef int32_t count = 0
    cdef int32_t last = -1
    cdef Py_ssize_t i
    check_extents(arena.shape[0], offset, length)
    if n == 0:
        return codes, first
    if arena.shape[0]:
        base = &arena[0]
    slot = <int32_t*> calloc(slots, 4)
    if slot == NULL:
        raise MemoryError()
    with nogil:
        for i in range(n):
            p = base + offset[i]
            size = length[i]
            if last >= 0:
                head = heads[last]
                if length[head] == size and memcmp(base + offset[head], p, size) == 0:
                    out[i] = last
                    continue
            at = weir_hash(p, size, seed) & (slots - 1)
            code = -1
            while slot[at]:
                head = heads[slot[at] - 1]
                if length[head] == size and memcmp(base + offset[head], p, size) == 0:
                    code = slot[at] - 1
                    break
                at = (at + 1) & (slots - 1)
            if code < 0:
                code = count
                heads[count] = <int32_t> i
                count += 1
                slot[at] = count
            out[i] = code
            last = code
    free(slot)
    return codes, first[:count].copy()


def factorize_ids(const uint64_t[:] hi, const uint64_t[:] lo):
    """Number the distinct pairs of 64-bit words in order of first occurrence, like `factorize`."""
    cdef Py_ssize_t n = hi.shape[0]
    cdef uint64_t slots = table_slots(n)
    cdef int32_t* slot
    cdef uint64_t seed = int.from_bytes(os.urandom(8), "little")
    codes = np.empty(n, dtype=np.int32)
    first = np.empty(n, dtype=np.int32)
    cdef int32_t[::1] out = codes
    cdef int32_t[::1] heads = first
    cdef uint64_t pair[2]
    cdef uint64_t at
    cdef int32_t code, head
    cdef int32_t count = 0
    cdef Py_ssize_t i
    if lo.shape[0] != n:
        raise ValueError("hi and lo differ in size")
    if n == 0:
        return codes, first
    slot = <int32_t*> calloc(slots, 4)
    if slot == NULL:
        raise MemoryError()
    with nogil:
        for i in range(n):
            pair[0] = hi[i]
            pair[1] = lo[i]
            at = weir_hash(<const uint8_t*> pair, 16, seed) & (slots - 1)
            code = -1
            while slot[at]:
                head = heads[slot[at] - 1]
                if hi[head] == pair[0] and lo[head] == pair[1]:
                    code = slot[at] - 1
                    break
                at = (at + 1) & (slots - 1)
            if code < 0:
                code = count
                heads[count] = <int32_t> i
                count += 1
                slot[at] = count
            out[i] = code
    free(slot)
    return codes, first[:count].copy()


def gather(const uint8_t[:] arena, const uint32_t[:] offset, const uint32_t[:] length):
    """Copy texts into an arena of their own; returns (arena, offsets) with the same lengths."""
    cdef Py_ssize_t n = offset.shape[0]
    cdef uint64_t total = 0
    cdef Py_ssize_t i
    check_extents(arena.shape[0], offset, length)
    offsets = np.empty(n, dtype=np.uint32)
    cdef uint32_t[::1] starts = offsets
    for i in range(n):
        starts[i] = <uint32_t> total
        total += length[i]
    if total > 0xFFFFFFFFULL:
        raise ValueError("the texts do not fit into one arena")
    copied = np.empty(total, dtype=np.uint8)
    cdef uint8_t[::1] out = copied
    if total:
        with nogil:
            for i in range(n):
                if length[i]:
                    memcpy(&out[starts[i]], &arena[offset[i]], length[i])
    return copied, offsets


def gather_parts(list arenas, const int32_t[:] part, const uint32_t[:] offset,
                 const uint32_t[:] length):
    """Copy texts that stand in several arenas into one, in the order of the rows.

    part (rows,) is the index of each row's arena. Returns (arena, bounds (rows + 1,)): text i is
    [bounds[i], bounds[i + 1]).
    """
    cdef Py_ssize_t n = offset.shape[0]
    cdef Py_ssize_t count = len(arenas)
    cdef const uint8_t[::1] view
    cdef const uint8_t** base
    cdef uint64_t* size
    cdef Py_ssize_t i
    cdef int64_t total = 0
    cdef bint fine = True
    if part.shape[0] != n or length.shape[0] != n:
        raise ValueError("part, offset and length differ in size")
    bounds = np.zeros(n + 1, dtype=np.int64)
    cdef int64_t[::1] ends = bounds
    base = <const uint8_t**> calloc(max(1, count), sizeof(uint8_t*))
    size = <uint64_t*> calloc(max(1, count), 8)
    if base == NULL or size == NULL:
        free(base)
        free(size)
        raise MemoryError()
    try:
        for i in range(count):
            view = arenas[i]
            size[i] = view.shape[0]
            if view.shape[0]:
                base[i] = &view[0]
        with nogil:
            for i in range(n):
                if (part[i] < 0 or part[i] >= count
                        or <uint64_t> offset[i] + length[i] > size[part[i]]):
                    fine = False
                    break
                total += length[i]
                ends[i + 1] = total
        if not fine:
            raise ValueError("a text reaches past its arena")
        copied = np.empty(total, dtype=np.uint8)
        copy_parts(copied, base, part, offset, length, ends)
    finally:
        free(base)
        free(size)
    return copied, bounds


cdef copy_parts(uint8_t[::1] out, const uint8_t** base, const int32_t[:] part,
                const uint32_t[:] offset, const uint32_t[:] length, int64_t[::1] ends):
    cdef Py_ssize_t i
    if out.shape[0] == 0:
        return
    with nogil:
        for i in range(offset.shape[0]):
            if length[i]:
                memcpy(&out[ends[i]], base[part[i]] + offset[i], length[i])
