"""What all schedules begin with, and the sizes that a schedule draws for its site."""

import random
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.anonymize import Anonymizer
from gateway.config import ForwardSection, OtlpSection, SiteConfig
from gateway.contract.plan import Plan
from gateway.decide import Decide
from gateway.journal.checkpoint import SCHEMA, Checkpoint
from gateway.ledger import Ledger
from gateway.measure import Measure
from gateway.measure.settings import ADVANCE_GRACE_NS
from gateway.pipeline import Stages
from gateway.rooms import measure_settings
from gateway.tally import Tally
from tests.simulation.life import START_NS
from tests.simulation.traffic import make_plan

NAME: Final = "cloud"
SITE_KEY: Final = bytes(range(32))
JOURNAL_BYTES: Final = (4 << 10, 12 << 10, 1 << 20)
OUTBOX_BYTES: Final = (48 << 10, 64 << 20, 64 << 20)
SEAL_ROWS: Final = (6, 20, 1000)
SEAL_AGE_S: Final = (1.0, 20.0, 1000.0)
# The time that the measurements have seen before the schedule.
STARTED_NS: Final = START_NS - 60_000_000_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """A site that has run before and was stopped, without a request so far: that is its database.

    A new site judges the objectives of six hours in which it was not there, which takes a second
    of each hundred schedules.
    """

    plan: Plan
    image: bytes
    measure: Mapping[str, Any]
    decide: Mapping[str, Any]


def prepare(folder: Path) -> Prepared:
    """Make what all schedules begin with."""
    plan = make_plan(folder)
    measure, decide = Measure(plan, measure_settings(SiteConfig())), Decide(plan)
    measure.advance(STARTED_NS + ADVANCE_GRACE_NS)
    stages = Stages(measure=measure, decide=decide, anonymize=Anonymizer(plan, "", SITE_KEY))
    checkpoint = Checkpoint(Path(), sqlite3.connect(":memory:", isolation_level=None))
    checkpoint.connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    checkpoint.connection.executescript(SCHEMA)
    meta = {"ledger": Ledger({}).state(), "tally": Tally().state()}
    with checkpoint.transaction() as connection:
        checkpoint.save(connection, 0, stages.state(), meta)
    image = checkpoint.connection.serialize()
    checkpoint.close()
    return Prepared(plan, image, measure.state(), decide.state())


def draw_config(rng: random.Random, data_dir: Path) -> SiteConfig:
    """Draw the sizes of a site."""
    config = SiteConfig(
        data_dir=data_dir,
        forward=(ForwardSection(name=NAME, otlp=OtlpSection(endpoint="http://127.0.0.1:1")),),
    )
    # Below what a site file may say: a schedule is short, and is to meet all of these.
    rows, age = rng.choice(SEAL_ROWS), rng.choice(SEAL_AGE_S)
    store = config.store.model_copy(update={"segment_rows": rows, "segment_age": age})
    journal = config.journal.model_copy(update={"bytes_max": rng.choice(JOURNAL_BYTES)})
    outbox = config.outbox.model_copy(update={"bytes_max": rng.choice(OUTBOX_BYTES)})
    return config.model_copy(update={"store": store, "journal": journal, "outbox": outbox})
