"""The parts of a Grafana dashboard, and how they become its JSON.

Law: rendering is a pure function of the board; ids count in reading order, panels fill rows of 24
columns from left to right and never overlap. Source: Grafana dashboard JSON, schema version 42.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Json = dict[str, Any]  # JSON object as the standard library writes it

SCHEMA_VERSION: Final = 42
COLUMNS: Final = 24
ROW_HEIGHT: Final = 1
TAG: Final = "weir"
TRACES_SHOWN: Final = 20

PROMETHEUS: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
JAEGER: Final[Json] = {"type": "jaeger", "uid": "${jaeger_datasource}"}
BUILTIN: Final[Json] = {"type": "grafana", "uid": "-- Grafana --"}

Kind = Literal["timeseries", "stat", "table", "heatmap", "search"]
# Closed list: a typing error in a unit would show bare numbers without a word.
Unit = Literal["none", "short", "percentunit", "s", "bytes", "Bps", "cps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One query of a panel."""

    expression: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From this value on the colour applies; None is the base."""

    value: float | None
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel; width in columns of 24, height in Grafana's grid units."""

    kind: Kind
    title: str
    description: str
    unit: Unit = "none"
    targets: Sequence[Target] = ()
    width: int = 8
    height: int = 8
    steps: Sequence[Step] = ()
    # Field to (shown name, unit), for the columns of a table; the order is that of the columns.
    columns: Mapping[str, tuple[str, Unit]] | None = None
    # Fields of a table whose text is coloured by its value.
    marks: Mapping[str, Sequence[Step]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A titled section of a board."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A query variable whose values are those of one label of one metric."""

    name: str
    label: str
    metric: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    time_from: str
    refresh: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    traces: bool = False


def _datasource(name: str, label: str, kind: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "datasource",
        "query": kind,
        "refresh": 1,
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "regex": "",
    }


def _textbox(name: str, label: str) -> Json:
    return {
        "name": name,
        "label": label,
        "type": "textbox",
        "query": "",
        "current": {"text": "", "value": ""},
        "hide": 0,
        "options": [],
    }


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.metric}, {variable.key})"
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": PROMETHEUS,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{variable.name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
        "options": [],
        "regex": "",
    }


def _target(panel: Panel, target: Target, ref: str) -> Json:
    instant = panel.kind in ("stat", "table")
    shape = {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series")
    return {
        "refId": ref,
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": target.expression,
        "legendFormat": target.legend or "__auto",
        "format": shape,
        "instant": instant,
        "range": not instant,
        "exemplar": target.exemplars,
    }


def _thresholds(steps: Sequence[Step]) -> Json:
    return {
        "mode": "absolute",
        "steps": [{"color": step.colour, "value": step.value} for step in steps],
    }


def _column(unit: Unit, steps: Sequence[Step]) -> list[Json]:
    properties: list[Json] = [{"id": "unit", "value": unit}]
    if steps:
        properties += [
            {"id": "color", "value": {"mode": "thresholds"}},
            {"id": "thresholds", "value": _thresholds(steps)},
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        ]
    return properties


def _field_config(panel: Panel) -> Json:
    steps = panel.steps or (Step(value=None, colour="green"),)
    defaults: Json = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "mappings": [],
        "thresholds": _thresholds(steps),
    }
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 10,
            "showPoints": "never",
            "spanNulls": False,
            "thresholdsStyle": {"mode": "dashed" if panel.steps else "off"},
        }
    marks = panel.marks or {}
    overrides = [
        {
            "matcher": {"id": "byName", "options": shown},
            "properties": _column(unit, marks.get(name, ())),
        }
        for name, (shown, unit) in (panel.columns or {}).items()
    ]
    return {"defaults": defaults, "overrides": overrides}


_LEGEND: Final[Json] = {"displayMode": "list", "placement": "bottom", "showLegend": True}
OPTIONS: Final[Mapping[Kind, Json]] = {
    "timeseries": {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {
        "colorMode": "value",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    },
    "table": {"cellHeight": "sm", "footer": {"show": False}, "showHeader": True},
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"unit": "s"},
    },
    "search": {"cellHeight": "sm", "footer": {"show": False}, "showHeader": True},
}


def _transformations(panel: Panel) -> list[Json]:
    if panel.columns is None:
        return []
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {field: position for position, field in enumerate(panel.columns)},
        "renameByName": {field: shown for field, (shown, _) in panel.columns.items()},
    }
    keep = {"include": {"names": list(panel.columns)}}
    return [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": keep},
        {"id": "organize", "options": organize},
    ]


def _panel(panel: Panel, number: int, x: int, y: int) -> Json:
    body: Json = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
    }
    if panel.kind == "search":
        search = {"refId": "A", "datasource": JAEGER, "queryType": "search", "service": "$service"}
        return body | {
            "type": "table",
            "datasource": JAEGER,
            "targets": [search | {"limit": TRACES_SHOWN}],
            "options": OPTIONS[panel.kind],
        }
    return body | {
        "datasource": PROMETHEUS,
        "targets": [
            _target(panel, target, chr(ord("A") + place))
            for place, target in enumerate(panel.targets)
        ],
        "fieldConfig": _field_config(panel),
        "options": OPTIONS[panel.kind],
        "transformations": _transformations(panel),
    }


def _layout(rows: Sequence[Row]) -> Iterator[Json]:
    number, y = 1, 0
    for row in rows:
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": ROW_HEIGHT},
            "panels": [],
        }
        number, y, x, height = number + 1, y + ROW_HEIGHT, 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            yield _panel(panel, number, x, y)
            number, x, height = number + 1, x + panel.width, max(height, panel.height)
        y += height


def _annotations() -> list[Json]:
    firing = 'ALERTS{alertname=~"Weir.+", alertstate="firing", severity=~"page|ticket"}'
    return [
        {
            "name": "Annotations & Alerts",
            "builtIn": 1,
            "datasource": BUILTIN,
            "enable": True,
            "hide": True,
            "iconColor": "rgba(0, 211, 255, 1)",
            "type": "dashboard",
        },
        {
            "name": "Firing alerts",
            "datasource": PROMETHEUS,
            "enable": True,
            "expr": firing,
            "iconColor": "red",
            "titleFormat": "{{alertname}}",
            "textFormat": "{{severity}} {{slo}}{{model}}{{destination}}",
        },
    ]


def render(board: Board) -> Json:
    """Make the JSON of a board as Grafana reads it."""
    variables = [_datasource("datasource", "Data source", "prometheus")]
    if board.traces:
        variables.append(_datasource("jaeger_datasource", "Traces", "jaeger"))
        variables.append(_textbox("service", "Service of traces"))
    link = {
        "title": "Weir boards",
        "type": "dashboards",
        "tags": [TAG],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": board.time_from, "to": "now"},
        "timezone": "browser",
        "refresh": board.refresh,
        "links": [link],
        "annotations": {"list": _annotations()},
        "templating": {"list": variables + [_variable(item) for item in board.variables]},
        "panels": list(_layout(board.rows)),
    }
