"""Contract files that tests start from and change."""

from pathlib import Path
from typing import Final

import pytest

from gateway.contract.load import load_contracts
from gateway.contract.schema import Contract
from gateway.errors import Finding, InvalidConfigError

EXAMPLES: Final = Path(__file__).parents[3] / "gateway" / "contract" / "examples"

HEAD: Final = """\
contract: 1
model: damage-net
match: {edgeai.model.name: damage-net}
owner: vision@example.com
purpose: damage detection at the dock
expires: 2027-12-31
"""

SIGNALS: Final = """\
signals:
  confidence: {attribute: a.confidence, type: double, range: [0, 1], role: confidence, export: pass}
  class: {attribute: a.class, type: enum, values: [ok, wet], role: prediction, export: pass}
  missing: {attribute: a.missing, type: int, range: [0, 32], role: feature, export: pass}
  overridden: {attribute: a.overridden, type: bool, role: outcome, export: pass}
  operator: {attribute: a.operator, type: string, role: identifier, export: token}
"""


def write(folder: Path, text: str, name: str = "contract.yaml") -> Path:
    """Write a file and answer its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str) -> Contract:
    """Load one contract from text."""
    (contract,) = load_contracts([write(folder, text)])
    return contract


def found(folder: Path, text: str) -> Finding:
    """Answer the only finding of a contract."""
    with pytest.raises(InvalidConfigError) as caught:
        load_contracts([write(folder, text)])
    (finding,) = caught.value.findings
    return finding
