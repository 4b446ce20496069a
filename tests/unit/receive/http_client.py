"""A plain HTTP client for the tests: whole requests, or bytes as they are."""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator

import aiohttp
import zstandard
from multidict import CIMultiDictProxy

from tests.unit.receive.support import WAIT_S

PROTOBUF = {"Content-Type": "application/x-protobuf"}
Answer = tuple[int, CIMultiDictProxy[str], bytes]


async def send(
    url: str,
    body: bytes | AsyncIterator[bytes] = b"",
    headers: dict[str, str] | None = None,
    method: str = "POST",
) -> Answer:
    async with aiohttp.ClientSession() as session:
        made = {**PROTOBUF, **(headers or {})}
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        async with session.request(method, url, data=data, headers=made) as answer:
            return answer.status, answer.headers, await answer.read()


async def raw(address: str, *pieces: bytes, end: bool = False) -> bytes:
    """Send bytes as they are and read until the peer closes."""
    host, port = address.rsplit(":", 1)
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if end:
                writer.write_eof()
            return await reader.read()
        finally:
            writer.close()


def encoded(encoding: str | None, body: bytes) -> tuple[bytes, dict[str, str]]:
    if encoding is None:
        return body, {}
    wire = {
        "identity": lambda: body,
        "gzip": lambda: gzip.compress(body),
        "zstd": lambda: zstandard.ZstdCompressor().compress(body),
    }[encoding.lower()]()
    return wire, {"Content-Encoding": encoding}
