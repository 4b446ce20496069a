"""The retrain trigger in the whole process: rows beside anomalies, figures, what the API shows."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.batch import AnomalyId
from gateway.config import RetrainSection, SiteConfig
from gateway.forward import calls
from gateway.forward.calls import CallState
from gateway.measure import Measure
from gateway.retrain import retrain_calls, retrain_samples
from gateway.vitals.own import CALL_ENDS
from tests.process import free_port
from tests.unit.forward.anomalies import anomaly
from tests.unit.forward.test_calls import call, ended
from tests.unit.test_app import make_config, serve


def with_hook(folder: Path) -> SiteConfig:
    """Configure a hook where nobody listens."""
    key = folder / "hook.key"
    key.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    key.chmod(0o400)
    hook = RetrainSection(url=f"http://127.0.0.1:{free_port()}/", key_file=key)
    return make_config(folder / "data").model_copy(update={"retrain": (hook,)})


def rows(config: SiteConfig) -> list[tuple[str, str]]:
    """Read which calls are on disk."""
    with sqlite3.connect(config.data_dir / "state.db") as connection:
        found = connection.execute("SELECT anomaly, state FROM retrain_call").fetchall()
    connection.close()
    return found


def test_a_call_is_stored_in_the_transaction_of_its_anomaly_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, written = Measure.snapshot, calls.write
    beside: list[tuple[int, int, int]] = []

    def with_episode(self: Measure) -> Any:
        return replace(snapshot(self), open_anomalies=(anomaly("a1"),))

    def writing(connection: sqlite3.Connection, *changed: Any) -> None:
        count = "SELECT count(*) FROM anomaly"
        (inside,) = connection.execute(count).fetchone()
        with sqlite3.connect(config.data_dir / "state.db") as other:
            (outside,) = other.execute(count).fetchone()
        other.close()
        beside.append((len(changed[0]), inside, outside))
        written(connection, *changed)

    monkeypatch.setattr(Measure, "snapshot", with_episode)
    monkeypatch.setattr(calls, "write", writing)
    config, stop = with_hook(tmp_path), asyncio.Event()
    stop.set()
    serve(config, stop)
    assert rows(config) == [("a1", "waiting")]
    # One call was written when others could not see its anomaly yet: in one transaction with it.
    assert (1, 1, 0) in beside
    serve(config, stop)
    assert rows(config) == [("a1", "waiting")]


def test_a_hook_that_is_new_is_called_for_what_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Measure.snapshot

    def with_episode(self: Measure) -> Any:
        return replace(snapshot(self), open_anomalies=(anomaly("a1"),))

    monkeypatch.setattr(Measure, "snapshot", with_episode)
    stop = asyncio.Event()
    stop.set()
    serve(make_config(tmp_path / "data"), stop)
    config = with_hook(tmp_path)
    assert rows(config) == []
    serve(config, stop)
    assert rows(config) == [("a1", "waiting")]


def test_calls_are_shown_as_figures_and_beside_their_anomaly() -> None:
    book = calls.CallBook()
    for number, name in enumerate(["a1", "a2", "a3"]):
        book.add(call(name, number=number))
    book.change(ended(call("a1"), CallState.DELIVERED))
    told = {
        (sample.name, *sample.labels.values()): sample.value for sample in retrain_samples(book)
    }
    assert told == {
        ("weir_retrain_waiting",): 2,
        ("weir_retrain_calls_total", "delivered"): 1,
        ("weir_retrain_calls_total", "refused"): 0,
        ("weir_retrain_calls_total", "expired"): 0,
    }
    assert set(CALL_ENDS) == {state.value for state in CallState} - {"waiting"}
    [shown] = retrain_calls(book, AnomalyId("a1"))
    assert (shown.state, shown.attempts) == ("delivered", 1)
    assert shown.endpoint == "https://train.example"
    assert retrain_calls(book, AnomalyId("none")) == ()


def test_a_model_without_a_contract_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, stop = with_hook(tmp_path), asyncio.Event()
    stop.set()
    [hook] = config.retrain
    misspelt = hook.model_copy(update={"models": ("damage-nte",)})
    serve(config.model_copy(update={"retrain": (misspelt,)}), stop)
    assert "model=damage-nte" in caplog.text
