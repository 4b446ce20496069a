# Rows of the tables, as gateway.batch declares them; the import fails when the two drift apart.

cdef struct SpanRow:
    uint64_t trace_hi
    uint64_t trace_lo
    uint64_t span_id
    uint64_t parent_id
    uint64_t start_ns
    uint64_t end_ns
    uint32_t name_offset
    uint32_t name_length
    uint32_t state_offset
    uint32_t state_length
    uint32_t message_offset
    uint32_t message_length
    uint32_t flags
    int32_t kind
    int32_t status
    uint32_t dropped_attributes
    uint32_t dropped_events
    uint32_t dropped_links
    int32_t resource
    int32_t scope
    int32_t request
    int32_t attribute_first
    int32_t attribute_count
    int32_t event_first
    int32_t event_count
    int32_t link_first
    int32_t link_count
    uint32_t padding

cdef struct AttributeRow:
    uint64_t number
    int32_t owner
    int32_t key
    uint32_t offset
    uint32_t length
    uint32_t raw_offset
    uint32_t raw_length
    int32_t kind
    uint32_t padding

cdef struct ResourceRow:
    int32_t attribute_first
    int32_t attribute_count
    uint32_t dropped_attributes
    uint32_t schema_offset
    uint32_t schema_length
    uint32_t padding

cdef struct ScopeRow:
    uint32_t name_offset
    uint32_t name_length
    uint32_t version_offset
    uint32_t version_length
    uint32_t schema_offset
    uint32_t schema_length
    int32_t attribute_first
    int32_t attribute_count
    uint32_t dropped_attributes
    uint32_t padding

cdef struct EventRow:
    uint64_t time_ns
    int32_t span
    uint32_t name_offset
    uint32_t name_length
    int32_t attribute_first
    int32_t attribute_count
    uint32_t dropped_attributes
    uint32_t raw_offset
    uint32_t raw_length

cdef struct LinkRow:
    uint64_t trace_hi
    uint64_t trace_lo
    uint64_t span_id
    int32_t span
    uint32_t state_offset
    uint32_t state_length
    uint32_t flags
    int32_t attribute_first
    int32_t attribute_count
    uint32_t dropped_attributes
    uint32_t raw_offset
    uint32_t raw_length
    uint32_t padding

cdef struct RequestRow:
    uint64_t arrival_ns
    uint32_t body_offset
    uint32_t body_length
    uint32_t spans
    uint32_t rejected
    int32_t identity
    int32_t transport
    uint32_t wire_bytes
    uint32_t padding

cdef struct CleanRow:
    uint64_t trace_hi
    uint64_t trace_lo
    uint64_t span_id
    uint64_t parent_id
    uint64_t start_ns
    uint64_t end_ns
    uint64_t threshold
    uint64_t randomness
    uint32_t name_offset
    uint32_t name_length
    uint32_t message_offset
    uint32_t message_length
    uint32_t fields_offset
    uint32_t fields_length
    uint32_t flags
    int32_t kind
    int32_t status
    int32_t resource
    int32_t scope
    uint32_t padding

cdef struct Extent:
    uint32_t offset
    uint32_t length


def _check_layout():
    """Fail the import when a dtype of gateway.batch and a struct of this file drift apart."""
    sizes = (
        (nouns.SPAN, sizeof(SpanRow)),
        (nouns.ATTRIBUTE, sizeof(AttributeRow)),
        (nouns.RESOURCE, sizeof(ResourceRow)),
        (nouns.SCOPE, sizeof(ScopeRow)),
        (nouns.EVENT, sizeof(EventRow)),
        (nouns.LINK, sizeof(LinkRow)),
        (nouns.REQUEST, sizeof(RequestRow)),
        (nouns.CLEAN_SPAN, sizeof(CleanRow)),
        (nouns.EXTENT, sizeof(Extent)),
    )
    for dtype, size in sizes:
        assert dtype.itemsize == size, (dtype.names, dtype.itemsize, size)
    cdef SpanRow span
    cdef AttributeRow attribute
    cdef ResourceRow resource
    cdef ScopeRow scope
    cdef EventRow event
    cdef LinkRow link
    cdef RequestRow request
    cdef CleanRow clean
    cdef Extent extent
    memset(&span, 0, sizeof(span))
    memset(&attribute, 0, sizeof(attribute))
    memset(&resource, 0, sizeof(resource))
    memset(&scope, 0, sizeof(scope))
    memset(&event, 0, sizeof(event))
    memset(&link, 0, sizeof(link))
    memset(&request, 0, sizeof(request))
    memset(&clean, 0, sizeof(clean))
    memset(&extent, 0, sizeof(extent))
    names = {
        "SPAN": span, "ATTRIBUTE": attribute, "RESOURCE": resource, "SCOPE": scope,
        "EVENT": event, "LINK": link, "REQUEST": request, "CLEAN_SPAN": clean, "EXTENT": extent,
    }
    for name, row in names.items():
        # A struct becomes a dict in the order of its fields; equal order and size is equal layout,
        # since every field is naturally aligned and the wide ones come first.
        assert tuple(row) == getattr(nouns, name).names, name


_check_layout()
