"""`weir baseline build`: every row of every format is counted, and what is not sound is refused."""

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from gateway.api.declared import BaselinePromoted
from gateway.api.drifts import BaselineState, SupersededState
from gateway.api.views import Baselines
from gateway.batch import Anomaly, AnomalyKind
from gateway.config.sections import SamplingSection
from gateway.contract.load import load_contracts
from gateway.contract.plan import compile_plan
from gateway.measure import Measure, MeasureSettings
from gateway.measure.drift.files import read
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet
from tests.unit.terminal.server import Api, Reply, Weir, body, problem

CONTRACT: Final = """
contract: 1
model: damage-net
match: {edgeai.model.name: damage-net}
owner: vision@example.com
purpose: damage detection
expires: 2099-12-31
signals:
  confidence: {attribute: edgeai.inference.confidence, type: double, range: [0, 1],
    role: confidence, export: pass}
  class: {attribute: edgeai.inference.class, type: enum, values: [ok, cracked, wet, torn],
    role: prediction, export: pass}
  brightness: {attribute: edgeai.input.brightness, type: double, range: [0, 1], role: feature,
    export: pass}
  flash: {attribute: camera.flash, type: bool, role: feature, export: pass}
  size: {attribute: image.size, type: int, role: feature, export: drop}
drift: {baseline: BASELINE}
"""
Row = dict[str, Any]


def contract(folder: Path, baseline: str = "learn") -> Path:
    path = folder / "contract.yaml"
    path.write_text(CONTRACT.replace("BASELINE", baseline))
    return path


def predictions(size: int, seed: int, *, a: float = 8, b: float = 2) -> list[Row]:
    """Rows as a batch job writes them; columns are named by attribute or by signal."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(
        ["ok", "cracked", "wet", "torn", "burnt"], size, p=[0.7, 0.1, 0.1, 0.08, 0.02]
    )
    found: list[Row] = [
        {
            "edgeai.inference.confidence": float(score),
            "class": str(each),
            "camera.flash": bool(flash),
            "size": int(pixels),
            "other": 'x,"y"\n',
        }
        for score, each, flash, pixels in zip(
            rng.beta(a, b, size),
            classes,
            rng.random(size) < 0.3,
            rng.integers(-9, 5_000, size),
            strict=True,
        )
    ]
    for row, score in zip(found[:: size // 40], [None, float("nan"), 1.5, -0.1] * 20, strict=False):
        row["edgeai.inference.confidence"] = score
        row["class"] = None
        row["camera.flash"] = None
    return found


def parquet(path: Path, rows: Sequence[Row]) -> Path:
    pa.parquet.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=1_000)
    return path


def json_lines(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w") as file:
        for row in rows:
            kept = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(kept) + "\n")
    return path


def comma_separated(path: Path, rows: Sequence[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


FORMATS: Final[Mapping[str, Callable[[Path, Sequence[Row]], Path]]] = {
    "a.parquet": parquet,
    "a.csv": comma_separated,
    "a.jsonl": json_lines,
}


def build(weir: Weir, folder: Path, *arguments: str, files: Sequence[Path]) -> Any:
    return weir(
        *("baseline", "build", "--contract", str(folder / "contract.yaml")),
        *("--model-version", "1.0", "-o", str(folder / "baselines"), *arguments),
        *map(str, files),
    )


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return predictions(20_000, 7)


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_of_every_format_is_counted_in_its_bin(
    weir: Weir, tmp_path: Path, rows: list[Row], name: str
) -> None:
    contract(tmp_path)
    file = FORMATS[name](tmp_path / name, rows)
    code, out, errors = build(weir, tmp_path, "--json", files=[file])
    assert (code, errors) == (0, "")
    told = json.loads(out)
    assert told["learned_on_site"] == ["brightness"]
    path = tmp_path / "baselines" / "damage-net.json"
    assert told["file"] == str(path)
    held = {each.signal: each for each in read(path.read_bytes(), str(path)).items}
    assert set(held) == {"confidence", "class", "flash", "size"}
    assert {each.baseline.events for each in held.values()} == {20_000}
    classes = held["class"].baseline.counts.tolist()
    values = [row["class"] for row in rows]
    wanted = ["ok", "cracked", "wet", "torn", None, "burnt"]
    assert classes == [values.count(each) for each in wanted]
    flashes = [row["camera.flash"] for row in rows]
    assert held["flash"].baseline.counts.tolist() == [
        *(flashes.count(each) for each in (False, True, None)),
        0,
    ]
    scores = [row["edgeai.inference.confidence"] for row in rows]
    grid = held["confidence"].baseline.grid
    assert held["confidence"].baseline.counts[grid.missing] == scores.count(None)
    odd = [each for each in scores if each is not None and not 0 <= each <= 1]
    assert held["confidence"].baseline.counts[grid.odd] == len(odd) == 30
    inside = [each for each in scores if each is not None and 0 <= each <= 1]
    edges = np.append(grid.edges()[:-1], np.inf)
    assert np.array_equal(
        held["confidence"].baseline.counts[: grid.bins], np.histogram(inside, edges)[0]
    )
    # Blocks are in the order of rows.
    first = held["class"].blocks[0]
    assert first.tolist() == [values[: first.sum()].count(each) for each in wanted]


def test_the_confidence_of_a_class_with_enough_rows_has_a_baseline(
    weir: Weir, tmp_path: Path
) -> None:
    contract(tmp_path)
    rows = predictions(30_000, 7)
    file = parquet(tmp_path / "a.parquet", rows)
    code, out, errors = build(weir, tmp_path, "--json", files=[file])
    assert (code, errors) == (0, "")
    rare = [f"confidence|{each}" for each in ("cracked", "wet", "torn")]
    assert json.loads(out)["classes_learned_on_site"] == rare
    path = tmp_path / "baselines" / "damage-net.json"
    held = {each.signal: each for each in read(path.read_bytes(), str(path)).items}
    assert set(held) == {"confidence", "class", "flash", "size", "confidence|ok"}
    of_class = held["confidence|ok"]
    grid = of_class.baseline.grid
    scores = [row["edgeai.inference.confidence"] for row in rows if row["class"] == "ok"]
    edges = np.append(grid.edges()[:-1], np.inf)
    counts = of_class.baseline.counts
    assert np.array_equal(counts[: grid.bins], np.histogram(scores, edges)[0])
    assert np.array_equal(of_class.blocks.sum(axis=0), counts)
    # The file is in force, and names no class once the contract asks for none.
    name = '"file:baselines/damage-net.json"'
    assert weir("check", str(contract(tmp_path, name)))[0] == 0
    checked = contract(tmp_path, f"{name}, conditional_classes: 0")
    code, out, _ = weir("check", str(checked))
    assert (code, "confidence|ok of 1.0" in out) == (1, True)


def test_two_files_are_one_baseline(weir: Weir, tmp_path: Path, rows: list[Row]) -> None:
    contract(tmp_path)
    whole = parquet(tmp_path / "whole.parquet", rows)
    parts = [
        parquet(tmp_path / "first.parquet", rows[:7_001]),
        parquet(tmp_path / "second.parquet", rows[7_001:]),
    ]
    assert build(weir, tmp_path, files=[whole])[0] == 0
    first = (tmp_path / "baselines" / "damage-net.json").read_bytes()
    assert build(weir, tmp_path, "--replace", files=parts)[0] == 0
    assert (tmp_path / "baselines" / "damage-net.json").read_bytes() == first


def test_a_small_baseline_is_said_to_be_uncalibrated(weir: Weir, tmp_path: Path) -> None:
    contract(tmp_path)
    file = parquet(tmp_path / "a.parquet", predictions(2_000, 3))
    code, out, errors = build(weir, tmp_path, "--json", files=[file])
    assert code == 0
    (found,) = [each for each in json.loads(out)["signals"] if each["signal"] == "confidence"]
    assert (found["events"], found["calibrated"]) == (2_000, False)
    assert 12_000 < found["events_needed"] < 40_000
    code, out, errors = build(weir, tmp_path, "--replace", files=[file])
    assert "uncalibrated: confidence, class" in errors
    assert "never alarms" in errors
    assert f"{found['events_needed']:,}" in out


def test_rows_that_drift_are_refused_and_nothing_is_written(weir: Weir, tmp_path: Path) -> None:
    contract(tmp_path)
    rows = [*predictions(10_000, 3), *predictions(10_000, 4, a=5, b=3)]
    code, out, errors = build(weir, tmp_path, files=[parquet(tmp_path / "a.parquet", rows)])
    assert (code, out) == (1, "")
    assert "second half of the rows would alarm against the first, for confidence;" in errors
    assert not (tmp_path / "baselines").exists()


def test_versions_stand_beside_each_other(weir: Weir, tmp_path: Path) -> None:
    contract(tmp_path)
    file = parquet(tmp_path / "a.parquet", predictions(2_000, 3))
    assert build(weir, tmp_path, files=[file])[0] == 0
    code, _, errors = build(weir, tmp_path, files=[file])
    assert code == 1
    assert "has a baseline of version 1.0; --replace replaces it" in errors
    assert build(weir, tmp_path, "--model-version", "2.0", files=[file])[0] == 0
    path = tmp_path / "baselines" / "damage-net.json"
    versions = [each.version for each in read(path.read_bytes(), str(path)).items]
    assert versions == ["1.0"] * 4 + ["2.0"] * 4
    path.write_text(path.read_text().replace("damage-net", "damage-nut"))
    code, _, errors = build(weir, tmp_path, "--model-version", "3.0", files=[file])
    assert code == 2
    assert "changed after it was built" in errors


def test_the_window_is_that_of_the_times(weir: Weir, tmp_path: Path) -> None:
    contract(tmp_path)
    rows = predictions(1_000, 3)
    for number, row in enumerate(rows):
        row["at"] = f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"
    file = comma_separated(tmp_path / "a.csv", rows)
    assert build(weir, tmp_path, "--time", "at", files=[file])[0] == 0
    path = tmp_path / "baselines" / "damage-net.json"
    start_ns = 1_767_225_600 * SECOND_NS
    for each in read(path.read_bytes(), str(path)).items:
        assert each.window_ns == (start_ns, start_ns + 999 * SECOND_NS)
    swapped = comma_separated(tmp_path / "b.csv", [*rows[500:], *rows[:500]])
    code, _, errors = build(weir, tmp_path, "--time", "at", "--replace", files=[swapped])
    assert code == 1
    assert "goes back in time; sort the rows" in errors
    # Read again, the same file goes back too.
    code, _, errors = build(weir, tmp_path, "--time", "at", "--replace", files=[file, file])
    assert (code, "goes back in time" in errors) == (1, True)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.parquet", b"PAR1", "a.parquet cannot be read"),
        ("a.csv", b"", "the first line names no columns"),
        ("a.csv", b"x,y\n1,2\n", "no file has rows with a column that is named as a signal"),
        ("a.csv", b"confidence,confidence\n1,2\n", "two columns are named 'confidence'"),
        ("a.csv", b"confidence\n1\n1,2\n", "a.csv cannot be read: CSV parse error"),
        ("a.csv", b"confidence\n\xff\xfe\n", "a.csv cannot be read"),
        ("a.csv", b"confidence\n" + b"0.5\n" * 199, "has 199 rows; a baseline needs 200"),
        ("a.csv", b"confidence\n" + b"high\n" * 300, "no value that the contract allows: 0 rows"),
        ("a.csv", b"confidence,x\n" + b",1\n" * 300, "allows: 300 rows have none, 0 one of"),
        ("a.jsonl", b'{"confidence": 0.5}\nnope\n', "line 2 is not JSON"),
        ("a.jsonl", b"[0.5]\n", "line 1 is no JSON object"),
        ("a.jsonl", b'{"confidence": ' + b" " * (1 << 20) + b"1}", "line 1 is longer than"),
        ("a.txt", b"0.5", "write a file that ends in .parquet, .csv, .jsonl, .ndjson"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    weir: Weir, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    contract(tmp_path)
    (tmp_path / name).write_bytes(content)
    code, out, errors = build(weir, tmp_path, files=[tmp_path / name])
    assert (code, out) == (1, "")
    assert said in errors
    assert not (tmp_path / "baselines").exists()


def test_a_file_that_is_not_there_is_named(weir: Weir, tmp_path: Path) -> None:
    contract(tmp_path)
    code, _, errors = build(weir, tmp_path, files=[tmp_path / "gone.csv"])
    assert (code, "gone.csv cannot be read: No such file" in errors) == (1, True)


def test_files_with_other_columns_are_refused(weir: Weir, tmp_path: Path) -> None:
    contract(tmp_path)
    both = tmp_path / "both.csv"
    both.write_text("confidence,class\n" + "0.5,ok\n" * 300)
    one = tmp_path / "one.csv"
    one.write_text("confidence\n" + "0.5\n" * 300)
    code, _, errors = build(weir, tmp_path, files=[both, one])
    assert (code, "one.csv has no rows with class" in errors) == (1, True)
    code, _, errors = build(weir, tmp_path, files=[one, both])
    assert (code, "both.csv has a column of class" in errors) == (1, True)


@pytest.mark.parametrize("version", ["", "-1", "a b", "x" * 65])
def test_a_version_that_no_span_can_have_is_refused(
    weir: Weir, tmp_path: Path, version: str
) -> None:
    contract(tmp_path)
    file = parquet(tmp_path / "a.parquet", predictions(1_000, 3))
    code, _, errors = build(weir, tmp_path, f"--model-version={version}", files=[file])
    assert (code, "begin with no sign" in errors.replace("\n", " ")) == (2, True)


def test_a_contract_with_a_built_baseline_is_checked_and_in_force(
    weir: Weir, tmp_path: Path
) -> None:
    rng = np.random.default_rng(11)
    contract(tmp_path)
    file = tmp_path / "clean.parquet"
    scores = {"confidence": rng.beta(8, 2, 60_000), "brightness": rng.beta(2, 2, 60_000)}
    pa.parquet.write_table(pa.table(scores), file)
    assert build(weir, tmp_path, files=[file])[0] == 0
    path = contract(tmp_path, "file:baselines/damage-net.json")
    assert weir("check", str(path))[0] == 0
    plan = compile_plan(load_contracts([path]), SamplingSection())
    measure = Measure(plan, MeasureSettings())
    fleet = Fleet(plan, size=80)
    now_ns = START_NS

    def run(seconds: int, a: float, b: float) -> list[Anomaly]:
        nonlocal now_ns
        told: list[Anomaly] = []
        for _ in range(seconds):
            now_ns += SECOND_NS
            batch = fleet.batch(now_ns, rng.beta(a, b, 80), brightness=rng.beta(2, 2, 80))
            told += measure.observe(batch).anomalies
        return [each for each in told if each.kind is AnomalyKind.DRIFT]

    assert run(300, 8, 2) == []
    (anomaly,) = run(120, 6, 3)
    assert anomaly.subject == "confidence"
    assert anomaly.numbers["baseline_is_large_enough"] == 1.0


def test_check_refuses_a_baseline_that_no_longer_fits(weir: Weir, tmp_path: Path) -> None:
    contract(tmp_path)
    file = parquet(tmp_path / "a.parquet", predictions(1_000, 3))
    assert build(weir, tmp_path, files=[file])[0] == 0
    path = contract(tmp_path, "file:baselines/damage-net.json")
    path.write_text(path.read_text().replace("wet, torn", "wet, torn, burnt"))
    code, out, _ = weir("check", str(path))
    assert code == 1
    assert "baselines/damage-net.json" in out
    assert "class of 1.0: its values differ: the baseline lacks 'burnt'" in out
    site = tmp_path / "site.yaml"
    site.write_text("contracts: [contract.yaml]\n")
    code, _, errors = weir("run", "--config", str(site), "--data-dir", str(tmp_path / "data"))
    assert (code, "the baseline lacks 'burnt'" in errors) == (2, True)
    assert not (tmp_path / "data").exists()


LISTED: Final = tuple(
    BaselineState(
        id=name,
        model="damage-net",
        version="2.0",
        signal="class",
        state=state,
        events=4_000,
        events_wanted=4_000,
        calibrated=calibrated,
        source=source,
    )
    for name, state, calibrated, source in (
        ("", "collecting", None, "site"),
        ("abc1" * 16, "candidate", False, "site"),
        ("abd2" * 16, "frozen", True, "file"),
    )
)
PAGE: Final = body(Baselines(items=LISTED, total=3))


def test_baselines_are_listed_with_their_states(weir: Weir, api: Api) -> None:
    api.put("GET /api/v1/baselines", PAGE)
    code, out, _ = weir("baseline", "list")
    assert code == 0
    lines = [line.split() for line in out.splitlines() if "damage-net" in line]
    assert [line[3] for line in lines] == ["collecting", "candidate", "frozen"]
    assert [line[-1] for line in lines] == ["-", "abc1" * 3, "abd2" * 3]
    assert [line[5] for line in lines] == ["-", "no", "yes"]
    assert "labelled" not in out
    assert "hours" not in out
    code, out, _ = weir("baseline", "list", "--json")
    assert out == PAGE.decode() + "\n"


def test_a_list_tells_what_is_in_the_shadow(weir: Weir, api: Api) -> None:
    (row, *_), until_ns = LISTED, 1_900_000_800 * SECOND_NS
    beside = SupersededState(
        id="abe3" * 16,
        events=4_000,
        until_ns=until_ns,
        log_evidence=3.14,
        log_evidence_bound=12.47,
        alarms=0,
        last_alarm_ns=None,
    )
    row = dataclasses.replace(row, id=beside.id, state="superseded", superseded=beside)
    api.put("GET /api/v1/baselines", body(Baselines(items=(row,), total=1)))
    code, out, _ = weir("baseline", "list")
    assert code == 0
    head = "damage-net 2.0 class: abe3abe3abe3 is in the shadow until 2030-03-17 18:00:00Z; "
    assert head + "no alarm; evidence 3.1 of 12.5\n" in out
    loud = dataclasses.replace(beside, alarms=1_200, last_alarm_ns=until_ns - 60 * SECOND_NS)
    row = dataclasses.replace(row, superseded=loud)
    api.put("GET /api/v1/baselines", body(Baselines(items=(row,), total=1)))
    _, out, _ = weir("baseline", "list")
    assert head + "1,200 alarms, the last at 2030-03-17 17:59:00Z; evidence 3.1 of 12.5\n" in out


def test_a_candidate_is_promoted_by_the_beginning_of_its_id(weir: Weir, api: Api) -> None:
    api.put("GET /api/v1/baselines", PAGE)
    name = "abc1" * 16
    path = f"POST /api/v1/baselines/{name}/promote"
    api.put(path, Reply(status=202, body=body(BaselinePromoted(id=name, state="frozen"))))
    code, out, _ = weir("baseline", "promote", "abc")
    assert (code, out) == (0, f"baseline {name} is promoted\n")
    api.put(path, Reply(status=202, body=body(BaselinePromoted(id=name, state="candidate"))))
    code, out, _ = weir("baseline", "promote", name)
    assert (code, "is candidate; its promotion is on disk" in out) == (0, True)


def test_a_promotion_that_cannot_be_is_the_gateways_no(weir: Weir, api: Api) -> None:
    api.put("GET /api/v1/baselines", PAGE)
    code, _, errors = weir("baseline", "promote", "ab")
    assert (code, "several baselines begin so" in errors) == (2, True)
    name = "abd2" * 16
    api.put(f"POST /api/v1/baselines/{name}/promote", problem(409, "this baseline is frozen"))
    code, _, errors = weir("baseline", "promote", "abd")
    assert (code, "this baseline is frozen" in errors) == (1, True)
    code, _, errors = weir("baseline", "promote", "nothing")
    assert (code, "there is nothing at this path" in errors) == (1, True)
