"""Denied data decides nothing of what leaves, and a smaller contract never lets more out.

Law: two inputs that are equal under the contracts give the same bytes, whatever else they hold, in
whatever count, order and size.
"""

import random
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from gateway.anonymize.policy import OTHER
from gateway.contract.plan import Plan
from tests.noise import any_request, scramble
from tests.parcels import CONTRACT, OTHER_CONTRACT, add_record, leave, logs, make_plan, put
from tests.places import fields_of

SIGNALS: Final[tuple[type[Any], ...]] = (ExportMetricsServiceRequest, ExportLogsServiceRequest)
SEEDS: Final = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(tmp_path_factory.mktemp("plan"))


@given(seed=SEEDS, noise=SEEDS)
@pytest.mark.parametrize("kind", SIGNALS)
def test_denied_data_does_not_change_a_byte(
    plan: Plan, kind: type[Any], seed: int, noise: int
) -> None:
    request = any_request(kind, random.Random(seed))
    other = kind.FromString(request.SerializeToString())
    scramble(other, random.Random(noise))
    assert other.SerializeToString() != request.SerializeToString()
    assert leave(plan, other).chunks == leave(plan, request).chunks


def removals() -> list[tuple[str, str]]:
    """List every declaration that can be taken out of the first contract."""
    content = yaml.safe_load(CONTRACT)
    found = [
        (section, each)
        for section in ("event_names", "metrics", "signals", "resource")
        for each in content[section]
    ]
    # Without it the contract is refused: the series of all devices would be one.
    found.remove(("resource", "device.id"))
    return found


def without(section: str, each: str) -> str:
    content = yaml.safe_load(CONTRACT)
    if section == "event_names":
        content[section].remove(each)
    else:
        del content[section][each]
    return yaml.safe_dump(content)


@pytest.mark.parametrize(("section", "each"), removals())
def test_removing_a_declaration_never_adds_bytes(
    plan: Plan, tmp_path: Path, section: str, each: str, seed: int
) -> None:
    rng = random.Random(seed)
    less = make_plan(tmp_path, without(section, each), OTHER_CONTRACT)
    shrunk = 0
    for _ in range(40):
        for kind in SIGNALS:
            request = any_request(kind, rng)
            before, after = leave(plan, request), leave(less, request)
            assert len(after.body) <= len(before.body)
            assert after.items <= before.items
            known = {repr(content) for _, content in fields_of(before.message)}
            added = {repr(content) for _, content in fields_of(after.message)} - known
            assert added <= {repr(OTHER.decode())}
            shrunk += len(after.body) < len(before.body)
    assert shrunk or each in ("note", "host.name"), "the declaration did let something out"


@given(seed=SEEDS)
@pytest.mark.parametrize("kind", SIGNALS)
def test_a_second_pass_changes_nothing_but_tokens(plan: Plan, kind: type[Any], seed: int) -> None:
    request = any_request(kind, random.Random(seed), only_resources_match=True)
    once = leave(plan, request)
    twice = leave(plan, once.message)
    assert (twice.items, twice.withheld) == (once.items, {})
    hidden = [re.sub(rb"t1\.[\w-]{22}", b"token", each.body) for each in (once, twice)]
    assert hidden[0] == hidden[1]


def test_a_token_that_a_device_forges_is_not_trusted(plan: Plan) -> None:
    forged = "t1." + "A" * 22
    request = logs()
    put(add_record(request), "label", forged)
    left = leave(plan, request)
    assert left.items == 1
    assert forged.encode() not in left.body
