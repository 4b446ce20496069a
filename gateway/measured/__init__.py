"""The measurements as the API shows them."""

from gateway.measured.measured import measured

__all__ = ["measured"]
