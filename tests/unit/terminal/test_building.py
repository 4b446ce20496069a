"""`weir baseline build` with times and truth: hours of the week, and what was right."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from gateway.measure.drift.files import read
from tests.unit.measure.build import SECOND_NS
from tests.unit.terminal.server import Weir
from tests.unit.terminal.test_baselines import FORMATS, Row, build, contract, predictions


def labelled_rows(size: int, seed: int) -> list[Row]:
    """Rows of which some are labelled, as text or as what was right."""
    found = predictions(size, seed)
    rng = np.random.default_rng(seed)
    for row, known, right in zip(
        found, rng.random(size) < 0.5, rng.random(size) < 0.8, strict=True
    ):
        row["right"] = bool(right) if known else None
        row["truth"] = (row["class"] or "ok") if right else "other"
        if not known:
            row["truth"] = None
    return found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("column", ["correct", "label"])
def test_what_was_right_is_counted_by_confidence(
    weir: Weir, tmp_path: Path, name: str, column: str
) -> None:
    contract(tmp_path)
    rows = labelled_rows(3_000, 5)
    file = FORMATS[name](tmp_path / name, rows)
    names = {"correct": "right", "label": "truth"}
    code, out, errors = build(weir, tmp_path, "--json", f"--{column}", names[column], files=[file])
    assert (code, errors) == (0, "")
    path = tmp_path / "baselines" / "damage-net.json"
    held = {each.signal: each for each in read(path.read_bytes(), str(path)).items}
    assert held["class"].calibration is None
    found = held["confidence"].calibration
    assert found is not None
    grid = held["confidence"].baseline.grid
    known = [row for row in rows if row["right"] is not None]
    assert found.labelled.sum() == len(known)
    told = {each["signal"]: each["labelled"] for each in json.loads(out)["signals"]}
    assert (told["confidence"], told["class"]) == (len(known), 0)
    # A row without a class was not right about it.
    was_right = [
        row for row in known if row["right"] and (column == "correct" or row["class"] is not None)
    ]
    assert found.correct.sum() == len(was_right)
    edges = np.append(grid.edges()[:-1], np.inf)
    for counts, chosen in ((found.labelled, known), (found.correct, was_right)):
        scores = [row["edgeai.inference.confidence"] for row in chosen]
        inside = [each for each in scores if each is not None and 0 <= each <= 1]
        assert np.array_equal(counts[: grid.bins], np.histogram(inside, edges)[0])


@pytest.mark.parametrize(
    ("arguments", "content", "code", "said"),
    [
        (("--correct", "r"), "confidence\n0.5\n", 1, "no column 'r' for what was right"),
        (("--correct", "r"), "confidence,r\n0.5,maybe\n", 1, "'r' holds more than true, 1"),
        (("--label", "r"), "confidence,r\n0.5,ok\n", 1, "no column of class, which labels are"),
        (("--label", "r", "--correct", "r"), "confidence,r\n", 2, "name --correct or --label"),
    ],
)
def test_a_truth_that_cannot_be_used_is_refused(
    weir: Weir, tmp_path: Path, arguments: tuple[str, ...], content: str, code: int, said: str
) -> None:
    contract(tmp_path)
    (tmp_path / "a.csv").write_text(content)
    found, _, errors = build(weir, tmp_path, *arguments, files=[tmp_path / "a.csv"])
    assert (found, said in " ".join(errors.split())) == (code, True)


def seasonal_rows(hours: int, seed: int, *, step: int = 20) -> pa.Table:
    """Scores of every 20 seconds from a Monday on, in a daily rhythm."""
    seconds = np.arange(0, hours * 3_600, step)
    swing = np.sin(2 * np.pi * seconds / 86_400)
    scores = np.random.default_rng(seed).beta(8 - 2 * swing, 2 + swing)
    return pa.table({"confidence": scores, "at": (1_893_888_000 + seconds) * SECOND_NS})


def test_a_season_is_built_by_the_hour(weir: Weir, tmp_path: Path) -> None:
    path = contract(tmp_path, "learn")
    path.write_text(path.read_text().replace("learn}", "learn, season: hour-of-week}"))
    file = tmp_path / "week.parquet"
    pa.parquet.write_table(seasonal_rows(168, 1), file)
    code, _, errors = build(weir, tmp_path, files=[file])
    assert (code, "has drift.season hour-of-week" in errors) == (2, True)
    code, out, errors = build(weir, tmp_path, "--json", "--time", "at", files=[file])
    assert (code, errors) == (0, "")
    (told,) = json.loads(out)["signals"]
    assert told["hours"] == 168
    assert told["phi"] < 1.2
    built = tmp_path / "baselines" / "damage-net.json"
    (held,) = read(built.read_bytes(), str(built)).items
    assert held.baseline.hours is not None
    assert held.baseline.hours.sum(axis=1).tolist() == [180] * 168
    path.write_text(path.read_text().replace("learn", "file:baselines/damage-net.json"))
    assert weir("check", str(path))[0] == 0
    short = tmp_path / "days.parquet"
    pa.parquet.write_table(seasonal_rows(100, 1), short)
    code, _, errors = build(weir, tmp_path, "--time", "at", "--replace", files=[short])
    said = "cover 100.0 hours; drift.season hour-of-week needs a week"
    assert (code, said in errors) == (1, True)


def test_check_refuses_a_file_without_hours_for_a_season(weir: Weir, tmp_path: Path) -> None:
    path = contract(tmp_path, "learn")
    file = tmp_path / "week.parquet"
    pa.parquet.write_table(seasonal_rows(24, 1).slice(0, 2_000), file)
    contract(tmp_path)
    rows = pa.parquet.read_table(file).take(np.random.default_rng(1).permutation(2_000))
    pa.parquet.write_table(rows, file)
    assert build(weir, tmp_path, files=[file])[0] == 0
    wanted = "'file:baselines/damage-net.json', season: hour-of-week}"
    path.write_text(path.read_text().replace("learn}", wanted))
    code, out, _ = weir("check", str(path))
    assert (code, "has no hours of the week, which drift.season asks for" in out) == (1, True)
    assert "--time" in out
