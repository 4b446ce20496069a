"""A running API on a real socket, with sources in memory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.application import make_application
from tests.unit.api.fakes import NOW_NS, World
from tests.unit.api.http import Client


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def audit_path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
async def client(world: World, audit_path: Path) -> AsyncIterator[Client]:
    application = make_application(
        sources=world.sources(), audit=audit_path, now_ns=lambda: NOW_NS, version="0.1.0"
    )
    async with TestClient(TestServer(application)) as client:
        yield client
