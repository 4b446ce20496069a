"""Settings that all tests share.

Law: a run can be repeated. The default run is the same every time; a fuzz run (WEIR_FUZZ=1) draws
a new seed, and either prints the seed that WEIR_SEED takes.
"""

import os
import secrets
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

FUZZ: Final = os.environ.get("WEIR_FUZZ", "") not in ("", "0")
SEED_DEFAULT: Final = 20_240_229
SEED_MAX: Final = 2**32

EXAMPLES: Final = 50
EXAMPLES_FUZZ: Final = 10_000

settings.register_profile(
    "check", max_examples=EXAMPLES, deadline=None, derandomize=True, database=None
)
settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES_FUZZ,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fuzz" if FUZZ else "check")


def _choose_seed() -> int:
    """Take the seed from WEIR_SEED, else a new one for a fuzz run and a constant for any other."""
    given = os.environ.get("WEIR_SEED")
    if given is not None:
        return int(given)
    return secrets.randbelow(SEED_MAX) if FUZZ else SEED_DEFAULT


SEED: Final = _choose_seed()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give hypothesis the seed of a fuzz run, unless the command line names one."""
    if FUZZ and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(SEED)


def pytest_report_header() -> str:
    """Print what a person needs to repeat this run."""
    profile = "fuzz" if FUZZ else "check"
    return f"seed: {SEED} (repeat with WEIR_SEED={SEED}), hypothesis profile: {profile}"


@pytest.fixture(scope="session")
def seed() -> int:
    """Return the seed of this run, for tests that make their own generators."""
    return SEED
