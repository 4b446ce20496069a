"""The site file: every knob with unit, range and default; laws between knobs."""

from gateway.config.keep import KeepRule, parse_rule
from gateway.config.sections import (
    RESERVE_PARTS,
    ApiSection,
    DeviceSection,
    ForwardSection,
    GrpcSection,
    HttpSection,
    JournalSection,
    MeasureSection,
    OtlpSection,
    ReceiveSection,
    RemoteWriteSection,
    RetrieveSection,
    SamplingSection,
    SiteConfig,
    SiteSection,
    StoreSection,
    TlsSection,
)
from gateway.config.site import Knob, check_site, describe, load_site

__all__ = [
    "RESERVE_PARTS",
    "ApiSection",
    "DeviceSection",
    "ForwardSection",
    "GrpcSection",
    "HttpSection",
    "JournalSection",
    "KeepRule",
    "Knob",
    "MeasureSection",
    "OtlpSection",
    "ReceiveSection",
    "RemoteWriteSection",
    "RetrieveSection",
    "SamplingSection",
    "SiteConfig",
    "SiteSection",
    "StoreSection",
    "TlsSection",
    "check_site",
    "describe",
    "load_site",
    "parse_rule",
]
