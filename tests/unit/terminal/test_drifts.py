"""`weir drift` says how far signals have moved, how sure that is, and what is reported."""

import dataclasses
from typing import Final

from gateway.api.drifts import BaselineState, DriftReport, DriftState, EventRate, ReportedSignal
from gateway.api.sources import RetrainCall
from gateway.api.views import Baselines, Drifts
from tests.unit.api.fakes import MEASURE, NOW_NS
from tests.unit.terminal.server import VIEW, Api, Weir, body

PROMISE: Final = "at most 10 % of these are expected to be false"
REPORT: Final = DriftReport(
    promise=PROMISE,
    signals=(
        ReportedSignal(model="damage-net", version="2.0", signal="brightness", log_evidence=30.0),
    ),
)
MOVED: Final = dataclasses.replace(MEASURE.drift[0], calibrated=True, log_evidence_bound=12.5)
RATE: Final = DriftState(
    model="damage-net",
    version="",
    signal="event_rate",
    baseline="abc1" * 16,
    alarm=True,
    tolerance=0.2,
    psi=None,
    log_evidence=9.25,
    event_rate=EventRate(
        state="frozen",
        expected=5.0,
        low=4.0,
        high=6.0,
        now=2.5,
        log_evidence=9.25,
        bound=12.47,
    ),
)


def shown(weir: Weir, api: Api, *items: DriftState, report: DriftReport = REPORT) -> list[str]:
    """Run `weir drift` and return its lines."""
    page = Drifts(items=items, total=len(items), budget=MEASURE.budget, reported=report)
    api.put("GET /api/v1/drift", body(page))
    code, out, errors = weir("drift")
    assert (code, errors) == (0, "")
    return [line.rstrip() for line in out.splitlines()]


def row(lines: list[str], signal: str) -> dict[str, str]:
    """Read one row of the table by the names of its columns."""
    (head,) = [line for line in lines if line.startswith("model")]
    (line,) = [line for line in lines if signal in line and "per second" not in line]
    return dict(zip(head.split(), line.split(), strict=True))


def test_a_signal_has_its_relative_index_its_bound_and_whether_it_is_reported(
    weir: Weir, api: Api
) -> None:
    calm = dataclasses.replace(
        MOVED, signal="class", alarm=False, psi=0.01, log_evidence=0.0, relative_drift_index=0.2
    )
    lines = shown(weir, api, MOVED, calm)
    found = row(lines, "brightness")
    assert found == {
        "model": "damage-net",
        "version": "2.0",
        "signal": "brightness",
        "alarm": "yes",
        "reported": "yes",
        "calibrated": "yes",
        "index": "7.5",
        "psi": "0.4",
        "tolerance": "0.1",
        "evidence": "12",
        "bound": "12.5",
        "baseline": "frozen",
    }
    quiet = row(lines, "class")
    assert (quiet["alarm"], quiet["reported"], quiet["index"]) == ("no", "no", "0.2")
    assert lines[-1] == f"reported: {PROMISE}"


def test_without_a_report_nothing_is_promised(weir: Weir, api: Api) -> None:
    lines = shown(weir, api, MOVED, report=DriftReport(promise=PROMISE))
    assert row(lines, "brightness")["reported"] == "no"
    assert PROMISE not in "\n".join(lines)


def test_a_baseline_that_is_too_small_never_alarms_and_is_never_listed(
    weir: Weir, api: Api
) -> None:
    small = dataclasses.replace(MOVED, signal="class", alarm=False, calibrated=False)
    (line,) = [line for line in shown(weir, api, small) if "class" in line]
    assert line.split()[3:9] == ["never:", "baseline", "too", "small", "-", "no"]


def test_an_event_rate_is_told_in_events_per_second(weir: Weir, api: Api) -> None:
    lines = shown(weir, api, RATE)
    found = row(lines, "event_rate")
    assert (found["version"], found["alarm"], found["index"], found["psi"]) == (
        "-",
        "yes",
        "-",
        "-",
    )
    assert (found["evidence"], found["bound"], found["calibrated"]) == ("9.25", "12.5", "-")
    assert found["baseline"] == "abc1" * 3
    assert lines[-2] == (
        "damage-net event_rate: 2.5 per second in the last one to two hours, 5 expected; "
        "4 to 6 would be no change"
    )
    learning = dataclasses.replace(
        RATE, alarm=False, log_evidence=None, event_rate=EventRate(state="collecting")
    )
    lines = shown(weir, api, learning, report=DriftReport())
    assert lines[-1] == (
        "damage-net event_rate: collecting, how many inferences are usual is being learned"
    )


def test_hours_and_labels_of_a_baseline_are_shown_where_there_are_any(weir: Weir, api: Api) -> None:
    plain = BaselineState(
        id="",
        model="damage-net",
        version="2.0",
        signal="class",
        state="collecting",
        events=4_000,
        events_wanted=4_000,
    )
    rich = dataclasses.replace(plain, state="frozen", hours=168, labelled=1_200)
    api.put("GET /api/v1/baselines", body(Baselines(items=(plain, rich), total=2)))
    code, out, _ = weir("baseline", "list")
    assert code == 0
    head, *lines = [line.split() for line in out.splitlines() if line.startswith(("model", "dam"))]
    assert head[4:7] == ["events", "hours", "labelled"]
    assert [line[4:7] for line in lines] == [["4,000", "-", "-"], ["4,000", "168", "1,200"]]


def test_an_anomaly_shows_the_trainings_that_it_asked_for(weir: Weir, api: Api) -> None:
    calls = (
        RetrainCall(
            endpoint="https://train.example",
            state="refused",
            attempts=1,
            changed_ns=NOW_NS,
            error="HTTP 403",
        ),
        RetrainCall(
            endpoint="https://other.example", state="delivered", attempts=1_200, changed_ns=NOW_NS
        ),
    )
    api.put("GET /api/v1/anomalies/a1", body(dataclasses.replace(VIEW, retrain=calls)))
    code, out, errors = weir("anomalies", "show", "a1")
    assert (code, errors) == (0, "")
    lines = [line.split() for line in out.splitlines() if "example " in line]
    assert lines == [
        ["https://train.example", "refused", "1", "2025-10-09", "08:53:20Z", "HTTP", "403"],
        ["https://other.example", "delivered", "1,200", "2025-10-09", "08:53:20Z", "-"],
    ]
    api.put("GET /api/v1/anomalies/a1", body(VIEW))
    assert "retrain" not in weir("anomalies", "show", "a1")[1]
