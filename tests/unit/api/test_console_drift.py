"""The console shows of drift what the API says: index, evidence, shadow, rates and trainings."""

from dataclasses import replace
from typing import Any, Final

from gateway.api.drifts import DriftState, EventRate
from gateway.api.sources import RetrainCall
from tests.unit.api.fakes import MEASURE, NOW_NS, World
from tests.unit.api.http import Client
from tests.unit.api.test_console_sections import HOSTILE, drawn, elements, words
from tests.unit.api.test_console_sections import pytestmark as pytestmark

Json = Any  # an element of the page

MOVED: Final = replace(MEASURE.drift[0], calibrated=True, log_evidence_bound=12.5)
RATE: Final = DriftState(
    model="damage-net",
    version="",
    signal="event_rate",
    baseline="r-1",
    alarm=True,
    tolerance=0.2,
    psi=None,
    log_evidence=9.25,
    event_rate=EventRate(
        state="frozen", expected=5.0, low=4.0, high=6.0, now=2.5, log_evidence=9.25, bound=12.47
    ),
)


async def cards(client: Client, world: World, *states: DriftState) -> list[Json]:
    """Draw the signals and return their cards, in the order of the page."""
    world.measure = replace(MEASURE, drift=states)
    page = await drawn(client)
    return [
        each
        for each in elements(page["drift"])
        if each["attributes"].get("class", "").split(" ")[0] == "card"
    ]


def lines(card: Json) -> dict[str, str]:
    """List the lines of a card with their classes."""
    return {
        words(each): each["attributes"].get("class", "")
        for each in elements(card)
        if each["name"] == "p"
    }


async def test_a_signal_has_its_relative_index_and_its_evidence(
    client: Client, world: World
) -> None:
    (card,) = await cards(client, world, replace(MOVED, superseded=None))
    assert lines(card) == {
        "damage-net 2.0": "quiet",
        "7.50 × noise, PSI 0.400": "bad",
        "evidence 12.0 of 12.5": "quiet",
    }


async def test_a_baseline_that_is_too_small_is_marked(client: Client, world: World) -> None:
    small = replace(MOVED, superseded=None, alarm=False, calibrated=False)
    (card,) = await cards(client, world, small)
    assert lines(card)["uncalibrated: the baseline is too small to alarm"] == "warn"


async def test_what_is_in_the_shadow_has_its_evidence_its_bound_and_its_end(
    client: Client, world: World
) -> None:
    old = MOVED.superseded
    assert old is not None
    (card,) = await cards(client, world, MOVED)
    (line,) = [each for each in lines(card) if "shadow" in each]
    assert line.startswith("baseline b-6 in the shadow until ")
    assert ": evidence 1.5 of 12.5, 3 alarms, the last at " in line
    assert lines(card)[line] == "warn"
    quiet = replace(old, alarms=0, last_alarm_ns=None)
    (card,) = await cards(client, world, replace(MOVED, superseded=quiet))
    (line,) = [each for each in lines(card) if "shadow" in each]
    assert line.endswith(": evidence 1.5 of 12.5, no alarm")
    assert lines(card)[line] == "quiet"


async def test_an_event_rate_is_shown_per_second_and_an_alarm_comes_first(
    client: Client, world: World
) -> None:
    calm = replace(MOVED, superseded=None, alarm=False)
    first, second = await cards(client, world, calm, RATE)
    assert words(first).startswith("event rate damage-net 2.50 per second, 5.00 expected; ")
    assert "4.00 to 6.00 would be no change" in words(first)
    assert "evidence 9.3 of 12.5" in words(first)
    assert words(second).startswith("brightness")
    learning = replace(
        RATE, alarm=False, log_evidence=None, event_rate=EventRate(state="collecting")
    )
    (card,) = await cards(client, world, learning)
    assert words(card) == "event rate damage-net usual rate: collecting"


async def test_signals_are_in_the_order_of_the_relative_index(client: Client, world: World) -> None:
    less = replace(MOVED, signal="less", superseded=None, relative_drift_index=0.5, psi=0.9)
    more = replace(MOVED, signal="more", superseded=None, relative_drift_index=2.0, psi=0.1)
    found = await cards(client, world, less, more)
    assert [words(each).split(" ")[0] for each in found] == ["more", "less"]


async def test_an_anomaly_says_what_became_of_its_trainings(client: Client, world: World) -> None:
    made = [
        RetrainCall(endpoint="train.example", state="delivered", attempts=1, changed_ns=NOW_NS),
        RetrainCall(
            endpoint="other.example",
            state="refused",
            attempts=2,
            changed_ns=NOW_NS,
            error=HOSTILE,
        ),
    ]
    view = world.anomalies.views["a1"]
    world.anomalies.views["a1"] = replace(view, retrain=tuple(made))
    found = lines((await drawn(client))["anomalies"])
    assert found["retraining: train.example delivered, 1 attempt"] == "good"
    assert found[f"retraining: other.example refused, 2 attempts: {HOSTILE}"] == "bad"
