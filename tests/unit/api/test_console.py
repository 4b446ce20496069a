"""The console is one page that loads nothing from elsewhere and fits its own policy."""

import base64
import hashlib
import re

from gateway.api.routes import ROUTES
from tests.unit.api.http import Client


async def _page(client: Client) -> tuple[str, str]:
    async with client.get("/") as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        return await answer.text(), answer.headers["Content-Security-Policy"]


async def test_the_policy_allows_exactly_what_is_in_the_page(client: Client) -> None:
    html, policy = await _page(client)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        bodies = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


async def test_nothing_is_loaded_from_elsewhere(client: Client) -> None:
    html, _ = await _page(client)
    links = set(re.findall(r"https?://[^\s\"']+", html))
    assert links == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert re.findall(r"<link[^>]*href=\"([^\"]*)\"", html) == ["data:,"]
    assert "src=" not in html
    assert not re.search(r"\son\w+=", html)
    assert "innerHTML" not in html
    assert 'style="' not in html


async def test_it_reads_only_paths_that_exist(client: Client) -> None:
    html, _ = await _page(client)
    paths = {route.path for route in ROUTES}
    named = re.search(r"const paths = \[(.*?)\]", html, re.DOTALL)
    assert named is not None
    for name in re.findall(r'"(\w+)"', named[1]):
        assert f"/api/v1/{name}" in paths
    assert "/readyz" in html


async def test_it_is_readable_on_a_phone_and_in_the_dark(client: Client) -> None:
    html, _ = await _page(client)
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in html
    assert "prefers-color-scheme: dark" in html
    assert '<html lang="en">' in html
