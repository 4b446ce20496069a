"""Opening, joining, budgets, deleting: what the retriever does before any device is heard."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.batch import Anomaly, AnomalyId, AnomalyKind, Evidence, Severity
from gateway.config import RetrieveSection
from gateway.errors import InvalidQueryError, NotFoundError, OverloadedError, StartError
from gateway.retrieve import retriever as retriever_module
from gateway.retrieve.dive import Dive, DiveRequest
from gateway.retrieve.retriever import Retriever, new_uuid
from gateway.retrieve.states import State

SECOND = 1_000_000_000
DAY = 86_400 * SECOND


class Site:
    def __init__(self, directory: Path, section: RetrieveSection) -> None:
        self.now_ns = 5 * DAY
        self.told: list[Dive] = []
        self.rung: list[str] = []
        self.retriever = Retriever(
            directory,
            section,
            clean=bytes,
            on_change=self.told.append,
            clock=lambda: self.now_ns,
        )
        self.retriever.ring_with(self.rung.append)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, RetrieveSection(dives_per_day=2, traces_max=5, dive_bytes_max=10_000))
    yield made
    made.retriever.close()


def evidence(*pairs: tuple[str, int]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(trace_id=f"{number:032x}", device=device, reason="test")
        for device, number in pairs
    )


def anomaly(number: int, model: str = "damage-net") -> Anomaly:
    return Anomaly(
        id=AnomalyId(f"a{number}"),
        kind=AnomalyKind.DRIFT,
        severity=Severity.PAGE,
        owner="owner",
        model=model,
        version="1",
        subject="confidence",
        summary="confidence drifts",
        onset_ns=1,
        raised_ns=2,
        evidence=evidence(("cam-1", number), ("cam-2", number)),
    )


def manual(site: Site, *pairs: tuple[str, int], max_bytes: int | None = None) -> Dive:
    found = evidence(*pairs)
    ids = tuple(one.trace_id for one in found)
    request = DiveRequest(reason="test", trace_ids=ids, max_bytes=max_bytes)
    return site.retriever.open_dive(request, found)


def test_a_dive_makes_one_command_per_device_and_rings_each(site: Site) -> None:
    dive = manual(site, ("cam-1", 1), ("cam-2", 2), ("cam-1", 3))
    assert [(one.device, len(one.selector.trace_ids)) for one in dive.commands] == [
        ("cam-1", 2),
        ("cam-2", 1),
    ]
    assert sorted(site.rung) == ["cam-1", "cam-2"]
    assert [one.id for one in site.told] == [dive.id]
    assert dive.state is State.QUEUED


def test_the_byte_cap_of_a_dive_is_shared_by_its_devices(site: Site) -> None:
    dive = manual(site, ("cam-1", 1), ("cam-2", 2), ("cam-3", 3), max_bytes=1 << 40)
    assert dive.max_bytes == 10_000
    assert sum(one.max_bytes for one in dive.commands) <= 10_000


def test_an_anomaly_opens_one_dive_however_often_it_is_raised(site: Site) -> None:
    first = site.retriever.open_for_anomaly(anomaly(1))
    again = site.retriever.open_for_anomaly(anomaly(1))
    assert first.id == again.id
    assert len(site.retriever.list()) == 1
    assert first.anomaly_id == "a1"


def test_a_person_may_ask_again_about_an_anomaly(site: Site) -> None:
    first = site.retriever.open_for_anomaly(anomaly(1))
    request = DiveRequest(reason="look again", anomaly_id=AnomalyId("a1"))
    second = site.retriever.open_dive(request, anomaly(1).evidence)
    assert first.id != second.id


def test_the_daily_cap_is_per_class_and_comes_back_after_a_day(site: Site) -> None:
    states = [site.retriever.open_for_anomaly(anomaly(number)).state for number in range(3)]
    assert states == [State.QUEUED, State.QUEUED, State.REFUSED]
    assert site.retriever.list()[0].refusal == "daily_cap"
    assert site.retriever.open_for_anomaly(anomaly(9, "triage-net")).state is State.QUEUED
    assert manual(site, ("cam-1", 1)).state is State.QUEUED
    site.now_ns += DAY + 1
    assert site.retriever.open_for_anomaly(anomaly(4)).state is State.QUEUED


def test_deleting_a_dive_does_not_give_its_budget_back(site: Site) -> None:
    for number in range(2):
        site.retriever.delete(site.retriever.open_for_anomaly(anomaly(number)).id)
    assert site.retriever.open_for_anomaly(anomaly(2)).state is State.REFUSED


def test_an_equal_open_command_is_joined(site: Site) -> None:
    one, two = manual(site, ("cam-1", 1)), manual(site, ("cam-1", 1))
    other = manual(site, ("cam-1", 2))
    assert one.commands[0].request_id == two.commands[0].request_id
    assert other.commands[0].request_id != one.commands[0].request_id
    site.retriever.delete(one.id)
    assert site.retriever.get(two.id).commands[0].state is State.QUEUED
    site.retriever.delete(two.id)
    assert site.retriever.on_poll("cam-1", site.now_ns) is not None
    site.retriever.delete(other.id)
    assert site.retriever.on_poll("cam-1", site.now_ns) is None


def test_what_no_device_can_be_asked_for_is_named(site: Site) -> None:
    found = evidence(*(("cam-1", number) for number in range(7)), ("", 8))
    ids = (*(one.trace_id for one in found), "f" * 32)
    dive = site.retriever.open_dive(DiveRequest(reason="test", trace_ids=ids), found)
    assert [(one.trace_id, one.reason) for one in dive.missing] == [
        (f"{8:032x}", "no_device_known"),
        ("f" * 32, "no_device_known"),
        (f"{5:032x}", "traces_max"),
        (f"{6:032x}", "traces_max"),
    ]


def test_a_dive_without_evidence_is_refused_and_kept(site: Site) -> None:
    dive = site.retriever.open_dive(DiveRequest(reason="test"))
    assert (dive.state, dive.refusal) == (State.REFUSED, "no_evidence")
    assert site.retriever.get(dive.id) == dive


@pytest.mark.parametrize(
    "request_",
    [
        DiveRequest(reason="test", trace_ids=("xyz",)),
        DiveRequest(reason="test", device="cam-1", from_ns=5),
        DiveRequest(reason="test", device="cam-1", from_ns=5, to_ns=4),
        DiveRequest(reason="test", device="cam-1", from_ns=-1, to_ns=4),
    ],
)
def test_a_request_that_no_device_could_answer_is_refused(
    site: Site, request_: DiveRequest
) -> None:
    with pytest.raises(InvalidQueryError, match="write"):
        site.retriever.open_dive(request_)


def test_people_cannot_open_dives_without_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever_module, "MANUAL_OPEN_MAX", 2)
    manual(site, ("cam-1", 1))
    manual(site, ("cam-1", 2))
    with pytest.raises(OverloadedError):
        manual(site, ("cam-1", 3))


def test_old_final_dives_make_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retriever_module, "DIVES_MAX", 2)
    still_open = manual(site, ("cam-1", 1))
    for _ in range(4):
        site.now_ns += 1
        site.retriever.open_dive(DiveRequest(reason="test"))
    kept = [one.id for one in site.retriever.list()]
    assert len(kept) == 3
    assert still_open.id in kept


def test_counts_agree_with_the_dives(site: Site) -> None:
    manual(site, ("cam-1", 1), ("cam-2", 1))
    site.retriever.open_dive(DiveRequest(reason="test"))
    assert {state: n for state, n in site.retriever.counts().items() if n} == {
        State.QUEUED: 1,
        State.REFUSED: 1,
    }


def test_every_change_has_an_audit_record(site: Site) -> None:
    dive = manual(site, ("cam-1", 1))
    site.retriever.tick(dive.not_after_ns)
    trail = site.retriever.history(dive.commands[0].request_id)
    assert [(before, after, reason) for _, before, after, reason, _ in trail] == [
        ("", "queued", ""),
        ("queued", "expired", "device_silent"),
    ]
    site.retriever.delete(dive.id, "alice")
    assert site.retriever.history(dive.id)[-1][2:] == ("deleted", "", "alice")


def test_unknown_dives_are_not_found(site: Site) -> None:
    for use in (site.retriever.get, site.retriever.delete, site.retriever.traces):
        with pytest.raises(NotFoundError):
            use("nothing")


def test_a_listener_may_call_back(tmp_path: Path) -> None:
    seen: list[State] = []
    retriever = Retriever(
        tmp_path,
        RetrieveSection(),
        clean=bytes,
        on_change=lambda dive: seen.append(retriever.get(dive.id).state),
    )
    retriever.open_dive(DiveRequest(reason="test"), evidence(("cam-1", 1)))
    retriever.close()
    assert seen == [State.QUEUED]


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    site = Site(tmp_path, RetrieveSection())
    dive = manual(site, ("cam-1", 1), ("cam-2", 2))
    site.retriever.close()
    site = Site(tmp_path, RetrieveSection())
    assert site.retriever.list() == [dive]
    assert dive.commands[0].state is State.QUEUED
    site.retriever.close()


def test_files_of_deleted_dives_do_not_outlive_a_crash(tmp_path: Path) -> None:
    (tmp_path / "dives" / "gone").mkdir(parents=True)
    (tmp_path / "dives" / "gone" / "r-000000.otlp.zst").write_bytes(b"x")
    Site(tmp_path, RetrieveSection()).retriever.close()
    assert not (tmp_path / "dives" / "gone").exists()


def test_a_table_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "retrieve.db").mkdir()
    with pytest.raises(StartError, match=r"retrieve\.db"):
        Site(tmp_path, RetrieveSection())


def test_ids_are_uuids_in_order_of_time() -> None:
    ids = [new_uuid(number * 1_000_000) for number in range(1, 2000, 7)]
    assert ids == sorted(ids)
    assert {(len(one), one[14], one[19] in "89ab") for one in ids} == {(36, "7", True)}
