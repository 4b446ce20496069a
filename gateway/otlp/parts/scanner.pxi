# The scanner: the open batch as Python sees it.

cdef class Scanner:
    """Scan request bodies into one open batch.

    Units: limits count items of one request, bytes of one text, and bytes of the open arena.
    Raises: MalformedPayloadError with the offset in the body, PayloadTooLargeError.
    """

    cdef State s
    cdef Py_ssize_t arena_bytes_max

    def __cinit__(self, *, int keys_max, int depth_max, Py_ssize_t spans_max, Py_ssize_t items_max,
                  Py_ssize_t text_bytes_max, Py_ssize_t arena_bytes_max):
        cdef State* s = &self.s
        cdef KeyTable* k = &s.keys
        cdef Py_ssize_t i
        memset(s, 0, sizeof(State))
        widths = (1, sizeof(RequestRow), sizeof(ResourceRow), sizeof(ScopeRow), sizeof(SpanRow),
                  sizeof(EventRow), sizeof(LinkRow)) + (sizeof(AttributeRow),) * 5
        for i in range(TABLES):
            s.rows[i].width = widths[i]
        # Offsets are 32 bits wide and a body may be scanned into an almost full arena.
        if not 0 < arena_bytes_max <= 1 << 31:
            raise ValueError("arena_bytes_max must be between 1 and 2 GiB")
        self.arena_bytes_max = arena_bytes_max
        s.limits.depth = depth_max
        s.limits.spans = spans_max
        s.limits.items = items_max
        s.limits.text_bytes = text_bytes_max
        s.seed = int.from_bytes(os.urandom(8), "little")
        k.limit = keys_max
        k.slots = 1
        while k.slots < <uint64_t> keys_max * KEY_SLOTS_PER_KEY:
            k.slots *= 2
        k.text_capacity = <uint32_t> keys_max * 64
        k.text = <uint8_t*> malloc(k.text_capacity)
        k.offset = <uint32_t*> calloc(keys_max, 4)
        k.length = <uint32_t*> calloc(keys_max, 4)
        k.slot = <int32_t*> calloc(k.slots, 4)
        k.successor = <int32_t*> calloc(keys_max + 1, 4)
        s.seen_resources = <Seen*> calloc(CACHE_SLOTS, sizeof(Seen))
        s.seen_scopes = <Seen*> calloc(CACHE_SLOTS, sizeof(Seen))
        if (k.text == NULL or k.offset == NULL or k.length == NULL or k.slot == NULL
                or k.successor == NULL or s.seen_resources == NULL or s.seen_scopes == NULL):
            raise MemoryError()
        k.successor[0] = -1
        s.device_key = self.intern(b"device.id")

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(TABLES):
            free(self.s.rows[i].data)
        free(self.s.keys.text)
        free(self.s.keys.offset)
        free(self.s.keys.length)
        free(self.s.keys.slot)
        free(self.s.keys.successor)
        free(self.s.seen_resources)
        free(self.s.seen_scopes)

    @property
    def spans(self):
        """Count of spans in the open batch."""
        return self.s.rows[T_SPAN].count

    @property
    def bytes(self):
        """Size of the open arena in bytes."""
        return self.s.rows[T_ARENA].count

    @property
    def rows(self):
        """Count of rows in all tables of the open batch."""
        cdef Py_ssize_t i
        cdef Py_ssize_t total = 0
        for i in range(T_REQUEST, TABLES):
            total += self.s.rows[i].count
        return total

    @property
    def keys(self):
        """Count of interned attribute keys."""
        return self.s.keys.count

    def intern(self, bytes key):
        """Give a key its number; -1 when the table is full."""
        return find_key(&self.s.keys, <const uint8_t*> PyBytes_AS_STRING(key),
                        <uint32_t> len(key), self.s.seed)

    def key_text(self, int key):
        """Return the text of an interned key."""
        if not 0 <= key < self.s.keys.count:
            raise IndexError(key)
        return (<char*> self.s.keys.text)[
            self.s.keys.offset[key]:self.s.keys.offset[key] + self.s.keys.length[key]]

    def scan(self, bytes body, uint64_t arrival_ns, int32_t identity, int32_t transport,
             uint32_t wire_bytes, bytes device):
        """Append one request body of a device, which is empty for an anonymous sender.

        Returns (accepted spans, rejected spans, rejection number of the first, spans of them that
        name another device).
        """
        cdef State* s = &self.s
        cdef const uint8_t* data = <const uint8_t*> PyBytes_AS_STRING(body)
        cdef Py_ssize_t length = len(body)
        cdef Py_ssize_t found[TABLES]
        cdef Py_ssize_t before[TABLES]
        cdef Py_ssize_t items = 0
        cdef Py_ssize_t i
        cdef bint fine
        cdef RequestRow* request
        s.fault = FINE
        s.rejection = ACCEPTED
        s.rejected = 0
        s.mismatched = 0
        s.condemned = ACCEPTED
        s.device = <const uint8_t*> PyBytes_AS_STRING(device)
        s.device_length = <uint64_t> len(device)
        memset(found, 0, sizeof(found))
        if s.rows[T_ARENA].count + length > self.arena_bytes_max:
            raise PayloadTooLargeError(f"{FAULTS[ARENA_FULL]} ({self.arena_bytes_max} bytes)")
        with nogil:
            fine = count_request(s, data, length, found)
        if not fine:
            self._raise(data)
        for i in range(T_RESOURCE, TABLES):
            items += found[i] if i != T_SPAN else 0
        if found[T_SPAN] > s.limits.spans:
            raise PayloadTooLargeError(
                f"{FAULTS[TOO_MANY_SPANS]} ({found[T_SPAN]} of {s.limits.spans})")
        if items > s.limits.items:
            raise PayloadTooLargeError(
                f"{FAULTS[TOO_MANY_ITEMS]} ({items} of {s.limits.items})")
        found[T_ARENA] = length
        found[T_REQUEST] = 1
        for i in range(TABLES):
            before[i] = s.rows[i].count
            reserve(&s.rows[i], found[i])
        s.request = <int32_t> before[T_REQUEST]
        with nogil:
            if length:
                memcpy(s.rows[T_ARENA].data + before[T_ARENA], data, length)
            s.base = s.rows[T_ARENA].data
            fine = fill_request(s, s.base + before[T_ARENA], length)
        if not fine:
            for i in range(TABLES):
                s.rows[i].count = before[i]
            self._forget()
            self._raise(s.base + before[T_ARENA])
        s.rows[T_ARENA].count += length
        request = (<RequestRow*> s.rows[T_REQUEST].data) + before[T_REQUEST]
        request.arrival_ns = arrival_ns
        request.body_offset = <uint32_t> before[T_ARENA]
        request.body_length = <uint32_t> length
        request.spans = <uint32_t> (s.rows[T_SPAN].count - before[T_SPAN])
        request.rejected = <uint32_t> s.rejected
        request.identity = identity
        request.transport = transport
        request.wire_bytes = wire_bytes
        request.padding = 0
        s.rows[T_REQUEST].count += 1
        return request.spans, request.rejected, s.rejection, s.mismatched

    def take(self):
        """Copy the open batch out as a dict of tables, and start an empty one."""
        cdef Py_ssize_t i
        names = ("arena", "requests", "resources", "scopes", "spans", "events", "links",
                 "span_attributes", "resource_attributes", "scope_attributes",
                 "event_attributes", "link_attributes")
        dtypes = (np.dtype(np.uint8), nouns.REQUEST, nouns.RESOURCE, nouns.SCOPE, nouns.SPAN,
                  nouns.EVENT, nouns.LINK) + (nouns.ATTRIBUTE,) * 5
        tables = {}
        for i in range(TABLES):
            tables[names[i]] = copy_out(&self.s.rows[i], dtypes[i])
            self.s.rows[i].count = 0
        self._forget()
        return tables

    cdef _forget(self):
        """Drop the dedup caches: their row numbers belong to rows that are gone."""
        memset(self.s.seen_resources, 0, CACHE_SLOTS * sizeof(Seen))
        memset(self.s.seen_scopes, 0, CACHE_SLOTS * sizeof(Seen))

    cdef _raise(self, const uint8_t* start):
        offset = <Py_ssize_t> (self.s.fault_at - start)
        message = FAULTS[self.s.fault]
        if self.s.fault in _TOO_LARGE:
            raise PayloadTooLargeError(f"{message} at byte {offset}")
        raise MalformedPayloadError(message, offset)
