"""What the core's sentence says aside: a superseded baseline that alarms is in the log, once."""

import logging

import pytest

from gateway.anonymize import Anonymizer
from gateway.decide import Decide
from gateway.pipeline import Stages, note_shadows
from tests.unit.measure.test_promotion import FAULTY, PLAN, mistaken


def test_the_first_alarm_in_the_shadow_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    site, old, _ = mistaken()
    stages = Stages(
        measure=site.measure, decide=Decide(PLAN), anonymize=Anonymizer(PLAN, "", b"k" * 32)
    )
    with caplog.at_level(logging.WARNING):
        note_shadows(stages)
        assert caplog.messages == []
        site.run(60, FAULTY)
        assert site.shadow().alarms > 1
        note_shadows(stages)
        note_shadows(stages)
    assert caplog.messages == [
        "superseded baseline alarms in the shadow "
        f"model=damage-net signal=confidence baseline={old}"
    ]
