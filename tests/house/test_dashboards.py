"""The boards in git are what the builder makes, and every panel can show something.

Rules of the linter that most boards are checked with are reimplemented here; `job` and `instance`
variables are left out on purpose, because Weir's boards choose by cluster, region, model and SLO.
"""

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from dashboards.__main__ import FOLDER, text_of
from dashboards.boards import BOARDS
from dashboards.boards.executive import EXECUTIVE
from dashboards.panels import COLUMNS, Board, Panel, Row, Step, Target, render
from gateway.measure.drift.rates import EVENT_RATE
from gateway.measure.estimates.wager import LOG_BOUND
from gateway.vitals import VITALS, VitalType
from tests.process import PROMTOOL, ROOT, require

Json = Any  # JSON value as the standard library makes it

RENDERED: Final = {board.uid: render(board) for board in BOARDS}
EXECUTIVE_PANELS_MAX: Final = 12
UID_CHARS_MAX: Final = 40
MACROS: Final = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m"}
# What Prometheus itself adds to a scrape or an evaluation.
OUTSIDE: Final = frozenset({"up", "ALERTS"})
TOOL_S: Final = 60

_SELECTOR: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
_LABEL: Final = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"')
_VARIABLE: Final = re.compile(r"\$\{?([a-z][a-z_]*)\}?")
_COUNTER_FUNCTIONS: Final = ("rate(", "irate(", "increase(")
# Labels that the scrape, not the gateway, puts on a series.
TARGET_LABELS: Final = frozenset({"cluster", "region", "job", "instance", "le"})
ALERT_LABELS: Final = frozenset({"alertname", "alertstate", "severity"})


def panels(board: Json) -> list[Json]:
    """List the panels of a rendered board without its rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: Json) -> Iterator[tuple[str, str]]:
    """Yield panel title and PromQL of every target, and of annotations."""
    for panel in panels(board):
        for target in panel["targets"]:
            if "expr" in target:
                yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


def expand(expression: str) -> str:
    """Replace Grafana's macros and variables by what Prometheus can parse."""
    for macro, value in MACROS.items():
        expression = expression.replace(macro, value)
    return _VARIABLE.sub(".+", expression)


def overlaps(board: Json) -> list[str]:
    """List panels that share a cell of the grid or stick out of it."""
    taken: dict[tuple[int, int], str] = {}
    found = []
    for panel in board["panels"]:
        place = panel["gridPos"]
        if place["x"] + place["w"] > COLUMNS or place["w"] < 1 or place["h"] < 1:
            found.append(f"{panel['title']}: sticks out")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (x, y) in taken:
                    found.append(f"{panel['title']}: on {taken[x, y]}")
                taken[x, y] = panel["title"]
    return found


def unknown_selectors(expression: str) -> list[str]:
    """List selectors whose metric or labels the catalogue does not have."""
    found = []
    for name, matchers in _SELECTOR.findall(expression):
        labels = set(_LABEL.findall(matchers)) - TARGET_LABELS
        if name in OUTSIDE:
            allowed: set[str] = set(ALERT_LABELS)
        else:
            base = re.sub("_(bucket|sum|count)$", "", name)
            vital = VITALS.get(name) or VITALS.get(base)
            if vital is None or (name != base and vital.type is not VitalType.HISTOGRAM):
                found.append(f"metric {name}")
                continue
            allowed = set(vital.labels)
        found += [f"{name} has no label {label}" for label in sorted(labels - allowed)]
    return found


def bare_counters(expression: str) -> list[str]:
    """List counters that are not under rate or increase."""
    return [
        match.group(1)
        for match in _SELECTOR.finditer(expression)
        if match.group(1).endswith(("_total", "_bucket"))
        and not expression[: match.start()].endswith(_COUNTER_FUNCTIONS)
    ]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_json_is_what_the_builder_makes(board: Board) -> None:
    path = FOLDER / f"{board.uid}.json"
    assert path.read_text(encoding="utf-8") == text_of(board), "run: python -m dashboards"


def test_there_is_no_other_json() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(RENDERED)


@pytest.mark.parametrize("uid", RENDERED)
def test_board_is_well_formed(uid: str) -> None:
    board = RENDERED[uid]
    assert board["uid"] == uid
    assert len(uid) <= UID_CHARS_MAX
    assert board["schemaVersion"] == 42
    assert board["editable"] is False
    ids = [panel["id"] for panel in board["panels"]]
    assert ids == sorted(set(ids))
    assert min(ids) >= 1
    for panel in panels(board):
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs)) >= 1, panel["title"]
    assert not overlaps(board)


@pytest.mark.parametrize("uid", RENDERED)
def test_every_panel_has_title_description_and_a_variable_as_source(uid: str) -> None:
    for panel in panels(RENDERED[uid]):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert {source["uid"] for source in sources} <= {"${datasource}", "${jaeger_datasource}"}


@pytest.mark.parametrize("uid", RENDERED)
def test_titles_are_unique(uid: str) -> None:
    titles = [panel["title"] for panel in panels(RENDERED[uid])]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("uid", RENDERED)
def test_every_variable_is_defined_and_used(uid: str) -> None:
    board = RENDERED[uid]
    defined = {variable["name"] for variable in board["templating"]["list"]}
    text = json.dumps([board["panels"], board["annotations"]])
    used = {name for name in _VARIABLE.findall(text) if not name.startswith("__")}
    assert used <= defined
    assert defined <= used
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            assert (variable["refresh"], variable["allValue"]) == (2, ".+")
            metric, label = re.fullmatch(
                r"label_values\((\w+), (\w+)\)", variable["query"]["query"]
            ).groups()  # type: ignore[union-attr]  # no match is a failure too
            assert label in TARGET_LABELS or label in VITALS[metric].labels


@pytest.mark.parametrize("uid", RENDERED)
def test_every_selector_can_be_satisfied_by_the_catalogue(uid: str) -> None:
    found = [
        (title, unknown)
        for title, expression in expressions(RENDERED[uid])
        for unknown in unknown_selectors(expression)
    ]
    assert not found


@pytest.mark.parametrize("uid", RENDERED)
def test_counters_are_only_seen_through_rate_or_increase(uid: str) -> None:
    for title, expression in expressions(RENDERED[uid]):
        assert not bare_counters(expression), title
        if "rate(" in expression:
            assert "[$__rate_interval]" in expression, title
        assert "avg(" not in expression, title


def test_every_query_is_understood_by_prometheus(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": expand(expression)}
        for number, (_, expression) in enumerate(
            pair for board in RENDERED.values() for pair in expressions(board)
        )
    ]
    for number, rule in enumerate(rules):
        rule["record"] = f"query:n{number}"
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [require(PROMTOOL), "check", "rules", path],
        capture_output=True,
        text=True,
        timeout=TOOL_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_executive_board_fits_one_screen() -> None:
    assert len(panels(RENDERED[EXECUTIVE.uid])) <= EXECUTIVE_PANELS_MAX


def test_table_columns_are_fields_that_the_queries_give() -> None:
    for board in RENDERED.values():
        for panel in panels(board):
            for step in panel.get("transformations", ()):
                if step["id"] != "filterFieldsByName":
                    continue
                grouped = {
                    name
                    for target in panel["targets"]
                    for names in re.findall(r" by \(([^)]*)\)", target["expr"])
                    for name in names.split(", ")
                }
                values = {f"Value #{target['refId']}" for target in panel["targets"]}
                assert set(step["options"]["include"]["names"]) <= grouped | values


def test_provisioned_data_sources_are_those_the_boards_ask_for() -> None:
    folder = ROOT / "dashboards" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "weir.yaml").read_text())["datasources"]
    assert {source["type"] for source in sources} == {"prometheus", "jaeger"}
    assert all(source["editable"] is False and source["uid"] for source in sources)
    metrics = next(source for source in sources if source["type"] == "prometheus")
    (link,) = metrics["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "trace_id"
    assert link["datasourceUid"] in {source["uid"] for source in sources}
    (provider,) = yaml.safe_load((folder / "dashboards" / "weir.yaml").read_text())["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)


def test_faults_of_a_board_are_found() -> None:
    panel = Panel(kind="stat", title="a", description="A.", targets=[Target(expression="up")])
    board = render(
        Board(
            uid="x",
            title="x",
            description="x",
            time_from="now-1h",
            refresh="",
            variables=(),
            rows=[Row(title="r", panels=[panel] * 4)],
        )
    )
    assert not overlaps(board)
    board["panels"][2]["gridPos"]["x"] = 1
    board["panels"][3]["gridPos"]["x"] = 20
    assert [fault.split(": ")[1] for fault in overlaps(board)].count("sticks out") == 1
    assert any("on a" in fault for fault in overlaps(board))
    assert unknown_selectors('weir_rain{cluster="a"}') == ["metric weir_rain"]
    assert unknown_selectors('weir_pending_items{colour="a"}')
    assert unknown_selectors("weir_pending_items_bucket{}")
    assert bare_counters("sum(weir_bytes_total{})") == ["weir_bytes_total"]
    assert not bare_counters("sum(rate(weir_bytes_total{}[5m]))")


def test_marked_columns_are_coloured_and_the_others_are_not() -> None:
    panel = Panel(
        kind="table",
        title="a",
        description="A.",
        targets=[Target(expression="up")],
        columns={"job": ("Job", "none"), "Value #A": ("Up", "short")},
        marks={"Value #A": (Step(value=None, colour="red"), Step(value=1, colour="green"))},
    )
    board = render(
        Board(
            uid="x",
            title="x",
            description="x",
            time_from="now-1h",
            refresh="",
            variables=(),
            rows=[Row(title="r", panels=[panel])],
        )
    )
    plain, marked = board["panels"][1]["fieldConfig"]["overrides"]
    assert plain["matcher"]["options"] == "Job"
    assert [each["id"] for each in plain["properties"]] == ["unit"]
    found = {each["id"]: each["value"] for each in marked["properties"]}
    assert found["thresholds"]["steps"][1] == {"color": "green", "value": 1}
    assert found["custom.cellOptions"] == {"type": "color-text"}


def test_only_columns_are_marked() -> None:
    for board in BOARDS:
        for panel in [panel for row in board.rows for panel in row.panels]:
            assert set(panel.marks or ()) <= set(panel.columns or ()), panel.title


def test_what_drift_shows_has_its_lines_and_is_of_the_right_series() -> None:
    found = {panel["title"]: panel for panel in panels(RENDERED["weir-debug"])}
    lines = {
        title: found[title]["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"]
        for title in ("Relative drift index", "Event rate evidence", "Calibration evidence")
    }
    assert lines["Relative drift index"] == 1
    # One false alarm in 30 days of ticks, and one model in a hundred.
    assert lines["Event rate evidence"] == pytest.approx(math.log(30 * 86_400 / 10), abs=0.05)
    assert lines["Calibration evidence"] == pytest.approx(LOG_BOUND, abs=0.05)
    (rate,) = found["Event rate evidence"]["targets"]
    assert f'signal="{EVENT_RATE}", version=""' in rate["expr"]
    labelled, estimated = (each["expr"] for each in found["Accuracy"]["targets"])
    assert "weir_accuracy_ratio" in labelled
    assert "weir_estimated_accuracy_ratio" in estimated
    assert all("bound" in each for each in (labelled, estimated))
