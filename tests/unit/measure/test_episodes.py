"""Open anomalies: one at a time, the same id for good."""

import pytest

from gateway.batch import Anomaly, AnomalyKind, Evidence, Severity
from gateway.errors import CorruptDataError
from gateway.measure.episodes import Episodes, anomaly_id, merge
from gateway.measure.state import pack_json


def made(severity: Severity = Severity.TICKET, onset_ns: int = 5) -> Anomaly:
    return Anomaly(
        id=anomaly_id(AnomalyKind.SLO_BURN, "m", "v", "success", onset_ns),
        kind=AnomalyKind.SLO_BURN,
        severity=severity,
        owner="o@example.com",
        model="m",
        version="v",
        subject="success",
        summary="s",
        onset_ns=onset_ns,
        raised_ns=9,
        numbers={"long_bad": 3.0},
        evidence=(Evidence(trace_id="0" * 32, device="d", reason="failed"),),
    )


def test_the_id_is_a_digest_of_what_and_since_when() -> None:
    assert made().id == made(Severity.PAGE).id
    assert made().id != made(onset_ns=6).id
    assert len(made().id) == 32


def test_a_louder_telling_keeps_the_first_id_and_onset() -> None:
    episodes = Episodes()
    first = episodes.start("k", made())
    louder = episodes.escalate("k", made(Severity.PAGE, onset_ns=7))
    assert (louder.id, louder.onset_ns, louder.severity) == (first.id, 5, Severity.PAGE)
    assert episodes.resolve("k", 11).resolved_ns == 11
    assert episodes.open == {}


def test_quiet_begins_anew_when_it_is_loud_again() -> None:
    episodes = Episodes()
    episodes.start("k", made())
    episode = episodes.open["k"]
    found = [episode.quiet_for_ns(quiet, at) for at, quiet in ((1, True), (4, True), (5, False))]
    assert found == [0, 3, 0]
    assert episode.quiet_for_ns(True, 9) == 0


def test_the_state_comes_back() -> None:
    episodes, other = Episodes(), Episodes()
    episodes.start("k", made())
    other.restore(episodes.state())
    assert other.open == episodes.open
    assert other.raised == episodes.raised


def test_merging_adds_what_was_raised() -> None:
    one, two, joined = Episodes(), Episodes(), Episodes()
    one.start("a", made())
    two.start("b", made())
    joined.restore(merge(one.state(), two.state()))
    assert set(joined.open) == {"a", "b"}
    assert joined.raised[("slo_burn", "m")] == 2


def test_a_broken_state_is_refused() -> None:
    state = {"episodes": pack_json([["k", {"kind": "storm"}, 1, None]]), "raised": pack_json([])}
    with pytest.raises(CorruptDataError, match="cannot be read"):
        Episodes().restore(state)
