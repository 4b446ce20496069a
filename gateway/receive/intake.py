"""The step that both transports share: a body that is admitted becomes an acknowledgement.

Law: an answer of success is made only from a Receipt, and a Receipt exists only after the commit.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from gateway.batch import Payload, Receipt, Signal, Transport
from gateway.errors import ForbiddenError, RequestError, UnauthenticatedError, WeirError
from gateway.receive.admission import Admission, Hold, Reason
from gateway.receive.identity import Gate
from gateway.receive.incidents import Event, Incidents

Submit = Callable[[Payload], Awaitable[Receipt]]
Clock = Callable[[], int]

NOTHING: Final = Receipt(accepted=0, rejected=0, reason="")


class Intake:
    """Hand admitted bodies to the commit and count what became of them."""

    def __init__(self, *, submit: Submit, now_ns: Clock, admission: Admission, gate: Gate) -> None:
        self._submit = submit
        self._now_ns = now_ns
        self.admission = admission
        self.counters = admission.counters
        self.gate = gate
        self.incidents = Incidents()

    def refuse(self, error: WeirError, signal: str, source: str, transport: Transport) -> None:
        """Count a request that is refused; source is the peer's address, never its credential."""
        self.counters.refuse(error, signal, source)
        if isinstance(error, UnauthenticatedError | ForbiddenError):
            self.incidents.note(Event.AUTHN_FAIL, source, transport)

    async def accept(
        self,
        signal: Signal,
        body: bytes,
        transport: Transport,
        identity: str,
        wire_bytes: int,
        hold: Hold,
    ) -> Receipt:
        """Submit a protobuf body for which the hold has exactly its length.

        From the call of `submit` on the bytes belong to the core, which releases them after it
        has processed the batch. A RequestError gives them back here; a cancelled request does
        not, because its body is already in the open batch and will be committed.

        Raises: RequestError as raised by submit.
        """
        hold.charge(len(body))
        counters = self.counters
        counters.wire_bytes += wire_bytes
        if not body:
            return NOTHING
        payload = Payload(
            body=body,
            signal=signal,
            transport=transport,
            identity=identity,
            arrival_ns=self._now_ns(),
            wire_bytes=wire_bytes,
            ticket=self.admission.queue(hold),
        )
        counters.inflated_bytes += len(body)
        try:
            receipt = await self._submit(payload)
        except RequestError:
            self.admission.forsake(payload.ticket)
            raise
        counters.accepted_items[transport] += receipt.accepted
        if receipt.rejected:
            counters.rejected_items[transport] += receipt.rejected
            counters.count(signal, Reason.INVALID_ITEM, receipt.rejected)
        if receipt.mismatched:
            self.incidents.note(Event.IDENTITY_MISMATCH, identity, transport, receipt.mismatched)
        return receipt
