"""The check of the accounting identity accepts what adds up and refuses what does not."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests import servers
from tests.house.source import Module, aliases, modules, resolve
from tests.house.source import parse as parse_module
from tests.ledger_check import check_identity, parse

# Ways to start a process that ends by itself alone, or not through `tests.servers.gateway`.
OTHER_STARTS: Final = frozenset(
    {"tests.servers.start_gateway", "tests.process.launch", "tests.process.start_listener"}
    | {"subprocess.Popen", "asyncio.create_subprocess_exec", "os.posix_spawn", "os.fork"}
)

BALANCED = """
# TYPE weir_received_items_total counter
weir_received_items_total{signal="traces",transport="grpc"} 60
weir_received_items_total{signal="traces",transport="http"} 40
# TYPE weir_sampled_out_items_total counter
weir_sampled_out_items_total{signal="traces",rule="rate"} 70
# TYPE weir_forwarded_items_total counter
weir_forwarded_items_total{destination="cloud",signal="traces"} 20
# TYPE weir_pending_items gauge
weir_pending_items{destination="cloud",signal="traces"} 4
# TYPE weir_dropped_items_total counter
weir_dropped_items_total{destination="cloud",signal="traces",reason="refused_by_destination"} 6
"""
SECOND = """
weir_forwarded_items_total{destination="lab",signal="traces"} 30
weir_pending_items{destination="lab",signal="traces"} 0
"""
ALONE = """
weir_received_items_total{signal="traces",transport="grpc"} 5
weir_sampled_out_items_total{signal="traces",rule="no_destination"} 5
"""


def test_balanced_scrape_is_accepted() -> None:
    cloud = check_identity(BALANCED)["cloud", "traces"]
    assert (cloud.received, cloud.forwarded, cloud.pending) == (100, 20, 4)
    assert (cloud.sampled_out, cloud.quarantined, cloud.dropped) == (70, 0, 6)


def test_each_destination_has_its_own_drops() -> None:
    accounts = check_identity(BALANCED + SECOND)
    assert (accounts["cloud", "traces"].dropped, accounts["lab", "traces"].dropped) == (6, 0)


def test_each_signal_balances_on_its_own() -> None:
    logs = 'weir_received_items_total{signal="logs",transport="http"} '
    assert check_identity(f"{BALANCED}{logs}0\n")["cloud", "logs"].received == 0
    more, less = f"{BALANCED}{logs}1\n", BALANCED.replace("} 60", "} 59")
    for text in (more, f"{less}{logs}1\n"):
        with pytest.raises(AssertionError, match="residue"):
            check_identity(text)


def test_site_that_forwards_to_no_one_is_accepted() -> None:
    assert check_identity(ALONE)["", "traces"].sampled_out == 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('transport="grpc"} 60', 'transport="grpc"} 61'),
        ('transport="grpc"} 60', 'transport="grpc"} 59'),
        ('destination="cloud",signal="traces"} 20', 'destination="cloud",signal="traces"} 27'),
        ('rule="rate"} 70', 'rule="rate"} 69.5'),
        ('destination="cloud",signal="traces"} 4', 'destination="cloud",signal="traces"} -4'),
    ],
)
def test_residue_is_found(before: str, after: str) -> None:
    assert before in BALANCED
    with pytest.raises(AssertionError):
        check_identity(BALANCED.replace(before, after, 1))


def test_series_that_occurs_twice_is_found() -> None:
    with pytest.raises(AssertionError, match="occurs twice"):
        parse(ALONE + ALONE)


# --- every flow test asks for it -------------------------------------------------------------


@dataclass(slots=True)
class Process:
    """A gateway process that was started, and never was."""

    running: bool = True
    killed: bool = False

    def kill(self) -> None:
        self.running, self.killed = False, True

    def stop(self) -> int:
        self.running = False
        return 0

    def log(self) -> str:
        return ""


def leave(_: servers.Gateway) -> None:
    """End the block; the gateway is stopped."""


@pytest.mark.parametrize("end", [leave, servers.Gateway.kill], ids=["stopped", "killed"])
def test_gateway_that_does_not_balance_fails_its_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: Callable[[servers.Gateway], None]
) -> None:
    texts = [BALANCED, BALANCED.replace("} 60", "} 61")]

    def start(directory: Path, **_: Any) -> servers.Gateway:
        process: Any = Process()
        return servers.Gateway(
            server=process, otlp_grpc="", otlp_http="", api="", data_dir=directory
        )

    monkeypatch.setattr(servers, "start_gateway", start)
    monkeypatch.setattr(servers.Gateway, "metrics", lambda _: texts.pop(0))
    with servers.gateway(tmp_path) as target:
        end(target)
    with (
        pytest.raises(AssertionError, match="residue 1"),
        servers.gateway(tmp_path) as target,
    ):
        end(target)
    assert not target.server.running
    assert texts == []


def other_starts(module: Module) -> list[str]:
    """List uses of ways to start a gateway whose account nobody checks at its end."""
    names = aliases(module)
    return [
        f"{module.path}:{node.lineno}: {resolve(names, node)}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name | ast.Attribute) and resolve(names, node) in OTHER_STARTS
    ]


def test_flow_tests_start_a_gateway_in_one_way() -> None:
    flow = [each for each in modules("tests") if each.name.startswith("tests.flow")]
    assert len(flow) > 15
    found = [line for module in flow for line in other_starts(module)]
    assert not found, "use `with tests.servers.gateway(...)`:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "from tests.servers import start_gateway\nstart_gateway(path)",
        "from tests import servers as s\ns.start_gateway(path)",
        "import subprocess\nsubprocess.Popen(['x'])",
    ],
)
def test_other_start_is_found(text: str) -> None:
    assert other_starts(parse_module("tests.flow.test_x", text))
