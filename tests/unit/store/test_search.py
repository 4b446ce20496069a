"""Search by name and time agrees with a plain loop over the rows, wherever the rows are."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.store import query as query_module
from gateway.store.catalogue import SUMMARY_DEVICES_MAX, Operation
from gateway.store.query import Query
from gateway.store.store import Store
from tests.unit.store.rows import NOW_NS, SECOND_NS, Row, columns, open_store, seal, trace_id

ROWS = st.lists(
    st.builds(
        Row,
        trace=st.integers(1, 6),
        span=st.integers(1, 1 << 60),
        start_ns=st.integers(NOW_NS, NOW_NS + 20),
        duration_ns=st.integers(-5, 20),
        name=st.sampled_from(["inference", "preprocess", ""]),
        service=st.sampled_from(["vision", "triage"]),
        device=st.sampled_from(["a", "b", "c"]),
        model=st.sampled_from([None, ("m", "1"), ("m", "2"), ("n", "1")]),
        failed=st.booleans(),
    ),
    max_size=12,
)
QUERIES = st.builds(
    Query,
    model=st.sampled_from([None, "m", "n", "absent"]),
    version=st.sampled_from([None, "1", "2"]),
    device=st.sampled_from([None, "a", "b", "absent"]),
    service=st.sampled_from([None, "vision", "absent"]),
    name=st.sampled_from([None, "inference", ""]),
    failed=st.sampled_from([None, True, False]),
    duration_ns_min=st.sampled_from([None, 0, 7]),
    duration_ns_max=st.sampled_from([None, 11]),
    from_ns=st.none() | st.integers(NOW_NS - 2, NOW_NS + 22),
    to_ns=st.none() | st.integers(NOW_NS - 2, NOW_NS + 22),
    limit=st.integers(1, 7),
)


def _matches(row: Row, query: Query) -> bool:
    model, version = row.model or (None, None)
    return (
        query.model in (None, model)
        and query.version in (None, version)
        and query.device in (None, row.device)
        and query.service in (None, row.service)
        and query.name in (None, row.name)
        and query.failed in (None, row.failed)
        and (query.duration_ns_min is None or row.duration_ns >= query.duration_ns_min)
        and (query.duration_ns_max is None or row.duration_ns <= query.duration_ns_max)
        and (query.from_ns is None or row.start_ns >= query.from_ns)
        and (query.to_ns is None or row.start_ns <= query.to_ns)
    )


@settings(max_examples=80, deadline=None)
@given(sealed=st.lists(ROWS, max_size=2), pending=ROWS, query=QUERIES)
def test_hits_are_the_newest_matching_traces(
    sealed: list[list[Row]],
    pending: list[Row],
    query: Query,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    store = open_store(tmp_path_factory.mktemp("store"), connection)
    for sequence, rows in enumerate([*sealed, pending]):
        store.add(*columns(rows, sequence=sequence))
        if sequence < len(sealed) and rows:
            seal(store, connection, sequence, sequence)
    found = store.search(query)
    connection.close()
    newest: dict[str, int] = {}
    for row in [row for rows in [*sealed, pending] for row in rows if _matches(row, query)]:
        key = trace_id(row.trace)
        newest[key] = max(newest.get(key, 0), row.start_ns)
    assert found.problems == ()
    starts = [hit.start_ns for hit in found.hits]
    assert starts == sorted(newest.values(), reverse=True)[: query.limit]
    assert all(newest[hit.trace_id] == hit.start_ns for hit in found.hits)
    assert len({hit.trace_id for hit in found.hits}) == len(found.hits)


def test_a_hit_says_what_was_found(store: Store) -> None:
    store.add(*columns([Row(trace=5, span=6, failed=True), Row(trace=7, model=None)]))
    hit = store.search(Query(failed=True)).hits[0]
    assert (hit.trace_id, hit.span_id) == (trace_id(5), f"{6:016x}")
    assert (hit.name, hit.service, hit.device) == ("inference", "vision", "cam-1")
    assert (hit.model, hit.version, hit.failed) == ("damage-net", "1.0", True)
    other = store.search(Query(failed=False)).hits[0]
    assert (other.model, other.version) == ("", "")


def test_services_and_operations_come_from_all_rows(
    store: Store, connection: sqlite3.Connection
) -> None:
    store.add(*columns([Row(trace=1, service="a", name="x", kind=2)], sequence=1))
    seal(store, connection, 1, 1)
    store.add(*columns([Row(trace=1, service="b", name="y", kind=3)], sequence=2))
    assert store.operations() == {
        Operation(service="a", name="x", kind=2),
        Operation(service="b", name="y", kind=3),
    }


def test_segments_that_cannot_match_are_not_opened(
    store: Store, connection: sqlite3.Connection
) -> None:
    for sequence, device in enumerate(["a", "b"]):
        rows = [Row(trace=1, device=device, start_ns=NOW_NS + sequence * SECOND_NS)]
        store.add(*columns(rows, sequence=sequence))
        path = seal(store, connection, sequence, sequence)
    path.write_bytes(b"damaged")  # the file of device b
    assert store.search(Query(device="a")).problems == ()
    assert store.search(Query(to_ns=NOW_NS)).problems == ()
    assert store.search(Query(service="absent")).problems == ()
    assert store.search(Query(model="absent")).problems == ()
    found = store.search(Query())
    assert len(found.hits) == 1
    assert "damaged" in found.problems[0]


def test_a_segment_with_too_many_devices_is_searched_for_any(
    store: Store, connection: sqlite3.Connection
) -> None:
    rows = [Row(trace=n + 1, device=f"d{n}") for n in range(SUMMARY_DEVICES_MAX + 1)]
    store.add(*columns(rows))
    seal(store, connection, 1, 1)
    assert store.segments[0].summary.devices is None
    assert len(store.search(Query(device="d200")).hits) == 1
    assert store.search(Query(device="absent")).hits == ()


def test_search_stops_at_its_segment_limit_and_says_so(
    tmp_path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store", connection)
    for sequence in range(4):
        rows = [Row(trace=sequence + 1, start_ns=NOW_NS + sequence)]
        store.add(*columns(rows, sequence=sequence))
        seal(store, connection, sequence, sequence)
    monkeypatch.setattr(query_module, "SEGMENTS_PER_SEARCH_MAX", 2)
    found = store.search(Query(limit=10))
    assert [hit.start_ns - NOW_NS for hit in found.hits] == [3, 2]
    assert "only the newest 2 of 4" in found.problems[0]
    assert store.search(Query(limit=2)).problems == ()


def test_limits_hold(store: Store) -> None:
    store.add(*columns([Row(trace=n + 1, start_ns=NOW_NS + n) for n in range(1500)]))
    assert len(store.search(Query(limit=10_000)).hits) == query_module.TRACES_MAX
    assert len(store.search(replace(Query(), limit=0)).hits) == 1
