"""Addresses and TLS material of the two listeners.

Law: a listener that cannot start says in one sentence which address or file is at fault and why.
TLS is 1.3 on HTTP; gRPC's own stack allows 1.2 with authenticated ciphers as well and offers no
switch for it.
"""

import errno
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from gateway.config import TlsSection
from gateway.config.units import split_address
from gateway.errors import StartError

_WHY: Final = {
    errno.EADDRINUSE: "the port is in use",
    errno.EACCES: "binding this port is not permitted",
    errno.EADDRNOTAVAIL: "this machine does not have the address",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """PEM bytes of a listener's certificate, and the context that the HTTP listener makes of them.

    client_ca None asks clients for no certificate.
    """

    cert: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


def host_and_port(listen: str) -> tuple[str, int]:
    """Split `host:port`; port 0 means any free port.

    Raises: StartError.
    """
    try:
        return split_address(listen)
    except ValueError as error:
        raise StartError(f"cannot listen on {listen!r}: {error}") from error


def address_text(host: str, port: int) -> str:
    """Join what `host_and_port` splits."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(listen: str, protocol: str, error: OSError) -> StartError:
    """Say why an address cannot be bound."""
    number = error.errno or 0
    # Errors of name resolution carry their own numbers, which are negative.
    why = _WHY.get(number) or (os.strerror(number) if number > 0 else "the name has no address")
    return StartError(f"cannot listen on {listen} for {protocol}: {why}")


def probe(listen: str, protocol: str) -> None:
    """Bind the address once and leave it again, because gRPC does not tell why it could not.

    Raises: StartError.
    """
    host, port = host_and_port(listen)
    try:
        for family, kind, number, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, number) as candidate:
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                candidate.bind(address)
                candidate.listen(1)
    except OSError as error:
        raise cannot_listen(listen, protocol, error) from error


def read_material(section: TlsSection) -> Material | None:
    """Read the TLS files and check that they fit together; None without a certificate.

    Raises: StartError.
    """
    if section.cert is None or section.key is None:
        return None
    path = section.cert
    try:
        cert = path.read_bytes()
        path = section.key
        key = path.read_bytes()
        client_ca = None
        if section.client_ca is not None:
            path = section.client_ca
            client_ca = path.read_bytes()
        context = _tls_context(section, section.cert, section.key)
    except ssl.SSLError as error:
        raise StartError(
            f"the TLS files {section.cert} and {section.key} are not a PEM certificate and its key"
        ) from error
    except OSError as error:
        raise StartError(f"cannot read the TLS file {path}: {error.strerror}") from error
    return Material(cert=cert, key=key, client_ca=client_ca, context=context)


def _tls_context(section: TlsSection, cert: Path, key: Path) -> ssl.SSLContext:
    """Build the context of the HTTP listener.

    Raises: OSError, of which ssl.SSLError is a kind.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key)
    if section.client_ca is not None:
        context.load_verify_locations(section.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def grpc_certificates(material: Material) -> Any:
    """Give gRPC the certificate for new connections."""
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.cert)], root_certificates=material.client_ca
    )
