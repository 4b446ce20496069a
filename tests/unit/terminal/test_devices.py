"""What `weir device` sends, what it shows, and how it ends."""

import json
from typing import Final

from gateway.api.declared import DevicesDismissed
from tests.unit.terminal.server import Api, Weir, body, problem

DISMISS: Final = "POST /api/v1/devices/dismiss"


def test_devices_are_dismissed_by_their_names(api: Api, weir: Weir) -> None:
    api.put(DISMISS, body(DevicesDismissed(devices=2)))
    assert weir("device", "dismiss", "cam-1", "dock/2")[:2] == (0, "2 devices dismissed\n")
    assert json.loads(api.asked[0].body) == {"devices": ["cam-1", "dock/2"]}
    code, out, _ = weir("device", "dismiss", "cam-1", "dock/2", "--json")
    assert (code, json.loads(out)) == (0, {"devices": 2})


def test_a_name_that_nobody_has_is_the_gateways_no(api: Api, weir: Weir) -> None:
    api.put(DISMISS, problem(404, "no device was ever heard under this name: cam-9"))
    code, _, errors = weir("device", "dismiss", "cam-9")
    assert code != 0
    assert "cam-9" in errors
    assert weir("device", "dismiss")[0] == 2
