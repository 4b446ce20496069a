"""Who may import whom: the layer table, and no circles.

Law: a module imports only rooms below its own, whatever the form of the import. Verbs (level 3)
never import verbs; what joins them is a callable that `app` passes.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import pytest

from tests.house.source import Module, imports, modules, parse

LEVELS: Final[Mapping[str, int]] = {
    "errors": 0,
    "batch": 1,
    "tables": 1,
    "config": 1,
    "vitals": 1,
    "ledger": 1,
    "tally": 1,
    "anomalies": 1,
    "home": 1,
    "process": 1,
    "otlp": 2,
    "contract": 2,
    "receive": 3,
    "journal": 3,
    "store": 3,
    "forward": 3,
    "retrieve": 3,
    "api": 3,
    "measure": 3,
    "decide": 3,
    "anonymize": 3,
    "pipeline": 4,
    "recovery": 4,
    "core": 4,
    "rooms": 4,
    "dives": 4,
    "declarations": 4,
    "deliveries": 4,
    "retrain": 4,
    "measured": 4,
    "sources": 4,
    "reload": 4,
    "app": 4,
    "demo": 5,
    "terminal": 5,
    "__main__": 5,
}
# What joins the verbs, lowest first: the sentence, reading it again, the thread that says it, the
# rooms it needs, what the API reads of them, what changes their plan, what builds and connects all,
# and what a person starts. Each may import those before it.
JOINERS: Final = (
    *("pipeline", "recovery", "core", "rooms", "dives", "declarations", "deliveries"),
    *("retrain", "measured", "sources"),
    *("reload", "app", "demo", "terminal", "__main__"),
)
# Level 1 holds nouns without behaviour; they may name one another as long as there is no circle.
NOUN_LEVEL: Final = 1

PIPELINE_ROOMS: Final = frozenset({"otlp", "measure", "decide", "anonymize", "contract"})
COLLECTORS_MAY: Final = ("gateway.otlp", "gateway.batch", "gateway.errors")
ARTEFACTS_MAY: Final = ("gateway.vitals", "gateway.contract", "gateway.errors", "gateway.batch")
# The demo runs a gateway and an emulated fleet in one go.
COLLECTORS_USERS: Final = frozenset({"demo", "__main__"})


def room_of(name: str) -> str:
    """Return the room of a dotted name below `gateway`; empty for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def _below(target: str, allowed: Iterable[str]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in allowed)


def _gateway_violation(room: str, target: str) -> str:
    if target.split(".")[0] in ("tests", "benchmarks", "dashboards", "alerts"):
        return "the product imports no tests, benchmarks or dashboards"
    if target.split(".")[0] == "collectors":
        return "" if room in COLLECTORS_USERS else "only the demo imports collectors"
    if target.split(".")[0] != "gateway":
        return ""
    other = room_of(target)
    if other in ("", "__version__") or other == room:
        return ""
    if other not in LEVELS:
        return f"room {other!r} is not in the layer table"
    if room in JOINERS and other in JOINERS and JOINERS.index(other) < JOINERS.index(room):
        return ""
    if LEVELS[other] == LEVELS[room] == NOUN_LEVEL:
        return ""
    if LEVELS[other] >= LEVELS[room]:
        return f"level {LEVELS[room]} imports level {LEVELS[other]}"
    if room == "pipeline" and LEVELS[other] >= 2 and other not in PIPELINE_ROOMS:
        return "pipeline joins only the rooms of its sentence"
    return ""


def layer_violations(module: Module) -> list[str]:
    """List imports of one module that the layer table forbids."""
    top, room = module.name.split(".")[0], room_of(module.name)
    found = []
    if top == "gateway" and room and room not in LEVELS:
        found.append(f"{module.path}: room {room!r} is not in the layer table")
        return found
    for item in imports(module):
        reason = ""
        inside = item.target.split(".")[0] == "gateway"
        if top == "gateway" and room:
            reason = _gateway_violation(room, item.target)
        elif top == "gateway" and inside:
            reason = "gateway/__init__.py imports nothing of the gateway"
        elif top == "collectors" and inside and not _below(item.target, COLLECTORS_MAY):
            reason = f"collectors import only {', '.join(COLLECTORS_MAY)}"
        elif top in ("dashboards", "alerts") and inside and not _below(item.target, ARTEFACTS_MAY):
            reason = f"{top} import only {', '.join(ARTEFACTS_MAY)}"
        if reason:
            found.append(f"{module.path}:{item.line}: {item.target}: {reason}")
    return found


def circles(group: Iterable[Module]) -> list[str]:
    """List circles in the graph of modules; an import under a condition or in a function counts."""
    by_name = {module.name: module for module in group}
    graph: dict[str, set[str]] = {}
    for name, module in by_name.items():
        edges = set()
        for item in imports(module):
            # `from a.b import c` names the module a.b.c if there is one, else a.b.
            target = item.target if item.target in by_name else item.target.rpartition(".")[0]
            if target in by_name and target != name:
                edges.add(target)
        graph[name] = edges
    found = []
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        state[name] = 1
        for target in sorted(graph[name]):
            if state.get(target) == 1:
                found.append(" -> ".join([*path[path.index(target) :], target]))
            elif target not in state:
                visit(target, (*path, target))
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, (name,))
    return found


def test_every_import_goes_down() -> None:
    found = [
        violation
        for module in modules("gateway", "collectors", "dashboards")
        for violation in layer_violations(module)
    ]
    assert not found, "\n".join(found)


def test_there_is_no_circle() -> None:
    assert not circles(modules("gateway", "collectors"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gateway.measure.slo.windows", "from gateway.decide import rules"),
        ("gateway.measure.slo.windows", "from gateway import decide"),
        ("gateway.store.segment", "import gateway.journal.log"),
        ("gateway.otlp.decode", "from gateway.receive.inflate import inflate"),
        ("gateway.errors", "from gateway.batch import Batch"),
        ("gateway.batch", "def f() -> None:\n    from gateway.app import run"),
        ("gateway.batch", "if TYPE_CHECKING:\n    from gateway.otlp import decode"),
        ("gateway.pipeline", "from gateway.store import Store"),
        ("gateway.cache.lru", "import json"),
        ("gateway.receive.http_server", "from gateway.cache import lru"),
        ("gateway.retrieve.command", "from collectors.device import ring"),
        ("gateway.retrieve.command", "from ..store import find"),
        ("gateway.core", "from gateway.app import run"),
        ("gateway.sources", "if TYPE_CHECKING:\n    from gateway.app import Gateway"),
        ("gateway.app", "from tests.sink import otlp_sink"),
        ("collectors.device.ring", "from gateway.config import load_site"),
        ("collectors.device.ring", "from gateway import journal"),
        ("dashboards.boards", "from gateway.store import Store"),
    ],
)
def test_forbidden_import_is_found(name: str, text: str) -> None:
    assert layer_violations(parse(name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gateway.measure.slo.windows", "from gateway.contract.plan import Plan"),
        ("gateway.measure.slo.windows", "from . import slots\nfrom gateway.measure import burn"),
        ("gateway.app", "from gateway import pipeline, store"),
        ("gateway.ledger", "from gateway.vitals import CATALOGUE"),
        ("gateway.pipeline", "from gateway.anonymize import Anonymize"),
        ("collectors.device.ring", "from gateway.otlp.encode import encode"),
        ("dashboards.boards", "from gateway.vitals import CATALOGUE"),
    ],
)
def test_import_downwards_is_allowed(name: str, text: str) -> None:
    assert not layer_violations(parse(name, text))


def test_circle_is_found_also_when_hidden() -> None:
    group = [
        parse("gateway.a", "from gateway import b"),
        parse("gateway.b", "if TYPE_CHECKING:\n    from gateway.c import thing"),
        parse("gateway.c", "def f() -> None:\n    import gateway.a"),
    ]
    assert circles(group) == ["gateway.a -> gateway.b -> gateway.c -> gateway.a"]
    assert not circles(group[:2])
