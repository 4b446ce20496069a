"""Make senders and windows from their section of the site file."""

from gateway.config import ForwardSection
from gateway.config.hours import Hours
from gateway.forward.otlp_client import GrpcSender, HttpSender, Sender
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
