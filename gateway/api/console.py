"""The site console: one self-contained page, built of the three files in `page`.

Law: the page loads nothing from anywhere; its policy allows exactly the script and the style that
are in it, by their hashes, and connections to this gateway only.
"""

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from aiohttp import web

from gateway.api.call import Call

_STYLE_PLACE: Final = "/*style*/"
_SCRIPT_PLACE: Final = "/*script*/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The page and the policy that fits it."""

    html: str
    policy: str


PAGE: Final = web.AppKey("console_page", Page)


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def load() -> Page:
    """Read the three files and put them together."""
    folder = files(__package__) / "page"
    html, style, script = (
        (folder / name).read_text(encoding="utf-8")
        for name in ("console.html", "console.css", "console.js")
    )
    assert html.count(_STYLE_PLACE) == html.count(_SCRIPT_PLACE) == 1
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src {_source(style)}",
            f"script-src {_source(script)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    return Page(
        html=html.replace(_STYLE_PLACE, style).replace(_SCRIPT_PLACE, script), policy=policy
    )


async def page(call: Call) -> web.Response:
    """Give out the page; it holds no data, so it needs no token."""
    found = call.request.app[PAGE]
    return web.Response(
        text=found.html,
        content_type="text/html",
        headers={"Content-Security-Policy": found.policy},
    )
