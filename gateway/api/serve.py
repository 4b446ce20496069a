"""Listen on `api.listen` until told to stop.

Law: an address that cannot be bound and TLS files that do not fit stop the start with one sentence.
"""

import errno
import os
import ssl
from typing import Final

from aiohttp import web

from gateway.config import ApiSection
from gateway.config.units import split_address
from gateway.errors import StartError

DRAIN_S: Final = 5.0
BACKLOG: Final = 128

_WHY: Final = {
    errno.EADDRINUSE: "the port is in use",
    errno.EACCES: "binding this port is not permitted",
    errno.EADDRNOTAVAIL: "this machine does not have the address",
}


def _tls(section: ApiSection) -> ssl.SSLContext | None:
    """Build the TLS context; None without a certificate.

    Raises: StartError.
    """
    tls = section.tls
    if tls.cert is None or tls.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(tls.cert, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise StartError(
            f"the API's TLS files {tls.cert} and {tls.key} cannot be used: {error}"
        ) from error
    return context


class Listener:
    """One running API server."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        self._runner = runner
        self.host = host
        self.port = port

    @property
    def address(self) -> str:
        """Write host and port as `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def close(self) -> None:
        """Stop listening and let running requests end within DRAIN_S."""
        await self._runner.cleanup()


async def listen(application: web.Application, section: ApiSection) -> Listener:
    """Bind the address and serve.

    Raises: StartError.
    """
    host, port = split_address(section.listen)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=_tls(section), backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        number = error.errno or 0
        why = _WHY.get(number) or (os.strerror(number) if number > 0 else str(error))
        raise StartError(f"cannot listen on {section.listen} for the API: {why}") from error
    bound = runner.addresses[0]
    return Listener(runner, str(bound[0]), int(bound[1]))
