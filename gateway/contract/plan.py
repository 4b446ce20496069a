"""Contracts and site sampling compiled to what the hot path reads.

Law: the plan is a pure function of the contracts and the sampling section. Contracts stand in the
order in which they are tried: the one with the most match keys first, then by model name, so that
a span that fits two contracts always takes the same one, and the more specific one.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from gateway.config.keep import KeepRule
from gateway.config.laws import parse_site_rule
from gateway.config.marks import Place, finding_at
from gateway.config.rules import FindingRule
from gateway.config.sections import SamplingSection
from gateway.contract.schema import Contract
from gateway.errors import Finding, InvalidConfigError

# Read of every span, whether a contract names them or not.
STANDARD_KEYS: Final = (
    "device.id",
    "service.name",
    "service.version",
    "service.instance.id",
    "edgeai.model.name",
    "edgeai.model.version",
    "edgeai.rollout.id",
    "edgeai.inference.cold_start",
    "edgeai.provenance.pointer",
    "error.type",
    "edgeai.accelerator.type",
    "edgeai.integrity.violation",
)
# A batch has one int32 per slot and span, so the number of slots is memory on the hot path.
SLOT_KEYS_MAX: Final = 512
CONTRACTS_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What decode, measure, decide and anonymize need to know.

    Shape: `slot_keys[i]` is the attribute key of slot i, `slot_of` the way back. `digest` is the
    sha256 hex of everything in the plan. Units: rate in [0, 1].
    """

    contracts: tuple[Contract, ...]
    slot_keys: tuple[bytes, ...]
    slot_of: Mapping[str, int]
    digest: str
    keep: tuple[KeepRule, ...]
    rate: float
    bytes_per_second: int | None


def compile_plan(contracts: Sequence[Contract], sampling: SamplingSection) -> Plan:
    """Compile contracts and site-wide sampling.

    Raises: InvalidConfigError when two contracts claim the same spans, a site rule names a signal,
    or a limit is passed; with files as the findings' places where one is known.
    """
    findings = [*clashes(contracts), *_over_limits(contracts)]
    keep: list[KeepRule] = []
    for text in sampling.keep:
        try:
            keep.append(parse_site_rule(text))
        except ValueError as error:
            findings.append(
                finding_at(Place(file=""), FindingRule.KEEP_RULE, f"keep rule {text!r}", str(error))
            )
    if findings:
        raise InvalidConfigError(findings)
    ordered = tuple(sorted(contracts, key=lambda each: (-len(each.match), each.model)))
    keys = list(dict.fromkeys([*STANDARD_KEYS, *_named_keys(ordered)]))
    return Plan(
        contracts=ordered,
        slot_keys=tuple(key.encode() for key in keys),
        slot_of=MappingProxyType({key: slot for slot, key in enumerate(keys)}),
        digest=_digest(ordered, sampling),
        keep=tuple(keep),
        rate=sampling.rate,
        bytes_per_second=sampling.bytes_per_second,
    )


def _no_line(contract: Contract, key: str) -> Place:
    return Place(file=contract.source)


def clashes(
    contracts: Sequence[Contract], place: Callable[[Contract, str], Place] = _no_line
) -> list[Finding]:
    """Find contracts that claim the same model or the same spans.

    `place` tells where a top-level key of a contract stands.
    """
    findings: list[Finding] = []
    models: dict[str, Contract] = {}
    matches: dict[tuple[tuple[str, str], ...], Contract] = {}
    for contract in contracts:
        other = models.setdefault(contract.model, contract)
        if other is not contract:
            findings.append(
                finding_at(
                    place(contract, "model"),
                    FindingRule.DUPLICATE_MODEL,
                    f"model {contract.model!r} already has a contract in {other.source}",
                    "keep one contract for each model",
                )
            )
        key = tuple(sorted(contract.match.items()))
        twin = matches.setdefault(key, contract)
        if twin is not contract and twin is not other:
            findings.append(
                finding_at(
                    place(contract, "match"),
                    FindingRule.DUPLICATE_MATCH,
                    f"match is identical to that of {twin.model!r} in {twin.source}",
                    "add an attribute to match that tells the two models apart",
                )
            )
    return findings


def _over_limits(contracts: Sequence[Contract]) -> list[Finding]:
    keys = len({*STANDARD_KEYS, *_named_keys(contracts)})
    findings: list[Finding] = []
    for what, count, limit in (
        ("contracts", len(contracts), CONTRACTS_MAX),
        ("attribute keys named by contracts", keys, SLOT_KEYS_MAX),
    ):
        if count > limit:
            advice = f"at most {limit} are possible at one gateway"
            findings.append(
                finding_at(Place(file=""), FindingRule.LIMIT, f"{count} {what}", advice)
            )
    return findings


def _named_keys(contracts: Sequence[Contract]) -> list[str]:
    keys: list[str] = []
    for contract in contracts:
        keys += contract.match
        keys += [signal.attribute for signal in contract.signals.values()]
        keys += contract.resource
        if contract.cost is not None and contract.cost.feature is not None:
            keys.append(contract.cost.feature)
    return keys


def _digest(contracts: Sequence[Contract], sampling: SamplingSection) -> str:
    content = {
        "contracts": [contract.digest for contract in contracts],
        "sampling": sampling.model_dump(mode="json"),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
