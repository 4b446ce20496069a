"""Rollouts in memory, for the tests of the API and of the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.api.declared import ModelRollouts, RolloutSpend, RolloutsStatus, RolloutStatus
from gateway.batch import API_IDENTITY, Parcel, Signal, Transport
from gateway.errors import RequestError
from gateway.otlp.events import Events, read

START_NS: Final = 1_760_000_000_000_000_000
ROLLOUT: Final = RolloutStatus(
    id="r-1",
    model="damage-net",
    version="2.0",
    previous="1.9",
    kind="deploy",
    state="warned",
    outcome="",
    start_ns=START_NS,
    end_ns=None,
    deadline_s=3_600,
    devices=40,
    succeeded=30,
    failed=2,
    spends=(
        RolloutSpend(
            slo="success",
            allocation_ratio=0.25,
            spent_ratio=0.15,
            rollout_bad=30,
            rollout_events=1_000,
            control_bad=9,
            control_events=9_000,
            excess_events=29.0,
            confident=True,
        ),
    ),
)
MODEL: Final = ModelRollouts(
    model="damage-net", succeeded=30, failed=2, success_ratio=0.9375, retrained=1, versions=2
)


@dataclass(slots=True)
class FakeDeclarations:
    """Takes what is declared, as a gateway would; `error` is raised instead when there is one."""

    known: dict[str, RolloutStatus] = field(default_factory=lambda: {"r-1": ROLLOUT})
    heard: list[Events] = field(default_factory=list)
    error: RequestError | None = None

    def models(self) -> Sequence[str]:
        return ("damage-net", "triage-net")

    def unknown(self, devices: Sequence[str]) -> Sequence[str]:
        return [each for each in devices if not each.startswith("cam-")]

    def rollouts(self) -> RolloutsStatus:
        return RolloutsStatus(
            rollouts=tuple(self.known.values()), models=(MODEL,), refused={"unknown_model": 3}
        )

    async def declare(self, body: bytes) -> None:
        if self.error is not None:
            raise self.error
        found = read(
            Parcel(
                signal=Signal.LOGS,
                transport=Transport.HTTP,
                identity=API_IDENTITY,
                arrival_ns=START_NS * 2,
                wire_bytes=len(body),
                held_bytes=len(body),
                items=1,
                body=body,
            )
        )
        assert not found.unreadable
        self.heard.append(found)
        for start in found.starts:
            made = replace(ROLLOUT, id=start.rollout, state="planned", start_ns=start.at_ns)
            self.known[start.rollout] = made
        for end in found.ends:
            known = self.known[end.rollout]
            self.known[end.rollout] = replace(known, state="ended", outcome=str(end.outcome))
