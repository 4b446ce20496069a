"""Whatever an OpenSLO file has, the answer is contracts or an InvalidConfigError."""

from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Final

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contract.load import load_contracts
from gateway.contract.schema import Contract
from gateway.errors import InvalidConfigError
from tests.conftest import FUZZ
from tests.unit.contract.openslo_texts import ALERTED, RATIO, THRESHOLD
from tests.unit.contract.texts import HEAD, SIGNALS, write


def attempt(folder: Path, content: bytes) -> None:
    path = folder / "slo.yaml"
    path.write_bytes(content)
    with suppress(InvalidConfigError):
        for contract in load_contracts([folder], today=date(2026, 1, 1)):
            assert isinstance(contract, Contract)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["4w", "weir", "success", "latency", "lte", "page", "Occurrences", "quick"])
)


VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=2)
    | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
)


def changed(data: st.DataObject, tree: Any) -> Any:
    """Change one place of a tree: another value, a key less, or one in another place."""
    if isinstance(tree, dict) and tree and data.draw(st.integers(0, 5)):
        key = data.draw(st.sampled_from(sorted(tree, key=str)))
        if not data.draw(st.integers(0, 6)):
            return {**tree, data.draw(st.sampled_from(["spec", "op", "kind", "a"])): tree[key]}
        if not data.draw(st.integers(0, 6)):
            return {each: value for each, value in tree.items() if each != key}
        return {**tree, key: changed(data, tree[key])}
    if isinstance(tree, list) and tree and data.draw(st.integers(0, 5)):
        index = data.draw(st.integers(0, len(tree) - 1))
        return [
            *tree[:index],
            changed(data, tree[index]),
            *tree[index + data.draw(st.integers(0, 1)) :],
        ]
    return data.draw(
        SCALARS
        | st.lists(SCALARS, max_size=2)
        | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
    )


SETTINGS: Final = settings(
    max_examples=2000 if FUZZ else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@given(st.data())
def test_any_change_of_keys_is_a_contract_or_an_invalid_config(
    tmp_path: Path, data: st.DataObject
) -> None:
    write(tmp_path, HEAD + SIGNALS)
    trees = list(yaml.safe_load_all("---\n".join([RATIO, THRESHOLD, ALERTED])))
    index = data.draw(st.integers(0, len(trees) - 1))
    trees[index] = changed(data, trees[index])
    attempt(tmp_path, yaml.safe_dump_all(trees, allow_unicode=True).encode())


@SETTINGS
@given(st.integers(0, 4000), st.integers(0, 20), st.binary(max_size=4))
def test_any_change_of_bytes_is_a_contract_or_an_invalid_config(
    tmp_path: Path, at: int, removed: int, inserted: bytes
) -> None:
    write(tmp_path, HEAD + SIGNALS)
    content = "---\n".join([RATIO, THRESHOLD, ALERTED]).encode()
    at %= len(content)
    attempt(tmp_path, content[:at] + inserted + content[at + removed :])
