"""The alert sender against a real Alertmanager."""

import asyncio
import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.batch import AnomalyKind, Severity
from gateway.forward.alertmanager import AlertSender
from gateway.forward.alerts import AlertContext
from tests.servers import Alertmanager, alertmanager, alertmanager_config, wait_until, webhook
from tests.unit.forward.anomalies import SECOND_NS, anomaly

pytestmark = pytest.mark.flow

TIMEOUT_S = 30.0


async def until(test: Callable[[], Any], what: str) -> Any:
    """Ask in a thread until the answer is true; asking blocks."""
    return await asyncio.to_thread(wait_until, test, timeout_s=TIMEOUT_S, what=what)


def find(manager: Alertmanager, alertname: str) -> Any:
    """Find one alert that the server holds, None when there is none."""
    found = [one for one in manager.alerts() if one["labels"]["alertname"] == alertname]
    return found[0] if found else None


def moment(text: str) -> float:
    """Read an RFC 3339 time as Unix seconds."""
    return datetime.fromisoformat(text).timestamp()


async def test_alertmanager_pages_for_an_anomaly_and_tells_of_its_end(tmp_path: Path) -> None:
    # Alertmanager shows milliseconds.
    onset_ns = (int(time.time()) - 90) * SECOND_NS
    with webhook() as hook, alertmanager(tmp_path, alertmanager_config(hook.url)) as manager:
        sender = AlertSender(
            [manager.url],
            AlertContext(site="dock-7", cluster="dock", api_url="http://127.0.0.1:9464"),
            rng=random.Random(1),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(sender.run())
            ticket = anomaly(
                "a2",
                kind=AnomalyKind.SLO_BURN,
                severity=Severity.TICKET,
                subject="latency",
                onset_ns=onset_ns,
            )
            sender.submit([anomaly(onset_ns=onset_ns), ticket])
            firing = await until(lambda: find(manager, "WeirDrift"), "drift alert")
            assert firing["status"]["state"] == "active"
            assert firing["labels"] == {
                "alertname": "WeirDrift",
                "cluster": "dock",
                "model": "damage-net",
                "owner": "ml-engineering",
                "severity": "page",
                "signal": "brightness",
                "site": "dock-7",
            }
            assert firing["annotations"]["trace_id"] == "ab" * 16
            assert firing["generatorURL"] == "http://127.0.0.1:9464/api/v1/anomalies/a1"
            assert await until(lambda: find(manager, "WeirSloBurn"), "SLO alert")
            assert await until(lambda: find(manager, "Watchdog"), "watchdog")
            told = await asyncio.to_thread(hook.wait_for, "WeirDrift")
            assert moment(told["startsAt"]) == moment(firing["startsAt"]) == onset_ns // SECOND_NS

            sender.submit([anomaly(onset_ns=onset_ns, resolved_ns=time.time_ns())])
            assert await until(lambda: find(manager, "WeirDrift") is None, "end of the alert")
            assert find(manager, "WeirSloBurn") is not None
            ended = await asyncio.to_thread(hook.wait_for, "WeirDrift", status="resolved")
            assert moment(ended["startsAt"]) == onset_ns // SECOND_NS
            sender.stop()
        [status] = sender.statuses
        assert (status.reachable, status.refused_alerts, status.failed_requests) == (True, 0, 0)
