"""Make batches clean for an audience. The only room that constructs `Clean` and `CleanPart`.

Law: `Anonymizer.export` and `Anonymizer.parcel` build from classified fields and nothing else;
`Anonymizer.site` leaves out what contracts forbid the site to keep. Pure: keys and rules come in,
columns and messages go out.
"""

from gateway.anonymize.export import Exporter
from gateway.anonymize.parcels import CleanParcel, ParcelBuilder
from gateway.anonymize.policy import compile_policy
from gateway.anonymize.site import SiteBuilder
from gateway.anonymize.tokens import Tokens
from gateway.batch import Audience, Batch, Clean, Parcel, Verdict
from gateway.contract.plan import Plan
from gateway.tables import Int16

__all__ = ["Anonymizer", "CleanParcel"]


class Anonymizer:
    """The compiled policy of a site with its token key."""

    def __init__(self, plan: Plan, site: str, site_key: bytes) -> None:
        policy = compile_policy(plan, site, site_key)
        self._exporter = Exporter(policy)
        self._site = SiteBuilder(policy)
        self._parcels = ParcelBuilder(plan, site, site_key)
        self._digest = policy.digest
        self._devices = Tokens(site_key, site, Audience.SITE, "device.id")

    @property
    def digest(self) -> str:
        """The policy's sha256, hexadecimal."""
        return self._digest

    def device_token(self, device: str) -> str:
        """Name a device where only the site reads: metrics, dashboards, the console."""
        return self._devices.token(device.encode()).decode()

    def export(self, batch: Batch, contract: Int16, verdict: Verdict) -> Clean:
        """Make what may leave the site: the rows that the verdict keeps."""
        return self._exporter.build(batch, contract, verdict)

    def site(self, batch: Batch, contract: Int16) -> Clean:
        """Make what the site may keep: all rows."""
        return self._site.build(batch, contract)

    def parcel(self, parcel: Parcel) -> CleanParcel:
        """Make what may leave the site of metrics or logs."""
        return self._parcels.build(parcel)
