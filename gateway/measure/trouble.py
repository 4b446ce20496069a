"""What is wrong now, as each part of `measure` says it at a judgement.

Law: level triggered. At every judgement a part lists all troubles that exist then; `Watch` opens an
anomaly for a new one, tells it again when it gets louder, and resolves it when it has been gone
for long enough. So no part remembers what it has said. A latched trouble stays in the list
until a person has acknowledged it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.batch import AnomalyKind, Evidence, Severity, Team


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One thing that is wrong. It is the same one as long as kind, model and subject are.

    `contract` is the index of the model's contract, NO_CONTRACT for troubles of the site.
    Units: onset_ns Unix nanoseconds; `numbers` carry their unit in the key. No device is named in
    the summary, which leaves the site.
    """

    kind: AnomalyKind
    severity: Severity
    team: Team
    contract: int
    model: str
    version: str
    subject: str
    summary: str
    onset_ns: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
