"""What a client says of its own export."""

from dataclasses import dataclass, field

from tests.otlp import SIGNALS


def _zero() -> dict[str, int]:
    return {signal.name: 0 for signal in SIGNALS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Items by signal. `made` counts what the program did, without asking the SDK; `exported` and
    `failed` what the exporters told the SDK; `errors` is everything the SDK warned of."""

    made: dict[str, int] = field(default_factory=_zero)
    exported: dict[str, int] = field(default_factory=_zero)
    failed: dict[str, int] = field(default_factory=_zero)
    errors: list[str] = field(default_factory=list)

    def check_all_exported(self) -> None:
        """Check that the client is content: every item was taken, and nothing was warned of."""
        assert self.errors == []
        assert self.failed == _zero()
        assert self.exported == self.made
        assert all(self.made.values())
