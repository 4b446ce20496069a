"""Make what sends from its part of the site file."""

import random

from gateway.config import ForwardSection, SiteConfig
from gateway.config.hours import Hours
from gateway.forward.alertmanager import AlertSender
from gateway.forward.alerts import AlertContext
from gateway.forward.otlp_client import GrpcSender, HttpSender, Sender
from gateway.forward.sender import Fetch, Forwarder, Mark
from gateway.forward.windows import Windows


def make_sender(section: ForwardSection) -> Sender:
    """Make the client of one destination; it connects when it first sends."""
    otlp = section.otlp
    if otlp.protocol == "grpc":
        return GrpcSender(
            otlp.endpoint,
            compression=otlp.compression,
            headers=otlp.headers,
            timeout_s=otlp.timeout,
        )
    return HttpSender(
        otlp.endpoint,
        compression=otlp.compression,
        headers=otlp.headers,
        timeout_s=otlp.timeout,
    )


def make_windows(section: ForwardSection) -> Windows:
    """Make the bulk windows of one destination."""
    return Windows(
        hours=[Hours.parse(text) for text in section.window], live_age_s=section.live_age
    )


def make_forwarder(
    section: ForwardSection, *, fetch: Fetch, mark: Mark, rng: random.Random
) -> Forwarder:
    """Make the sending side of one destination."""
    return Forwarder(
        section.name,
        make_sender(section),
        fetch=fetch,
        mark=mark,
        rng=rng,
        bytes_per_second=section.bytes_per_second,
        windows=make_windows(section),
    )


def make_alerts(config: SiteConfig, rng: random.Random) -> AlertSender:
    """Make the sender to all Alertmanagers of a site."""
    site = config.site
    context = AlertContext(site=site.id, cluster=site.cluster, region=site.region)
    return AlertSender(config.alertmanagers, context, rng=rng)
