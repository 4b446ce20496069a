"""What is not told while a rollout runs."""

from gateway.contract.schema import Indicator, Slo
from gateway.measure.rollouts.rollout import RolloutState
from tests.unit.measure import build
from tests.unit.measure.build import DAY_S, SECOND_NS
from tests.unit.measure.rollouts.rolling import HOUR_NS, MINUTE_NS, Site


def test_transients_of_a_rollout_are_not_told_until_its_end_and_the_short_window() -> None:
    site = Site()
    site.run(12 * HOUR_NS, {0: (0, 200)})

    def suppressed(objective: int = 0) -> bool:
        return site.rollouts.suppresses(objective, site.now_ns, short_s=300, factor=14.4)

    assert not suppressed()
    site.start()
    site.run(3 * MINUTE_NS, {0: (0, 50), 1: (20, 50)})
    assert suppressed()
    site.end()
    site.now_ns += 299 * SECOND_NS
    assert suppressed()
    site.now_ns += SECOND_NS
    assert not suppressed()


def test_what_the_control_suffers_from_is_told() -> None:
    site = Site()
    site.run(12 * HOUR_NS, {0: (0, 200)})
    site.start()
    site.run(5 * MINUTE_NS, {0: (30, 50), 1: (30, 50)})
    assert site.rollouts.control_burns(0, site.now_ns, 14.4)
    assert not site.rollouts.suppresses(0, site.now_ns, short_s=300, factor=14.4)


def test_a_halted_rollout_accounts_for_nothing() -> None:
    site = Site()
    site.run(6 * HOUR_NS, {0: (0, 100)})
    site.start()
    site.run(10 * MINUTE_NS, {0: (0, 50), 1: (40, 50)})
    assert site.state() is RolloutState.HALTED
    assert not site.rollouts.suppresses(0, site.now_ns, short_s=300, factor=14.4)


def test_integrity_and_deployments_are_always_told() -> None:
    deployment = Slo(
        name="deployment", indicator=Indicator.DEPLOYMENT, objective=0.99, window=30 * DAY_S
    )
    site = Site(plan=build.plan(build.contract(slos=(build.success(), deployment))))
    site.start()
    site.run(MINUTE_NS, {0: (0, 10)})
    assert site.rollouts.suppresses(0, site.now_ns, short_s=300, factor=14.4)
    assert not site.rollouts.suppresses(1, site.now_ns, short_s=300, factor=14.4)
