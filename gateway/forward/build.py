"""Make senders from their section of the site file."""

from gateway.config import ForwardSection
from gateway.forward.otlp_client import GrpcSender, HttpSender, Sender


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
